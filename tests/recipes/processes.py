"""Recipes as a user starts them: real processes, with settings that make them short.

To import torch takes longer than such a run. So most of these processes are forks of one that has
imported everything, and start within a second; a few are started from nothing, as a user's are.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TIMEOUT = 280
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
    "RL_LOGGING_LEVEL": "WARNING",  # read when torchrl is imported
}
# 30 updates, of which every tenth evaluates and saves.
OFF_POLICY = [
    "env.num_envs=16",
    "network.num_cells=[16,16]",
    "training.total_frames=800",
    "training.warmup_frames=320",
    "training.batch_size=16",
    "training.buffer_size=4000",
    "training.log_interval=5",
    "training.eval_interval=10",
    "training.checkpoint_interval=10",
    "eval.episodes=20",
    "eval.final_episodes=40",
    "eval.video_steps=0",
]
# Ten iterations of 40 steps, of which every fourth evaluates and saves.
ON_POLICY = [
    "env.name=multigoal",
    "env.num_envs=4",
    "network.num_cells=[8]",
    "network.normalize=true",
    "training.total_frames=400",
    "training.steps=10",
    "training.reward_scale=auto",
    "training.log_interval=1",
    "training.eval_interval=4",
    "training.checkpoint_interval=4",
    "eval.episodes=5",
    "eval.final_episodes=6",
    "eval.max_steps=10",
    "eval.video_steps=0",
]
# Four iterations, of which every second evaluates and saves.
POPULATION = [
    "env=cartpole",
    "population.num_particles=3",
    "population.envs_per_particle=2",
    "population.num_cells=[6]",
    "training.iterations=4",
    "training.steps=20",
    "training.eval_interval=2",
    "training.checkpoint_interval=2",
    "eval.episodes=2",
    "eval.final_episodes=3",
    "eval.max_steps=20",
    "eval.video_steps=0",
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
FEW = ["loss.num_action_samples=8", "loss.num_value_samples=4"]
# Forty iterations by default, three times in each update.
QUICK_COST = "+trust_region.cost.num_iterations=4"
REGION = [QUICK_COST, "trust_region.num_action_samples=4"]
SMALL = {
    "a2c": ON_POLICY,
    "acer": [*OFF_POLICY, "training.total_frames=768", "training.steps=4"],
    "bnn_regression": REGRESSION,
    "compose": ["training.updates=20", "training.batch_size=32", "training.log_interval=5"],
    "d4pg": OFF_POLICY,
    "ddpg": OFF_POLICY,
    "discrete_soft_q": ["task=discrete/grid_world", *OFF_POLICY],
    "maddpg": OFF_POLICY,
    "ppo": [*ON_POLICY, "training.num_epochs=2", "training.num_minibatches=4"],
    "s2ac": [*OFF_POLICY, "loss.num_action_samples=4", "loss.num_steps=2"],
    "sac": OFF_POLICY,
    "sharded_svpg": [*POPULATION, "population.num_particles=4"],
    "soft_q": [*OFF_POLICY, *FEW],
    "soft_q_pixels": [*OFF_POLICY, *FEW, "env.options.pixels=12", "encoder.num_cells=[4]"],
    "soft_qv": [*OFF_POLICY, *FEW, *REGION, "actor.num_particles=3"],
    "svpg": POPULATION,
    "td3": OFF_POLICY,
    "trpo": [*POPULATION, "loss.temperature=1"],
}
RECIPES = {name: ROOT / "recipes" / f"{name}.py" for name in SMALL}


@cache
def _parent():
    """The process of which others are forks; one for each process that runs tests."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.recipes.preload"])
    ours = dict(os.environ)
    os.environ.update(_ENVIRONMENT)  # before torch is imported there
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(ours)
    return context


def _environment(folder, changes):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return kept | _ENVIRONMENT | {"HOME": str(folder)} | changes


def _become(folder, command, environment, streams, largest_file, kill):
    """Be that program, in a process that is a fork."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate([os.devnull, *streams]):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, number)
        os.close(handle)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if kill is not None:
        kill.install()
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))  # as where Python is given the file
    runpy.run_path(command[0], run_name="__main__")


class Process:
    """A program in its own process, in an empty home directory, without terminal and network.

    Args:
        folder: where it runs, and where what it prints is kept.
        script: a Python file.
        *arguments: of its command line.
        cold: start it from nothing, by this command in front of the script.
        environment: further variables.
        largest_file: bytes after which writing fails.
        kill: the moment at which it kills itself, a :class:`~tests.recipes.kills.Kill`.

    Attributes:
        out: what it has printed, after :meth:`wait`.
        err: likewise, on the other stream.
        code: its exit code, likewise; -n after signal n that it did not handle.
    """

    _count = 0

    def __init__(
        self,
        folder,
        script,
        *arguments,
        cold=None,
        environment=None,
        largest_file=None,
        kill=None,
    ):
        folder.mkdir(parents=True, exist_ok=True)
        Process._count += 1
        self.folder = folder
        self._streams = [folder / f".{kind}-{Process._count}" for kind in ("out", "err")]
        command = [str(part) for part in (script, *arguments)]
        variables = _environment(folder, environment or {})
        if cold is None:
            names = [str(path) for path in self._streams]
            self._process = _parent().Process(
                target=_become, args=(str(folder), command, variables, names, largest_file, kill)
            )
            self._process.start()
        else:
            out, err = (path.open("w") for path in self._streams)
            with out, err:
                self._process = subprocess.Popen(
                    [sys.executable, *cold, *command],
                    cwd=folder,
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                )

    def wait(self):
        if isinstance(self._process, subprocess.Popen):
            self.code = self._process.wait(TIMEOUT)
        else:
            self._process.join(TIMEOUT)
            self.code = self._process.exitcode
            if self.code is None:
                self._process.kill()
                pytest.fail(f"still running after {TIMEOUT} s: {self.printed()}")
        self.out, self.err = self.printed()
        return self

    def succeeded(self):
        """Waits; and that all went well."""
        assert self.wait().code == 0, self.err
        return self

    def printed(self):
        """What is on its two streams so far."""
        return [path.read_text() if path.exists() else "" for path in self._streams]

    def running(self):
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll() is None
        return self._process.is_alive()

    def until(self, condition):
        """Waits for a line of output that begins so, or for a condition; it may hold for a ms."""
        if isinstance(condition, str):
            line = condition

            def condition():
                return any(found.startswith(line) for found in self.printed()[0].splitlines())

        end = time.monotonic() + TIMEOUT
        while not condition():
            assert self.running(), self.printed()
            assert time.monotonic() < end, self.printed()
            time.sleep(0.001)
        return self

    def signal(self, number):
        os.kill(self._process.pid, number)
        return self

    def kill(self):
        """SIGKILL, at once."""
        return self.signal(signal.SIGKILL).wait()


def start(folder, recipe, *overrides, run_dir="run", **options):
    """A recipe with its small settings."""
    given = [] if run_dir is None else [f"run_dir={run_dir}"]
    process = Process(folder, RECIPES[recipe], *SMALL[recipe], *given, *overrides, **options)
    process.directory = None if run_dir is None else folder / run_dir
    return process
