"""Importance weights with a bound, and what the bound takes away."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_number

__all__ = ["truncated_importance"]


class ImportanceWeights(NamedTuple):
    """Two weights of one action, for a mean over the behaviour and one over the policy."""

    truncated: Tensor  # min(c, rho), of an action of the behaviour
    correction: Tensor  # [1 - c / rho]_+, of an action of the policy


def truncated_importance(log_ratio: Tensor, bound: float | Tensor) -> ImportanceWeights:
    r"""Importance weights truncated at c, and the weights that correct for it.

    With rho = pi / mu, for any function f of actions,

    .. math::
        E_\pi[f] = E_\mu[\min(c, \rho) f] + E_\pi\left[ (1 - c / \rho)_+ f \right],

    so that no weight is larger than max(c, 1) and nothing is lost.

    Args:
        log_ratio: log rho, ``[...]``.
        bound: c > 0.

    Returns:
        Both weights, ``[...]``.

    Source: Wang et al. 2017 (arXiv:1611.01224), eq. (7).

    Example:
        >>> weights = truncated_importance(torch.tensor([0.5, 8.0]).log(), bound=2.0)
        >>> weights.truncated, weights.correction
        (tensor([0.5000, 2.0000]), tensor([0.0000, 0.7500]))
    """
    check_floating("truncated_importance", log_ratio=log_ratio)
    check_number("truncated_importance", above=0, bound=bound)
    excess = log_ratio - torch.as_tensor(bound).to(log_ratio).log()
    # Bounded before they are exponentiated: rho itself may be larger than any number.
    return ImportanceWeights(
        truncated=bound * excess.clamp_max(0).exp(), correction=-torch.expm1(-excess.clamp_min(0))
    )
