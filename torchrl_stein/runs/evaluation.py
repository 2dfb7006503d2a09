"""Playing whole episodes with a policy and summing them up; training does not notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_stein._checks import check_count
from torchrl_stein.envs import GoalMaze, GoalMazeWorld, MultiGoalEnv
from torchrl_stein.functional import (
    normalized_entropy,
    removal_success_in_tries,
    success_in_tries,
)
from torchrl_stein.modules import BestActionActor

from .settings import Environment, Success, TaskSettings
from .tasks import goal_maze_of, make_configured_task

__all__ = ["Episodes", "base_env", "episode_metrics", "evaluate", "goal_maze_metrics"]
__all__ += ["isolated_draws", "multigoal_metrics", "play_episodes"]


GROUP = 5
"""Episodes that count together in the measures of a maze with several goals."""


@dataclass(frozen=True)
class Episodes:
    """The first episode of every row of a batched environment.

    Attributes:
        data: the rollout, ``[*B, T]``; rows go on into further episodes after their first.
        returns: undiscounted return, ``[*B]``.
        lengths: number of steps, ``[*B]``.
        terminated: whether the episode ended by itself, not by time, ``[*B]``, bool.
    """

    data: TensorDictBase
    returns: Tensor
    lengths: Tensor
    terminated: Tensor

    def row(self, index: int) -> Episodes:
        """Those of one index of the first dimension."""
        return Episodes(
            self.data[index], self.returns[index], self.lengths[index], self.terminated[index]
        )

    def last(self, key: str = "observation") -> Tensor:
        """The entry after the last step of each episode, ``[*B, ...]``."""
        values = self.data["next", key]  # get() would return None for what is not there
        dim = self.lengths.ndim
        index = (self.lengths - 1)[(...,) + (None,) * (values.ndim - dim)]
        index = index.expand(*values.shape[:dim], 1, *values.shape[dim + 1 :])
        return values.gather(dim, index).squeeze(dim)


@torch.no_grad()
def play_episodes(
    env: EnvBase,
    policy: TensorDictModuleBase,
    max_steps: int,
    exploration: ExplorationType = ExplorationType.RANDOM,
) -> Episodes:
    """One episode per row of the environment ``[*B]``, all rows at once.

    An episode still running after ``max_steps`` counts with what it has.

    Example:
        >>> from torchrl.envs.utils import RandomPolicy
        >>> env = MultiGoalEnv(batch_size=(10,), seed=0)
        >>> play_episodes(env, RandomPolicy(env.action_spec), max_steps=20).returns.shape
        torch.Size([10])
    """
    check_count("play_episodes", max_steps=max_steps)
    with set_exploration_type(exploration):
        data = env.rollout(max_steps, policy, break_when_any_done=False)
    done, terminated, reward = (
        data.get(("next", name)).squeeze(-1) for name in ("done", "terminated", "reward")
    )
    active = done.long().cumsum(-1) == done.long()  # no episode ended before this step
    return Episodes(
        data=data,
        returns=(reward * active).sum(-1),
        lengths=active.sum(-1),
        terminated=(terminated & active).any(-1),
    )


def evaluate(
    policy: TensorDictModuleBase,
    settings: TaskSettings,
    *,
    episodes: int,
    seed: int,
    qvalue: Callable[[TensorDictBase, Tensor], Tensor] | None = None,
) -> tuple[list[dict[str, float]], Episodes]:
    """Metrics of a policy in the task of a run (``env``, ``eval``, ``device``), and the episodes.

    All are played at once. The seed is that of their starts and of all that the policy draws. In a
    maze with several goals as many are played again among obstacles, for their metric alone.
    There are metrics for each of the run's seeds; of several, episodes are ``[S, episodes]``. With
    ``eval.best_of`` = K > 0 and a function of states and actions, "return_best_of_k" is what the
    best of K actions by it earn: :class:`~torchrl_stein.modules.BestActionActor`.
    """
    task, rule = settings.env, settings.eval
    how = ExplorationType.DETERMINISTIC if rule.deterministic else ExplorationType.RANDOM

    def play(task: Environment) -> tuple[EnvBase, Episodes]:
        with isolated_draws(seed):  # from which some environments seed themselves
            rows = (*settings.leading, episodes)
            env = make_configured_task(task, rows, device=settings.device, seed=seed)
            try:
                return base_env(env), play_episodes(env, policy, rule.max_steps, how)
            finally:
                env.close()

    def by_seed(episodes: Episodes) -> list[Episodes]:
        return [episodes.row(s) for s in range(settings.seeds)] if settings.leading else [episodes]

    world, played = play(task)
    maze = goal_maze_of(task)
    if isinstance(world, MultiGoalEnv):
        metrics = [multigoal_metrics(world, own) for own in by_seed(played)]
    elif maze is not None:
        _, among = play(task.model_copy(update={"options": task.options | {"obstacles": True}}))
        pairs = zip(by_seed(played), by_seed(among), strict=True)
        metrics = [goal_maze_metrics(maze, own, barred) for own, barred in pairs]
    else:
        metrics = [episode_metrics(own, task.info, rule.success) for own in by_seed(played)]
    if rule.best_of > 0 and qvalue is not None:
        best = BestActionActor(policy, qvalue, rule.best_of)
        alone = settings.model_copy(update={"eval": rule.model_copy(update={"best_of": 0})})
        of_best, _ = evaluate(best, alone, episodes=episodes, seed=seed)
        for own, other in zip(metrics, of_best, strict=True):
            own["return_best_of_k"] = other["return"]
    return metrics, played


@contextmanager
def isolated_draws(seed: int) -> Iterator[None]:
    """Random numbers of torch and NumPy from a seed; afterwards theirs go on as if undisturbed."""
    numpy_state = np.random.get_state()  # noqa: NPY002 - gymnasium tools draw from it
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002


def base_env(env: EnvBase) -> EnvBase:
    """What is inside of all transforms."""
    while isinstance(env, TransformedEnv):
        env = env.base_env
    return env


def episode_metrics(
    episodes: Episodes, info: Sequence[str] = (), success: Success | None = None
) -> dict[str, float]:
    """What episodes earned and, of what else was recorded, how they ended.

    Of each entry in ``info`` with one number per step, the mean of the last ones is a metric of
    that name; two more, "_min" and "_max", are their extremes: in them shows a policy that keeps
    several ways open. KeyError if the data lack an entry.
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
        last = episodes.last(success.entry)
        above, below = success.above, success.below
        passed = last > above if above is not None else last < torch.as_tensor(below)
        metrics["success"] = passed.float().mean().item()
    return metrics


