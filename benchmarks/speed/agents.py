"""What recipes learn with, without their loops: losses, optimizers and the updates of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from tensordict import TensorDict, TensorDictBase
from torchrl.data import Bounded, Unbounded
from torchrl.modules import ValueOperator

from benchmarks.recipes import load_recipe, settings_of
from torchrl_stein.runs import estimate_advantages
from torchrl_stein.runs.process import spawn_seeds

__all__ = ["HALF_CHEETAH", "MULTI_GOAL", "WAYS", "Agent", "Population", "Sizes", "make_agent"]
__all__ += ["make_population", "random_transitions"]


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

# How an update may run on a GPU: settings of a recipe.
WAYS = {
    "eager": [],
    "compiled": ["compile.compile=true"],
    "CUDA graphs": ["compile.cudagraphs=true"],
    "compiled, CUDA graphs": ["compile.compile=true", "compile.cudagraphs=true"],
}
# What all algorithms here have in common.
_COMMON = ("network.num_cells=[128,128]", "training.batch_size=256")


@dataclass
class Agent:
    """Of an off-policy recipe: what it tracks, and what it does with a batch of its buffer."""

    parts: Mapping[str, Any]
    updates: Sequence[Callable[[TensorDictBase], TensorDictBase]]
    numbers: count = field(default_factory=count)

    @property
    def loss(self) -> Any:
        """Over the policy, ``loss.actor_network``, and critics."""
        return self.parts["loss"]

    def update(self, batch: TensorDictBase) -> TensorDictBase:
        """One gradient step; the two kinds of TD3 take turns, and targets follow the second."""
        kind = next(self.numbers) % len(self.updates)
        losses = self.updates[kind](batch)
        self.parts["schedule"].step()
        if kind == len(self.updates) - 1:
            self.parts["target"].step()
        return losses


@dataclass
class Population:
    """Of recipes/svpg.py with one pass over the data: what it tracks, and an iteration."""

    parts: Mapping[str, Any]
    settings: Any
    critic: ValueOperator
    first: Callable[[TensorDictBase], TensorDictBase]

    def collect(self) -> TensorDictBase:
        """The data of an iteration."""
        return self.parts["collector"].collect()

    def update(self, data: TensorDictBase) -> TensorDictBase:
        """Learn from them."""
        cfg = self.settings
        data.update(estimate_advantages(data, self.critic, cfg.loss.gamma, cfg.loss.lmbda))
        losses = self.first(data)
        if cfg.base.name != "reinforce":
            fit = self.critic.module.fit
            fit(data["observation"], data["elapsed_steps"], data["value_target"])
        self.parts["loss"].step()
        return losses


class _Made(Exception):  # noqa: N818 - nothing is wrong
    """A recipe has made all that it learns with."""


class _Session:
    """In place of the recipe's; the loop is not reached."""

    def __init__(self, settings: Any) -> None:
        self.seeds = spawn_seeds(settings.seed, 3)

    def track(self, **parts: Any) -> None:
        raise _Made(parts)


def _parts_of(recipe: str, settings: Any, **replaced: Any) -> tuple[dict[str, Any], list[Any]]:
    """What a recipe tracks, and its updates; ``replaced`` are names in its module."""
    module, updates = load_recipe(recipe), []

    def remember(*args: Any, **options: Any) -> Any:
        updates.append(compiled(*args, **options))
        return updates[-1]

    compiled = module.compiled
    with ExitStack() as stack:
        session = nullcontext(_Session(settings))
        replaced |= {"compiled": remember, "Session": lambda *_: session}
        for name, value in replaced.items():
            stack.enter_context(patch.object(module, name, value))
        try:
            module.main(settings)
        except _Made as made:
            return made.args[0], updates
    raise AssertionError(f"{recipe}.py tracks nothing")


def make_agent(
    recipe: str, sizes: Sizes, device: torch.device, overrides: Sequence[str] = ()
) -> Agent:
    """An agent with networks of 2 x 128 units, made by the recipe for the task of those sizes.

    Args:
        recipe: file of the recipe, without its ending.
        sizes: of the task.
        device: where it learns.
        overrides: of its settings, which are those for the multi-goal world.
    """
    action = Bounded(-1.0, 1.0, shape=(1, sizes.action), device=device)
    env = SimpleNamespace(  # no simulator: nothing is collected
        observation_spec={"observation": Unbounded((1, sizes.observation), device=device)},
        action_spec=action,
        action_spec_unbatched=action[0],
        batch_size=torch.Size([1]),
        numel=lambda: 1,
        device=device,
    )
    settings = settings_of(recipe, *_COMMON, f"device={device.type}", *overrides)
    replaced = {"make_configured_task": lambda *_, **__: env, "Collector": lambda *_, **__: None}
    return Agent(*_parts_of(recipe, settings, **replaced))


def make_population(
    device: torch.device, overrides: Sequence[str], config: str = "svpg"
) -> Population:
    """The population of recipes/svpg.py, and the collector of its data."""
    settings = settings_of("svpg", f"device={device.type}", *overrides, config=config)
    critics, make = [], load_recipe("svpg").make_linear_critic

    def remember(*args: Any) -> ValueOperator:
        critics.append(make(*args))
        return critics[-1]

    parts, (first, _) = _parts_of("svpg", settings, make_linear_critic=remember)
    return Population(parts, settings, critics[0], first)


def random_transitions(count: int, sizes: Sizes, device: torch.device, *seeds: int) -> TensorDict:
    """Transitions ``[*seeds, count]`` as collectors write them; one in twenty ends its episode."""
    shape = (*seeds, count)
    ends = torch.rand(*shape, 1, device=device) < 0.05
    return TensorDict(
        {
            "observation": torch.randn(*shape, sizes.observation, device=device),
            "action": torch.rand(*shape, sizes.action, device=device) * 2 - 1,
            "next": {
                "observation": torch.randn(*shape, sizes.observation, device=device),
                "reward": torch.randn(*shape, 1, device=device),
                "done": ends,
                "terminated": ends.clone(),
            },
        },
        shape,
        device=device,
    )
