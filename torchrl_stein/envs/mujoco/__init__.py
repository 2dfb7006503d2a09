"""The robot tasks of Haarnoja et al. 2017 (arXiv:1702.08165), on gymnasium's MuJoCo robots.

They need MuJoCo, which ``gymnasium[mujoco]`` brings. Equations, geometry and what the paper leaves
open: docs/mujoco_tasks.md.
"""

from .ant import AntHallwayEnv, AntMazeEnv, AntPretrainEnv, AntTargetEnv, AntUMazeEnv
from .arena import Arena, Wall
from .swimmer import SwimmerFinishLineEnv
from .top_view import draw_top_view

__all__ = [
    "AntHallwayEnv",
    "AntMazeEnv",
    "AntPretrainEnv",
    "AntTargetEnv",
    "AntUMazeEnv",
    "Arena",
    "SwimmerFinishLineEnv",
    "Wall",
    "draw_top_view",
]