def multigoal_metrics(env: MultiGoalEnv, episodes: Episodes) -> dict[str, float]:
    """Return, length, success, and how evenly the goals are reached.

    ``return`` and ``length`` are means, ``success`` is the fraction that reached a goal,
    ``goals_reached`` counts goals that one episode in twenty reached, ``entropy`` is that of the
    goal histogram (1 = even), ``goal_0`` ... are its fractions of all episodes.
    """
    goal = env.goal_reached(episodes.last()).reshape(-1, 1)
    one_hot = goal == torch.arange(len(env.world.goals), device=goal.device)
    frequencies = one_hot.float().mean(0)
    metrics = {
        "return": episodes.returns.mean().item(),
        "length": episodes.lengths.float().mean().item(),
        "success": frequencies.sum().item(),
        "goals_reached": float((frequencies >= 0.05).sum().item()),
        "entropy": normalized_entropy(frequencies).item(),
    }
    return metrics | {f"goal_{i}": f for i, f in enumerate(frequencies.tolist())}


def goal_maze_metrics(
    maze: GoalMaze, episodes: Episodes, among_obstacles: Episodes | None = None
) -> dict[str, float]:
    """Return, length, success, and how many ways a policy knows; in a maze with several goals.

    ``return`` and ``length`` are means, ``success`` is the fraction that reached a goal,
    ``goals_reached`` counts the distinct goals of all episodes. Of groups of five episodes,
    ``removal_sr5`` is the chance to reach one of the goals that are left when half of them are
    removed, ``obstacle_sr5`` the share with a success ``among_obstacles``, where those are given.
    With fewer than five episodes there are no groups and neither metric. Measures of Wang et al.
    2025 (arXiv:2511.01374).
    """
    world = GoalMazeWorld(maze)
    goals = _paid_goals(world, episodes)
    metrics = {
        "return": episodes.returns.mean().item(),
        "length": episodes.lengths.float().mean().item(),
        "success": (goals >= 0).float().mean().item(),
        "goals_reached": float(goals[goals >= 0].unique().numel()),
    }
    if goals.numel() >= GROUP:
        removal = removal_success_in_tries(goals, len(maze.goals), GROUP)
        metrics["removal_sr5"] = removal.item()
    if among_obstacles is not None and among_obstacles.lengths.numel() >= GROUP:
        success = _paid_goals(world, among_obstacles) >= 0
        metrics["obstacle_sr5"] = success_in_tries(success, GROUP).item()
    return metrics


def _paid_goals(world: GoalMazeWorld, episodes: Episodes) -> Tensor:
    """Index of the goal that each episode was paid for, or -1; [number of episodes]."""
    goals = world.goal_reached(episodes.last())
    return torch.where(episodes.returns > 0, goals, -1).flatten()
