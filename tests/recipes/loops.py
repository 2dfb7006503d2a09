"""The loops of the recipes in this process: a few updates, each of which a test can look at."""

import importlib.util
from contextlib import ExitStack, nullcontext
from functools import cache
from unittest.mock import patch

import hydra
from omegaconf import OmegaConf

from tests.recipes.processes import ROOT
from torchrl_stein.runs.process import spawn_seeds


@cache
def load(name):
    """The module of a recipe, which no other test file sees."""
    path = ROOT / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def values_of(config, *overrides):
    """What Hydra composes, as plain values."""
    with hydra.initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose(config, list(overrides)), resolve=True)


def settings_of(name, *overrides, config=None):
    """Typed settings of a recipe, without a word about them on a command line."""
    return load(name).Settings.parse(values_of(config or name, *overrides))


class Enough(Exception):  # noqa: N818 - nothing is wrong
    """So many updates were asked for."""


class Loop:
    """Stands in for a Session: a loop runs for some updates, and nothing is written.

    Attributes:
        components: what the recipe tracks.
        losses: of each update.
        more: what else it gave to ``log_update``.
        collected: the data of each iteration, as they were before the recipe saw them.
        env: to train in.
    """

    rank, processes, directory, log_due, evaluation_due = 0, 1, None, False, False

    def __init__(self, settings, updates, tracked=None, updated=None, batches=None):
        self.settings, self.wanted = settings, updates
        self.tracked, self.updated, self.given = tracked, updated, batches
        self.seeds = spawn_seeds(settings.seed, 3)
        self.steps = self.updates = 0
        self.notes, self.losses, self.more, self.collected = {}, [], [], []

    def track(self, **components):
        self.components = components
        if self.tracked is not None:
            self.tracked(self)

    def batches(self, collector, *, total, size=None):
        for data in collector if self.given is None else self.given:
            self.steps += data.numel() if size is None else size
            self.collected.append(data.clone() if size is None else data)
            yield data
        raise Enough

    def log_update(self, losses, batch=None, **more):
        self.updates += 1
        self.losses.append(losses.clone())
        self.more.append(more)
        if self.updated is not None:
            self.updated(self)
        if self.updates >= self.wanted:
            raise Enough

    def print(self, line):
        pass

    def refuse(self, line):
        raise SystemExit(line)


def run(name, settings, updates=1, *, patches=None, **watched):
    """So many updates of a recipe.

    Args:
        name: of the recipe.
        settings: see :func:`settings_of`.
        updates: after which it stops.
        patches: for names in the recipe's module, what they shall be.
        **watched: functions of the loop, ``tracked`` and ``updated``, and ``batches`` to learn from
            in place of those of the collector.
    """
    module, loop = load(name), Loop(settings, updates, **watched)
    with ExitStack() as stack:
        stack.enter_context(patch.object(module, "Session", lambda *_, **__: nullcontext(loop)))
        if hasattr(module, "SeedFolders"):
            stack.enter_context(patch.object(module, "SeedFolders"))
        for member, replacement in (patches or {}).items():
            stack.enter_context(patch.object(module, member, replacement))
        try:
            module.main(settings)
        except Enough:
            return loop
    raise AssertionError("the loop ended before so many updates")
