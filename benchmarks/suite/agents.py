"""Agents of the off-policy recipes at given sizes, without a simulator, and batches for them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import cast

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tensordict import TensorDict
from torchrl.data import Bounded, Unbounded
from torchrl.envs import EnvBase

from benchmarks.recipe_runs import ROOT
from torchrl_stein.training import OffPolicyAgent

__all__ = ["HALF_CHEETAH", "MULTI_GOAL", "Sizes", "compose_config", "load_recipe", "make_agent"]
__all__ += ["random_transitions"]


@dataclass(frozen=True)
class Sizes:
    """What of a task decides the time of an update.

    Attributes:
        name: of the task.
        observation: dimension.
        action: dimension; the box is [-1, 1].
    """

    name: str
    observation: int
    action: int


HALF_CHEETAH = Sizes("HalfCheetah sizes", 17, 6)
MULTI_GOAL = Sizes("multi-goal sizes", 2, 2)

# What all algorithms here have in common.
_COMMON = ("network.num_cells=[128,128]", "training.batch_size=256", "run_dir=none")


def compose_config(recipe: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A recipe's settings."""
    with initialize_config_dir(
        str(ROOT / "benchmarks" / "first_recipes" / "conf"), version_base="1.3"
    ):
        return compose(recipe, ["run_dir=none", *overrides])


def load_recipe(recipe: str) -> ModuleType:
    """The recipe itself."""
    folder = str(ROOT / "benchmarks" / "first_recipes")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    loaded = sys.modules.get(recipe)
    if loaded is not None and not str(loaded.__file__).startswith(folder):
        del sys.modules[recipe]  # it is the new recipe of that name
    return importlib.import_module(recipe)


def make_agent(
    recipe: str, sizes: Sizes, device: torch.device, overrides: Sequence[str] = ()
) -> OffPolicyAgent:
    """An agent with networks of 2 x 128 units, made by the recipe for the task of those sizes.

    Args:
        recipe: file of the recipe, without its ending.
        sizes: of the task.
        device: where it learns.
        overrides: of its settings, which are those for the multi-goal world.
    """
    config = compose_config(recipe, [*_COMMON, f"device={device.type}", *overrides])
    action = Bounded(-1.0, 1.0, shape=(1, sizes.action), device=device)
    env = SimpleNamespace(
        observation_spec={"observation": Unbounded((1, sizes.observation), device=device)},
        action_spec=action,
        action_spec_unbatched=action[0],
        batch_size=torch.Size([1]),
        device=device,
    )
    return load_recipe(recipe).make_agent(config, cast("EnvBase", env))


def random_transitions(count: int, sizes: Sizes, device: torch.device) -> TensorDict:
    """Transitions ``[count]`` as a collector writes them; one in twenty ends its episode."""
    ends = torch.rand(count, 1, device=device) < 0.05
    return TensorDict(
        {
            "observation": torch.randn(count, sizes.observation, device=device),
            "action": torch.rand(count, sizes.action, device=device) * 2 - 1,
            "next": {
                "observation": torch.randn(count, sizes.observation, device=device),
                "reward": torch.randn(count, 1, device=device),
                "done": ends,
                "terminated": ends.clone(),
            },
        },
        [count],
        device=device,
    )
