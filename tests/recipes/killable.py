"""Recipes as processes that start within a second, to be killed many times."""

import multiprocessing
import os
import resource
import runpy
import sys
import time
from pathlib import Path

from tests.recipes.processes import RECIPES, SMALL, TIMEOUT

_CONTEXT = multiprocessing.get_context("forkserver")
# Imported once, by a process of which all others are forks.
_CONTEXT.set_forkserver_preload(["hydra", "tqdm", "torchrl_stein.training"])


def _run(folder, recipe, overrides, largest_file):
    os.chdir(folder)
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        del os.environ[name]
    with Path("log.txt").open("a") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.argv = [str(RECIPES[recipe]), *overrides]
    sys.path.insert(0, str(RECIPES[recipe].parent))  # as where Python is given the file
    runpy.run_path(sys.argv[0], run_name="__main__")


class Killable:
    """A recipe with its small settings.

    Attributes:
        directory: of the run.
    """

    def __init__(self, folder, recipe, *overrides, run_dir, largest_file=None):
        folder.mkdir(exist_ok=True)
        self.folder, self.directory = folder, folder / run_dir
        given = [*SMALL[recipe], *overrides, f"run_dir={run_dir}"]
        self._process = _CONTEXT.Process(target=_run, args=(folder, recipe, given, largest_file))
        self._process.start()

    def wait(self):
        """Its exit code."""
        self._process.join(TIMEOUT)
        return self._process.exitcode

    def until(self, condition):
        """Looks every millisecond: what it waits for may be over in a few."""
        while not condition():
            assert self._process.is_alive(), self.log()
            time.sleep(0.001)
        return self

    def kill(self):
        """SIGKILL, at once."""
        self._process.kill()
        self._process.join()
        return self

    def log(self):
        """All that processes of this folder have printed."""
        return (self.folder / "log.txt").read_text()

    def names(self):
        """Of everything beside the checkpoints, hidden or not."""
        try:
            return [path.name for path in (self.directory / "checkpoints").iterdir()]
        except FileNotFoundError:
            return []

    def frames(self):
        """Of the newest complete checkpoint; -1 if there is none."""
        return max((int(n.split("-")[1]) for n in self.names() if n[0] != "."), default=-1)
