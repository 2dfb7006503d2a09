"""Which column of a population's flat parameter is which weight of the network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from numbers import Number
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchrl_stein._torchrl import buffers_of, parameters_of

__all__ = ["ParticleLayout", "check_factory", "difference", "lay_out"]

_OF_ANY_MODULE = vars(nn.Module()).keys() - {"training"}


@dataclass(frozen=True)
class ParticleLayout:
    """Names and shapes of one network's parameters, in the order of the flat columns.

    Attributes:
        kernel: parameters that a kernel sees, name -> shape.
        outside: parameters of each particle that it does not see.
        common: parameters that all particles share.
        buffers: names of buffers, one of each per particle.
    """

    kernel: dict[str, torch.Size]
    outside: dict[str, torch.Size]
    common: dict[str, torch.Size]
    buffers: tuple[str, ...]

    @property
    def kernel_dim(self) -> int:
        return sum(prod(shape) for shape in self.kernel.values())

    @property
    def num_parameters(self) -> int:
        return self.kernel_dim + sum(prod(shape) for shape in self.outside.values())

    def flatten(self, net: nn.Module) -> Tensor:
        """The columns of one network, ``[d]``."""
        return _flatten(net, (*self.kernel, *self.outside))

    def flatten_shared(self, net: nn.Module) -> Tensor:
        """The shared parameters, ``[s]``."""
        return _flatten(net, tuple(self.common))

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of ``[..., d]`` with the shapes of the network, by name."""
        return _split(flat, {**self.kernel, **self.outside})

    def split_shared(self, flat: Tensor) -> dict[str, Tensor]:
        """Views of ``[s]``, by name."""
        return _split(flat, self.common)

    def layer_slices(self) -> dict[str, slice]:
        """Columns of each layer that a kernel sees; the parameters of a layer are neighbours."""
        slices: dict[str, slice] = {}
        start = 0
        for name, shape in self.kernel.items():
            layer = name.rpartition(".")[0]
            stop = start + prod(shape)
            slices[layer] = slice(slices[layer].start if layer in slices else start, stop)
            start = stop
        return slices

    def describe(self) -> dict[str, Any]:
        """Plain types, for a state_dict."""
        groups = {"kernel": self.kernel, "outside_kernel": self.outside, "shared": self.common}
        return {
            group: {name: list(shape) for name, shape in shapes.items()}
            for group, shapes in groups.items()
        }


def check_factory(factory: Any) -> None:
    """Refuse what makes no networks; a module can be called, but is one network."""
    if isinstance(factory, nn.Module) or not callable(factory):
        got = "a module" if isinstance(factory, nn.Module) else repr(factory)
        raise TypeError(
            "ParticleModule: factory must be a function that returns a new module, such as "
            f"lambda: nn.Linear(3, 2), got {got}"
        )


def lay_out(
    nets: Sequence[nn.Module], *, shared: Sequence[str], outside_kernel: Sequence[str]
) -> ParticleLayout:
    """Order the parameters of networks of one architecture, and refuse what cannot be stacked."""
    for net in nets:
        _check_network(net)
        words = difference(nets[0], net)
        if words is not None:
            raise ValueError(
                "ParticleModule: factory must return the same architecture every time, but "
                f"{words}; what differs between particles must be a parameter or a buffer"
            )
    shapes = _shapes(nets[0])
    owners = [id(p) for net in nets for p in net.parameters()]
    if len(set(owners)) < len(owners):
        raise ValueError(
            "ParticleModule: networks have parameters in common; factory must create new ones, "
            "and parts that all particles share are named by shared="
        )
    common = _matching("shared", shared, shapes)
    outside = _matching("outside_kernel", outside_kernel, shapes)
    both = sorted(common.keys() & outside.keys())
    if both:
        raise ValueError(f"ParticleModule: {both} are named by both shared and outside_kernel")
    kernel = {k: v for k, v in shapes.items() if k not in common and k not in outside}
    if not kernel:
        raise ValueError("ParticleModule: shared and outside_kernel leave no parameter to a kernel")
    return ParticleLayout(
        kernel, outside, common, tuple(name for name, _ in nets[0].named_buffers())
    )


