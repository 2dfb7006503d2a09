"""Priors over the parameters of a policy, as functions of a population."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from torchrl_stein.modules import ParticleModule

from ._checks import check_positive

__all__ = ["GaussianPrior", "as_log_prior"]


class GaussianPrior(nn.Module):
    """N(mean, std^2 I) over the flat parameters of one particle.

    Args:
        std: standard deviation, in units of the parameters.
        mean: a number or ``[d]``.

    Raises:
        ValueError: if ``std`` is not positive.

    Example:
        >>> import torch
        >>> GaussianPrior(std=1.0)(torch.zeros(3, 2)).shape
        torch.Size([3])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, std: float, mean: float | Tensor = 0.0) -> None:
        super().__init__()
        check_positive("GaussianPrior", std=std)
        self.register_buffer("std", torch.tensor(float(std)))
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.get_default_dtype()).clone())

    @classmethod
    def around(cls, population: ParticleModule, std: float) -> GaussianPrior:
        """Centred on the mean particle of another population, as it is now.

        Args:
            population: of the same architecture.
            std: standard deviation around it.
        """
        return cls(std, population.particles.detach().mean(0))

    def forward(self, particles: Tensor) -> Tensor:
        """log N(particle; mean, std^2 I), ``[n, d]`` -> ``[n]``."""
        if self.mean.ndim and self.mean.shape != particles.shape[-1:]:
            raise ValueError(
                f"GaussianPrior: mean must have shape {list(particles.shape[-1:])}, the number of "
                f"parameters of a particle, got {list(self.mean.shape)}"
            )
        z = (particles - self.mean) / self.std
        d = particles.shape[-1]
        return -0.5 * z.square().sum(-1) - d * (self.std.log() + 0.5 * math.log(2 * math.pi))


def as_log_prior(
    prior: Distribution | Callable[[Tensor], Tensor] | None,
) -> Callable[[Tensor], Tensor] | None:
    """A function ``[n, d] -> [n]``; distributions of single numbers are summed over d."""
    if prior is None or not isinstance(prior, Distribution):
        if prior is not None and not callable(prior):
            raise TypeError(
                "SteinPolicyLoss: prior must be a torch distribution, a callable from particles "
                f"[n, d] to log-densities [n], or None, got {type(prior).__name__}"
            )
        return prior

    def log_prior(particles: Tensor) -> Tensor:
        log_prob = prior.log_prob(particles)
        return log_prob.sum(-1) if log_prob.ndim == particles.ndim else log_prob

    return log_prior
