"""How n networks of one architecture are evaluated on n rows of data at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tensordict.nn import NormalParamExtractor
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils.parametrize import ParametrizationList
from torchrl.modules import MLP

from .sigmoid_tanh import SigmoidTanh

__all__ = ["Output", "evaluate_batched", "evaluate_in_turn", "needs_its_turn"]

Output = Tensor | tuple[Tensor, ...]

# They have no parameters and act on the last dimension at most: on all particles as on one.
_ON_ALL_ALIKE = (
    nn.Identity,
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
    NormalParamExtractor,
)

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def needs_its_turn(template: nn.Module) -> bool:
    """Whether only plain calls, one network after the other, do what the network says.

    Batched matrix products pass hooks by, and ``torch.vmap`` knows neither recurrent layers nor
    parametrizations that update buffers of their own, such as spectral normalization.

    Args:
        template: one network.
    """
    return any(
        _has_hooks(module)
        or isinstance(module, _RECURRENT)
        or (isinstance(module, ParametrizationList) and any(True for _ in module.buffers()))
        for module in template.modules()
    )


def evaluate_batched(
    template: nn.Module,
    state: Mapping[str, Tensor],
    per_particle: set[str],
    *inputs: Tensor,
    prefix: str = "",
) -> Output:
    """All particles in one call: few kernels, large activations.

    Chains of linear layers become batched matrix products, which cost a fraction of the
    dispatch of ``torch.vmap``; any other module goes through ``torch.vmap``.

    Args:
        template: one network; its own parameters are not used.
        state: parameters and buffers by ``prefix`` and their name in the template.
        per_particle: the names whose tensor has a leading dimension n.
        *inputs: ``[n, ..., F]`` each.
        prefix: of the names that belong to the template; others are left alone.

    Raises:
        RuntimeError: if ``torch.vmap`` has no rule for an operation of a module.
    """
    if type(template) in (nn.Sequential, MLP):
        values: Sequence[Tensor] = inputs
        for name, child in template.named_children():
            if type(template) is MLP and len(values) > 1:
                values = (torch.cat(tuple(values), -1),)
            output = evaluate_batched(
                child, state, per_particle, *values, prefix=f"{prefix}{name}."
            )
            values = output if isinstance(output, tuple) else (output,)
        return tuple(values) if len(values) > 1 else values[0]
    weight, bias = prefix + "weight", prefix + "bias"
    own_layers = weight in per_particle and (bias in per_particle or bias not in state)
    if type(template) is nn.Linear and own_layers and len(inputs) == 1:
        return _linear(inputs[0], state[weight], state.get(bias))
    if type(template) in _ON_ALL_ALIKE:
        return template(*inputs)
    start = len(prefix)
    own = {name[start:]: value for name, value in state.items() if name.startswith(prefix)}
    rows = {name[start:] for name in per_particle if name.startswith(prefix)}
    return _vmapped(template, own, rows, *inputs)


def evaluate_in_turn(
    template: nn.Module, state: Mapping[str, Tensor], per_particle: set[str], *inputs: Tensor
) -> Output:
    """One particle after the other: activations of one network at a time stay in the cache.

    Arguments as :func:`evaluate_batched`.
    """
    # unbind, unlike indexing, has one backward for all rows
    rows = {name: state[name].unbind(0) for name in state if name in per_particle}
    common = {name: tensor for name, tensor in state.items() if name not in per_particle}
    outputs = [
        functional_call(template, {**common, **dict(zip(rows, tensors, strict=True))}, values)
        for *tensors, values in zip(
            *rows.values(),
            zip(*(value.unbind(0) for value in inputs), strict=True),
            strict=True,
        )
    ]
    if isinstance(outputs[0], Tensor):
        return torch.stack(outputs)
    return tuple(torch.stack(column) for column in zip(*outputs, strict=True))


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    n, out_features = weight.shape[:2]
    flat = x.reshape(n, -1, x.shape[-1])
    product = (
        torch.bmm(flat, weight.mT)
        if bias is None
        else torch.baddbmm(bias.unsqueeze(1), flat, weight.mT)
    )
    return product.view(*x.shape[:-1], out_features)


def _vmapped(
    template: nn.Module, state: Mapping[str, Tensor], per_particle: set[str], *inputs: Tensor
) -> Output:
    in_dims = {name: 0 if name in per_particle else None for name in state}

    def one(tensors: dict[str, Tensor], *values: Tensor) -> Output:
        return functional_call(template, tensors, values)

    call = torch.vmap(one, in_dims=(in_dims, *(0 for _ in inputs)), randomness="different")
    try:
        return call(dict(state), *inputs)
    except RuntimeError as error:
        if "vmap" not in str(error) and "Batching rule" not in str(error):
            raise
        raise RuntimeError(
            f"ParticleModule: {type(template).__name__} cannot be evaluated on all particles at "
            "once; write it with operations that torch.vmap supports (torch.where for a branch on "
            f"values, no .item()), got: {error}"
        ) from error


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
