"""Kernels and bandwidth rules. Choices are objects: pass ``RBFKernel(MeanBandwidth())``."""

from .bandwidth import BandwidthRule, MeanBandwidth, MedianBandwidth
from .base import Evaluation, Kernel, ProductKernel, ScaledKernel, SumKernel
from .linear import LinearKernel
from .radial import IMQKernel, RadialKernel, RBFKernel

__all__ = [
    "BandwidthRule",
    "Evaluation",
    "IMQKernel",
    "Kernel",
    "LinearKernel",
    "MeanBandwidth",
    "MedianBandwidth",
    "ProductKernel",
    "RBFKernel",
    "RadialKernel",
    "ScaledKernel",
    "SumKernel",
]
