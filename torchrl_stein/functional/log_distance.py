"""The mean log-distance of samples: a measure of diversity that needs no density."""

from __future__ import annotations

from torch import Tensor

from torchrl_stein._checks import check_floating, check_same_size

__all__ = ["log_distance", "log_distance_gradient"]

# Twins have a finite log-distance, and no force between them.
_NEAREST = 1e-5


def log_distance(x: Tensor, y: Tensor) -> Tensor:
    r"""R = (1 / KM) sum_jk log(|x_j - y_k| + 1e-5) of two independent sets, in nats.

    Args:
        x: K samples for each state, ``[*B, K, d]``.
        y: M others, ``[*B, M, d]``.

    Returns:
        Tensor: ``[*B]``.

    Raises:
        TypeError, ValueError: if one is no floating-point tensor, or they differ in d.

    Source: Wang et al. 2025 (DrAC, arXiv:2511.01374). Differs: all pairs of two sets, not eight.

    Example:
        >>> import torch
        >>> round(log_distance(torch.zeros(3, 2), torch.ones(1, 2)).item(), 4)  # log sqrt(2)
        0.3466
    """
    _check("log_distance", x, y)
    distances = (x.unsqueeze(-2) - y.unsqueeze(-3)).square().sum(-1).sqrt()
    return (distances + _NEAREST).log().mean((-2, -1))


def log_distance_gradient(x: Tensor, y: Tensor) -> Tensor:
    r"""How E log|x - y| grows with the samples: (2 / K) sum_j (y_i - x_j) / |y_i - x_j|^2.

    The derivative of E_{x, y ~ q} log|x - y| by q, at ``y``: two, since both samples are of q.

    Args:
        x: K samples, ``[*B, K, d]``.
        y: where the gradient is taken, ``[*B, M, d]``.

    Returns:
        Tensor: ``[*B, M, d]``.

    Raises:
        TypeError, ValueError: as :func:`log_distance`.

    Source: as :func:`log_distance`. Differs: 1e-5 is added to a distance where DrAC adds it inside
    of the logarithm, so that a pair that coincides has no force.

    Example:
        >>> import torch
        >>> log_distance_gradient(torch.zeros(1, 1), torch.tensor([[0.5]])).round(decimals=3)
        tensor([[4.]])
    """
    _check("log_distance_gradient", x, y)
    difference = y.unsqueeze(-2) - x.unsqueeze(-3)  # [*B, M, K, d]
    squared = difference.square().sum(-1, keepdim=True)
    return 2.0 * (difference / (squared + _NEAREST**2)).mean(-2)


def _check(function: str, x: Tensor, y: Tensor) -> None:
    check_floating(function, x=x, y=y)
    check_same_size(function, x=(x, -1), y=(y, -1))
