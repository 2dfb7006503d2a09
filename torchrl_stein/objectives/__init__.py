"""Losses that drop into any TorchRL pipeline."""

from .evolution_strategies import EvolutionStrategiesLoss
from .priors import GaussianPrior
from .schedules import LinearSchedule, LogLinearSchedule
from .soft_q import SoftQLoss
from .stein_policy import SteinPolicyLoss

__all__ = [
    "EvolutionStrategiesLoss",
    "GaussianPrior",
    "LinearSchedule",
    "LogLinearSchedule",
    "SoftQLoss",
    "SteinPolicyLoss",
]
