"""What the tests of runs share: recipes' settings, and small runs without a recipe."""

import copy
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import OmegaConf
from torch.utils._pytree import tree_map

from torchrl_stein.runs import saved, targets
from torchrl_stein.runs.command_line import compose_settings
from torchrl_stein.runs.settings import RecipeSettings, Section, Steps

ROOT = Path(__file__).parents[2]
CONF = ROOT / "recipes" / "conf"
RECIPES = ["a2c", "acer", "bnn_regression", "compose", "d4pg", "ddpg", "discrete_soft_q"]
RECIPES += ["maddpg", "ppo", "s2ac", "sac", "sharded_svpg"]
RECIPES += ["soft_q", "soft_q_pixels", "soft_qv", "svpg", "td3", "trpo"]


@pytest.fixture(autouse=True)
def _nothing_is_trusted():
    yield
    targets.trust_all_targets(False)


@cache
def _settings_class(name):
    return saved._import_recipe(name).Settings


@cache
def _composed(name, *overrides):
    """What a command line becomes, ready for a recipe's settings."""
    return compose_settings(CONF, name, overrides)


def composed(name, *overrides):
    """The same. Values for settings that there are do not need Hydra, which takes longest."""
    values, others = {}, []
    for override in overrides:
        try:
            (parsed,) = OverridesParser.create().parse_overrides([override])
        except OverrideParseException:
            return _composed(name, *overrides)
        key, base = parsed.key_or_group, _composed(name)
        there = OmegaConf.select(base, key, throw_on_missing=False) is not None
        if there and re.fullmatch(r"\w+[\w.]*=[^$,({?]+", override) and not _is_section(base, key):
            values[key] = parsed.value()
        else:
            others.append(override)
    if values.keys() & {override.partition("=")[0].lstrip("+~") for override in others}:
        return _composed(name, *overrides)
    cfg = copy.deepcopy(_composed(name, *others))
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, merge=True)
    return cfg


def _is_section(cfg, key):
    return OmegaConf.is_dict(OmegaConf.select(cfg, key))


@pytest.fixture
def recipe():
    """``recipe(name).Settings``, and ``recipe(name).compose(*overrides)`` to plain values."""

    def get(name):
        def read(*overrides):
            return _settings_class(name).of_composed(composed(name, *overrides), overrides)

        return SimpleNamespace(Settings=_settings_class(name), read=read)

    return get


class Intervals(Section):
    log_interval: Steps = 1
    eval_interval: Steps = 5
    checkpoint_interval: Steps = 5


class SmallSettings(RecipeSettings):
    recipe: Literal["small"] = "small"
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    logger: Literal["csv", "tensorboard", "wandb", "none"] = "csv"
    resume: str | None = None
    run_dir: str | None = None
    training: Intervals = Intervals()


@pytest.fixture
def small(tmp_path):
    """Settings of a recipe with nothing to learn."""

    def make(run_dir="run", **changes):
        intervals = {k: changes.pop(k) for k in list(changes) if k.endswith("_interval")}
        place = None if run_dir is None else str(tmp_path / run_dir)
        return SmallSettings(run_dir=place, training=Intervals(**intervals), **changes)

    return make


@pytest.fixture
def same():
    """Asserts that nested states are equal to the bit."""

    def compare(a, b, where="state"):
        if isinstance(a, dict):
            assert a.keys() == b.keys(), where
            for key in a:
                compare(a[key], b[key], f"{where}.{key}")
        elif isinstance(a, list | tuple):
            assert len(a) == len(b), where
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                compare(x, y, f"{where}[{i}]")
        elif isinstance(a, torch.Tensor):
            assert a.shape == b.shape, where
            assert a.equal(b), where
        else:
            assert a == b, where

    return compare


@pytest.fixture
def copied():
    """A copy of nested states that later updates leave alone."""
    return lambda state: tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, state)
