"""The soft value function by importance sampling (Haarnoja et al. 2017, arXiv:1702.08165)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ._checks import require_same_size

__all__ = ["soft_value"]


def soft_value(q: Tensor, log_proposal: Tensor, temperature: Tensor | float) -> Tensor:
    r"""Soft value V = alpha log E_{a ~ proposal}[ exp(Q(s, a) / alpha) / proposal(a) ].

    The estimate from K samples is alpha (logsumexp_k(Q_k / alpha - log proposal_k) - log K). The
    maximum is taken out before the division by alpha, so V tends to max_k Q_k as alpha -> 0
    without overflow.

    Args:
        q: values Q(s, a_k) of K sampled actions, ``[..., K]``.
        log_proposal: log density of the samples (of the action, in the action's own units),
            broadcastable to ``[..., K]``. Uniform on a box: minus the log of its volume.
        temperature: alpha > 0, a number or a tensor broadcastable to ``[...]``.

    Returns:
        Tensor: V(s), ``[...]``, dtype of ``q``.

    Raises:
        ValueError: if ``q`` has no sample dimension or the last sizes of ``q`` and
            ``log_proposal`` cannot be broadcast.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), eq. (10). Differs: none.

    Example:
        >>> import math, torch
        >>> q = torch.zeros(4)  # Q = 0 on a box of volume 4: V = alpha log 4
        >>> v = soft_value(q, torch.tensor(-math.log(4.0)), temperature=0.5)
        >>> round(v.item(), 4) == round(0.5 * math.log(4.0), 4)
        True
    """
    if q.ndim == 0:
        raise ValueError("soft_value: q must have a last dimension of samples [..., K], got []")
    if log_proposal.ndim > 0 and log_proposal.shape[-1] != 1:
        require_same_size("soft_value", q=(q, -1), log_proposal=(log_proposal, -1))
    if isinstance(temperature, Tensor) and temperature.ndim > 0:
        temperature = temperature.unsqueeze(-1)
    # Detached: V does not depend on the shift, and neither does its gradient.
    top = q.detach().amax(-1, keepdim=True)
    log_weights = (q - top) / temperature - log_proposal
    mean = torch.logsumexp(log_weights, -1, keepdim=True) - math.log(q.shape[-1])
    return (top + temperature * mean).squeeze(-1)
