"""How n networks of one architecture are called with n rows of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from numbers import Number
from typing import Any
from weakref import WeakSet

import torch
from tensordict.nn import NormalParamExtractor
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.nn.utils.parametrize import ParametrizationList
from torch.overrides import TorchFunctionMode
from torchrl.modules import MLP

from torchrl_stein._torchrl import (
    buffers_of,
    children_of,
    has_hooks,
    in_transform,
    number_of_changes,
    tree_map,
)

from .networks import SigmoidTanh

__all__ = ["call_population", "call_with"]

# They have no weights and do the same to every number, so that all particles may pass at once.
_ELEMENTWISE = (
    nn.Tanh,
    SigmoidTanh,
    nn.ReLU,
    nn.ELU,
    nn.SiLU,
    nn.GELU,
    nn.Sigmoid,
    nn.Softplus,
    nn.LeakyReLU,
    nn.Dropout,
)

# ``torch.vmap`` has no rule for the first two. The others look in evaluation mode whether somebody
# wants gradients, see nobody under ``torch.vmap``, and take a way that has no derivative.
_BY_THEMSELVES = (
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.TransformerEncoder,
    nn.TransformerEncoderLayer,
)

# What the same question gets no answer to under ``torch.vmap``, of any layer.
_OF_GRADIENTS = {
    *(getattr(Tensor, name).__get__ for name in ("requires_grad", "is_leaf", "grad_fn")),
    Tensor.register_hook,
    Tensor.retain_grad,
}

# Networks that failed on all particles at once; they are not tried again.
_FAILED: WeakSet[nn.Module] = WeakSet()

State = dict[str, Tensor]


class _NoGradientsHere(TorchFunctionMode):
    """Makes a call under ``torch.vmap`` fail that would go astray."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        if func in _OF_GRADIENTS:
            raise RuntimeError("under torch.vmap no tensor knows whether it requires a gradient")
        return func(*args, **(kwargs or {}))


class _KeepsError(RuntimeError):
    """A layer keeps something between calls, in whichever way the networks run."""


def call_population(
    template: nn.Module,
    state: Mapping[str, Tensor],
    per_particle: set[str],
    inputs: tuple[Tensor, ...],
    named: Mapping[str, Tensor],
    *,
    in_turn: bool = False,
) -> Any:
    """What n networks return for n rows of data, stacked: exactly what n separate calls give.

    All particles pass at once where that is the same: chains of linear layers as batched matrix
    products, which cost a fraction of the dispatch of ``torch.vmap``, and other layers through
    that. Where it fails, one network runs after the other.

    Args:
        template: one network; its own parameters and buffers are not used.
        state: its parameters and buffers by name. Buffers are written to as the networks do.
        per_particle: the names whose tensor has a leading dimension n; all buffers have one.
        inputs: ``[n, ...]`` each.
        named: inputs by keyword, ``[n, ...]`` each.
        in_turn: whether one network runs after the other in any case.
    """
    alone = in_turn or _takes_turns(template)
    if not alone:
        try:
            return _updating(_at_once, template, state, per_particle, inputs, named)
        except _KeepsError:
            raise
        except Exception:
            pass  # what the network itself has to say of its input, below, is the whole story
    output = _updating(_in_turn, template, state, per_particle, inputs, named)
    if not alone and not torch.compiler.is_compiling():
        _FAILED.add(template)
    return output


def call_with(
    network: nn.Module, tensors: State, inputs: tuple[Any, ...], named: Mapping[str, Tensor]
) -> tuple[Any, State]:
    """The result of a network with these tensors for its own, and buffers that it replaced."""
    given = dict(tensors)
    output = functional_call(network, given, inputs, dict(named), tie_weights=False)
    names = [name for name, _ in network.named_buffers() if name in given]
    return output, {name: given[name] for name in names if given[name] is not tensors[name]}


