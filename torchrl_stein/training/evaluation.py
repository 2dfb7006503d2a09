"""Playing whole episodes in a batched environment and summing them up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

__all__ = ["Episodes", "play_episodes"]


@dataclass(frozen=True)
class Episodes:
    """The first episode of every row of a batched environment.

    Attributes:
        data: the rollout, ``[*B, T]``; rows go on into further episodes after their first.
        active: steps that belong to the first episode, ``[*B, T]``, bool.
        returns: undiscounted return, ``[*B]``.
        lengths: number of steps, ``[*B]``.
        terminated: whether the episode ended by itself, not by time, ``[*B]``, bool.

    Example:
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> env = MultiGoalEnv(batch_size=(10,), seed=0)
        >>> episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=5)
        >>> episodes.lengths.max().item(), episodes.last("observation").shape
        (5, torch.Size([10, 2]))
    """

    data: TensorDictBase
    active: Tensor
    returns: Tensor
    lengths: Tensor
    terminated: Tensor

    def last(self, key: str = "observation") -> Tensor:
        """The entry after the last step of each episode, ``[*B, ...]``."""
        values = self.data.get(("next", key))
        index = self.lengths - 1
        index = index[(...,) + (None,) * (values.ndim - index.ndim)]
        dim = self.lengths.ndim
        index = index.expand(*values.shape[:dim], 1, *values.shape[dim + 1 :])
        return values.gather(dim, index).squeeze(dim)


@torch.no_grad()
def play_episodes(
    env: EnvBase,
    policy: TensorDictModuleBase,
    max_steps: int,
    exploration: ExplorationType = ExplorationType.RANDOM,
) -> Episodes:
    """One episode per row of the environment, all rows at once.

    TorchRL's Evaluator pools all trajectories into one mean; figures and histograms need each.

    Args:
        env: batched environment ``[*B]``; rows that end are reset and their rest is ignored.
        policy: writes the action.
        max_steps: T; an episode still running then counts with what it has.
        exploration: RANDOM samples from the policy, DETERMINISTIC takes its mode.

    Returns:
        Episodes: returns, lengths and the trajectories, on the environment's device.

    Raises:
        ValueError: if ``max_steps`` < 1.

    Example:
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> env = MultiGoalEnv(batch_size=(10,), seed=0)
        >>> play_episodes(env, RandomPolicy(env.action_spec), max_steps=20).returns.shape
        torch.Size([10])
    """
    if max_steps < 1:
        raise ValueError(f"play_episodes: max_steps must be >= 1, got {max_steps}")
    with set_exploration_type(exploration):
        data = env.rollout(max_steps, policy, break_when_any_done=False)
    done = data.get(("next", "done")).squeeze(-1)
    ended_before = done.long().cumsum(-1) - done.long()
    active = ended_before == 0
    reward = data.get(("next", "reward")).squeeze(-1)
    terminated = data.get(("next", "terminated")).squeeze(-1)
    return Episodes(
        data=data,
        active=active,
        returns=(reward * active).sum(-1),
        lengths=active.sum(-1),
        terminated=(terminated & active).any(-1),
    )
