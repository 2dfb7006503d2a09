"""Playing whole episodes in a batched environment and summing them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type

__all__ = ["Episodes", "episode_metrics", "play_episodes"]


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
        values = self.data["next", key]  # get() would return None for what is not there
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


def episode_metrics(
    episodes: Episodes, info: Sequence[str] = (), success: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """What episodes earned and, of what else was recorded, how they ended.

    Names that end in "_min" and "_max" are the extremes over the episodes: a policy that keeps
    several ways open shows in them, not in the mean.

    Args:
        episodes: of any number of rows.
        info: entries of the data; of those with one number per step the mean of the last ones is
            a metric of that name, their extremes are two more.
        success: "entry", one of them, and either "above" or "below", a number: an episode whose
            last one lies there is a success. None: no such metric.

    Returns:
        dict: ``return`` and ``length`` (means), ``return_std``, the entries of ``info`` and
        ``success`` (a fraction).

    Raises:
        KeyError: if the data lack an entry.
        ValueError: if ``success`` does not hold "entry" and one of "above" and "below".

    Example:
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> env = MultiGoalEnv(batch_size=(10,), seed=0)
        >>> episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=5)
        >>> sorted(episode_metrics(episodes))
        ['length', 'return', 'return_std']
    """
    metrics = {
        "return": episodes.returns.mean().item(),
        "return_std": episodes.returns.std(correction=0).item(),
        "length": episodes.lengths.float().mean().item(),
    }
    for key in info:
        last = episodes.last(key)
        if last.shape == episodes.lengths.shape:
            metrics[key] = last.mean().item()
            metrics[f"{key}_min"], metrics[f"{key}_max"] = last.min().item(), last.max().item()
    if success is not None:
        metrics["success"] = _success(episodes, dict(success)).float().mean().item()
    return metrics


def _success(episodes: Episodes, rule: dict[str, Any]) -> Tensor:
    if set(rule) == {"entry", "above"}:
        return episodes.last(rule["entry"]) > rule["above"]
    if set(rule) == {"entry", "below"}:
        return episodes.last(rule["entry"]) < rule["below"]
    raise ValueError(f"eval.success must hold entry and one of above and below, got {sorted(rule)}")
