"""Where the actions come from over which V(s') is estimated, and what V(s') is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_stein.functional import boltzmann_value, entropy_free_value, soft_value
from torchrl_stein.modules import SamplingActor

__all__ = ["VALUE_PROPOSALS", "VALUE_TARGETS", "ValueProposal", "ValueTarget"]

ValueProposal = Callable[[SamplingActor, TensorDictBase, int], tuple[Tensor, Tensor]]
"""``proposal(actor, states, K) -> (actions [*B, K, A], log densities [*B, K])``."""

ValueTarget = Callable[[Tensor, Tensor, Tensor | float], Tensor]
"""``target(Q [*B, K], log densities [*B, K], alpha) -> V [*B]``."""


def uniform_proposal(
    actor: SamplingActor, states: TensorDictBase, num_samples: int
) -> tuple[Tensor, Tensor]:
    """K actions uniform on the box; their log density is minus the log of its volume."""
    shape = (*states.batch_size, num_samples, actor.action_dim)
    width = actor.high - actor.low
    unit = torch.rand(shape, device=width.device, dtype=width.dtype)
    return actor.low + width * unit, -width.log().sum().expand(shape[:-1])


def actor_proposal(
    actor: SamplingActor, states: TensorDictBase, num_samples: int
) -> tuple[Tensor, Tensor]:
    """K actions of the sampler with the density of appendix C.2."""
    return actor.sample_with_log_prob(states, num_samples)


VALUE_PROPOSALS: dict[str, ValueProposal] = {"uniform": uniform_proposal, "actor": actor_proposal}

VALUE_TARGETS: dict[str, ValueTarget] = {
    "soft": soft_value,
    "boltzmann": boltzmann_value,
    "entropy_free": entropy_free_value,
}
