"""Advantages of populations, and what their training episodes earn."""

from __future__ import annotations

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.modules import ValueOperator
from torchrl.objectives.value.functional import generalized_advantage_estimate

from torchrl_stein.modules import StandardizePerParticle

__all__ = ["estimate_advantages", "training_returns"]


@torch.no_grad()
def estimate_advantages(
    data: TensorDictBase, critic: ValueOperator, gamma: float, lmbda: float
) -> TensorDictBase:
    """Generalised advantages, standardised per particle, and the targets of the critic.

    A truncated episode, and one that the end of a batch cuts, goes on with the critic's value.
    The toolkit of the published experiments counts the time limit as terminal instead; with a
    critic of zero both are the same.

    Args:
        data: ``[n, ..., T]``.
        critic: writes "state_value".
        gamma: discount.
        lmbda: of the estimator; 1 gives returns minus the baseline.

    Returns:
        TensorDictBase: "advantage" and "value_target", ``[n, ..., T, 1]``.
    """
    following = data["next"]
    # TorchRL's function and not its GAE module, which looks for NaN on the host; the loop over
    # time and not the vectorised form, which takes 6 to 20 times as long where a batch holds the
    # ends of many episodes.
    advantage, target = generalized_advantage_estimate(
        gamma,
        lmbda,
        critic(data.select(*critic.in_keys))["state_value"],
        critic(following.select(*critic.in_keys))["state_value"],
        following["reward"],
        following["done"],
        following["terminated"],
    )
    written = TensorDict({"advantage": advantage, "value_target": target}, data.batch_size)
    return StandardizePerParticle()(written)


def training_returns(data: TensorDictBase) -> Tensor:
    """Mean return ``[n]`` of the episodes that ended in data ``[n, ...]``; NaN where none did."""
    done = data["next", "done"].flatten(1)
    total = data["next", "episode_reward"].flatten(1) * done
    return total.sum(1) / done.sum(1)
