"""Policies that are more than one Gaussian, as TensorDict modules."""

from .agents import AgentsActor, add_others, agent_rows
from .baselines import LinearBaseline, StandardizePerParticle
from .batch_renorm import BatchRenorm
from .best_action import BestActionActor
from .birth_death import BirthDeath
from .boltzmann_actor import BoltzmannActor
from .dueling import StochasticDuelingNetwork
from .ensemble_policy import EnsemblePolicy
from .held_noise import HeldNoiseActor
from .networks import SigmoidTanh, SumQ
from .one_hot import OneHotCategorical
from .parameter_noise import ParameterNoise
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
    "AgentsActor",
    "AmortizedSVGDActor",
    "BatchRenorm",
    "BestActionActor",
    "BirthDeath",
    "BoltzmannActor",
    "EnsemblePolicy",
    "HeldNoiseActor",
    "LinearBaseline",
    "OneHotCategorical",
    "ParameterNoise",
    "ParticleModule",
    "SVGDActor",
    "SVGDDistribution",
    "SamplingActor",
    "SigmoidTanh",
    "StandardizePerParticle",
    "StochasticDuelingNetwork",
    "SumQ",
    "TanhGaussianActor",
    "TanhGaussianMixtureActor",
    "add_others",
    "agent_rows",
    "shard_particles",
]
