"""Losses that drop into any TorchRL pipeline."""

from ._squash import BoxSquash, TanhSquash
from .evolution_strategies import EvolutionStrategiesLoss
from .natural_gradient import NaturalGradientStep
from .priors import GaussianPrior
from .schedules import LinearSchedule, LogLinearSchedule
from .sharded_stein import ShardedSteinPolicyLoss
from .soft_q import SoftQLoss, actor_proposal, uniform_proposal
from .soft_qv import SoftQVLoss
from .stein_policy import SteinPolicyLoss
from .transport_costs import PaperCost, SinkhornCost, TransportCost
from .trpo import TRPOLoss
from .trust_region import WassersteinTrustRegionLoss

__all__ = [
    "BoxSquash",
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
    "TanhSquash",
    "TransportCost",
    "WassersteinTrustRegionLoss",
    "actor_proposal",
    "uniform_proposal",
]
