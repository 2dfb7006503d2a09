"""The linear kernel, with which SVGD matches mean and covariance exactly."""

from __future__ import annotations

from torch import Tensor

from torchrl_stein._checks import check_number

from .base import Evaluation, Kernel, check_points

__all__ = ["LinearKernel"]


class LinearKernel(Kernel):
    """k(x, y) = x . y + offset.

    With d + 1 or more particles and offset 1, fixed points of SVGD have the mean and covariance
    of a Gaussian target.

    Args:
        offset: a non-negative number.

    Raises:
        TypeError: if ``offset`` is no number.
        ValueError: if it is negative or not finite.

    Source: Liu & Wang 2018 (arXiv:1810.11693), section 3.

    Example:
        >>> import torch
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
        n = x.shape[-2]

        gram = x @ target.mT + self.offset

        def repulsion(weights: Tensor | None) -> Tensor:
            # grad_x k = y, whatever x.
            if weights is None:
                return n * target.expand(*gram.shape[:-2], *target.shape[-2:])
            return weights.sum(-2).unsqueeze(-1) * target

        return Evaluation(gram, repulsion)
