"""Recipes as a user starts them: real processes, with settings that make them short."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 280
# 80 updates, of which every 20th evaluates and saves.
OFF_POLICY = [
    "env.num_envs=16",
    "network.num_cells=[16,16]",
    "training.total_frames=1600",
    "training.warmup_frames=320",
    "training.batch_size=16",
    "training.buffer_size=4000",
    "training.log_interval=5",
    "training.eval_interval=20",
    "training.checkpoint_interval=20",
    "eval.episodes=20",
    "eval.final_episodes=40",
    "eval.video_steps=5",
]
# Four iterations, of which every second evaluates, saves and replaces particles.
ON_POLICY = [
    "env=cartpole",
    "population.num_particles=3",
    "population.envs_per_particle=2",
    "population.num_cells=[6]",
    "training.iterations=4",
    "training.steps=20",
    "training.eval_interval=2",
    "training.checkpoint_interval=2",
    "birth_death.interval=2",
    "eval.episodes=2",
    "eval.final_episodes=3",
    "eval.max_steps=20",
    "eval.video_steps=5",
]
# Three evaluations, the last one between two intervals.
REGRESSION = [
    "splits.num_splits=3",
    "posterior.num_particles=4",
    "posterior.num_cells=8",
    "training.steps=25",
    "training.batch_size=30",
    "training.eval_interval=10",
]
SMALL = {
    "bnn_regression": REGRESSION,
    "ddpg": OFF_POLICY,
    "dp_wgf_v": [
        *OFF_POLICY,
        "actor.num_particles=3",
        "loss.num_particles=8",
        "loss.num_value_samples=4",
        "trust_region.num_particles=4",
    ],
    "sac": OFF_POLICY,
    "sharded_svpg": [
        "env=cartpole",
        "population.num_particles=4",
        "population.envs_per_particle=2",
        "population.num_cells=[6]",
        "training.iterations=4",
        "training.steps=20",
        "training.eval_interval=2",
        "eval.episodes=2",
        "eval.final_episodes=3",
        "eval.max_steps=20",
    ],
    "soft_q": [*OFF_POLICY, "loss.num_particles=8", "loss.num_value_samples=4"],
    "svpg": ON_POLICY,
    "td3": OFF_POLICY,
}
RECIPES = {name: ROOT / "recipes" / f"{name}.py" for name in SMALL}


class Process:
    """A recipe in its own process, in an empty home directory, without terminal and network."""

    def __init__(self, folder, *command):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
        environment |= {"HOME": str(folder), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment["PYTHONPATH"] = str(ROOT)
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self):
        self.out, self.err = self.process.communicate(timeout=TIMEOUT)
        self.code = self.process.returncode
        return self

    def until(self, start):
        """Reads the output up to a line that begins so."""
        for line in self.process.stdout:
            if line.startswith(start):
                return
        pytest.fail(f"no line {start!r}: {self.process.stderr.read()}")


def start(folder, recipe, *overrides, run_dir="run"):
    """A recipe with its small settings, in a folder of its own."""
    folder.mkdir(exist_ok=True)
    given = [] if run_dir is None else [f"run_dir={run_dir}"]
    return Process(folder, RECIPES[recipe], *SMALL[recipe], *given, *overrides)
