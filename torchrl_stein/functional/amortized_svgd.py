"""The surrogate of amortized SVGD (Haarnoja et al. 2017, arXiv:1702.08165)."""

from __future__ import annotations

from torch import Tensor

from torchrl_stein._checks import check_floating, check_same_size

__all__ = ["amortized_surrogate"]


def amortized_surrogate(points: Tensor, direction: Tensor) -> Tensor:
    r"""-(1/M) sum_i z_i . sg(phi(z_i)): a number whose descent moves a sampler along phi.

    Its gradient is -phi(z_i) / M for point i, and the chain rule takes it from points that a
    sampler made to the sampler's parameters. The value itself means nothing.

    Args:
        points: z_i, M for each state, ``[*B, M, A]``.
        direction: phi(z_i), such as the total of :func:`svgd_direction`, as ``points``.

    Returns:
        Tensor: ``[*B]``.

    Raises:
        TypeError, ValueError: if one is no floating-point tensor, or they differ in M or A.

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
