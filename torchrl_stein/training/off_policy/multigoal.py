"""Evaluating policies on the multi-goal world: what its recipes share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.envs.utils import ExplorationType

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.functional import normalized_entropy

from ..bookkeeping.run import Run
from ..evaluation import Episodes, play_episodes
from ..figures.multigoal import draw_multigoal
from .agent import OffPolicyAgent

__all__ = ["draw_trained_agent", "evaluate_multigoal", "multigoal_metrics"]


def multigoal_metrics(env: MultiGoalEnv, episodes: Episodes) -> dict[str, float]:
    """Return, length, success, and how evenly the goals are reached.

    Args:
        env: the world.
        episodes: of any number of rows.

    Returns:
        dict: ``return``, ``length`` (means), ``success`` (fraction that reached a goal),
        ``goals_reached`` (goals that at least one episode in twenty reached), ``entropy``
        (of the goal histogram, 1 = even) and ``goal_0`` ... (fraction of all episodes).

    Example:
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.training import play_episodes
        >>> env = MultiGoalEnv(batch_size=(10,), seed=0)
        >>> episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=5)
        >>> multigoal_metrics(env, episodes)["success"]
        0.0
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
    metrics |= {f"goal_{i}": f for i, f in enumerate(frequencies.tolist())}
    return metrics


def evaluate_multigoal(
    agent: OffPolicyAgent,
    episodes: int,
    max_steps: int,
    seed: int,
    options: Mapping[str, Any] | None = None,
    exploration: ExplorationType = ExplorationType.RANDOM,
) -> tuple[dict[str, float], MultiGoalEnv, Episodes]:
    """Play one batch of episodes with an agent's policy.

    Args:
        agent: its ``policy`` acts, on its loss's device.
        episodes: how many, all at once.
        max_steps: horizon.
        seed: of the starting positions.
        options: of the world, as in training; its horizon is replaced.
        exploration: RANDOM samples actions, DETERMINISTIC takes the policy's mode.

    Returns:
        tuple: metrics, see :func:`multigoal_metrics`; the world; the episodes.

    Example:
        >>> from types import SimpleNamespace
        >>> from torchrl.envs.utils import RandomPolicy
        >>> policy = RandomPolicy(MultiGoalEnv((10,)).action_spec)
        >>> agent = SimpleNamespace(policy=policy, loss=torch.nn.Linear(1, 1))
        >>> evaluate_multigoal(agent, episodes=10, max_steps=5, seed=0)[0]["length"]
        5.0
    """
    device = next(agent.loss.parameters()).device
    world = {**(options or {}), "horizon": max_steps}
    env = MultiGoalEnv((episodes,), device, seed=seed, **world)
    played = play_episodes(env, agent.policy, max_steps, exploration)
    return multigoal_metrics(env, played), env, played


def draw_trained_agent(run: Run, agent: OffPolicyAgent, config: Mapping[str, Any]) -> None:
    """Write multigoal.png into the run directory, see :func:`draw_multigoal`.

    Args:
        run: where to.
        agent: its policy has ``sample`` and its loss ``qvalue``.
        config: with the keys of ``recipes/conf/off_policy.yaml``.
    """

    def states(s: Tensor) -> TensorDict:
        return TensorDict({"observation": s}, s.shape[:1])

    settings = config["eval"]
    _, env, episodes = evaluate_multigoal(
        agent, settings["episodes"], settings["max_steps"], config["seed"], config["env"]["options"]
    )
    path = draw_multigoal(
        run.directory / "multigoal.png",
        env,
        episodes,
        qvalue=lambda s, a: agent.loss.qvalue(states(s), a),
        sample=lambda s, k: agent.policy.sample(states(s), k).detach(),
    )
    print(f"Picture: {path}")  # noqa: T201
