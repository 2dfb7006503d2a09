"""Losses that drop into any TorchRL pipeline."""

from .evolution_strategies import EvolutionStrategiesLoss
from .priors import GaussianPrior
from .schedules import LinearSchedule, LogLinearSchedule
from .soft_q import SoftQLoss
from .soft_qv import SoftQVLoss
from .stein_policy import SteinPolicyLoss
from .transport_costs import PaperCost, SinkhornCost, TransportCost
from .trust_region import WassersteinTrustRegionLoss

__all__ = [
    "EvolutionStrategiesLoss",
    "GaussianPrior",
    "LinearSchedule",
    "LogLinearSchedule",
    "PaperCost",
    "SinkhornCost",
    "SoftQLoss",
    "SoftQVLoss",
    "SteinPolicyLoss",
    "TransportCost",
    "WassersteinTrustRegionLoss",
]
