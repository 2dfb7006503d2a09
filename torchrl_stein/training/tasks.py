"""Tasks by name: a vector of environments, or one whose row i belongs to particle i."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import RescaleAction, TransformAction
from torchrl.envs import (
    Compose,
    DoubleToFloat,
    EnvBase,
    GymWrapper,
    RewardSum,
    StepCounter,
    TransformedEnv,
)

from torchrl_stein.envs import (
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    MountainCarEnv,
    MultiGoalEnv,
    ParticleEnv,
)

__all__ = ["make_task"]

_WORLDS = {
    "cartpole": CartpoleEnv,
    "cartpole_swingup": CartpoleSwingUpEnv,
    "double_pendulum": DoublePendulumEnv,
    "mountain_car": MountainCarEnv,
    "multigoal": MultiGoalEnv,
}


def make_task(
    name: str,
    batch_size: tuple[int, ...],
    *,
    device: str = "cpu",
    seed: int,
    options: Mapping[str, Any] | None = None,
) -> EnvBase:
    """A batch of environments; of shape [n, E], row i belongs to particle i.

    All have "observation", actions in [-1, 1] (more is clipped) and "elapsed_steps". Simulators
    of gymnasium run one after the other in this process.

    Args:
        name: "cartpole", "cartpole_swingup", "double_pendulum", "mountain_car", "multigoal", or
            the id of a gymnasium environment with continuous actions.
        batch_size: [n, E], particles and environments of each, or [B].
        device: where tensors live.
        seed: of the starts.
        options: further arguments of the environment.

    Raises:
        ValueError: if there is no such task, its actions are not continuous or its observations no
            vectors.

    Example:
        >>> make_task("cartpole", (4, 2), seed=0).batch_size
        torch.Size([4, 2])
    """
    options = options or {}
    if name in _WORLDS:
        return _WORLDS[name](batch_size, device, seed=seed, **options)
    try:
        simulators = gym.make_vec(
            name,
            math.prod(batch_size),
            vectorization_mode="sync",
            wrappers=[_check_and_normalize],
            # TorchRL resets rows that end by itself.
            vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
            **options,
        )
    except (gym.error.Error, ImportError) as error:
        raise ValueError(
            f"env must be one of {sorted(_WORLDS)} or the id of a gymnasium environment, got "
            f"{name!r} ({error})"
        ) from error
    env = GymWrapper(simulators, device=device)
    if len(batch_size) > 1:
        env = ParticleEnv(env, batch_size[0])
    transforms = Compose(StepCounter(step_count_key="elapsed_steps"), RewardSum())
    if env.observation_spec["observation"].dtype == torch.float64:
        transforms.insert(0, DoubleToFloat(in_keys=["observation"]))
    env = TransformedEnv(env, transforms)
    env.set_seed(seed)
    return env


def _check_and_normalize(env: gym.Env) -> gym.Wrapper:
    if not isinstance(env.action_space, gym.spaces.Box):
        raise ValueError(f"env must have continuous actions, got {env.action_space}")
    observations = env.observation_space
    if not isinstance(observations, gym.spaces.Box) or len(observations.shape) != 1:
        raise ValueError(f"env must have a vector as observation, got {observations}")
    normalized = RescaleAction(env, np.float32(-1.0), np.float32(1.0))
    # Not gymnasium's ClipAction: it declares actions unbounded, and squashed policies need a box.
    return TransformAction(normalized, _clip, normalized.action_space)


def _clip(action: np.ndarray) -> np.ndarray:
    return np.clip(action, -1.0, 1.0)
