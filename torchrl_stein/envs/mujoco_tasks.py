"""Ids of the MuJoCo tasks for gymnasium. Does not import MuJoCo: ``gymnasium.make`` does."""

from __future__ import annotations

from typing import Any

import gymnasium

__all__ = ["MUJOCO_TASKS", "register_mujoco_tasks"]

HORIZON = 500  # Haarnoja et al. 2017 (arXiv:1702.08165), appendix D.2

_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "torchrl_stein/AntHallwayNarrow-v0": ("AntHallwayEnv", {"hallway_width": 3.0}),
    "torchrl_stein/AntHallwayWide-v0": ("AntHallwayEnv", {"hallway_width": 6.0}),
    "torchrl_stein/AntMaze-v0": ("AntMazeEnv", {}),
    "torchrl_stein/AntPretrain-v0": ("AntPretrainEnv", {}),
    "torchrl_stein/AntUMaze-v0": ("AntUMazeEnv", {}),
    "torchrl_stein/SwimmerFinishLine-v0": ("SwimmerFinishLineEnv", {}),
}

MUJOCO_TASKS = tuple(_CLASSES)
"""Ids of the MuJoCo tasks."""


def register_mujoco_tasks() -> None:
    """Registers the ids of ``MUJOCO_TASKS`` with gymnasium, once however often it is called.

    Example:
        >>> register_mujoco_tasks()
        >>> gymnasium.spec("torchrl_stein/AntMaze-v0").max_episode_steps
        500
    """
    for env_id, (class_name, kwargs) in _CLASSES.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point=f"torchrl_stein.envs.mujoco:{class_name}",
                max_episode_steps=HORIZON,
                kwargs=kwargs,
            )
