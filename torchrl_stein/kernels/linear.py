"""The linear kernel, which matches mean and covariance, and the identity: no interaction."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_number
from torchrl_stein.functional.distance import check_points

from .base import Evaluation, Kernel, check_one_set


class LinearKernel(Kernel):
    """k(x, y) = x . y + offset.

    With d + 1 or more particles and offset 1, fixed points of SVGD have the mean and covariance
    of a Gaussian target.

    Args:
        offset: a non-negative number.

    Source: Liu & Wang 2018 (arXiv:1810.11693), section 3.

    Example:
        >>> LinearKernel()(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0]])).item()
        12.0
    """

    def __init__(self, offset: float = 1.0) -> None:
        super().__init__()
        check_number("LinearKernel", at_least=0, offset=offset)
        self.offset = float(offset)

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        check_points("LinearKernel", x, y)
        target = x if y is None else y
        gram = x @ target.mT + self.offset

        def repulsion(weights: Tensor | None) -> Tensor:
            # grad_x k = y, whatever x.
            if weights is None:
                return x.shape[-2] * target.expand(*gram.shape[:-2], *target.shape[-2:])
            return weights.sum(-2).unsqueeze(-1) * target

        return Evaluation(gram, repulsion)


class IdentityKernel(Kernel):
    """k(x, x) = 1, and k = 0 between different particles: n independent gradients.

    The baseline of every claim about a kernel: the same data, the same optimizer, no interaction.
    Particles count as different by their index and not by their value, so that a second set of
    points is a ValueError.

    Source: the baseline "Independent" of Liu et al. 2017 (arXiv:1704.02399), section 5.

    Example:
        >>> gram, repulsion = IdentityKernel().gram_and_repulsion(torch.ones(2, 3))
        >>> gram.tolist(), repulsion.abs().max().item()
        ([[1.0, 0.0], [0.0, 1.0]], 0.0)
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        check_one_set("IdentityKernel", x, y)
        return Evaluation(identity_gram(x), lambda weights: torch.zeros_like(x))


def identity_gram(x: Tensor) -> Tensor:
    """1 for each point with itself, ``[..., n, d]`` -> ``[..., n, n]``."""
    n = x.shape[-2]
    return torch.eye(n, dtype=x.dtype, device=x.device).expand(*x.shape[:-2], n, n)
