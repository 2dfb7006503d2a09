"""Policies that are more than one Gaussian, as TensorDict modules."""

from .birth_death import BirthDeath
from .ensemble_policy import EnsemblePolicy
from .find_population import find_population, particles_key
from .linear_baseline import LinearBaseline
from .networks import SigmoidTanh, SumQ
from .particle_module import ParticleModule
from .samplers import (
    AmortizedSVGDActor,
    SamplingActor,
    TanhGaussianActor,
    TanhGaussianMixtureActor,
)
from .shard_particles import shard_particles
from .standardize import StandardizePerParticle

__all__ = [
    "AmortizedSVGDActor",
    "BirthDeath",
    "EnsemblePolicy",
    "LinearBaseline",
    "ParticleModule",
    "SamplingActor",
    "SigmoidTanh",
    "StandardizePerParticle",
    "SumQ",
    "TanhGaussianActor",
    "TanhGaussianMixtureActor",
    "find_population",
    "particles_key",
    "shard_particles",
]
