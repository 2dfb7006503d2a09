"""Squared Euclidean distances that stay accurate when particles nearly coincide.

The textbook form |x|^2 + |y|^2 - 2 x.y cancels: particles with a spread of 1e-4 around a point of
norm 100 give negative squared distances in float32. Exact forms replace it, chosen by shape, device
and dtype, and no tensor of size [n, m, d] is formed for large d. For few long vectors, such as the
parameters of n networks, there are the two passes over [n, d] of SVGD, which make nothing of that
size but the result.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_same_size, may_look

# Up to this many dimensions a loop over dimensions is the fastest exact form (action spaces).
_LOOP_DIMS = 8
# Up to this many particles torch.pdist costs about as much as a Gram product on a CPU. On a GPU it
# reads each particle once for every other one, from memory where they are large.
_PDIST_POINTS = 64
_PDIST_DTYPES = (torch.float32, torch.float64)
# Columns promoted to float64 at a time, so that the copy stays small beside [n, d].
_BLOCK = 1 << 15
# Bytes of a block of columns, which is written once and added to once: a CPU keeps it in its
# second-level cache in between. A GPU wants few launches.
_CPU_BLOCK = 1 << 20
_GPU_BLOCK = 1 << 28
# A squared distance from a product of float32 numbers is off by some 4 eps (a + b), where a and b
# are the squared norms of the two particles. Below this (a + b) / distance that is 1e-5 of the
# distance at most, and coordinates cancel in a sum of differences by a factor of four at most.
_LARGEST_CANCELLATION = 16.0


def squared_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """All squared distances |x_j - y_i|^2.

    Args:
        x: ``[..., n, d]``.
        y: ``[..., m, d]``; ``None`` means y = x, with an exactly zero diagonal.

    Returns:
        Tensor: ``[..., n, m]``, non-negative, dtype of ``x``.

    Example:
        >>> squared_distances(torch.tensor([[0.0], [3.0]]))
        tensor([[0., 9.],
                [9., 0.]])
    """
    check_points("squared_distances", x, y)
    n, d = x.shape[-2:]
    if d == 0:
        raise ValueError(
            f"squared_distances: x must have at least one feature, got shape {list(x.shape)}"
        )
    if d <= _LOOP_DIMS:
        return _loop_over_dims(x, x if y is None else y)
    few = y is None and x.ndim == 2 and n <= _PDIST_POINTS
    if few and x.device.type == "cpu" and x.dtype in _PDIST_DTYPES:
        return _condensed_to_square(torch.pdist(x).square(), n)
    return _shifted_gram(x, x if y is None else y, same=y is None)


def check_points(owner: str, x: Tensor, y: Tensor | None) -> None:
    """Require two sets of points of one dimension, or one set."""
    check_floating(owner, x=x)
    check_same_size(owner, x=(x, -2))
    if y is not None:
        check_floating(owner, y=y)
        check_same_size(owner, y=(y, -2))
        check_same_size(owner, x=(x, -1), y=(y, -1))


def _loop_over_dims(x: Tensor, y: Tensor) -> Tensor:
    # Rows of one dimension each, so that numbers which are used together lie together.
    pairs = zip(x.mT.contiguous().unbind(-2), y.mT.contiguous().unbind(-2), strict=True)
    differences = (a[..., :, None] - b[..., None, :] for a, b in pairs)
    out = next(differences).square()
    for difference in differences:
        if torch.is_grad_enabled():
            out = out + difference.square()
        else:
            out.addcmul_(difference, difference)
    return out


def _condensed_to_square(condensed: Tensor, n: int) -> Tensor:
    row, column = torch.triu_indices(n, n, 1, device=condensed.device)
    upper = condensed.new_zeros(n, n).index_put((row, column), condensed)
    return upper + upper.mT


def _shifted_gram(x: Tensor, y: Tensor, *, same: bool) -> Tensor:
    # Both cancellations end here: the shift removes the common point, float64 the rest. The cast
    # comes before the subtraction, so that the shift itself does not round.
    origin = x[..., :1, :].detach()
    out = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, x.shape[-1], _BLOCK):
        stop = start + _BLOCK
        base = origin[..., start:stop].double()
        xs = x[..., start:stop].double() - base
        ys = xs if same else y[..., start:stop].double() - base
        cross = xs @ ys.mT
        if same:
            of_x = of_y = cross.diagonal(dim1=-2, dim2=-1)
        else:
            of_x, of_y = xs.square().sum(-1), ys.square().sum(-1)
        out = out + (of_x[..., :, None] + of_y[..., None, :] - 2.0 * cross)
    out = out.clamp_min(0.0)
    if same:
        eye = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
        out = out.masked_fill(eye, 0.0)
    return out.to(x.dtype)


def distinct_pairs(square: Tensor, *, same: bool) -> Tensor:
    """The distinct pairs of a matrix of distances ``[..., n, m]``: ``[..., n m]``.

    Of one set with itself (``same``) those above the diagonal, ``[..., n (n - 1) / 2]``.
    """
    if not same:
        return square.flatten(-2)
    row, column = torch.triu_indices(square.shape[-2], square.shape[-1], 1, device=square.device)
    return square[..., row, column]


def medoid(x: Tensor, square: Tensor) -> Tensor:
    """The point of x with the smallest summed distance to the other set.

    Used as origin before a product with coordinates: a point inside the bulk keeps the
    subtraction exact for every neighbour, and the mean does not, since an outlier drags it along.
    Of x ``[..., n, d]`` and ``squared_distances(x, y)``; ``[..., 1, d]``, detached.
    """
    index = index_of_medoid(square)
    batch = index.shape
    index = index[..., None, None].expand(*batch, 1, x.shape[-1])
    return x.detach().expand(*batch, *x.shape[-2:]).gather(-2, index)


def index_of_medoid(square: Tensor) -> Tensor:
    """Index ``[...]`` of the :func:`medoid` from squared distances ``[..., n, m]``."""
    # The sum of distances has its minimum in the bulk, that of their squares near the mean.
    return square.detach().sqrt().sum(-1).argmin(-1)


class FlatDistances(NamedTuple):
    """Squared distances, and a point relative to which coordinates do not cancel."""

    square: Tensor  # [n, n], non-negative with a zero diagonal
    origin: Tensor | None  # one of the particles, [1, d]; None where zero does as well


def flat_squared_distances(x: Tensor) -> FlatDistances:
    """Squared distances of n particles in many dimensions, as one product wherever that is exact.

    On a CPU the product is trusted for particles that are about as far from each other as from
    zero, as those of a population of networks are. Others, as well as other devices and anything
    that is being traced, get :func:`squared_distances`, which takes a few times as long.
    Looking is free there: it waits for no device. x is ``[n, d]`` with d >= 1, detached.
    """
    if may_look(x) and x.dtype in (torch.float32, torch.float64):
        cross = x @ x.mT
        norms = cross.diagonal()
        scale = norms[:, None] + norms
        square = torch.sub(scale, cross, alpha=2.0).clamp_min_(0.0).fill_diagonal_(0.0)
        excess = torch.sub(scale, square, alpha=_LARGEST_CANCELLATION).fill_diagonal_(0.0)
        # Numbers that are not finite compare false, and go the other way.
        if bool(excess.max() <= 0.0):
            return FlatDistances(square, None)
    square = squared_distances(x)
    return FlatDistances(square, x.index_select(0, index_of_medoid(square)[None]))


def weighted_forces(
    drive: Tensor, scores: Tensor, pull: Tensor, x: Tensor, origin: Tensor | None, out: Tensor
) -> Tensor:
    r"""out_i = sum_j drive_ij s_j + sum_j pull_ij (x_j - x_i).

    ``drive`` and ``pull`` are ``[n, n]``; ``x``, ``scores`` and ``out``, which is written to and
    returned, are ``[n, d]``. The halves of the second sum cancel where particles are close, so they
    are taken relative to ``origin`` ``[1, d]`` of :func:`flat_squared_distances`; None is zero.
    """
    pull = pull - torch.diag_embed(pull.sum(-1))
    d = x.shape[-1]
    size = _CPU_BLOCK if x.device.type == "cpu" else _GPU_BLOCK
    columns = max(1024, size // (x.shape[0] * x.element_size()))
    buffer = None if origin is None else x.new_empty(x.shape[0], min(columns, d))
    for start in range(0, d, columns):
        part = slice(start, start + columns)
        block = x[:, part]
        if buffer is not None and origin is not None:
            block = torch.sub(block, origin[:, part], out=buffer[:, : block.shape[1]])
        torch.mm(drive, scores[:, part], out=out[:, part]).addmm_(pull, block)
    return out
