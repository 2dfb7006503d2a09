"""Few long vectors, such as the parameters of n networks: the two passes over [n, d] of SVGD.

Everything of size d happens in blocks of columns that fit a cache. Beyond the result there is one
buffer of the size of a block, and no operation is repeated for each pair of particles.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .distance import index_nearest_to_all, squared_distances

__all__ = ["FlatDistances", "flat_squared_distances", "weighted_forces"]

# Bytes of a block of columns. A CPU keeps it in its second-level cache beside the result; a GPU
# wants few launches.
_CPU_BLOCK = 1 << 20
_GPU_BLOCK = 1 << 28
# A squared distance from a product of float32 numbers is off by some 4 eps (a + b), where a and b
# are the squared distances of the two particles from the origin. Below this (a + b) / distance
# that is 1e-5 of the distance at most.
_LARGEST_CANCELLATION = 16.0


class FlatDistances(NamedTuple):
    """Squared distances, and a point relative to which coordinates do not cancel.

    Attributes:
        square: ``[n, n]``, non-negative with a zero diagonal.
        origin: one of the particles, ``[1, d]``.
        shifted: x - origin, ``[n, d]``, if it was at hand, else None.

    Example:
        >>> import torch
        >>> flat_squared_distances(torch.tensor([[1.0] * 5, [3.0] * 5])).origin
        tensor([[1., 1., 1., 1., 1.]])
    """

    square: Tensor
    origin: Tensor
    shifted: Tensor | None


def flat_squared_distances(x: Tensor) -> FlatDistances:
    """Squared distances of n particles in many dimensions, as one product wherever that is exact.

    On a CPU the product is trusted only for particles that are not close to each other compared
    with their distance from the first one; other sets, as well as other devices and anything that
    is being traced, get :func:`squared_distances`. Looking is free there: it waits for no device.

    Args:
        x: ``[n, d]``, detached.

    Returns:
        FlatDistances: see there.

    Example:
        >>> import torch
        >>> flat_squared_distances(torch.tensor([[1.0] * 5, [3.0] * 5])).square
        tensor([[ 0., 20.],
                [20.,  0.]])
    """
    may_look = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if may_look and x.dtype in (torch.float32, torch.float64):
        cross, shifted = _shifted_product(x)
        from_origin = cross.diagonal()
        scale = from_origin[:, None] + from_origin
        square = torch.sub(scale, cross, alpha=2.0).clamp_min_(0.0).fill_diagonal_(0.0)
        excess = torch.sub(scale, square, alpha=_LARGEST_CANCELLATION).fill_diagonal_(0.0)
        # Numbers that are not finite compare false, and go the other way.
        if bool(excess.max() <= 0.0):
            return FlatDistances(square, x[:1], shifted)
    square = squared_distances(x)
    return FlatDistances(square, x.index_select(0, index_nearest_to_all(square)[None]), None)


def _shifted_product(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """(X - x_0) (X - x_0)^T, ``[n, n]``, and X - x_0 if it is one block."""
    n, d = x.shape
    columns = _columns(x)
    buffer = x.new_empty(n, min(columns, d))
    if columns >= d:
        torch.sub(x, x[:1], out=buffer)
        return buffer @ buffer.mT, buffer
    cross = x.new_zeros(n, n)
    for start in range(0, d, columns):
        block = x[:, start : start + columns]
        shifted = torch.sub(block, block[:1], out=buffer[:, : block.shape[1]])
        cross.addmm_(shifted, shifted.mT)
    return cross, None


def weighted_forces(
    drive: Tensor, scores: Tensor, pull: Tensor, x: Tensor, distances: FlatDistances, out: Tensor
) -> Tensor:
    r"""out_i = sum_j drive_ij s_j + sum_j pull_ij (x_j - x_i).

    Args:
        drive: ``[n, n]``.
        scores: s, ``[n, d]``.
        pull: ``[n, n]``; its diagonal does not matter.
        x: ``[n, d]``.
        distances: of ``x``. The second sum is taken relative to their origin, since its halves
            cancel where particles are close.
        out: ``[n, d]``, written to; neither ``x`` nor ``scores``.

    Returns:
        Tensor: ``out``.

    Example:
        >>> import torch
        >>> x, out = torch.tensor([[0.0], [3.0]]), torch.empty(2, 1)
        >>> distances = flat_squared_distances(x)
        >>> weighted_forces(torch.eye(2), x, torch.ones(2, 2), x, distances, out).flatten()
        tensor([3., 0.])
    """
    pull = pull - torch.diag_embed(pull.sum(-1))
    if distances.shifted is not None:
        return torch.mm(drive, scores, out=out).addmm_(pull, distances.shifted)
    d, columns = x.shape[-1], _columns(x)
    buffer = x.new_empty(x.shape[0], min(columns, d))
    for start in range(0, d, columns):
        part = slice(start, start + columns)
        block = x[:, part]
        origin = distances.origin[:, part]
        shifted = torch.sub(block, origin, out=buffer[:, : block.shape[1]])
        torch.mm(drive, scores[:, part], out=out[:, part]).addmm_(pull, shifted)
    return out


def _columns(x: Tensor) -> int:
    size = _CPU_BLOCK if x.device.type == "cpu" else _GPU_BLOCK
    return max(1024, size // (x.shape[0] * x.element_size()))
