"""Evaluate a checkpoint in the environment it was trained in.

python recipes/evaluate.py runs/soft_q/...        # a run directory or one checkpoint
python recipes/evaluate.py runs/soft_q/... --episodes 2000 --seed 7 --actions mean
python recipes/evaluate.py runs/svpg/...          # every particle of a population
python recipes/evaluate.py runs/svpg/... --option pole_length=1.5   # in another world
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

if TYPE_CHECKING:
    from torchrl_stein.training import OffPolicyAgent

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

# Imports of the package stand in the functions: torch takes seconds, and --help needs none of it.


def load_agent(checkpoint: str, device: str = "cpu") -> tuple[OffPolicyAgent, dict]:
    """Build the agent that a checkpoint's recipe describes, and load its weights."""
    from torchrl_stein.training import load_weights, make_configured_task, read_metadata

    config = read_metadata(checkpoint)["config"] | {"device": device}
    recipe = import_module(config["recipe"])  # recipes lie beside this file
    task = config["env"]
    env = make_configured_task(task, 1, device=device, seed=0)
    agent = recipe.make_agent(OmegaConf.create(config), env)
    load_weights(checkpoint, agent.loss)
    return agent, config


def report_policy(
    checkpoint: str, episodes: int, seed: int, device: str, actions: str | None
) -> dict[str, float]:
    """What the episodes of one policy earn and, on the multi-goal world, where they end."""
    from torchrl_stein.envs import MultiGoalEnv
    from torchrl_stein.training import evaluate_agent, spawn_seeds

    agent, config = load_agent(checkpoint, device)
    if actions is not None:
        config = config | {"eval": config["eval"] | {"deterministic": actions == "mean"}}
    (env_seed,) = spawn_seeds(seed, 1)
    metrics = evaluate_agent(agent, config, episodes, env_seed)
    print(f"{episodes} episodes of at most {config['eval']['max_steps']} steps")
    labels = {"entropy": "histogram entropy"}  # 1 = all goals equally often
    if config["env"]["name"] == "multigoal":
        goals = MultiGoalEnv((1,), **config["env"]["options"]).world.goals
        places = [[" any" if c is None else f"{c:4.1f}" for c in goal] for goal in goals]
        labels |= {f"goal_{i}": f"goal ({x}, {y})" for i, (x, y) in enumerate(places)}
    for name, value in metrics.items():
        print(f"  {labels.get(name, name):<17}  {value:9.3f}")
    return metrics


def report_population(
    checkpoint: str, episodes: int, seed: int, device: str, options: list[str], actions: str | None
) -> dict[str, float]:
    """What every particle earns, best first; with its mean action unless they are sampled."""
    from torchrl.envs.utils import ExplorationType

    from torchrl_stein.training import (
        evaluate_particles,
        population_sizes,
        read_metadata,
        return_metrics,
        spawn_seeds,
    )

    (env_seed,) = spawn_seeds(seed, 1)
    for option in options:
        if "=" not in option:
            raise ValueError(f"--option must be NAME=VALUE, got {option}")
    changed = OmegaConf.to_container(OmegaConf.from_dotlist(options))
    sampled = actions == "sampled"
    exploration = ExplorationType.RANDOM if sampled else ExplorationType.DETERMINISTIC
    returns = evaluate_particles(checkpoint, episodes, env_seed, device, changed, exploration)
    means, spreads = returns.mean(1), returns.std(1, correction=0)
    metadata = read_metadata(checkpoint)
    config, known = metadata["config"], metadata["returns"]
    seeds, n = population_sizes(config)
    seed_of = [f"seed {config['seed'] + s} " if seeds > 1 else "" for s in range(seeds)]
    world = " ".join([config["env"], *options])
    print(f"{world}: {episodes} episodes of at most {config['eval']['max_steps']} steps")
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
) -> dict[str, float]:
    """Print and return the metrics."""
    from torchrl_stein.training import read_metadata

    config = read_metadata(checkpoint)["config"]
    episodes = config["eval"]["final_episodes"] if episodes is None else episodes
    if "population" in config:
        return report_population(checkpoint, episodes, seed, device, list(options), actions)
    if options:
        raise ValueError(f"--option is for populations, not for {config['recipe']}")
    return report_policy(checkpoint, episodes, seed, device, actions)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint.")
    parser.add_argument("checkpoint", help="a checkpoint, a run (its newest), or RUN/best")
    parser.add_argument("--episodes", type=int, help="of each policy; default: as configured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda; wherever it was trained")
    parser.add_argument(
        "--actions",
        choices=["sampled", "mean"],
        help="drawn from the policy, or its deterministic action; default: as in training",
    )
    parser.add_argument(
        "--option",
        dest="options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a constant of the environment that differs from training; may be repeated",
    )
    arguments = parser.parse_args()
    try:
        main(**vars(arguments))
    except (FileNotFoundError, TypeError, ValueError) as error:
        sys.exit(f"evaluate.py: {error}")
