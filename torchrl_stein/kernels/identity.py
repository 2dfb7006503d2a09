"""The kernel under which particles know nothing of each other."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Evaluation, Kernel, check_points

__all__ = ["IdentityKernel"]


class IdentityKernel(Kernel):
    """k(x, x) = 1, and k = 0 between different particles: n independent gradients.

    The baseline of every claim about a kernel: the same data, the same optimizer, no interaction.
    Particles count as different by their index, not by their value, so it has no value between
    two sets of points.

    Raises:
        ValueError: in ``evaluate``, if a second set of points is given.

    Source: the baseline "Independent" of Liu et al. 2017 (arXiv:1704.02399), section 5.

    Example:
        >>> import torch
        >>> gram, repulsion = IdentityKernel().gram_and_repulsion(torch.ones(2, 3))
        >>> gram
        tensor([[1., 0.],
                [0., 1.]])
        >>> repulsion
        tensor([[0., 0., 0.],
                [0., 0., 0.]])
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        if y is not None:
            raise ValueError(
                f"{type(self).__name__}: y must be None (particles are told apart by their index "
                f"in one set), got a second set of shape {list(y.shape)}"
            )
        check_points(type(self).__name__, x, None)
        n = x.shape[-2]
        gram = torch.eye(n, dtype=x.dtype, device=x.device).expand(*x.shape[:-2], n, n)
        return Evaluation(gram, lambda weights: torch.zeros_like(x))
