"""Training and evaluating on the multi-goal world: what its recipes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.functional import normalized_entropy

from .checkpoint import check_same_problem, read_metadata
from .evaluation import Episodes, play_episodes
from .multigoal_figure import draw_multigoal
from .off_policy import train_off_policy
from .off_policy_agent import OffPolicyAgent, OffPolicySettings
from .run import Run, spawn_seeds

__all__ = [
    "draw_trained_agent",
    "evaluate_multigoal",
    "multigoal_metrics",
    "train_on_multigoal",
]


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
    agent: OffPolicyAgent, episodes: int, max_steps: int, seed: int
) -> tuple[dict[str, float], MultiGoalEnv, Episodes]:
    """Play one batch of episodes with an agent's policy, exploration as in training.

    Args:
        agent: its ``policy`` acts, on its loss's device.
        episodes: how many, all at once.
        max_steps: horizon.
        seed: of the starting positions.

    Returns:
        tuple: metrics, see :func:`multigoal_metrics`; the world; the episodes.
    """
    device = next(agent.loss.parameters()).device
    env = MultiGoalEnv((episodes,), device, horizon=max_steps, seed=seed)
    played = play_episodes(env, agent.policy, max_steps)
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
        agent, settings["episodes"], settings["max_steps"], config["seed"]
    )
    path = draw_multigoal(
        run.directory / "multigoal.png",
        env,
        episodes,
        qvalue=lambda s, a: agent.loss.qvalue(states(s), a),
        sample=lambda s, k: agent.policy.sample(states(s), k).detach(),
    )
    print(f"Picture: {path}")  # noqa: T201


def train_on_multigoal(
    config: Mapping[str, Any], make_agent: Callable[[MultiGoalEnv], OffPolicyAgent]
) -> tuple[Run, OffPolicyAgent, bool]:
    """A whole training run on the multi-goal world, final metrics in ``summary.json``.

    Args:
        config: plain values, with the keys of ``recipes/conf/off_policy.yaml``.
        make_agent: builds the algorithm for the environment.

    Returns:
        tuple: the run, the trained agent, and whether the run is complete (not interrupted).

    Raises:
        FloatingPointError: see :func:`train_off_policy`; likewise for a bad ``resume``.
        ValueError: if the run to resume had another loss, see :func:`check_same_problem`.
    """
    torch.set_num_threads(config["threads"])
    if config["resume"] is not None:
        check_same_problem(read_metadata(config["resume"])["config"], config)
    train_seed, eval_seed = spawn_seeds(config["seed"], 2)
    horizon, num_envs = config["env"]["horizon"], config["env"]["num_envs"]
    env = MultiGoalEnv((num_envs,), config["device"], horizon=horizon, seed=train_seed)
    agent = make_agent(env)
    settings = OffPolicySettings(**config["training"])
    run = Run(config["run_dir"], config, config["logger"])
    max_steps = config["eval"]["max_steps"]

    def evaluate(episodes: int) -> dict[str, float]:
        return evaluate_multigoal(agent, episodes, max_steps, eval_seed)[0]

    try:
        complete = train_off_policy(
            agent,
            env,
            settings,
            run,
            evaluate=lambda: evaluate(config["eval"]["episodes"]),
            resume=config["resume"],
        )
    except BaseException:
        run.close()
        raise
    if complete:
        metrics = evaluate(config["eval"]["final_episodes"])
        run.save_json("summary.json", metrics)
        print("  ".join(f"{name} {value:.3g}" for name, value in metrics.items()))  # noqa: T201
    return run, agent, complete
