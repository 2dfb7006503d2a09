"""Policies that are more than one Gaussian, as TensorDict modules."""

from .baselines import LinearBaseline, StandardizePerParticle
from .birth_death import BirthDeath
from .ensemble_policy import EnsemblePolicy
from .networks import SigmoidTanh, SumQ
from .particle_module import ParticleModule
from .population import shard_particles
from .samplers import (
    AmortizedSVGDActor,
    SamplingActor,
    TanhGaussianActor,
    TanhGaussianMixtureActor,
)
from .svgd_actor import SVGDActor, SVGDDistribution

__all__ = [
    "AmortizedSVGDActor",
    "BirthDeath",
    "EnsemblePolicy",
    "LinearBaseline",
    "ParticleModule",
    "SVGDActor",
    "SVGDDistribution",
    "SamplingActor",
    "SigmoidTanh",
    "StandardizePerParticle",
    "SumQ",
    "TanhGaussianActor",
    "TanhGaussianMixtureActor",
    "shard_particles",
]
