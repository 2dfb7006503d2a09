"""Compose policies: sample from exp(sum of their Q-functions / alpha), without new data.

    python recipes/soft_q.py task=multigoal_x run_dir=runs/x     # get to x = 5 or x = -5
    python recipes/soft_q.py task=multigoal_y run_dir=runs/y     # get to y = 5 or y = -5
    python recipes/compose.py runs/x runs/y                      # all four corners
    python recipes/soft_q.py task=multigoal_xy run_dir=runs/xy   # the summed reward, learnt
    python recipes/compose.py runs/x runs/y --compare runs/xy

A new sampler is trained by amortized SVGD on the sum, at the states of the runs' replay buffers
(Haarnoja et al. 2018, arXiv:1803.06773, section 4). All policies are then played in the world
whose reward is the sum of those of the runs. The result is a run like any other.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torchrl.envs import EnvBase

from torchrl_stein.modules import AmortizedSVGDActor, SumQ
from torchrl_stein.objectives import SoftQLoss
from torchrl_stein.training import (
    Checkpoints,
    Run,
    check_losses,
    draw_trained_agent,
    evaluate_multigoal,
    exit_if_unwritable,
    load_weights,
    make_configured_task,
    make_mlp,
    prepare_cpu,
    read_metadata,
    replayed_observations,
    spawn_seeds,
    sum_of_worlds,
    train_sampler,
)

SHARED = ("loss.temperature", "loss.gamma", "training.reward_scale")


def make_part(config: dict, device: str, env: EnvBase) -> Any:
    """The agent of one of the runs, without its weights: the recipes lie beside this file."""
    recipe = import_module(config["recipe"])
    return recipe.make_agent(OmegaConf.create(config | {"device": device}), env)


def make_agent(cfg: DictConfig, env: EnvBase) -> SimpleNamespace:
    """A sampler and the sum of the Q-functions of ``cfg.parts``: the composition."""
    config = OmegaConf.to_container(cfg, resolve=True)
    parts = [make_part(part, cfg.device, env) for part in config["parts"]]
    for run, part in zip(cfg.runs, parts, strict=True):
        if not isinstance(part.loss, SoftQLoss) or part.loss.num_qvalue_nets > 1:
            raise ValueError(f"{run} must be a run of soft Q-learning with one Q-network")
    observation_dim = env.observation_spec["observation"].shape[-1]
    action_dim = env.action_spec.shape[-1]
    actor = AmortizedSVGDActor(
        make_mlp(observation_dim + action_dim, action_dim, cfg.network.num_cells, cfg.device),
        action_spec=env.action_spec_unbatched,
    )
    loss = SoftQLoss(
        actor,
        SumQ([part.loss.qvalue_network for part in parts]).requires_grad_(False),
        temperature=cfg.loss.temperature * cfg.training.reward_scale,
        kernel=instantiate(cfg.loss.kernel),
        num_particles=cfg.loss.num_particles,
        squash=cfg.loss.squash,
        delay_qvalue=False,
    ).to(cfg.device)
    return SimpleNamespace(policy=actor, loss=loss, parts=parts)


def compose_config(runs: Sequence[str], options: argparse.Namespace) -> dict:
    """Settings of the composition: those of the first run, which the others must share."""
    parts = [read_metadata(run)["config"] for run in runs]
    for run, part in zip(runs, parts, strict=True):
        task = part["env"] if isinstance(part["env"], str) else part["env"]["name"]
        if task != "multigoal":
            raise ValueError(f"{run} must be of the multigoal world, got {task}")
        for name in SHARED:
            group, key = name.split(".")
            if part[group][key] != parts[0][group][key]:
                raise ValueError(
                    f"every run must have the same {name}, got {parts[0][group][key]} and "
                    f"{part[group][key]}"
                )
    world = sum_of_worlds([part["env"]["options"] for part in parts])
    return parts[0] | {
        "recipe": "compose",
        "runs": list(runs),
        "parts": parts,
        "env": parts[0]["env"] | {"options": world},
        "seed": options.seed,
        "device": options.device,
        "logger": options.logger,
        "run_dir": options.run_dir,
    }


def print_table(results: dict[str, dict[str, float]]) -> None:
    """One policy per row."""
    columns = list(next(iter(results.values())))
    width = max(map(len, results))
    print(" " * width, *(f"{name:>13}" for name in columns))
    for name, metrics in results.items():
        print(f"{name:<{width}}", *(f"{metrics[column]:13.3f}" for column in columns))


def main(options: argparse.Namespace) -> None:
    """Compose, train the sampler, compare."""
    config = compose_config(options.runs, options)
    prepare_cpu(config["threads"])
    train_seed, eval_seed = spawn_seeds(options.seed, 2)
    env = make_configured_task(config["env"], 1, device=options.device, seed=train_seed)
    agent = make_agent(OmegaConf.create(config), env)
    for run, part in zip(options.runs, agent.parts, strict=True):
        load_weights(run, part.loss)
    others = {}
    for path in options.compare:
        others[path] = make_part(read_metadata(path)["config"], options.device, env)
        load_weights(path, others[path].loss)
    states = replayed_observations(options.runs).to(options.device)
    run = Run(options.run_dir, config, options.logger)

    def log(update: int, losses: Any) -> None:
        if update % options.log_interval == 0 or update == options.updates:
            check_losses(losses, update)
            run.log({f"train/{name}": value.item() for name, value in losses.items()}, update)

    print(f"Sampling from the sum of {len(agent.parts)} Q-functions at {len(states)} states")
    train_sampler(agent.loss, states, updates=options.updates, log=log)
    checkpoints = Checkpoints(
        run.directory / "checkpoints", loss=agent.loss, config=config, others={}
    )
    checkpoints.save(options.updates)

    policies = {"composed": agent, **dict(zip(options.runs, agent.parts, strict=True)), **others}
    settings = config["eval"]
    results = {
        name: evaluate_multigoal(
            policy,
            settings["final_episodes"],
            settings["max_steps"],
            eval_seed,
            config["env"]["options"],
        )[0]
        for name, policy in policies.items()
    }
    print_table(results)
    run.save_json("summary.json", results["composed"])
    run.save_json("comparison.json", results)
    draw_trained_agent(run, agent, config)
    print(f"Results: {run.directory}")
    run.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compose policies of the multi-goal world.")
    parser.add_argument("runs", nargs="+", help="runs of soft_q.py, or checkpoints of them")
    parser.add_argument("--compare", nargs="*", default=[], help="further runs to evaluate")
    parser.add_argument("--updates", type=int, default=2000, help="of the sampler")
    parser.add_argument("--log-interval", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--logger", default="csv")
    parser.add_argument("--run-dir", help="a new directory; default: below runs/compose")
    arguments = parser.parse_args()
    if arguments.run_dir is None:
        now = time.strftime("%Y-%m-%d_%H-%M-%S")
        arguments.run_dir = f"runs/compose/{now}_multigoal_seed{arguments.seed}"
    try:
        with exit_if_unwritable("compose.py", arguments.run_dir):
            main(arguments)
    except (ImportError, TypeError, ValueError) as error:
        sys.exit(f"compose.py: {error}")
