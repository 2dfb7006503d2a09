"""The robot tasks of Haarnoja et al. 2017 (arXiv:1702.08165), on gymnasium's MuJoCo robots.

They need MuJoCo, which ``gymnasium[mujoco]`` brings, and are registered with gymnasium when
``torchrl_stein.envs`` is imported. Equations, geometry and what the paper leaves open:
docs/mujoco_tasks.md.
"""

from .ant import AntHallwayEnv, AntPretrainEnv, AntTaskEnv
from .arena import Arena, Wall
from .arena_env import ArenaEnv
from .maze import AntMazeEnv, AntTargetEnv, AntUMazeEnv
from .swimmer import SwimmerFinishLineEnv
from .top_view import draw_top_view

__all__ = [
    "AntHallwayEnv",
    "AntMazeEnv",
    "AntPretrainEnv",
    "AntTargetEnv",
    "AntTaskEnv",
    "AntUMazeEnv",
    "Arena",
    "ArenaEnv",
    "SwimmerFinishLineEnv",
    "Wall",
    "draw_top_view",
]
