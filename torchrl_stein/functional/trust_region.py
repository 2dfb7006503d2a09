"""The nearest gradient along which a divergence does not grow too fast."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_number, check_same_size

__all__ = ["trust_region_projection"]


def trust_region_projection(gradient: Tensor, kl_gradient: Tensor, bound: float | Tensor) -> Tensor:
    r"""Project gradients of an objective onto the half-space where a divergence grows slowly.

    The z nearest to g with k . z <= delta, row by row:

    .. math::
        z = g - \max\left(0, \frac{k^T g - \delta}{|k|^2}\right) k

    Both are gradients with respect to the statistics of a policy, such as its logits, of which
    there are few; the chain rule carries z on to the parameters. A row without a k stays as it is.

    Args:
        gradient: g, ``[..., D]``.
        kl_gradient: k, of the divergence from the policy that one is to stay near, ``[..., D]``.
        bound: delta > 0.

    Returns:
        Tensor: z, ``[..., D]``.

    Source: Wang et al. 2017 (arXiv:1611.01224), eq. (12) and (13).

    Example:
        >>> g, k = torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0])
        >>> trust_region_projection(g, k, bound=1.0)  # k . z = 1
        tensor([0.5000, 1.0000])
    """
    owner = "trust_region_projection"
    check_floating(owner, gradient=gradient, kl_gradient=kl_gradient)
    check_same_size(owner, kl_gradient=(kl_gradient, -1), gradient=(gradient, -1))
    check_number(owner, above=0, bound=bound)
    excess = ((kl_gradient * gradient).sum(-1, keepdim=True) - bound).clamp_min(0)
    square = kl_gradient.square().sum(-1, keepdim=True)
    # Where k = 0 there is no excess either.
    return gradient - excess / square.clamp_min(torch.finfo(square.dtype).tiny) * kl_gradient
