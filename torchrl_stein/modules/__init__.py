"""Policies that are more than one Gaussian, as TensorDict modules."""

from .amortized_svgd_actor import AmortizedSVGDActor
from .birth_death import BirthDeath
from .ensemble_policy import EnsemblePolicy
from .find_population import find_population, particles_key
from .gaussian_actors import TanhGaussianActor, TanhGaussianMixtureActor
from .linear_baseline import LinearBaseline
from .particle_module import ParticleModule
from .sampling_actor import SamplingActor
from .shard_particles import shard_particles
from .sigmoid_tanh import SigmoidTanh
from .standardize import StandardizePerParticle
from .sum_q import SumQ

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
