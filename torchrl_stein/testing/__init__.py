"""Test classes for your own kernels, and an exact reference to test samplers against."""

from .kernel_contract import KernelContract
from .recorders import LargestTensor, ReplayedRule
from .soft_value_iteration import MultiGoalStatistics, SoftOptimalMultiGoal, solve_multigoal

__all__ = [
    "KernelContract",
    "LargestTensor",
    "MultiGoalStatistics",
    "ReplayedRule",
    "SoftOptimalMultiGoal",
    "solve_multigoal",
]