def _updating(
    way: Callable[..., Any],
    template: nn.Module,
    state: Mapping[str, Tensor],
    per_particle: set[str],
    inputs: tuple[Tensor, ...],
    named: Mapping[str, Tensor],
) -> Any:
    """The result of one way; buffers follow what the networks did to them once it is there.

    The networks work on copies: a way that fails has changed nothing, and numbers that a backward
    pass will need are never overwritten.
    """
    copies = {name: state[name].clone() for name, _ in template.named_buffers()}
    working = {**state, **copies}
    output = way(template, working, per_particle, inputs, named)
    for name, copy in copies.items():
        value = working[name]
        if (value.shape, value.dtype) != (copy.shape, copy.dtype):
            raise RuntimeError(
                f"{_name(template)}: a network of several must keep the shape and dtype of buffer "
                f"{name}, {list(copy.shape[1:])} of {copy.dtype}, got {list(value.shape[1:])} of "
                f"{value.dtype}"
            )
        # Only then: under a transform such as torch.func.grad nothing outside may be written to.
        if value is not copy or _may_have_changed(template, copy):
            with torch.no_grad():
                state[name].copy_(value)
    return output


def _at_once(
    template: nn.Module,
    state: State,
    per_particle: set[str],
    inputs: tuple[Any, ...],
    named: Mapping[str, Tensor],
    prefix: str = "",
) -> Any:
    """All particles in one call. What is not of a known type goes through ``torch.vmap``.

    ``prefix`` begins the names that belong to the template.
    """
    layer: Any = template  # for attributes whose types nn.Module does not tell
    kind, known = type(template), not named and "forward" not in vars(template)
    rows = known and all(isinstance(value, Tensor) and value.ndim > 1 for value in inputs)
    if kind is MLP and rows and inputs:
        x = inputs[0] if len(inputs) == 1 else torch.cat(inputs, -1)
        x = _chain(template, state, per_particle, x, prefix)
        shape = layer.out_features
        return x if isinstance(shape, Number) else x.view(*x.shape[:-1], *shape)
    if known and len(inputs) == 1:
        if kind is nn.Sequential:
            return _chain(template, state, per_particle, inputs[0], prefix)
        if kind is nn.Identity or (kind in _ELEMENTWISE and isinstance(inputs[0], Tensor)):
            return template(inputs[0])
        if kind is NormalParamExtractor and rows:  # acts on the last dimension
            return template(inputs[0])
        weight, bias = prefix + "weight", prefix + "bias"
        own = weight in per_particle and (bias in per_particle or bias not in state)
        if kind is nn.Linear and rows and own:
            return _linear(inputs[0], state[weight], state.get(bias))
        if kind is nn.LayerNorm and rows and own:
            shape = layer.normalized_shape
            if inputs[0].ndim <= len(shape):
                raise ValueError("particles are no features; torch.vmap would take them for such")
            x = functional.layer_norm(inputs[0], shape, eps=layer.eps)
            return _scale(x, state[weight], state.get(bias))
    return _vmapped(template, state, per_particle, inputs, named, prefix)


def _chain(layers: nn.Module, state: State, per_particle: set[str], value: Any, prefix: str) -> Any:
    # Not named_children, which names a layer that stands at two places once.
    for name, layer in children_of(layers).items():
        assert layer is not None
        value = _at_once(layer, state, per_particle, (value,), {}, f"{prefix}{name}.")
    return value


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    flat = x.unsqueeze(1) if x.ndim == 2 else x.flatten(1, -2)
    if bias is None:
        product = torch.bmm(flat, weight.mT)
    else:
        product = torch.baddbmm(bias.unsqueeze(1), flat, weight.mT)
    return product.view(*x.shape[:-1], weight.shape[1])


