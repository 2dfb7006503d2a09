"""Networks from the directories of runs, which are data and never code."""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import Tensor
from torchrl.envs.utils import ExplorationType
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import LossModule

from torchrl_stein.modules import EnsemblePolicy

from .checkpoint import (
    CheckpointError,
    compare_states,
    find_checkpoint,
    load_component,
    read_component,
    read_manifest,
)
from .evaluation import isolated_draws, play_episodes
from .networks import make_gaussian_actor
from .settings import Count, PopulationSettings, SettingsError, TaskSettings
from .tasks import make_configured_task, make_task

__all__ = ["best_particle", "evaluate_particles", "load_actor", "load_loss", "load_pretrained"]
__all__ += ["read_population"]

_RECIPES = (
    "a2c",
    "acer",
    "compose",
    "d4pg",
    "ddpg",
    "discrete_soft_q",
    "maddpg",
    "ppo",
    "s2ac",
    "sac",
    "soft_q",
    "soft_q_pixels",
    "soft_qv",
    "td3",
)


class _SavedPopulation(PopulationSettings):
    """What the runs of svpg.py, trpo.py and sharded_svpg.py have in common."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    seeds: Count = 1

    @property
    def leading(self) -> tuple[int, ...]:
        """``(n,)`` or ``(S, n)``: the leading dimensions of particles and data."""
        n = self.population.num_particles
        return (n,) if self.seeds == 1 else (self.seeds, n)


def load_loss(path: str | Path, device: str = "cpu") -> tuple[LossModule, TaskSettings]:
    """The loss of a run of one policy, or one per seed, with its critics; and its settings.

    The recipe is one of a list, and its file lies beside the script that was started, or in this
    repository; settings are checked as those of the command line. Raises FileNotFoundError without
    a checkpoint, ValueError if it is damaged, of another recipe, or has settings that are refused.
    """
    config = read_manifest(path)["config"]
    name = config.get("recipe")
    if name not in _RECIPES:
        raise ValueError(f"{path} must be a run of one of {', '.join(_RECIPES)}, got {name}")
    recipe = _import_recipe(name)
    settings = _parse(recipe.Settings, path, config, device)
    env = make_configured_task(settings.env, (*settings.leading, 1), device=device, seed=0)
    try:
        loss = recipe.make_loss(settings, env)
    finally:
        env.close()
    load_component(path, "loss", loss)
    return loss, settings


def load_pretrained(path: str | Path, loss: LossModule) -> None:
    """Start from the networks of another run; all the rest stays as it is.

    Weights of policy, critics, encoder and targets are copied; temperature, discount, a noise set
    and the bounds of actions remain those of ``loss``. Raises FileNotFoundError without a
    checkpoint, CheckpointError if it is damaged, or the networks differ, naming the first
    difference.
    """
    found = find_checkpoint(path)
    own, state = loss.state_dict(), read_component(found, "loss")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"init_from: {found} holds no networks")
    saved = _weights(state, loss)
    compare_states(saved, _weights(own, loss), f"init_from: {found}")
    loss.load_state_dict(own | saved)
    print(f"Starting with the networks of {found}")  # noqa: T201


def load_actor(path: str | Path, device: str = "cpu") -> ProbabilisticActor:
    """The actor of a run of a population, with its particles, or those of all seeds.

    Raises FileNotFoundError without a checkpoint, ValueError if it holds no population or is
    damaged.
    """
    saved = read_population(path, device)
    env = make_task(
        saved.env, (*saved.leading, 1), device=device, seed=0, options=saved.env_options
    )
    actor = make_gaussian_actor(env, saved.leading, saved.population.num_cells)
    env.close()
    load_component(path, "actor", actor)
    return actor


def best_particle(path: str | Path, device: str = "cpu") -> EnsemblePolicy:
    """The particle with the best test return at the last evaluation; ValueError without one."""
    actor = load_actor(path, device)
    returns = read_manifest(path)["notes"].get("returns")
    if not returns:
        raise ValueError(f"{find_checkpoint(path)} was saved before its particles were evaluated")
    known = [-math.inf if math.isnan(value) else value for value in returns]
    best, n = known.index(max(known)), actor[0].module.num_particles
    return EnsemblePolicy(actor, "best", best=divmod(best, n)[-len(actor[0].module.leading) :])


@torch.no_grad()
def evaluate_particles(
    path: str | Path,
    episodes: int,
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,
) -> Tensor:
    """Returns of E episodes with every particle of a run, ``[n, E]``, or ``[S, n, E]``.

    ``options`` are constants of the environment that differ from training, to see what a policy is
    worth when the world changes: ``{"pole_length": 1.5}``.
    """
    actor, saved = load_actor(path, device), read_population(path, device)
    rows, changed = (*saved.leading, episodes), saved.env_options | dict(options or {})
    with isolated_draws(seed):
        env = make_task(saved.env, rows, seed=seed, options=changed, device=device)
        try:
            return play_episodes(env, actor, saved.eval.max_steps, exploration).returns
        finally:
            env.close()


def read_population(path: str | Path, device: str = "cpu") -> _SavedPopulation:
    """The settings of a run of a population, checked as those of the command line."""
    config = read_manifest(path)["config"]
    if "population" not in config:
        raise ValueError(f"{path} is a run of {config.get('recipe')}, which has no population")
    return _parse(_SavedPopulation, path, config, device)


def _parse(kind: Any, path: str | Path, config: Mapping[str, Any], device: str) -> Any:
    try:
        return kind.parse({**config, "device": device})
    except SettingsError as error:
        raise SettingsError(f"{find_checkpoint(path)}: {error}") from error


def _import_recipe(name: str) -> ModuleType:
    # Not by the search path of Python, which may begin with the folder of a stranger's run.
    if name in sys.modules:
        return sys.modules[name]
    started: str | None = getattr(sys.modules["__main__"], "__file__", None)
    places = [Path(__file__).parents[2] / "recipes"]
    if started is not None:
        places.insert(0, Path(started).resolve().parent)
    for file in (place / f"{name}.py" for place in places):
        spec = importlib.util.spec_from_file_location(name, file)
        if file.is_file() and spec is not None and spec.loader is not None:
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError(f"there is no {name}.py beside the script that was started")


def _weights(state: Mapping[str, Any], loss: LossModule) -> dict[str, Tensor]:
    """What networks and an encoder learn: entries of a parameter container that are no buffers."""
    buffers = {name for name, _ in loss.actor_network.named_buffers()} | {"noise_set", "num_noise"}
    found = {}
    for name, value in state.items():
        network, _, entry = name.partition("_params.")
        learnt = network.endswith(("_network", "encoder")) and entry not in buffers
        if learnt and isinstance(value, Tensor):
            found[name] = value
    return found
