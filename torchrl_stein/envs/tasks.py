"""Ids of the tasks for gymnasium. MuJoCo is imported by ``gymnasium.make``, not here."""

from __future__ import annotations

from typing import Any

import gymnasium

from .goal_maze import HARD_MAZE, MEDIUM_MAZE, SIMPLE_MAZE

_MAZES = {"Simple": SIMPLE_MAZE, "Medium": MEDIUM_MAZE, "Hard": HARD_MAZE}

# The class, its arguments and the steps of an episode. The robots run as long as in Haarnoja et
# al. 2017 (arXiv:1702.08165), appendix D.2.
_TASKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "torchrl_stein/AntHallwayNarrow-v0": ("mujoco:AntHallwayEnv", {"hallway_width": 3.0}, 500),
    "torchrl_stein/AntHallwayWide-v0": ("mujoco:AntHallwayEnv", {"hallway_width": 6.0}, 500),
    "torchrl_stein/AntMaze-v0": ("mujoco:AntMazeEnv", {}, 500),
    "torchrl_stein/AntPretrain-v0": ("mujoco:AntPretrainEnv", {}, 500),
    "torchrl_stein/AntUMaze-v0": ("mujoco:AntUMazeEnv", {}, 500),
    "torchrl_stein/MultiGoal-v0": ("multigoal:MultiGoalGymEnv", {}, 20),
    "torchrl_stein/SwimmerFinishLine-v0": ("mujoco:SwimmerFinishLineEnv", {}, 500),
} | {
    f"torchrl_stein/GoalMaze{name}-v0": ("mujoco:PointGoalMazeEnv", {"maze": maze}, maze.horizon)
    for name, maze in _MAZES.items()
}

MUJOCO_TASKS = tuple(env_id for env_id, task in _TASKS.items() if task[0].startswith("mujoco"))
"""Ids of the MuJoCo tasks."""


def register_tasks() -> None:
    """Register the tasks with gymnasium, once however often this is called.

    Example:
        >>> register_tasks()
        >>> gymnasium.spec("torchrl_stein/AntMaze-v0").max_episode_steps
        500
    """
    for env_id, (entry_point, kwargs, horizon) in _TASKS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point=f"torchrl_stein.envs.{entry_point}",
                max_episode_steps=horizon,
                kwargs=kwargs,
            )
