"""Evaluate a checkpoint in the environment it was trained in.

python recipes/evaluate.py runs/soft_q/...        # a run directory or one checkpoint
python recipes/evaluate.py runs/soft_q/... --episodes 2000 --seed 7
python recipes/evaluate.py runs/svpg/...          # every particle of a population
python recipes/evaluate.py runs/svpg/... --option pole_length=1.5   # in another world
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

from omegaconf import OmegaConf

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.training import (
    OffPolicyAgent,
    evaluate_agent,
    evaluate_particles,
    load_weights,
    make_task,
    read_metadata,
    return_metrics,
    spawn_seeds,
)


def load_agent(checkpoint: str, device: str = "cpu") -> tuple[OffPolicyAgent, dict]:
    """Build the agent that a checkpoint's recipe describes, and load its weights."""
    config = read_metadata(checkpoint)["config"] | {"device": device}
    recipe = import_module(config["recipe"])  # recipes lie beside this file
    task = config["env"]
    env = make_task(task["name"], (1,), device=device, seed=0, options=task["options"])
    agent = recipe.make_agent(OmegaConf.create(config), env)
    load_weights(checkpoint, agent.loss)
    return agent, config


def report_policy(checkpoint: str, episodes: int, seed: int, device: str) -> dict[str, float]:
    """What the episodes of one policy earn and, on the multi-goal world, where they end."""
    agent, config = load_agent(checkpoint, device)
    (env_seed,) = spawn_seeds(seed, 1)
    metrics = evaluate_agent(agent, config, episodes, env_seed)
    print(f"{episodes} episodes of at most {config['eval']['max_steps']} steps")
    labels = {"entropy": "histogram entropy"}  # 1 = all goals equally often
    if config["env"]["name"] == "multigoal":
        goals = MultiGoalEnv((1,), **config["env"]["options"]).world.goals
        labels |= {f"goal_{i}": f"goal ({x:4.1f}, {y:4.1f})" for i, (x, y) in enumerate(goals)}
    for name, value in metrics.items():
        print(f"  {labels.get(name, name):<17}  {value:9.3f}")
    return metrics


def report_population(
    checkpoint: str, episodes: int, seed: int, device: str, options: list[str]
) -> dict[str, float]:
    """What every particle earns with its mean action, best first."""
    (env_seed,) = spawn_seeds(seed, 1)
    for option in options:
        if "=" not in option:
            raise ValueError(f"--option must be NAME=VALUE, got {option}")
    changed = OmegaConf.to_container(OmegaConf.from_dotlist(options))
    returns = evaluate_particles(checkpoint, episodes, env_seed, device, changed)
    means, spreads = returns.mean(1), returns.std(1, correction=0)
    metadata = read_metadata(checkpoint)
    config, known = metadata["config"], metadata["returns"]
    world = " ".join([config["env"], *options])
    print(f"{world}: {episodes} episodes of at most {config['eval']['max_steps']} steps")
    print("                return     std  at the last evaluation in training")
    for i in means.argsort(descending=True).tolist():
        before = f"{known[i]:.2f}" if known else "none"
        print(f"  particle {i:2}  {means[i]:9.2f}  {spreads[i]:6.1f}  {before:>9}")
    metrics = return_metrics(means)
    print(f"  mean         {metrics['mean']:9.2f}")
    return metrics


def main(
    checkpoint: str,
    episodes: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    options: Sequence[str] = (),
) -> dict[str, float]:
    """Print and return the metrics."""
    config = read_metadata(checkpoint)["config"]
    episodes = config["eval"]["final_episodes"] if episodes is None else episodes
    if "population" in config:
        return report_population(checkpoint, episodes, seed, device, list(options))
    if options:
        raise ValueError(f"--option is for populations, not for {config['recipe']}")
    return report_policy(checkpoint, episodes, seed, device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint.")
    parser.add_argument("checkpoint", help="a checkpoint, or the directory of a run")
    parser.add_argument("--episodes", type=int, help="of each policy; default: as configured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda; wherever it was trained")
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
