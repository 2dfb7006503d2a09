"""Tanh squashing of R^d onto a box, with its stable log-determinant."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrl_stein._checks import check_expands, check_floating, check_numbers


def tanh_log_derivative(u: Tensor) -> Tensor:
    """log d tanh(u)/du = log(1 - tanh(u)^2), elementwise, without cancellation for large abs(u).

    Uses 2 (log 2 - u - softplus(-2u)); log(1 - tanh(u)**2) is -inf from abs(u) = 9 in float32.
    """
    # threshold: softplus(x) is taken for x only where they agree in float64, too.
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u, threshold=40.0))


def squash_to_box(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Map R^d onto the box [low, high]: a = low + (high - low) (tanh(u) + 1) / 2.

    Args:
        u: unsquashed actions, ``[..., d]``.
        low: finite lower bounds, expandable to ``[..., d]``, in units of the action.
        high: upper bounds, same.

    Returns:
        Tensor: actions, ``[..., d]``, within [low, high] also after rounding.

    Example:
        >>> squash_to_box(torch.zeros(2), torch.tensor([0.0, -1.0]), torch.tensor([4.0, 1.0]))
        tensor([2., 0.])
    """
    half_width = _half_width("squash_to_box", u, low, high)
    middle = 0.5 * (high + low)
    # tanh saturates at exactly 1 in floating point, and middle + half_width may then round past
    # the bound by one unit in the last place; environments check bounds strictly.
    return torch.minimum(torch.maximum(middle + half_width * torch.tanh(u), low), high)


def squash_log_det(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    r"""log abs det da/du of :func:`squash_to_box`, summed over the last dimension.

    If u has density p_u, the action has log density ``log p_u(u) - squash_log_det(u, low, high)``,
    ``[...]``. Arguments and errors as for :func:`squash_to_box`.

    Source: change of variables; Haarnoja et al. 2017 (arXiv:1702.08165), eq. (33).

    Example:
        >>> squash_log_det(torch.zeros(3), -torch.ones(3), torch.ones(3)).item()
        0.0
    """
    half_width = _half_width("squash_log_det", u, low, high)
    return (tanh_log_derivative(u) + half_width.log()).sum(-1)


def _half_width(function: str, u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    check_floating(function, u=u, low=low, high=high)
    check_expands(function, u.shape, "u", low=low, high=high)
    width: dict[str, Any] = {"high - low": high - low}
    check_numbers(function, above=0, **width)
    return 0.5 * width["high - low"]
