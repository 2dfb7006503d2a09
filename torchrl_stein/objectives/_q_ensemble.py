"""An ensemble of Q-networks of one architecture: how it is made and how all of it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.modules import ValueOperator

from torchrl_stein._checks import check_count, check_type
from torchrl_stein._torchrl import has_hooks, takes_keywords
from torchrl_stein.modules import ParticleModule
from torchrl_stein.modules._layout import difference
from torchrl_stein.modules._population_forward import call_population, call_with

__all__ = [
    "can_skip_tensordict",
    "keeps_statistics",
    "make_ensemble",
    "population_of",
    "tie",
    "values_as_function",
    "values_by_tensordict",
]


def make_ensemble(
    owner: str, network: TensorDictModule | Sequence[TensorDictModule], size: int
) -> list[TensorDictModule]:
    """The network and size - 1 copies with fresh weights, or the networks of a given sequence."""
    check_count(owner, num_qvalue_nets=size)
    if not isinstance(network, Sequence):
        _check_network(owner, network)
        return [network, *(_fresh_copy(owner, network) for _ in range(size - 1))]
    if not network:
        raise ValueError(f"{owner}: qvalue_network must hold at least one network, got none")
    for net in network:
        _check_network(owner, net)
        words = difference(network[0], net)
        if words is not None:
            raise ValueError(
                f"{owner}: the networks given as qvalue_network must have one architecture, but "
                f"{words}"
            )
    if size not in (1, len(network)):
        raise ValueError(
            f"{owner}: num_qvalue_nets must equal the number of networks given "
            f"({len(network)}) or be left out, got {size}"
        )
    parameters = [parameter for net in network for parameter in net.parameters()]
    if len({id(parameter) for parameter in parameters}) < len(parameters):
        raise ValueError(
            f"{owner}: the networks given as qvalue_network must not share parameters; pass "
            "different ones, or a single one with num_qvalue_nets"
        )
    return list(network)


def _check_network(owner: str, network: TensorDictModuleBase) -> None:
    """Refuse what is no TensorDictModule, and several entries into an ``nn.Sequential``."""
    expected = 'a TensorDictModule, such as ValueOperator(net, in_keys=["observation", "action"])'
    check_type(owner, expected, TensorDictModuleBase, qvalue_network=network)
    module = getattr(network, "module", None)
    if (
        isinstance(module, nn.Sequential)
        and type(module).forward is nn.Sequential.forward
        and len(network.in_keys) > 1
    ):
        raise ValueError(
            f"{owner}: qvalue_network reads {list(network.in_keys)}, but "
            f"{type(module).__name__} takes one input; use TorchRL's MLP, which concatenates"
        )


def _fresh_copy(owner: str, network: TensorDictModule) -> TensorDictModule:
    copy = deepcopy(network)
    copy.reset_parameters_recursive()
    pairs = zip(network.parameters(), copy.parameters(), strict=True)
    if not any((a != b).any() for a, b in pairs):
        raise ValueError(
            f"{owner}: qvalue_network has no parameters that reset_parameters() draws anew, so "
            "the copies of the ensemble would be identical; pass a list of networks"
        )
    return copy


def keeps_statistics(network: TensorDictModuleBase) -> bool:
    """Whether it has batch normalization: all layers of torch and TorchRL call a buffer so."""
    return any(name.endswith("running_mean") for name, _ in network.named_buffers())


def population_of(network: TensorDictModuleBase) -> ParticleModule | None:
    """The population of networks inside, if there is one: its rows stay apart."""
    found = (module for module in network.modules() if isinstance(module, ParticleModule))
    return next(found, None)


def tie(params: TensorDictParams, network: TensorDictModuleBase) -> None:
    """Make one again what stands at two places of a network; stacking has made two of it."""
    first: dict[int, tuple[str, ...]] = {}
    for named in (network.named_parameters, network.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            key = tuple(name.split("."))
            if first.setdefault(id(tensor), key) != key:
                params.set(key, params.get(first[id(tensor)]))


def can_skip_tensordict(network: TensorDictModule, out_key: NestedKey) -> bool:
    """Whether the module inside, called with tensors, does all that the network does."""
    if type(network) not in (TensorDictModule, ValueOperator) or takes_keywords(network):
        return False
    if not isinstance(network.module, nn.Module) or network.method is not None:
        return False
    if list(network.out_keys) != [out_key] or has_hooks(network):
        return False
    # A tied tensor has several names, and a call with other tensors expects it under one.
    named = (network.named_parameters, network.named_buffers)
    tensors = [id(tensor) for of in named for _, tensor in of(remove_duplicate=False)]
    return 0 < len(tensors) == len(set(tensors))  # none: a formula, such as a given Q


def values_as_function(
    network: TensorDictModule, size: int, params: TensorDictParams, values: list[Tensor]
) -> Any:
    """The result of N networks, [N, *B, 1]; what a network returns, if that is no tensor.

    A TensorDict in and one out takes ten times as long per call where networks are small, and
    ``torch.vmap`` twice the time of batched products. ``params`` have a leading dimension N for
    N > 1, ``values`` are what the network reads, in its order.
    """
    inner: TensorDictBase = params.get("module")
    state = {
        ".".join(key) if isinstance(key, tuple) else key: value
        for key, value in inner.items(True, True)
    }
    if size > 1:
        rows = tuple(value.expand(size, *value.shape) for value in values)
        return _only(network, call_population(network.module, state, set(state), rows, {}))
    result, replaced = call_with(network.module, state, tuple(values), {})
    with torch.no_grad():
        for name, value in replaced.items():
            state[name].copy_(value)
    result = _only(network, result)
    return result.unsqueeze(0) if isinstance(result, Tensor) else result


def _only(network: TensorDictModule, result: Any) -> Any:
    """The one entry that would be written, also of a network that returns a tuple or dict."""
    if isinstance(result, dict):
        return result.get(network.out_keys[0], result)
    return result[0] if isinstance(result, tuple) and len(result) == 1 else result


def values_by_tensordict(
    network: TensorDictModule,
    size: int,
    params: TensorDictParams,
    states: TensorDictBase,
    out_key: NestedKey,
) -> Tensor | None:
    """The same by one call after the other; None if a network does not write the entry."""
    values = []
    for own in [params] if size == 1 else params.unbind(0):
        with own.to_module(network, preserve_module_state=False):
            values.append(network(states.copy()).get(out_key, None))
    return None if any(value is None for value in values) else torch.stack(values)
