"""Stein variational and Wasserstein policy optimization as TorchRL components."""

from torchrl_stein import envs  # registers the gymnasium environments
from torchrl_stein.modules import AmortizedSVGDActor, ParticleModule
from torchrl_stein.objectives import SoftQLoss, SteinPolicyLoss, WassersteinTrustRegionLoss

__version__ = "0.1.0"

__all__ = [
    "AmortizedSVGDActor",
    "ParticleModule",
    "SoftQLoss",
    "SteinPolicyLoss",
    "WassersteinTrustRegionLoss",
    "envs",
]
