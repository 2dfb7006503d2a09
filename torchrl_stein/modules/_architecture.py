"""Whether networks differ in more than their weights."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn

from torchrl_stein._torchrl import buffers_of, parameters_of

__all__ = ["difference"]

_OF_ANY_MODULE = vars(nn.Module()).keys() - {"training"}


def difference(one: nn.Module, other: nn.Module) -> str | None:
    """Words for the first difference that is none of weights and buffers; None if there is none.

    Where one network stands for several, whose weights it is lent, whatever else they have is
    that of the one: kinds of layers, shapes, modes, and the numbers and tensors that layers hold.

    Args:
        one: a network.
        other: another one.

    Example:
        >>> difference(nn.Sequential(nn.Tanh()), nn.Sequential(nn.ReLU()))
        'layer 0 is Tanh in one and ReLU in another'
    """
    layers, others = _layers(one), _layers(other)
    for name in [*layers, *others]:
        layer = f"layer {name}" if name else "the network"
        if name not in layers or name not in others:
            return f"{layer} is in one and not in another"
        kinds = type(layers[name]), type(others[name])
        if _kind(kinds[0]) != _kind(kinds[1]):
            return f"{layer} is {kinds[0].__name__} in one and {kinds[1].__name__} in another"
        held, others_held = _held(layers[name]), _held(others[name])
        for key in [*held, *others_held]:
            values = held.get(key, "nothing"), others_held.get(key, "nothing")
            if not _same(*values):
                one_word, other_word = map(_word, values)
                return (
                    f"{key.lstrip('_')} of {layer} is {one_word} in one and {other_word} in another"
                )
    return None


def _layers(net: nn.Module) -> dict[str, nn.Module]:
    return dict(net.named_modules(remove_duplicate=False))


def _kind(kind: type) -> tuple[str, str]:
    # By name: parametrizations give each layer a class of its own.
    return kind.__module__, kind.__qualname__


def _held(layer: nn.Module) -> dict[str, Any]:
    """Shapes of the weights and buffers of a layer; its plain attributes."""
    tensors: Mapping[str, Tensor | None] = {**parameters_of(layer), **buffers_of(layer)}
    shapes = {
        name: None if tensor is None else (list(tensor.shape), tensor.dtype, tensor.device)
        for name, tensor in tensors.items()
    }
    plain = {name: value for name, value in vars(layer).items() if name not in _OF_ANY_MODULE}
    return {**shapes, **plain}


def _same(one: Any, other: Any) -> bool:
    """Equal, as far as it is known how to compare; weights may differ."""
    if isinstance(one, nn.Parameter) and isinstance(other, nn.Parameter):
        return True  # recurrent layers keep lists of their weights
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    plain = (Number, str, torch.dtype, torch.device, torch.Size, type(None), type)
    if isinstance(one, plain) or isinstance(other, plain):
        return bool(one == other or (one != one and other != other))
    names = [getattr(value, "__qualname__", type(value)) for value in (one, other)]
    return bool(names[0] == names[1])


def _word(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else str(value)
