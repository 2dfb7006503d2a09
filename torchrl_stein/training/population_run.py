"""A whole training run of a population: data, evaluation, results on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from torchrl_stein.envs import BatchedEnv

from .checkpoint import check_same_problem, read_metadata
from .evaluation import play_episodes
from .on_policy import OnPolicySettings, return_metrics, train_on_policy
from .population import PopulationAgent
from .run import Run, spawn_seeds
from .tasks import make_task
from .world_collector import WorldCollector

__all__ = ["train_population"]


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
    train_seed, eval_seed, final_seed = spawn_seeds(config["seed"], 3)
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

    def evaluate(
        episodes: int = config["eval"]["episodes"],
        seed: int = eval_seed,  # the same starts every time
    ) -> Tensor:
        env = task(episodes, seed)
        max_steps = config["eval"]["max_steps"]
        if isinstance(batches, WorldCollector):
            returns = batches.mean_action_returns(env.draw_starts(env.batch_size), max_steps)
        else:
            mean_action = ExplorationType.DETERMINISTIC
            returns = play_episodes(env, agent.actor, max_steps, mean_action).returns
        env.close()
        return returns.mean(1)

    try:
        complete = train_on_policy(agent, batches, settings, run, evaluate, config["resume"])
    except BaseException:
        run.close()
        raise
    finally:
        batches.shutdown()
    if complete:
        # Other starts than those by which one may have chosen the best.
        metrics = return_metrics(evaluate(config["eval"]["final_episodes"], final_seed))
        run.save_json("summary.json", metrics)
        print("final test return of each particle, best first:")  # noqa: T201
        returns = {k.removeprefix("particle_"): v for k, v in metrics.items() if "particle" in k}
        ranked = sorted(returns, key=lambda number: -returns[number])
        print("  ".join(f"#{number} {returns[number]:.1f}" for number in ranked))  # noqa: T201
    return run, complete


def _make_collector(
    env: EnvBase, agent: PopulationAgent, frames: int, iterations: int, *, compiled: bool
) -> WorldCollector | Collector:
    if isinstance(env, BatchedEnv):
        return WorldCollector(
            env,
            agent.actor,
            frames_per_batch=frames,
            total_frames=frames * iterations,
            compiled=compiled,
        )
    return Collector(
        env,
        agent.actor,
        frames_per_batch=frames,
        total_frames=frames * iterations,
        auto_register_policy_transforms=False,
    )
