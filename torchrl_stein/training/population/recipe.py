"""A whole training run of a population: data, evaluation, results on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from torch import Tensor
from torchrl.collectors import Collector
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType

from torchrl_stein.envs import BatchedEnv
from torchrl_stein.modules import EnsemblePolicy

from ..bookkeeping.checkpoint import check_same_problem, read_metadata
from ..bookkeeping.console import print_summary
from ..bookkeeping.cpu import prepare_cpu
from ..bookkeeping.run import Run, spawn_seeds
from ..compilation import read_compile_settings
from ..evaluation import play_episodes
from ..figures.video import log_episode
from ..tasks import make_task
from .agent import PopulationAgent
from .loop import OnPolicySettings, return_metrics, train_on_policy
from .seed_runs import SeedRuns, population_sizes
from .world_collector import WorldCollector

__all__ = ["train_population"]


def train_population(
    config: Mapping[str, Any], make_agent: Callable[[EnvBase], PopulationAgent]
) -> tuple[Run, bool]:
    """A whole run; final test returns go to ``summary.json``.

    With "seeds" S > 1 it is S runs, see :class:`SeedRuns`, whose populations are trained as one.

    Args:
        config: plain values, with the keys of ``recipes/conf/svpg.yaml``; "seeds" may be missing.
        make_agent: builds the algorithm for an environment of batch size [n, E], of several seeds
            [S n, E]: their populations, one after the other.

    Returns:
        tuple: the run, and whether it is complete (not interrupted).

    Raises:
        ValueError: if the run that is resumed is another problem, or had other seeds; also see
            :class:`CompileSettings` and :meth:`PopulationAgent.compile`.
    """
    prepare_cpu(config["threads"])
    seeds, n = population_sizes(config)
    if config["resume"] is not None:
        _check_resumed(read_metadata(config["resume"])["config"], config)
    train_seed, eval_seed, final_seed = spawn_seeds(config["seed"], 3)
    population = config["population"]
    rows = population["num_particles"] * population["envs_per_particle"] // n

    def task(envs: int, seed: int) -> EnvBase:
        return make_task(
            config["env"],
            (seeds * n, envs),
            device=config["device"],
            seed=seed,
            options=config["env_options"],
        )

    fusion = read_compile_settings(config)
    fusion.check(config["device"])
    env = task(rows, train_seed)
    agent = make_agent(env)
    agent.compile(fusion)
    training = dict(config["training"])
    frames = env.batch_size.numel() * training.pop("steps")
    for name in ("num_epochs", "num_minibatches"):
        training.pop(name)
    settings = OnPolicySettings(**training)
    batches = _make_collector(env, agent, frames, settings.iterations, compiled=fusion.compile)
    make_run = SeedRuns if seeds > 1 else Run
    run = make_run(config["run_dir"], config, config["logger"])

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
        final = evaluate(config["eval"]["final_episodes"], final_seed)
        _report(run, final)
        _record_best(run, agent, final, frames * settings.iterations)
    return run, complete


def _report(run: Run, returns: Tensor) -> None:
    """Final returns on disk and on the terminal; of several seeds, of each."""
    print("final test return of each particle, best first:")  # noqa: T201
    several, summaries = len(run.runs) > 1, []
    for one, own in zip(run.runs, returns.chunk(len(run.runs)), strict=True):
        summaries.append(return_metrics(own))
        one.save_json("summary.json", summaries[-1])
        ranked = own.argsort(descending=True).tolist()
        line = "  ".join(f"#{number} {own[number]:.1f}" for number in ranked)
        print(f"{one.directory.name}: {line}" if several else line)  # noqa: T201
    shared = [name for name in ("max", "top4", "mean") if all(name in s for s in summaries)]
    print_summary(run, {name: fmean(s[name] for s in summaries) for name in shared})


def _record_best(run: Run, agent: PopulationAgent, returns: Tensor, step: int) -> None:
    """A video of the particle with the highest return."""
    config = run.config
    if config["eval"]["video_steps"]:
        log_episode(
            run,
            EnsemblePolicy(agent.actor, "best", best=int(returns.nan_to_num(-math.inf).argmax())),
            {"name": config["env"], "options": config["env_options"]},
            step,
            max_steps=config["eval"]["video_steps"],
            seed=config["seed"],
            device=config["device"],
        )


def _check_resumed(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    check_same_problem(saved, here)
    before, now = saved.get("seeds", 1), here.get("seeds", 1)
    if before != now:  # 3 seeds of 5 particles have the shapes of 5 seeds of 3
        raise ValueError(f"resume: seeds is {before} in the checkpoint, it cannot become {now}")


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
