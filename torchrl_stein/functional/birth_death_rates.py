"""Rates of a birth-death process between particles (Lu, Lu & Nolen 2019, arXiv:1905.09863)."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_number, check_numbers, check_same_size

from .evolution import z_scores


def birth_death_rates(gram: Tensor, returns: Tensor, scale: float) -> Tensor:
    r"""At which rate particles die, or are born where it is negative.

    .. math::
        \lambda_i = \beta_i - \bar\beta, \qquad
        \beta_i = \log \frac1n \sum_j k(\theta_j, \theta_i) - \frac{z_i}{s},

    with z the standardised returns. The process has its equilibrium at a density proportional to
    exp(z / s); the kernel stands for the density of the population.

    Args:
        gram: ``gram[..., j, i] = k(theta_j, theta_i)`` > 0, ``[..., n, n]``.
        returns: J_i, ``[..., n]``; NaN where nothing is known, which counts as the mean.
        scale: s > 0, in standard deviations of the returns.

    Returns:
        Tensor: lambda, ``[..., n]``, with mean 0.

    Source: Lu, Lu & Nolen 2019, algorithm 1. Differs: J is standardised.

    Example:
        >>> birth_death_rates(torch.ones(2, 2), torch.tensor([0.0, 4.0]), scale=0.5)
        tensor([ 2., -2.])
    """
    check_floating("birth_death_rates", gram=gram, returns=returns)
    check_same_size("birth_death_rates", gram=(gram, -1), returns=(returns, -1))
    check_number("birth_death_rates", above=0, scale=scale)
    density = gram.mean(-2)
    check_numbers("birth_death_rates", above=0.0, mean_of_gram=density)
    mean = returns.nanmean(-1, keepdim=True)
    known = torch.where(returns.isnan(), mean, returns).nan_to_num(0.0)
    beta = density.log() - z_scores(known) / scale
    return beta - beta.mean(-1, keepdim=True)
