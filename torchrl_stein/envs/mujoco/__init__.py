"""Robot tasks and mazes on gymnasium's MuJoCo.

The tasks are those of Haarnoja et al. 2017 (arXiv:1702.08165), the mazes with several goals those
of Wang et al. 2025 (arXiv:2511.01374). They need MuJoCo, which ``gymnasium[mujoco]`` brings.
Equations, geometry and what the papers leave open: docs/reference/mujoco_tasks.md.
"""

from .ant import AntHallwayEnv, AntMazeEnv, AntPretrainEnv, AntTargetEnv, AntUMazeEnv
from .arena import Arena, Wall
from .point_goal_maze import PointGoalMazeEnv
from .swimmer import SwimmerFinishLineEnv
from .top_view import draw_top_view

__all__ = [
    "AntHallwayEnv",
    "AntMazeEnv",
    "AntPretrainEnv",
    "AntTargetEnv",
    "AntUMazeEnv",
    "Arena",
    "PointGoalMazeEnv",
    "SwimmerFinishLineEnv",
    "Wall",
    "draw_top_view",
]