def _check_network(net: nn.Module) -> None:
    if not isinstance(net, nn.Module):
        raise TypeError(f"ParticleModule: factory must return a module, got {type(net).__name__}")
    named = list(net.named_parameters(remove_duplicate=False))
    if not named:
        raise ValueError(f"ParticleModule: {type(net).__name__} has no parameters")
    first: dict[int, str] = {}
    for name, parameter in named:
        if is_lazy(parameter):
            raise ValueError(
                f"ParticleModule: parameter {name} is lazy; give the layer its input size"
            )
        if not parameter.requires_grad:
            raise ValueError(
                f"ParticleModule: parameter {name} does not require a gradient; make it a buffer"
            )
        if id(parameter) in first:
            raise ValueError(
                f"ParticleModule: parameters {first[id(parameter)]} and {name} are tied; "
                "each weight must have one name"
            )
        first[id(parameter)] = name
    for name, buffer in net.named_buffers(remove_duplicate=False):
        if id(buffer) in first:
            raise ValueError(
                f"ParticleModule: buffers {first[id(buffer)]} and {name} are tied; "
                "each buffer must have one name"
            )
        first[id(buffer)] = name
    kinds = {(parameter.dtype, parameter.device) for _, parameter in named}
    if len(kinds) > 1:
        raise ValueError(
            f"ParticleModule: parameters mix dtypes or devices: {sorted(map(str, kinds))}"
        )
    for name, module in net.named_modules():
        layer = f"layer {name or type(module).__name__}"
        if getattr(module, "inplace", False):
            raise ValueError(
                f"ParticleModule: {layer} works in place and would change the input of all "
                "particles; use inplace=False"
            )
        if getattr(module, "max_norm", None) is not None:
            raise ValueError(
                f"ParticleModule: {layer} changes its weights at every call (max_norm), and all "
                "particles' in turn; use max_norm=None"
            )
        if getattr(module, "sparse", False):
            raise ValueError(
                f"ParticleModule: {layer} has sparse gradients, and one dense parameter holds all "
                "weights; use sparse=False"
            )
        for key, value in vars(module).items():
            if not isinstance(value, Tensor):
                continue
            if {f"{key}_orig", f"{key}_g"} & parameters_of(module).keys():
                raise ValueError(
                    f"ParticleModule: a hook makes {key!r} of {layer} anew at every call; use "
                    "torch.nn.utils.parametrizations"
                )
            if value.requires_grad:
                raise ValueError(
                    f"ParticleModule: {key!r} of {layer} requires a gradient, but is no "
                    "parameter; make it an nn.Parameter, or detach it"
                )


def _shapes(net: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in net.named_parameters()}


def _matching(
    argument: str, names: Sequence[str], shapes: dict[str, torch.Size]
) -> dict[str, torch.Size]:
    listed = isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names)
    if not listed:
        raise TypeError(f"ParticleModule: {argument} must be a list of names, got {names!r}")
    found: dict[str, torch.Size] = {}
    for wanted in names:
        hits = {k: v for k, v in shapes.items() if k == wanted or k.startswith(wanted + ".")}
        if not hits:
            raise ValueError(
                f"ParticleModule: {argument} names {wanted!r}, but the parameters are "
                f"{list(shapes)}"
            )
        found |= hits
    return {k: v for k, v in shapes.items() if k in found}


def _flatten(net: nn.Module, names: Sequence[str]) -> Tensor:
    return torch.cat([net.get_parameter(name).detach().reshape(-1) for name in names])


def _split(flat: Tensor, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    # One split, so that its backward is one concatenation.
    parts = flat.split([prod(shape) for shape in shapes.values()], -1)
    leading = flat.shape[:-1]
    return {
        name: part.view(*leading, *shape)
        for part, (name, shape) in zip(parts, shapes.items(), strict=True)
    }


def difference(one: nn.Module, other: nn.Module) -> str | None:
    """Words for the first difference that is none of weights and buffers; None if there is none.

    One network stands for several, whose weights it is lent: whatever else they have is that of the
    one, such as kinds of layers, shapes, modes, and the numbers and tensors that layers hold.

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
