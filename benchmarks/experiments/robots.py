"""Robots on a small budget: exploration, learning curves, fine-tuning, composition.

    python -m benchmarks.experiments.robots finish_line --seeds 0 1 2 --workers 2
    python -m benchmarks.experiments.robots_report

After Haarnoja et al. 2017 (arXiv:1702.08165), figures 3 and 5 to 7. Every run is one process of a
recipe and writes runs/robots_<suite>/<method>-seed<k>; finished ones are kept.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from benchmarks import ROOT
from benchmarks.recipes import run_all, run_recipe

# Five environments share a call of the policy; one update per environment step all the same.
# Networks, rates and numbers of actions are those of the released code of the paper's authors
# (2018), a quarter of the paper's work per update.
BUDGET = [
    "env.num_envs=5",
    "network.num_cells=[128,128]",
    "optim.lr_qvalue=3e-4",
    "optim.lr_actor=3e-4",
    "training.updates_per_step=5",
    "training.warmup_frames=1000",
    "training.buffer_size=100_000",
    "training.log_interval=500",
    "training.eval_interval=2000",
    "training.checkpoint_interval=10_000",
]
SAC_LOSS = "loss.loss_function=smooth_l1"  # what the recipe had when this was measured
FEWER_ACTIONS = ["loss.num_action_samples=16", "loss.num_value_samples=16"]
# In a first try with a discount of 0.99 and targets copied every 1000 updates neither method got
# the swimmer to swim within 25 000 steps: it wriggled where it was.
SWIMMER = [
    "training.reward_scale=30",
    "loss.gamma=0.999",
    "optim.target_update_interval=null",
    "optim.target_tau=0.01",
]
ANNEAL = ["annealing.updates=5000"]


class Method(NamedTuple):
    """How one line of a figure is made: a recipe, its settings and its length."""

    recipe: str
    settings: list[str]
    steps: int


SOFT_Q = [*BUDGET, *FEWER_ACTIONS]
LINE = ["task=swimmer_finish_line", *SWIMMER]
HALLWAY = ["task=ant_hallway", "training.reward_scale=10"]
OPEN = ["task=ant_pretrain", "training.reward_scale=10"]
SUITES: dict[str, dict[str, Method]] = {
    "finish_line": {
        "soft_q": Method("soft_q", [*LINE, *SOFT_Q, "loss.temperature=0.01"], 30_000),
        "ddpg": Method("ddpg", [*LINE, *BUDGET], 30_000),
    },
    "hopper": {
        "soft_q": Method("soft_q", ["task=paper/hopper", *SOFT_Q], 15_000),
        "sac": Method("sac", ["task=paper/hopper", *BUDGET, SAC_LOSS], 15_000),
        "ddpg": Method("ddpg", ["task=paper/hopper", *BUDGET], 15_000),
    },
    "pretrain": {
        **{
            f"alpha_{alpha:g}": Method(
                "soft_q", [*OPEN, *SOFT_Q, f"loss.temperature={alpha}"], 15_000
            )
            for alpha in (1.0, 0.1, 0.01)
        },
        "ddpg": Method("ddpg", [*OPEN, *BUDGET], 15_000),
    },
    "fine_tune": {
        "soft_q_pretrained": Method("soft_q", [*HALLWAY, *SOFT_Q, *ANNEAL], 12_000),
        "ddpg_pretrained": Method("ddpg", [*HALLWAY, *BUDGET], 12_000),
        "ddpg_scratch": Method("ddpg", [*HALLWAY, *BUDGET], 12_000),
        "soft_q_scratch": Method("soft_q", [*HALLWAY, *SOFT_Q, *ANNEAL], 12_000),
    },
    "parts": {
        name: Method("soft_q", [f"task=multigoal_{name}"], 166_400) for name in ("x", "y", "xy")
    },
    "composition": {"composed": Method("compose", [], 0)},
}
ORIGIN = {"soft_q_pretrained": "alpha_0.1", "ddpg_pretrained": "ddpg"}  # of the suite "pretrain"


class Job(NamedTuple):
    """One run."""

    suite: str
    method: str
    seed: int


def directory_of(job: Job, out: Path) -> Path:
    """Where a run is."""
    return out / f"robots_{job.suite}" / f"{job.method}-seed{job.seed}"


def arguments_of(job: Job, out: Path) -> list[str]:
    """The command line of its recipe, but for the directory."""
    method, seed = SUITES[job.suite][job.method], f"seed={job.seed}"
    if method.recipe == "compose":
        x, y, xy = (directory_of(Job("parts", part, job.seed), out) for part in ("x", "y", "xy"))
        return [f"runs=[{x},{y}]", f"compare=[{xy}]", seed]
    arguments = [*method.settings, f"training.total_frames={method.steps}", seed]
    if job.method in ORIGIN:
        origin = directory_of(Job("pretrain", ORIGIN[job.method], job.seed), out)
        arguments.append(f"init_from={origin}")
    return [*arguments, "eval.video_steps=0"]


def run(job: Job, out: Path) -> None:
    """One process, unless its summary is there."""
    recipe = SUITES[job.suite][job.method].recipe
    run_recipe(recipe, arguments_of(job, out), directory_of(job, out))


def main() -> None:
    """Run a suite."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", help="default: all of the suite")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    methods = given.methods or list(SUITES[given.suite])
    jobs = [Job(given.suite, method, seed) for seed in given.seeds for method in methods]
    finished = run_all(
        jobs,
        lambda job: run(job, given.out),
        lambda job: f"{job.method} seed {job.seed}",
        given.workers,
    )
    for _ in finished:
        pass  # what is done has its summary


if __name__ == "__main__":
    main()
