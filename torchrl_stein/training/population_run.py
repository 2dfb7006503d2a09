"""A whole training run of a population: tasks by name, data, evaluation, results on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, RewardSum, TransformedEnv
from torchrl.envs.utils import ExplorationType

from torchrl_stein.envs import (
    BatchedEnv,
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    MountainCarEnv,
)

from .checkpoint import check_same_problem, read_metadata
from .evaluation import play_episodes
from .on_policy import OnPolicySettings, return_metrics, train_on_policy
from .population import PopulationAgent
from .run import Run, spawn_seeds
from .world_collector import WorldCollector

__all__ = ["make_task", "train_population"]

_WORLDS = {
    "cartpole": CartpoleEnv,
    "cartpole_swingup": CartpoleSwingUpEnv,
    "double_pendulum": DoublePendulumEnv,
    "mountain_car": MountainCarEnv,
}


def make_task(
    name: str,
    batch_size: tuple[int, int],
    *,
    device: str = "cpu",
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> EnvBase:
    """An environment whose row i belongs to particle i.

    Args:
        name: "cartpole", "cartpole_swingup", "double_pendulum", "mountain_car", or the id of a
            gymnasium environment.
        batch_size: [n, E], particles and environments of each.
        device: where tensors live.
        seed: of the starts.
        options: further arguments of the environment.

    Example:
        >>> make_task("cartpole", (4, 2), seed=0).batch_size
        torch.Size([4, 2])
    """
    return _WORLDS[name](batch_size, device, seed=seed, **(options or {}))


def train_population(
    config: Mapping[str, Any], make_agent: Callable[[EnvBase], PopulationAgent]
) -> tuple[Run, bool]:
    """A whole run; final test returns go to ``summary.json``.

    Args:
        config: plain values, with the keys of ``recipes/conf/svpg.yaml``.
        make_agent: builds the algorithm for an environment of batch size [n, E].

    Returns:
        tuple: the run, and whether it is complete (not interrupted).
    """
    torch.set_num_threads(config["threads"])
    if config["resume"] is not None:
        check_same_problem(read_metadata(config["resume"])["config"], config)
    train_seed, eval_seed = spawn_seeds(config["seed"], 2)
    n, rows = config["population"]["num_particles"], config["population"]["envs_per_particle"]
    if config["mode"] == "joint":
        n, rows = 1, n * rows

    def task(envs: int, seed: int) -> EnvBase:
        return make_task(
            config["env"],
            (n, envs),
            device=config["device"],
            seed=seed,
            options=config["env_options"],
        )

    env = task(rows, train_seed)
    agent = make_agent(env)
    training = dict(config["training"])
    frames = env.batch_size.numel() * training.pop("steps")
    for name in ("num_epochs", "num_minibatches"):
        training.pop(name)
    settings = OnPolicySettings(**training)
    batches = _make_collector(env, agent, frames, settings.iterations, compiled=config["compile"])
    run = Run(config["run_dir"], config, config["logger"])

    def evaluate() -> Tensor:
        env = task(config["eval"]["episodes"], eval_seed)
        mean_action = ExplorationType.DETERMINISTIC
        return play_episodes(env, agent.actor, env.horizon, mean_action).returns.mean(1)

    try:
        complete = train_on_policy(agent, batches, settings, run, evaluate, config["resume"])
    except BaseException:
        run.close()
        raise
    if complete:
        metrics = return_metrics(evaluate())
        run.save_json("summary.json", metrics)
        print("final test return of each particle, best first:")  # noqa: T201
        returns = sorted((v for k, v in metrics.items() if "particle" in k), reverse=True)
        print("  ".join(f"{value:.1f}" for value in returns))  # noqa: T201
    return run, complete


def _make_collector(
    env: EnvBase, agent: PopulationAgent, frames: int, iterations: int, *, compiled: bool
) -> Iterable[TensorDictBase]:
    if isinstance(env, BatchedEnv):
        return WorldCollector(
            env,
            agent.actor,
            frames_per_batch=frames,
            total_frames=frames * iterations,
            compiled=compiled,
        )
    return Collector(
        TransformedEnv(env, RewardSum()),
        agent.actor,
        frames_per_batch=frames,
        total_frames=frames * iterations,
        auto_register_policy_transforms=False,
    )
