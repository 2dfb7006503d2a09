"""How strongly a policy is held near its predecessor, by how far it went."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_number

__all__ = ["adapt_kl_penalty"]


def adapt_kl_penalty(beta: Tensor, kl: Tensor, kl_target: float | Tensor) -> Tensor:
    r"""The next coefficient of a KL penalty: halved after a small step, doubled after a large one.

    beta / 2 where d < d_target / 1.5, 2 beta where d > 1.5 d_target, else beta; d is the mean of
    KL(old || new) over the states of a batch, after all updates from it.

    Args:
        beta: coefficient, any shape.
        kl: d, of the same shape.
        kl_target: d_target, > 0.

    Returns:
        Tensor: of that shape.

    Source: Schulman et al. 2017 (arXiv:1707.06347), section 4.

    Example:
        >>> adapt_kl_penalty(torch.ones(3), torch.tensor([0.005, 0.01, 0.02]), kl_target=0.01)
        tensor([0.5000, 1.0000, 2.0000])
    """
    check_floating("adapt_kl_penalty", beta=beta, kl=kl)
    check_number("adapt_kl_penalty", above=0, kl_target=kl_target)
    halved = torch.where(kl < kl_target / 1.5, beta / 2, beta)
    return torch.where(kl > kl_target * 1.5, 2 * beta, halved)
