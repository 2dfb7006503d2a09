"""Actions of a policy and of its predecessor from the same noise."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential
from torch import Tensor, nn
from torch import distributions as D

from torchrl_stein.modules import SamplingActor

__all__ = ["check_sampler", "coupled_actions"]


def check_sampler(owner: str, actor: nn.Module) -> None:
    """Require a policy whose actions are differentiable functions of noise.

    Args:
        owner: who asks, for the message.
        actor: the policy.

    Raises:
        TypeError: if it is neither a sampler nor probabilistic, or its actions are discrete.
    """
    if isinstance(actor, SamplingActor):
        return
    expected = "a SamplingActor or a ProbabilisticActor with reparameterised, continuous actions"
    if not isinstance(actor, (ProbabilisticTensorDictSequential, ProbabilisticTensorDictModule)):
        raise TypeError(
            f"{owner}: space='action' needs {expected} as actor_network, got {type(actor).__name__}"
        )
    last = actor[-1] if isinstance(actor, ProbabilisticTensorDictSequential) else actor
    kind = last.distribution_class
    # Of wrappers such as Independent only an instance knows, which there is at the first call.
    if getattr(kind, "has_rsample", True) is False:
        raise TypeError(_no_rsample(owner, getattr(kind, "__name__", repr(kind))))


def coupled_actions(
    actor: Any,
    current: TensorDictParams,
    previous: TensorDictParams,
    states: TensorDictBase,
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    """M actions per state of two sets of parameters, action i of both from the same noise.

    Args:
        actor: passed :func:`check_sampler`.
        current: differentiated.
        previous: not differentiated.
        states: ``[*B]``.
        num_samples: M.

    Returns:
        tuple: two tensors ``[*B, M, A]``.
    """
    if isinstance(actor, SamplingActor):
        return _of_sampler(actor, current, previous, states, num_samples)
    return _of_distribution(actor, current, previous, states, num_samples)


def _of_sampler(
    actor: SamplingActor,
    current: TensorDictParams,
    previous: TensorDictParams,
    states: TensorDictBase,
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    with current.to_module(actor, preserve_module_state=False):
        noise = actor.draw_noise(states, num_samples)
        now = actor.squash(actor.unsquashed(states, noise))
    with torch.no_grad(), previous.to_module(actor, preserve_module_state=False):
        return now, actor.squash(actor.unsquashed(states, noise))


def _of_distribution(
    actor: Any,
    current: TensorDictParams,
    previous: TensorDictParams,
    states: TensorDictBase,
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    with current.to_module(actor, preserve_module_state=False):
        now = actor.get_dist(states)
    if not now.has_rsample or _is_discrete(now):
        raise TypeError(_no_rsample("WassersteinTrustRegionLoss", type(now).__name__))
    with torch.no_grad(), previous.to_module(actor, preserve_module_state=False):
        before = actor.get_dist(states)
    shape = torch.Size([num_samples])
    normal = _base_normal(now)
    if normal is None:
        device = next(leaf.device for leaf in current.values(True, True))
        devices = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            actions = now.rsample(shape)
        earlier = before.rsample(shape)  # the generator is where it was: the same noise again
    else:
        noise = torch.randn_like(normal.loc.expand(num_samples, *normal.loc.shape))
        actions, earlier = _push(now, noise), _push(before, noise)
    return actions.movedim(0, -2), earlier.detach().movedim(0, -2)


def _no_rsample(owner: str, name: str) -> str:
    return (
        f"{owner}: space='action' needs reparameterised, continuous actions, got {name}, which is "
        "discrete or has no rsample; space='parameter' takes a population of any policies"
    )


def _is_discrete(distribution: D.Distribution) -> bool:
    """Of those with rsample, the straight-through ones."""
    # Not by its support: TorchRL's TanhNormal cannot give one ("'_Real' object is not callable").
    while isinstance(distribution, D.Independent):
        distribution = distribution.base_dist
    return isinstance(distribution, (D.Categorical, D.OneHotCategorical))


def _base_normal(distribution: D.Distribution) -> D.Normal | None:
    """The Normal under transforms and Independent, if there is one."""
    while isinstance(distribution, (D.TransformedDistribution, D.Independent)):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, D.Normal) else None


def _push(distribution: D.Distribution, noise: Tensor) -> Tensor:
    """Standard normal noise through what rsample does with it."""
    if isinstance(distribution, D.Normal):
        return distribution.loc + distribution.scale * noise
    assert isinstance(distribution, (D.TransformedDistribution, D.Independent))  # _base_normal
    value = _push(distribution.base_dist, noise)
    for transform in getattr(distribution, "transforms", ()):
        value = transform(value)
    return value
