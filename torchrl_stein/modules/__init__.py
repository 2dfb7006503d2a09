"""Policies that are more than one Gaussian, as TensorDict modules."""

from .amortized_svgd_actor import AmortizedSVGDActor
from .baselines import LinearBaseline, StandardizePerParticle
from .birth_death import BirthDeath
from .ensemble_policy import EnsemblePolicy
from .gaussian_actors import TanhGaussianActor, TanhGaussianMixtureActor
from .particle_module import ParticleModule
from .population import shard_particles
from .sampling_actor import SamplingActor
from .sigmoid_tanh import SigmoidTanh
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
    "shard_particles",
]
