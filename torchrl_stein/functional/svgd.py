"""The SVGD direction (Liu & Wang 2016, arXiv:1608.04471, Algorithm 1)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from torchrl_stein._checks import check_floating, check_same_size

__all__ = ["SVGDDirection", "svgd_direction"]


class SVGDDirection(NamedTuple):
    """The two forces of SVGD; their sum is the direction in which particles move.

    Attributes:
        drive: kernel-averaged score, ``[..., m, d]``: pulls particles towards high density.
        repulsion: mean kernel gradient, ``[..., m, d]``: pushes particles away from each other.

    Example:
        >>> import torch
        >>> SVGDDirection(torch.ones(3, 2), torch.zeros(3, 2)).total.shape
        torch.Size([3, 2])
    """

    drive: Tensor
    repulsion: Tensor

    @property
    def total(self) -> Tensor:
        """``drive + repulsion``, ``[..., m, d]``. Ascend along it."""
        return self.drive + self.repulsion


def svgd_direction(gram: Tensor, repulsion: Tensor, scores: Tensor) -> SVGDDirection:
    r"""SVGD direction at m points, estimated from n particles.

    phi(y_i) = (1/n) sum_j [ k(x_j, y_i) s(x_j) + grad_{x_j} k(x_j, y_i) ]

    The usual SVGD update has y = x; amortized SVGD (Haarnoja et al. 2017, appendix C.1) moves a
    second set y by the force that the first set x exerts. Leading dimensions are batch.

    Args:
        gram: ``gram[..., j, i] = k(x_j, y_i)``, ``[..., n, m]``.
        repulsion: ``repulsion[..., i, :] = sum_j grad_{x_j} k(x_j, y_i)``, ``[..., m, d]``: both
            come from :meth:`torchrl_stein.kernels.Kernel.gram_and_repulsion`.
        scores: ``s(x_j) = grad log p(x_j)``, ``[..., n, d]``.

    Returns:
        SVGDDirection: the two forces, each ``[..., m, d]`` and already divided by n.

    Raises:
        TypeError, ValueError: if tensors are not floating-point or sizes disagree.

    Source: Liu & Wang 2016 (arXiv:1608.04471), Algorithm 1, eq. (8). Differs: returns the two
    terms apart, because their ratio is what one wants to look at.

    Example:
        >>> import torch
        >>> gram, repulsion, scores = torch.eye(2), torch.zeros(2, 1), torch.tensor([[2.0], [4.0]])
        >>> svgd_direction(gram, repulsion, scores).total.flatten().tolist()
        [1.0, 2.0]
    """
    check_floating("svgd_direction", gram=gram, repulsion=repulsion, scores=scores)
    check_same_size("svgd_direction", gram=(gram, -2), scores=(scores, -2))
    check_same_size("svgd_direction", gram=(gram, -1), repulsion=(repulsion, -2))
    check_same_size("svgd_direction", scores=(scores, -1), repulsion=(repulsion, -1))
    n = gram.shape[-2]
    return SVGDDirection(gram.mT @ scores / n, repulsion / n)
