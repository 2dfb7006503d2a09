"""Evaluate a checkpoint on the multi-goal world.

python recipes/evaluate.py runs/soft_q/...        # a run directory or one checkpoint
python recipes/evaluate.py runs/soft_q/... --episodes 2000 --seed 7
"""

import argparse
import os
import sys
from importlib import import_module

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

from omegaconf import OmegaConf

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.training import (
    OffPolicyAgent,
    evaluate_multigoal,
    load_weights,
    read_metadata,
    spawn_seeds,
)


def load_agent(checkpoint: str, device: str = "cpu") -> tuple[OffPolicyAgent, dict]:
    """Build the agent that a checkpoint's recipe describes, and load its weights."""
    config = read_metadata(checkpoint)["config"] | {"device": device}
    recipe = import_module(config["recipe"])  # recipes lie beside this file
    agent = recipe.make_agent(OmegaConf.create(config), MultiGoalEnv((1,), config["device"]))
    load_weights(checkpoint, agent.loss)
    return agent, config


def main(checkpoint: str, episodes: int, seed: int, device: str = "cpu") -> dict[str, float]:
    """Print and return the metrics."""
    agent, config = load_agent(checkpoint, device)
    (env_seed,) = spawn_seeds(seed, 1)
    metrics, env, _ = evaluate_multigoal(agent, episodes, config["eval"]["max_steps"], env_seed)
    print(f"{episodes} episodes of at most {config['eval']['max_steps']} steps")
    print(f"  return             {metrics['return']:9.2f}")
    print(f"  length             {metrics['length']:9.2f}")
    print(f"  success            {metrics['success']:9.3f}")
    for i, (x, y) in enumerate(env.world.goals):
        fraction = metrics[f"goal_{i}"]
        print(f"  goal ({x:4.1f}, {y:4.1f})  {fraction:9.3f}  {'#' * round(80 * fraction)}")
    print(f"  histogram entropy  {metrics['entropy']:9.3f}  (1 = all goals equally often)")
    return metrics


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Evaluate a checkpoint on the multi-goal world.")
    parser.add_argument("checkpoint", help="a checkpoint, or the directory of a run")
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda; wherever it was trained")
    arguments = parser.parse_args()
    try:
        main(arguments.checkpoint, arguments.episodes, arguments.seed, arguments.device)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"evaluate.py: {error}")
