"""Evolution strategies: the gradient of a return from the returns of perturbed parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_number, check_same_size


def evolution_gradient(returns: Tensor, directions: Tensor, scale: float) -> Tensor:
    r"""Finite differences of returns along random directions, in antithetic pairs.

    .. math::
        g = \frac{1}{2 h K} \sum_{k=1}^K
            \left[ J(\theta + h \xi_k) - J(\theta - h \xi_k) \right] \xi_k

    Args:
        returns: J at theta + h xi_k and at theta - h xi_k, in this order, ``[..., 2, K]``.
        directions: xi, ``[..., K, d]``.
        scale: h > 0, in units of the parameters.

    Returns:
        Tensor: ``[..., d]``, in units of the return per unit of the parameters.

    Source: Liu et al. 2017 (arXiv:1704.02399), eq. (1). Differs: the pairs, without which the
    variance is of the order J^2 / h^2.

    Example:
        >>> evolution_gradient(torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0, -1.0]]), 0.5)
        tensor([ 2., -2.])
    """
    owner = "evolution_gradient"
    check_floating(owner, returns=returns, directions=directions)
    check_number(owner, above=0, scale=scale)
    check_same_size(owner, directions=(directions, -2), returns=(returns, -1))
    if returns.shape[-2:-1] != (2,):
        raise ValueError(f"{owner}: returns must be [..., 2, K], got {list(returns.shape)}")
    slopes = (returns[..., 0, :] - returns[..., 1, :]) / (2 * scale)
    return torch.einsum("...k,...kd->...d", slopes, directions) / directions.shape[-2]


def centred_ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension, spread evenly over [-1/2, 1/2]; ``[..., m]``, m >= 2.

    Equal values share the mean of their ranks, so that a return that never changes has no gradient
    (Salimans et al. 2017, arXiv:1703.03864).

    Example:
        >>> centred_ranks(torch.tensor([5.0, -1.0, 100.0]))
        tensor([ 0.0000, -0.5000,  0.5000])
    """
    check_floating("centred_ranks", values=values)
    ordered = values.sort(-1).values
    below, not_above = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    m = values.shape[-1]
    return ((below + not_above - m) / (2 * (m - 1))).to(values)


def z_scores(values: Tensor) -> Tensor:
    """(value - mean) / standard deviation along the last dimension, ``[..., m]``; 0 if all agree.

    Example:
        >>> z_scores(torch.tensor([1.0, 3.0]))
        tensor([-1.,  1.])
    """
    check_floating("z_scores", values=values)
    centred = values - values.mean(-1, keepdim=True)
    std = centred.square().mean(-1, keepdim=True).sqrt()
    scores = centred / std.clamp_min(torch.finfo(values.dtype).tiny)
    # Rounding of the mean leaves equal values a tiny deviation, of which scores are of order 1.
    agree = values.amax(-1, keepdim=True) == values.amin(-1, keepdim=True)
    return torch.where(agree, 0.0, scores)
