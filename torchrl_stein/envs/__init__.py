"""Environments: batched torch worlds, and tasks that gymnasium learns of by this import."""

from torchrl_stein.envs.action_repeat import ActionRepeatWorld
from torchrl_stein.envs.batched import BatchedEnv
from torchrl_stein.envs.cartpole_world import CartpoleSwingUpWorld, CartpoleWorld
from torchrl_stein.envs.classic import (
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    MountainCarEnv,
)
from torchrl_stein.envs.double_pendulum_world import DoublePendulumWorld
from torchrl_stein.envs.gym_multigoal import MultiGoalGymEnv, register_multigoal
from torchrl_stein.envs.mountain_car_world import MountainCarWorld
from torchrl_stein.envs.mujoco_tasks import register_mujoco_tasks
from torchrl_stein.envs.multigoal import MultiGoalEnv
from torchrl_stein.envs.multigoal_world import MultiGoalOptions, MultiGoalWorld
from torchrl_stein.envs.particle_env import ParticleEnv
from torchrl_stein.envs.world import World

__all__ = [
    "ActionRepeatWorld",
    "BatchedEnv",
    "CartpoleEnv",
    "CartpoleSwingUpEnv",
    "CartpoleSwingUpWorld",
    "CartpoleWorld",
    "DoublePendulumEnv",
    "DoublePendulumWorld",
    "MountainCarEnv",
    "MountainCarWorld",
    "MultiGoalEnv",
    "MultiGoalGymEnv",
    "MultiGoalOptions",
    "MultiGoalWorld",
    "ParticleEnv",
    "World",
    "register_mujoco_tasks",
    "register_multigoal",
]

register_mujoco_tasks()
register_multigoal()
