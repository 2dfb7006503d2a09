"""A point mass in a maze with several equally good goals, on MuJoCo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.utils import EzPickle

from torchrl_stein.envs.goal_maze import (
    FRAME_SKIP,
    SIMPLE_MAZE,
    SPEED_LIMIT,
    GoalMaze,
    GoalMazeWorld,
)

from .arena import Arena, Wall
from .arena_env import ArenaEnv, Array


class PointGoalMazeEnv(ArenaEnv, EzPickle):
    """``GoalMazeWorld`` with MuJoCo's contacts: several goals in a maze, any of which will do.

    The mazes of Wang et al. 2025 (arXiv:2511.01374). A step that ends within 0.5 m (maximum norm)
    of a goal pays 100 and ends the episode, all others pay 0; with ``obstacles`` a step that ends
    with the ball touching an obstacle ends the episode without reward. Observation [4] float64:
    (x, y, v_x, v_y) in m and m/s, each velocity at most 5. Actions [2] float32 in [-1, 1]: forces
    of 100 N at 1 on a ball of 4.19 kg. One step is 0.02 s; the start is the origin at rest. Made by
    ``gymnasium.make("torchrl_stein/GoalMazeSimple-v0")``, or Medium or Hard, it is truncated after
    150, 300 or 600 steps. What is ours: see ``GoalMazeWorld``.

    ``info`` has "goal", the index of the goal reached or -1, "centre_of_mass" [2], and the reward
    as "reward_task".

    Args:
        maze: the map.
        obstacles: whether the cells ``2`` of the map are obstacles.
        **mujoco: arguments of gymnasium's ``MujocoEnv``, such as ``render_mode``.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range.

    Example:
        >>> env = gymnasium.make("torchrl_stein/GoalMazeHard-v0", obstacles=True)
        >>> observation, info = env.reset(seed=0)
        >>> observation.tolist(), int(info["goal"])
        ([0.0, 0.0, 0.0, 0.0], -1)
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - gymnasium's own attribute
        "render_modes": ["human", "rgb_array", "depth_array", "rgbd_tuple"],
        "render_fps": 50,
    }

    def __init__(
        self, maze: GoalMaze = SIMPLE_MAZE, *, obstacles: bool = False, **mujoco: Any
    ) -> None:
        self.world = GoalMazeWorld(maze, obstacles)
        self.arena = Arena(
            walls=tuple(Wall(*edges) for edges in maze.walls),
            goals=tuple(_cell(*middle) for middle in maze.goals),
            obstacles=tuple(_cell(*middle) for middle in maze.obstacles) if obstacles else (),
        )
        x_min, x_max, y_min, y_max = maze.extent
        high = np.array([x_max, y_max, SPEED_LIMIT, SPEED_LIMIT])
        low = np.array([x_min, y_min, -SPEED_LIMIT, -SPEED_LIMIT])
        settings: dict[str, Any] = {
            "model_path": str(Path(__file__).with_name("point_mass.xml")),
            "frame_skip": FRAME_SKIP,
            "observation_space": gymnasium.spaces.Box(low, high, dtype=np.float64),
            # From above, all of it.
            "default_camera_config": {"distance": 1.3 * (y_max - y_min), "elevation": -90.0},
        }
        super().__init__(**(settings | mujoco))

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[Array, np.float64, bool, bool, dict[str, Any]]:
        """Push the ball by an action [2], clipped to [-1, 1]."""
        self.do_simulation(np.clip(action, -1.0, 1.0), self.frame_skip)
        velocity = self.data.qvel
        velocity *= SPEED_LIMIT / max(SPEED_LIMIT, np.abs(velocity).max())
        reward, terminated = self.world.judge(torch.from_numpy(self.data.qpos))
        pay = np.float64(reward.item())
        info = self._task_info() | {"reward_task": pay}
        if self.render_mode == "human":
            self.render()
        return self.state_vector(), pay, bool(terminated), False, info

    def reset_model(self) -> Array:
        """Put the ball at the start."""
        self.velocity = np.zeros(2)
        self.set_state(self.init_qpos, self.init_qvel)
        return self.state_vector()

    def _task_info(self) -> dict[str, Any]:
        goal = self.world.goal_reached(torch.from_numpy(self.data.qpos)).numpy()
        return super()._task_info() | {"goal": np.int64(goal)}


def _cell(x: float, y: float) -> Wall:
    return Wall(x - 0.5, x + 0.5, y - 0.5, y + 0.5)
