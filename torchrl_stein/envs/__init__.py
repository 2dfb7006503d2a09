"""Environments: batched torch worlds, and their gymnasium counterparts, registered on import."""

from torchrl_stein.envs.gym_multigoal import MultiGoalGymEnv, register_multigoal
from torchrl_stein.envs.multigoal import MultiGoalEnv
from torchrl_stein.envs.multigoal_world import MultiGoalOptions, MultiGoalWorld

__all__ = [
    "MultiGoalEnv",
    "MultiGoalGymEnv",
    "MultiGoalOptions",
    "MultiGoalWorld",
    "register_multigoal",
]

register_multigoal()
