"""Priors over the parameters of a population."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from torchrl_stein._checks import check_number, check_numbers, check_type
from torchrl_stein.modules import ParticleModule

__all__ = ["GaussianPrior", "check_prior", "log_prior"]


class GaussianPrior(nn.Module):
    """N(mean, std^2 I) over the flat parameters of one particle.

    Args:
        std: standard deviation, in units of the parameters.
        mean: a number or ``[d]``.

    Raises:
        TypeError, ValueError: if an argument is of another kind, ``std`` is not positive, a number
            is not finite or ``mean`` has not the size of a particle.

    Example:
        >>> GaussianPrior(std=1.0)(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, std: float, mean: float | Tensor = 0.0) -> None:
        super().__init__()
        if hasattr(mean, "__array__"):  # of NumPy too
            mean = torch.as_tensor(mean)
        check_number("GaussianPrior", above=0, std=std)
        check_numbers("GaussianPrior", mean=mean)
        mean = torch.as_tensor(mean)
        if not mean.is_floating_point():
            mean = mean.to(torch.get_default_dtype())
        if mean.ndim > 1:
            raise ValueError(
                f"GaussianPrior: mean must be a number or [d], got shape {list(mean.shape)}"
            )
        self.register_buffer("std", torch.tensor(float(std), dtype=mean.dtype, device=mean.device))
        self.register_buffer("mean", mean.clone())

    @classmethod
    def around(cls, population: ParticleModule, std: float) -> GaussianPrior:
        """Centred on the mean particle of another population, as it is now.

        Args:
            population: of the same architecture.
            std: standard deviation around it.
        """
        check_type("GaussianPrior", "a ParticleModule", ParticleModule, population=population)
        if len(population.leading) > 1:
            raise ValueError(
                "GaussianPrior: population must be of one seed, or the prior would tie the seeds; "
                f"got particles {list(population.particles.shape)}"
            )
        return cls(std, population.particles.detach().mean(0))

    def forward(self, particles: Tensor) -> Tensor:
        """log N(particle; mean, std^2 I), ``[..., n, d]`` -> ``[..., n]``."""
        if self.mean.ndim and self.mean.shape != particles.shape[-1:]:
            raise ValueError(
                f"GaussianPrior: mean must have shape {list(particles.shape[-1:])}, the number of "
                f"parameters of a particle, got {list(self.mean.shape)}"
            )
        z = (particles - self.mean) / self.std
        d = particles.shape[-1]
        return -0.5 * z.square().sum(-1) - d * (self.std.log() + 0.5 * math.log(2 * math.pi))


def check_prior(prior: Any, particles: Tensor) -> None:
    """Require a distribution over the particles ``[n, d]``, a callable or None."""
    if isinstance(prior, Distribution):
        event = prior.event_shape
        shape = torch.broadcast_shapes(prior.batch_shape + event, (1,) * particles.ndim)
        fits = all(a in (1, b) for a, b in zip(shape, particles.shape, strict=False))
        if len(shape) > particles.ndim or not fits or event not in ((), particles.shape[-1:]):
            raise ValueError(
                f"SteinPolicyLoss: prior must be over particles {list(particles.shape)}, got batch "
                f"shape {list(prior.batch_shape)} and event shape {list(event)}"
            )
    elif prior is not None and not callable(prior):
        raise TypeError(
            "SteinPolicyLoss: prior must be a torch distribution, a callable from particles "
            f"[n, d] to log-densities [n], or None, got {type(prior).__name__}"
        )


def log_prior(prior: Distribution | Callable[[Tensor], Tensor], particles: Tensor) -> Tensor:
    """Log-densities ``[n]``; distributions of single numbers are summed over d."""
    if isinstance(prior, Distribution):
        value = prior.log_prob(particles)
        return value.sum(-1) if not prior.event_shape else value
    value = prior(particles)
    if value.shape != particles.shape[:-1]:
        raise ValueError(
            f"SteinPolicyLoss: prior must return log-densities {list(particles.shape[:-1])}, one "
            f"per particle, got shape {list(value.shape)}"
        )
    return value
