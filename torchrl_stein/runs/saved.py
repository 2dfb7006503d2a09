"""Trained policies from the directories of runs, which are data and never code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchrl.envs.utils import ExplorationType
from torchrl.modules import ProbabilisticActor
from torchrl.objectives import LossModule

from torchrl_stein.modules import EnsemblePolicy

from .checkpoint import find_checkpoint, load_component, read_manifest
from .evaluation import isolated_draws, play_episodes
from .networks import make_gaussian_actor
from .settings import OffPolicySettings
from .tasks import make_configured_task, make_task

__all__ = ["best_particle", "evaluate_particles", "load_actor", "load_loss"]

_RECIPES = ("compose", "ddpg", "sac", "soft_q", "soft_qv", "td3")


def load_loss(path: str | Path, device: str = "cpu") -> tuple[LossModule, OffPolicySettings]:
    """The loss of a run of an off-policy recipe, with its policy and critics, and its settings.

    The recipe is one of a list and is imported from where recipes lie; its settings are checked
    as those of the command line.

    Args:
        path: a checkpoint or a run directory.
        device: where to put it.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if it is damaged, of no off-policy recipe, or has settings that are refused.
    """
    config = read_manifest(path)["config"]
    name = config.get("recipe")
    if name not in _RECIPES:
        raise ValueError(f"{path} must be a run of one of {', '.join(_RECIPES)}, got {name}")
    recipe = import_module(name)  # the script that asks lies beside it
    settings = recipe.Settings.parse(config | {"device": device})
    env = make_configured_task(settings.env, 1, device=device, seed=0)
    try:
        loss = recipe.make_loss(settings, env)
    finally:
        env.close()
    load_component(path, "loss", loss)
    return loss, settings


def load_actor(path: str | Path, device: str = "cpu") -> ProbabilisticActor:
    """The actor of a run of a population, with its particles, or those of all seeds.

    Args:
        path: a checkpoint or a run directory.
        device: where its parameters shall live.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint holds no population, or is damaged.

    Example:
        >>> load_actor("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: no checkpoint at nowhere
    """
    config = read_manifest(path)["config"]
    if "population" not in config:
        raise ValueError(f"{path} is a run of {config.get('recipe')}, which has no population")
    num_policies = config.get("seeds", 1) * config["population"]["num_particles"]
    env = _task(config, (num_policies, 1), seed=0, device=device)
    actor = make_gaussian_actor(env, num_policies, config["population"]["num_cells"])
    env.close()
    load_component(path, "actor", actor)
    return actor


def best_particle(path: str | Path, device: str = "cpu") -> EnsemblePolicy:
    """The particle with the best test return at the last evaluation, as a policy.

    Args:
        path: a checkpoint or a run directory.
        device: where its parameters shall live.

    Returns:
        EnsemblePolicy: acts in environments of any batch size.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint holds no population, or none that was evaluated.
    """
    actor = load_actor(path, device)
    returns = read_manifest(path)["notes"].get("returns")
    if not returns:
        raise ValueError(f"{find_checkpoint(path)} was saved before its particles were evaluated")
    known = [-math.inf if math.isnan(value) else value for value in returns]
    return EnsemblePolicy(actor, "best", best=known.index(max(known)))


@torch.no_grad()
def evaluate_particles(
    path: str | Path,
    episodes: int,
    seed: int = 0,
    device: str = "cpu",
    options: Mapping[str, Any] | None = None,
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,
) -> Tensor:
    """Play episodes with every particle of a checkpoint.

    Args:
        path: a checkpoint or a run directory.
        episodes: E, of each particle.
        seed: of the starts.
        device: where to play.
        options: constants of the environment that differ from training, to see what a policy is
            worth when the world changes: ``{"pole_length": 1.5}``.
        exploration: DETERMINISTIC takes the mean action, RANDOM samples.

    Returns:
        Tensor: returns, ``[n, E]``.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint holds no population.
    """
    actor = load_actor(path, device)
    config = read_manifest(path)["config"]
    changed = config["env_options"] | dict(options or {})
    num_policies = config.get("seeds", 1) * config["population"]["num_particles"]
    env = _task(
        config | {"env_options": changed}, (num_policies, episodes), seed=seed, device=device
    )
    try:
        with isolated_draws(seed):
            return play_episodes(env, actor, config["eval"]["max_steps"], exploration).returns
    finally:
        env.close()


def _task(config: Mapping[str, Any], rows: tuple[int, int], *, seed: int, device: str) -> Any:
    return make_task(config["env"], rows, seed=seed, options=config["env_options"], device=device)
