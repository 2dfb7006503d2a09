"""Linear systems that are known by matrix-vector products alone (Hestenes & Stiefel 1952)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import (
    check_count,
    check_floating,
    check_number,
    check_same_size,
    check_type,
)


class LinearSolution(NamedTuple):
    """An approximate solution x of A x = b, and its residual."""

    solution: Tensor  # x, [..., d]
    residual: Tensor  # |b - A x| / |b|, [...]; 0 where b = 0


def conjugate_gradient(
    matvec: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    iterations: int = 10,
    damping: float = 0.0,
    tolerance: float = 1e-10,
) -> LinearSolution:
    r"""Solve (A + damping I) x = b for symmetric positive definite A, a batch of systems at once.

    Leading dimensions are batch: each row is a system of its own and takes steps of its own. All
    rows go through all iterations, so that nothing waits for the device; a row that has converged,
    or meets a direction in which A does not curve upwards, stays where it is. In exact arithmetic
    as many iterations suffice as A has different eigenvalues.

    Args:
        matvec: v -> A v, ``[..., d]`` -> ``[..., d]``, row by row.
        b: ``[..., d]``.
        iterations: >= 1, each one product.
        damping: >= 0, in units of A's eigenvalues; the residual is that of the damped system.
        tolerance: >= 0; a row has converged when its residual is at most this.

    Source: Hestenes & Stiefel 1952 (J. Res. Natl. Bur. Stand. 49), section 3.

    Example:
        >>> diagonal = torch.tensor([[1.0, 2.0], [4.0, 8.0]])  # of two systems
        >>> found = conjugate_gradient(lambda v: diagonal * v, torch.ones(2, 2), iterations=2)
        >>> found.solution
        tensor([[1.0000, 0.5000],
                [0.2500, 0.1250]])
    """
    check_type("conjugate_gradient", "a function v -> A v", Callable, matvec=matvec)
    check_floating("conjugate_gradient", b=b)
    check_same_size("conjugate_gradient", b=(b, -1))
    check_count("conjugate_gradient", iterations=iterations)
    check_number("conjugate_gradient", at_least=0, damping=damping, tolerance=tolerance)
    x = torch.zeros_like(b)
    residual = direction = b
    start = square = _square(b)
    for _ in range(iterations):
        product = matvec(direction)
        check_floating("conjugate_gradient", **{"what matvec returns": product})
        if product.shape != b.shape:
            raise ValueError(
                f"conjugate_gradient: matvec must return shape {list(b.shape)} as it is given, "
                f"got {list(product.shape)}"
            )
        product = product + damping * direction
        curvature = (direction * product).sum(-1, keepdim=True)
        going = (square > tolerance**2 * start) & (curvature > 0)
        step = torch.where(going, square / curvature, 0.0)
        x = x + step * direction
        residual = residual - step * product
        previous, square = square, _square(residual)
        turned = residual + square / previous * direction
        direction = torch.where(going, turned, direction)
    return LinearSolution(x, torch.where(start > 0, square / start, 0.0).sqrt().squeeze(-1))


def _square(v: Tensor) -> Tensor:
    return v.square().sum(-1, keepdim=True)
