"""Environments: batched torch worlds, and tasks that gymnasium learns of by this import.

Arguments of another kind are a TypeError, those out of range or of a wrong shape a ValueError, each
with a sentence that names the argument.
"""

from .action_repeat import ActionRepeatWorld
from .batched import BatchedEnv
from .cartpole import CartpoleEnv, CartpoleSwingUpEnv, CartpoleSwingUpWorld, CartpoleWorld
from .double_pendulum import DoublePendulumEnv, DoublePendulumWorld
from .goal_maze import (
    HARD_MAZE,
    MEDIUM_MAZE,
    SIMPLE_MAZE,
    GoalMaze,
    GoalMazeEnv,
    GoalMazeWorld,
)
from .grid_world import GridWorld, GridWorldEnv
from .mountain_car import MountainCarEnv, MountainCarWorld
from .multigoal import MultiGoalEnv, MultiGoalGymEnv, MultiGoalWorld
from .n_step import NStepReturns
from .particle_env import ParticleEnv
from .reward_scaling import RunningRewardScaling
from .simple_spread import SimpleSpreadEnv, SimpleSpreadWorld
from .simulators import SimulatorEnv
from .tasks import register_tasks
from .world import World

__all__ = [
    "HARD_MAZE",
    "MEDIUM_MAZE",
    "SIMPLE_MAZE",
    "ActionRepeatWorld",
    "BatchedEnv",
    "CartpoleEnv",
    "CartpoleSwingUpEnv",
    "CartpoleSwingUpWorld",
    "CartpoleWorld",
    "DoublePendulumEnv",
    "DoublePendulumWorld",
    "GoalMaze",
    "GoalMazeEnv",
    "GoalMazeWorld",
    "GridWorld",
    "GridWorldEnv",
    "MountainCarEnv",
    "MountainCarWorld",
    "MultiGoalEnv",
    "MultiGoalGymEnv",
    "MultiGoalWorld",
    "NStepReturns",
    "ParticleEnv",
    "RunningRewardScaling",
    "SimpleSpreadEnv",
    "SimpleSpreadWorld",
    "SimulatorEnv",
    "World",
    "register_tasks",
]

register_tasks()
