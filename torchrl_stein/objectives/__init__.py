"""Losses that drop into any TorchRL pipeline."""

from .evolution_strategies import EvolutionStrategiesLoss
from .natural_gradient import NaturalGradientStep
from .priors import GaussianPrior
from .schedules import LinearSchedule, LogLinearSchedule
from .sharded_stein import ShardedSteinPolicyLoss
from .soft_q import SoftQLoss
from .soft_qv import SoftQVLoss
from .stein_policy import SteinPolicyLoss
from .transport_costs import PaperCost, SinkhornCost, TransportCost
from .trpo import TRPOLoss
from .trust_region import WassersteinTrustRegionLoss

__all__ = [
    "EvolutionStrategiesLoss",
    "GaussianPrior",
    "LinearSchedule",
    "LogLinearSchedule",
    "NaturalGradientStep",
    "PaperCost",
    "ShardedSteinPolicyLoss",
    "SinkhornCost",
    "SoftQLoss",
    "SoftQVLoss",
    "SteinPolicyLoss",
    "TRPOLoss",
    "TransportCost",
    "WassersteinTrustRegionLoss",
]