def _scale(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    # The last dimensions of x [n, ..., *F] by those of [n, *F].
    shape = (len(weight), *(1 for _ in range(x.ndim - weight.ndim)), *weight.shape[1:])
    scaled = x * weight.view(shape)
    return scaled if bias is None else scaled + bias.view(shape)


def _vmapped(
    template: nn.Module,
    state: State,
    per_particle: set[str],
    inputs: tuple[Any, ...],
    named: Mapping[str, Tensor],
    prefix: str,
) -> Any:
    start = len(prefix)
    own = {name[start:]: value for name, value in state.items() if name.startswith(prefix)}
    dims = {name: 0 if prefix + name in per_particle else None for name in own}
    values = (*inputs, *named.values())
    guards = nullcontext if _is_known(template) else _guards

    def one(tensors: State, *values: Any) -> Any:
        by_place, by_name = values[: len(inputs)], values[len(inputs) :]
        return call_with(template, tensors, by_place, dict(zip(named, by_name, strict=True)))

    call = torch.vmap(one, in_dims=(dims, *(0 for _ in values)), randomness="different")
    with guards(template):
        output, replaced = call(own, *values)
    state.update({prefix + name: value for name, value in replaced.items()})
    return output


def _in_turn(
    template: nn.Module,
    state: State,
    per_particle: set[str],
    inputs: tuple[Tensor, ...],
    named: Mapping[str, Tensor],
) -> Any:
    """One particle after the other: activations of one network at a time stay in the cache."""
    # unbind, unlike indexing, has one backward for all rows
    rows = {name: state[name].unbind(0) for name in state if name in per_particle}
    for name, _ in template.named_buffers():  # rows of one tensor count their changes together
        rows[name] = tuple(row.clone() for row in rows[name])
    common = {name: tensor for name, tensor in state.items() if name not in per_particle}
    by_place = [value.unbind(0) for value in inputs]
    by_name = {name: value.unbind(0) for name, value in named.items()}
    before = _kept(template)
    calls = [
        call_with(
            template,
            {**common, **{name: row[i] for name, row in rows.items()}},
            tuple(value[i] for value in by_place),
            {name: value[i] for name, value in by_name.items()},
        )
        for i in range(len(next(iter(rows.values()))))
    ]
    _check_kept(template, before)
    outputs, replaced = zip(*calls, strict=True)
    for name, _ in template.named_buffers():
        after = [new.get(name, row) for new, row in zip(replaced, rows[name], strict=True)]
        if any(name in new for new in replaced) or _may_have_changed(template, *rows[name]):
            state[name] = torch.stack(after)
    return tree_map(lambda *values: _stack(template, values), *outputs)


def _stack(template: nn.Module, values: tuple[Any, ...]) -> Tensor:
    for value in values:
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{_name(template)}: a network of several must return tensors, alone or in "
                f"tuples, lists or dicts, got {type(value).__name__}"
            )
    return torch.stack(values)


def _is_known(layer: nn.Module) -> bool:
    """Whether a layer comes with torch, as all those do that nobody need watch."""
    home = type(layer).__module__
    return torch.compiler.is_compiling() or (
        home.startswith(("torch.nn.modules.", "tensordict.nn."))
        and not children_of(layer)
        and "forward" not in vars(layer)
    )


@contextmanager
def _guards(template: nn.Module) -> Iterator[None]:
    before = _kept(template)
    try:
        with _NoGradientsHere():
            yield
    finally:  # what a call kept that fails must not pass for what was there before the next
        _check_kept(template, before)


def _may_have_changed(template: nn.Module, *buffers: Tensor) -> bool:
    """Whether a network that was lent fresh tensors may have written to them."""
    # Batch norm changes its statistics in training, and they do not count it.
    if any(module.training for module in template.modules()):
        return True
    # Tensors count the changes to them, which are not to be had when compiled or in inference mode.
    if torch.compiler.is_compiling():
        return not in_transform()  # where nothing outside may be written to
    if torch.is_inference_mode_enabled():
        return True
    return any(number_of_changes(buffer) > 0 for buffer in buffers)


def _takes_turns(template: nn.Module) -> bool:
    """Whether only plain calls, one network after the other, do what the network says."""
    if not torch.compiler.is_compiling() and template in _FAILED:
        return True
    return any(_is_by_itself(module) for module in template.modules())


def _is_by_itself(module: nn.Module) -> bool:
    if isinstance(module, ParametrizationList):  # one that changes buffers, as spectral_norm does
        return any(True for _ in module.buffers())
    return isinstance(module, _BY_THEMSELVES) or has_hooks(module)


def _kept(template: nn.Module) -> dict[tuple[str, str], Any]:
    """Tensors and numbers that the layers hold, apart from what is swapped in for a call."""
    if torch.compiler.is_compiling():
        return {}
    return {
        (name, key): value
        for name, module in template.named_modules()
        for held in (module.__dict__, buffers_of(module))
        for key, value in held.items()
        if isinstance(value, (Tensor, Number))
    }


def _check_kept(template: nn.Module, before: dict[tuple[str, str], Any]) -> None:
    for (name, key), value in _kept(template).items():
        old = before.get((name, key))
        if old is value or (isinstance(old, Number) and old == value):
            continue
        raise _KeepsError(
            f"{_name(template)}: layer {name or 'itself'} keeps {key!r} from one call to the next, "
            "which several networks would share; keep it in a buffer (register_buffer)"
        )


def _name(template: nn.Module) -> str:
    return type(template).__name__
