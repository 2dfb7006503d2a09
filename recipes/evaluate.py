"""Evaluate a checkpoint in the environment it was trained in.

    python recipes/evaluate.py runs/soft_q/...        # a run directory or one checkpoint
    python recipes/evaluate.py runs/soft_q/... --episodes 2000 --seed 7 --actions mean
    python recipes/evaluate.py runs/svpg/...          # every particle of a population
    python recipes/evaluate.py runs/svpg/... --option pole_length=1.5   # in another world

A run directory is data: nothing in it is executed, so it may come from a stranger.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

# Imports of torch stand in the functions: it takes seconds, and --help needs none of it.
from torchrl_stein.runs import read_manifest
from torchrl_stein.runs.targets import trust_all_targets


def report_policy(
    checkpoint: str,
    episodes: int | None,
    seed: int,
    device: str,
    actions: str | None,
    best_of: int | None,
) -> dict[str, float]:
    """What the episodes of a policy earn, of each seed; on the multi-goal world, where they end."""
    from tensordict.nn import TensorDictSequential

    from torchrl_stein.envs import MultiGoalEnv
    from torchrl_stein.modules import AgentsActor
    from torchrl_stein.runs import evaluate, load_loss, spawn_seeds
    from torchrl_stein.runs.settings import MULTI_AGENT_WORLDS

    loss, settings = load_loss(checkpoint, device)
    policy = loss.actor_network
    if getattr(loss, "encoder", None) is not None:
        policy = TensorDictSequential(loss.encoder, policy, selected_out_keys=["action"])
    if settings.env.name in MULTI_AGENT_WORLDS:
        policy = AgentsActor(policy)
    changes = {} if actions is None else {"deterministic": actions == "mean"}
    changes |= {} if best_of is None else {"best_of": best_of}
    rule = settings.eval.model_copy(update=changes)
    settings = settings.model_copy(update={"eval": rule})
    episodes = settings.eval.final_episodes if episodes is None else episodes
    *_, env_seed = spawn_seeds(seed, 4)  # the first three are those of training
    qvalue = getattr(loss, "qvalue", None)  # of those whose policy is a sampler
    found, _ = evaluate(policy, settings, episodes=episodes, seed=env_seed, qvalue=qvalue)
    print(f"{episodes} episodes of at most {settings.eval.max_steps} steps")
    labels = {"entropy": "histogram entropy"}  # 1 = all goals equally often
    if settings.env.name == "multigoal":
        goals = MultiGoalEnv((1,), **settings.env.options).world.goals
        places = [[" any" if c is None else f"{c:4.1f}" for c in goal] for goal in goals]
        labels |= {f"goal_{i}": f"goal ({x}, {y})" for i, (x, y) in enumerate(places)}
    for number, metrics in enumerate(found, settings.seed):
        if settings.seeds > 1:
            print(f"seed {number}")
        for name, value in metrics.items():
            print(f"  {labels.get(name, name):<17}  {value:9.3f}")
    return {name: sum(own[name] for own in found) / len(found) for name in found[0]}


def read_options(options: Sequence[str]) -> dict[str, Any]:
    """Constants of an environment from ``NAME=VALUE``."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    values = {}
    for option in options:
        try:
            parsed = OverridesParser.create().parse_override(option)
            values[parsed.key_or_group] = parsed.value()
        except HydraException as error:
            raise ValueError(f"--option must be NAME=VALUE, got {option}") from error
    return values


def report_population(
    checkpoint: str,
    episodes: int | None,
    seed: int,
    device: str,
    options: Sequence[str],
    actions: str | None,
) -> dict[str, float]:
    """What every particle earns, best first; with its mean action unless they are sampled."""
    from torchrl.envs.utils import ExplorationType

    from torchrl_stein.runs import (
        evaluate_particles,
        read_population,
        return_metrics,
        spawn_seeds,
    )

    settings = read_population(checkpoint, device)
    episodes = settings.eval.final_episodes if episodes is None else episodes
    *_, env_seed = spawn_seeds(seed, 4)  # the first three are those of training
    sampled = actions == "sampled"
    exploration = ExplorationType.RANDOM if sampled else ExplorationType.DETERMINISTIC
    changed = read_options(options)
    returns = evaluate_particles(checkpoint, episodes, env_seed, device, changed, exploration)
    means, spreads = returns.mean(-1).flatten(), returns.std(-1, correction=0).flatten()
    known = read_manifest(checkpoint)["notes"].get("returns")
    seeds, n = settings.seeds, settings.population.num_particles
    seed_of = [f"seed {settings.seed + s} " if seeds > 1 else "" for s in range(seeds)]
    world = " ".join([settings.env, *options])
    print(f"{world}: {episodes} episodes of at most {settings.eval.max_steps} steps")
    gap = " " * len(seed_of[-1])
    print(f"{gap}                return     std  at the last evaluation in training")
    for i in means.argsort(descending=True).tolist():
        before = f"{known[i]:.2f}" if known else "none"
        name = f"{seed_of[i // n]}particle {i % n:2}"
        print(f"  {name}  {means[i]:9.2f}  {spreads[i]:6.1f}  {before:>9}")
    metrics = return_metrics(means)
    print(f"  mean{gap}         {metrics['mean']:9.2f}")
    return metrics


def main(
    checkpoint: str,
    episodes: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    options: Sequence[str] = (),
    actions: str | None = None,
    best_of: int | None = None,
) -> dict[str, float]:
    """Print and return the metrics."""
    config = read_manifest(checkpoint)["config"]
    if best_of is not None and config.get("recipe") not in ("soft_q", "soft_qv"):
        raise ValueError(f"--best-of is for soft_q and soft_qv, not for {config.get('recipe')}")
    if "population" in config:
        return report_population(checkpoint, episodes, seed, device, options, actions)
    if options:
        raise ValueError(f"--option is for populations, not for {config.get('recipe')}")
    return report_policy(checkpoint, episodes, seed, device, actions, best_of)


def count(text: str) -> int:
    """A positive integer from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1, got {number}")
    return number


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint.")
    parser.add_argument("checkpoint", help="a checkpoint, a run (its newest), or RUN/best")
    parser.add_argument("--episodes", type=count, help="of each policy; default: as configured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda; wherever it was trained")
    parser.add_argument(
        "--actions",
        choices=["sampled", "mean"],
        help="drawn from the policy, or its deterministic action; default: as in training",
    )
    parser.add_argument(
        "--best-of",
        type=count,
        metavar="K",
        help="also report the best of K sampled actions by Q (soft_q, soft_qv)",
    )
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a constant of the environment that differs from training; may be repeated",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="build whatever class a _target_ in the run's settings names: runs its code",
    )
    arguments = vars(parser.parse_args())
    if arguments.pop("trust"):
        trust_all_targets()
    try:
        main(**arguments)
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        sys.exit(f"evaluate.py: {error}")
