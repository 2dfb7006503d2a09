"""Losses that drop into any TorchRL pipeline."""

from ._squash import BoxSquash, TanhSquash
from .acer import ACERLoss
from .action_forces import log_distance_force, repulsion_force, svgd_force
from .d4pg import D4PGLoss
from .discrete_soft_q import DiscreteSoftQLoss
from .evolution_strategies import EvolutionStrategiesLoss
from .priors import GaussianPrior
from .s2ac import S2ACLoss
from .schedules import LinearSchedule, LogLinearSchedule
from .sharded_stein import ShardedSteinPolicyLoss
from .soft_q import (
    SoftQLoss,
    actor_proposal,
    actor_samples,
    log_distance_proposal,
    uniform_proposal,
)
from .soft_qv import SoftQVLoss
from .stein_policy import SteinPolicyLoss
from .temperature import EntropyTarget, LogDistanceTarget
from .transport_costs import SinkhornCost, TransportCost, WGFPotential, WGFPotentialDescent
from .trpo import NaturalGradientStep, TRPOLoss
from .wasserstein import ActionSpace, ParameterSpace, WassersteinTrustRegionLoss

__all__ = [
    "ACERLoss",
    "ActionSpace",
    "BoxSquash",
    "D4PGLoss",
    "DiscreteSoftQLoss",
    "EntropyTarget",
    "EvolutionStrategiesLoss",
    "GaussianPrior",
    "LinearSchedule",
    "LogDistanceTarget",
    "LogLinearSchedule",
    "NaturalGradientStep",
    "ParameterSpace",
    "S2ACLoss",
    "ShardedSteinPolicyLoss",
    "SinkhornCost",
    "SoftQLoss",
    "SoftQVLoss",
    "SteinPolicyLoss",
    "TRPOLoss",
    "TanhSquash",
    "TransportCost",
    "WGFPotential",
    "WGFPotentialDescent",
    "WassersteinTrustRegionLoss",
    "actor_proposal",
    "actor_samples",
    "log_distance_force",
    "log_distance_proposal",
    "repulsion_force",
    "svgd_force",
    "uniform_proposal",
]
