"""Few long vectors, such as the parameters of n networks: the two passes over [n, d] of SVGD.

Everything of size d happens in blocks of columns that fit a cache. Beyond the result there is one
buffer of the size of a block, and no operation is repeated for each pair of particles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .distance import squared_distances

__all__ = ["flat_squared_distances", "weighted_forces"]

# Bytes of a block of columns. A CPU keeps it in its second-level cache beside the result; a GPU
# wants few launches.
_CPU_BLOCK = 1 << 20
_GPU_BLOCK = 1 << 28
# A squared distance from a product of float32 numbers is off by some 4 eps (a + b), where a and b
# are the squared distances of the two particles from the origin. Below this (a + b) / distance
# that is 1e-5 of the distance at most.
_LARGEST_CANCELLATION = 16.0


def flat_squared_distances(x: Tensor) -> Tensor:
    """Squared distances of n particles in many dimensions, as one product wherever that is exact.

    On a CPU the product is trusted only for particles that are not close to each other compared
    with their distance from the first one; other sets, as well as other devices and anything that
    is being traced, get :func:`squared_distances`. Looking is free there: it waits for no device.

    Args:
        x: ``[n, d]``, detached.

    Returns:
        Tensor: ``[n, n]``, non-negative with a zero diagonal.

    Example:
        >>> import torch
        >>> flat_squared_distances(torch.tensor([[1.0] * 5, [3.0] * 5]))
        tensor([[ 0., 20.],
                [20.,  0.]])
    """
    may_look = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if not may_look or x.dtype not in (torch.float32, torch.float64):
        return squared_distances(x)
    cross = _shifted_product(x)
    from_origin = cross.diagonal()
    scale = from_origin[:, None] + from_origin
    square = (scale - 2.0 * cross).clamp_min_(0.0).fill_diagonal_(0.0)
    excess = (scale - _LARGEST_CANCELLATION * square).fill_diagonal_(0.0)
    # A set with a number that is not finite goes the same way: it compares false.
    return square if bool(excess.max() <= 0.0) else squared_distances(x)


def _shifted_product(x: Tensor) -> Tensor:
    """(X - x_0) (X - x_0)^T, ``[n, n]``."""
    n, d = x.shape
    columns = _columns(x)
    buffer = x.new_empty(n, min(columns, d))
    cross = x.new_zeros(n, n)
    for start in range(0, d, columns):
        block = x[:, start : start + columns]
        shifted = torch.sub(block, block[:1], out=buffer[:, : block.shape[1]])
        cross.addmm_(shifted, shifted.mT)
    return cross


def weighted_forces(
    drive: Tensor, scores: Tensor, pull: Tensor, x: Tensor, origin: Tensor, out: Tensor
) -> Tensor:
    r"""out_i = sum_j drive_ij s_j + sum_j pull_ij (x_j - x_i).

    Args:
        drive: ``[n, n]``.
        scores: s, ``[n, d]``.
        pull: ``[n, n]``; its diagonal does not matter.
        x: ``[n, d]``.
        origin: index of a particle in the midst of the others, ``[1]``. The second sum is taken
            relative to it, since its halves cancel where particles are close.
        out: ``[n, d]``, written to; neither ``x`` nor ``scores``.

    Returns:
        Tensor: ``out``.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [3.0]])
        >>> eye, ones = torch.eye(2), torch.ones(2, 2)
        >>> weighted_forces(eye, x, ones, x, torch.tensor([0]), torch.empty(2, 1)).flatten()
        tensor([3., 0.])
    """
    pull = pull - torch.diag_embed(pull.sum(-1))
    d, columns = x.shape[-1], _columns(x)
    centre = x.index_select(0, origin)
    buffer = x.new_empty(x.shape[0], min(columns, d))
    for start in range(0, d, columns):
        part = slice(start, start + columns)
        block = x[:, part]
        shifted = torch.sub(block, centre[:, part], out=buffer[:, : block.shape[1]])
        torch.mm(drive, scores[:, part], out=out[:, part]).addmm_(pull, shifted)
    return out


def _columns(x: Tensor) -> int:
    size = _CPU_BLOCK if x.device.type == "cpu" else _GPU_BLOCK
    return max(1024, size // (x.shape[0] * x.element_size()))
