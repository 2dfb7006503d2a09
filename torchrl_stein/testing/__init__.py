"""A test class for your own kernels, and an exact reference to test samplers against."""

from .kernel_contract import KernelContract, LargestTensor
from .soft_value_iteration import SoftOptimalMultiGoal, solve_multigoal

__all__ = ["KernelContract", "LargestTensor", "SoftOptimalMultiGoal", "solve_multigoal"]
