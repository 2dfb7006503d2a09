"""Kernels and bandwidth rules. Choices are objects: pass ``RBFKernel(MeanBandwidth())``.

Arguments of another kind are a TypeError, those out of range or of a wrong shape a ValueError, each
with a sentence that names the argument.
"""

from .bandwidth import BandwidthRule, MeanBandwidth, MedianBandwidth
from .base import Evaluation, Kernel, ProductKernel, ScaledKernel, SumKernel
from .behaviour import BehaviourKernel
from .layerwise import LayerwiseKernel
from .linear import IdentityKernel, LinearKernel
from .placebo import DriftControl, RadialControl, SharedDriftControl, TangentialControl
from .radial import IMQKernel, RadialKernel, RBFKernel

__all__ = [
    "BandwidthRule",
    "BehaviourKernel",
    "DriftControl",
    "Evaluation",
    "IMQKernel",
    "IdentityKernel",
    "Kernel",
    "LayerwiseKernel",
    "LinearKernel",
    "MeanBandwidth",
    "MedianBandwidth",
    "ProductKernel",
    "RBFKernel",
    "RadialControl",
    "RadialKernel",
    "ScaledKernel",
    "SharedDriftControl",
    "SumKernel",
    "TangentialControl",
]
