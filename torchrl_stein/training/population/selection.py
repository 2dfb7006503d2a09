"""What to do with a trained population: look at every particle, act with the best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchrl.checkpoint import Checkpoint
from torchrl.envs.utils import ExplorationType
from torchrl.modules import ProbabilisticActor

from torchrl_stein.modules import EnsemblePolicy
from torchrl_stein.modules.population import find_population

from ..bookkeeping.checkpoint import find_checkpoint, read_metadata
from ..evaluation import play_episodes
from ..tasks import make_task
from .agent import make_gaussian_actor
from .seed_runs import population_sizes

__all__ = ["best_particle", "evaluate_particles", "load_actor"]


def load_actor(path: str | Path, device: str = "cpu") -> ProbabilisticActor:
    """The actor of a run of ``recipes/svpg.py``, with its population, or those of all seeds.

    Args:
        path: a checkpoint or a run directory.
        device: where its parameters shall live.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint holds no population.

    Example:
        >>> load_actor("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: no checkpoint at nowhere
    """
    path = find_checkpoint(path)
    config = read_metadata(path)["config"]
    if "population" not in config:
        raise ValueError(f"{path} is a checkpoint of {config['recipe']}, which has no population")
    num_particles = math.prod(population_sizes(config))
    env = make_task(
        config["env"], (num_particles, 1), seed=0, options=config["env_options"], device=device
    )
    actor = make_gaussian_actor(env, num_particles, config["population"]["num_cells"])
    env.close()
    # Saved on a GPU, it may be read on a machine without one.
    Checkpoint(actor=actor).load(path, components=["actor"], map_location="cpu")
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

    Example:
        >>> best_particle("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: no checkpoint at nowhere
    """
    actor = load_actor(path, device)
    returns = read_metadata(path)["returns"]
    if not returns:
        raise ValueError(f"{path} was saved before its particles were evaluated")
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
    config = read_metadata(path)["config"]
    num_particles = find_population("evaluate_particles", "actor", actor)[1].num_particles
    env = make_task(
        config["env"],
        (num_particles, episodes),
        seed=seed,
        options=config["env_options"] | dict(options or {}),
        device=device,
    )
    max_steps = config["eval"]["max_steps"]
    try:
        return play_episodes(env, actor, max_steps, exploration).returns
    finally:
        env.close()
