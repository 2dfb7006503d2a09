"""The SVGD direction, and the surrogate by which a sampler follows it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from torchrl_stein._checks import check_floating, check_same_size


class SVGDDirection(NamedTuple):
    """The two forces of SVGD, ``[..., m, d]``; particles move along their sum."""

    drive: Tensor  # kernel-averaged score: pulls particles towards high density
    repulsion: Tensor  # mean kernel gradient: pushes particles away from each other

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


def amortized_surrogate(points: Tensor, direction: Tensor) -> Tensor:
    r"""-(1/M) sum_i z_i . sg(phi(z_i)): a number whose descent moves a sampler along phi.

    Its gradient is -phi(z_i) / M for point i, and the chain rule takes it from points that a
    sampler made to the sampler's parameters. The value itself means nothing.

    Points z_i, M for each state, and phi(z_i), such as the total of :func:`svgd_direction`, are
    ``[*B, M, A]``; the result is ``[*B]``.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), eq. (14).

    Example:
        >>> import torch
        >>> z = torch.zeros(2, 1, requires_grad=True)
        >>> amortized_surrogate(z, torch.tensor([[4.0], [-2.0]])).backward()
        >>> z.grad.flatten().tolist()
        [-2.0, 1.0]
    """
    check_floating("amortized_surrogate", points=points, direction=direction)
    check_same_size("amortized_surrogate", points=(points, -2), direction=(direction, -2))
    check_same_size("amortized_surrogate", points=(points, -1), direction=(direction, -1))
    return -(points * direction.detach()).sum(-1).mean(-1)
