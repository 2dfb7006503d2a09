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

__all__ = [
    "FlatDistances",
    "distinct_pairs",
    "flat_squared_distances",
    "index_of_medoid",
    "medoid",
    "squared_distances",
    "weighted_forces",
]

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

    Raises:
        TypeError, ValueError: if x or y are no floating-point ``[..., n, d]`` of one d >= 1.

    Example:
        >>> squared_distances(torch.tensor([[0.0], [3.0]]))
        tensor([[0., 9.],
                [9., 0.]])
    """
    check_floating("squared_distances", x=x)
    check_same_size("squared_distances", x=(x, -2))
    if y is not None:
        check_floating("squared_distances", y=y)
        check_same_size("squared_distances", y=(y, -2))
        check_same_size("squared_distances", x=(x, -1), y=(y, -1))
    n, d = x.shape[-2:]
    if d == 0:
        raise ValueError(
            f"squared_distances: x must have at least one feature, got shape {list(x.shape)}"
        )
    if d <= _LOOP_DIMS:
        return _loop_over_dims(x, x if y is None else y)
    if y is None and _pdist_pays(x):
        return _condensed_to_square(torch.pdist(x).square(), n)
    return _shifted_gram(x, x if y is None else y, same=y is None)


def _pdist_pays(x: Tensor) -> bool:
    few = x.ndim == 2 and x.shape[0] <= _PDIST_POINTS
    return few and x.device.type == "cpu" and x.dtype in _PDIST_DTYPES


def _loop_over_dims(x: Tensor, y: Tensor) -> Tensor:
    # Rows of one dimension each, so that numbers which are used together lie together.
    x, y = x.mT.contiguous(), y.mT.contiguous()
    out = _differences(x, y, 0).square()
    for c in range(1, x.shape[-2]):
        difference = _differences(x, y, c)
        if torch.is_grad_enabled():
            out = out + difference.square()
        else:
            out.addcmul_(difference, difference)
    return out


def _differences(x: Tensor, y: Tensor, c: int) -> Tensor:
    return x[..., c, :, None] - y[..., c, None, :]


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
    """The distinct pairs of a matrix of distances, as a vector.

    Args:
        square: ``[..., n, m]``.
        same: True if both point sets are one and the same (n = m): the diagonal and the lower
            triangle are left out.

    Returns:
        Tensor: ``[..., n (n - 1) / 2]`` if same, else ``[..., n m]``.

    Example:
        >>> distinct_pairs(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), same=True)
        tensor([1.])
    """
    if square.ndim < 2 or (same and square.shape[-2] != square.shape[-1]):
        expected = "[..., n, n]" if same else "[..., n, m]"
        raise ValueError(
            f"distinct_pairs: square must be {expected}, got shape {list(square.shape)}"
        )
    if not same:
        return square.flatten(-2)
    row, column = torch.triu_indices(square.shape[-2], square.shape[-1], 1, device=square.device)
    return square[..., row, column]


def medoid(x: Tensor, square: Tensor) -> Tensor:
    """The point of x with the smallest summed distance to the other set.

    Used as origin before a product with coordinates: a point inside the bulk keeps the
    subtraction exact for every neighbour, and the mean does not, since an outlier drags it along.

    Args:
        x: ``[..., n, d]``.
        square: ``squared_distances(x, y)``, ``[..., n, m]``.

    Returns:
        Tensor: ``[..., 1, d]``, detached.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [9.0]])
        >>> medoid(x, squared_distances(x))
        tensor([[1.]])
    """
    check_same_size("medoid", x=(x, -2), square=(square, -2))
    index = index_of_medoid(square)
    batch = index.shape
    index = index[..., None, None].expand(*batch, 1, x.shape[-1])
    return x.detach().expand(*batch, *x.shape[-2:]).gather(-2, index)


def index_of_medoid(square: Tensor) -> Tensor:
    """Index ``[...]`` of the :func:`medoid` from squared distances ``[..., n, m]``.

    Example:
        >>> index_of_medoid(squared_distances(torch.tensor([[0.0], [1.0], [9.0]])))
        tensor(1)
    """
    # The sum of distances has its minimum in the bulk, that of their squares near the mean.
    return square.detach().sqrt().sum(-1).argmin(-1)


class FlatDistances(NamedTuple):
    """Squared distances, and a point relative to which coordinates do not cancel.

    Attributes:
        square: ``[n, n]``, non-negative with a zero diagonal.
        origin: one of the particles, ``[1, d]``, or None where zero does as well.

    Example:
        >>> flat_squared_distances(torch.tensor([[9.0] * 5, [9.1] * 5])).origin
        tensor([[9., 9., 9., 9., 9.]])
    """

    square: Tensor
    origin: Tensor | None


def flat_squared_distances(x: Tensor) -> FlatDistances:
    """Squared distances of n particles in many dimensions, as one product wherever that is exact.

    On a CPU the product is trusted for particles that are about as far from each other as from
    zero, as those of a population of networks are. Others, as well as other devices and anything
    that is being traced, get :func:`squared_distances`, which takes a few times as long.
    Looking is free there: it waits for no device.

    Args:
        x: floating-point ``[n, d]`` with d >= 1, detached.

    Example:
        >>> flat_squared_distances(torch.tensor([[1.0] * 5, [3.0] * 5])).square
        tensor([[ 0., 20.],
                [20.,  0.]])
    """
    check_floating("flat_squared_distances", x=x)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(
            f"flat_squared_distances: x must be [n, d] with d >= 1, got shape {list(x.shape)}"
        )
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

    Args:
        drive: ``[n, n]``.
        scores: s, ``[n, d]``.
        pull: ``[n, n]``; its diagonal does not matter.
        x: ``[n, d]``.
        origin: ``[1, d]``, of :func:`flat_squared_distances`. The halves of the second sum cancel
            where particles are close, so they are taken relative to it. None is zero.
        out: ``[n, d]``, written to; neither ``x`` nor ``scores``.

    Returns:
        Tensor: ``out``.

    Example:
        >>> x, out = torch.tensor([[0.0], [3.0]]), torch.empty(2, 1)
        >>> weighted_forces(torch.eye(2), x, torch.ones(2, 2), x, None, out).flatten()
        tensor([3., 0.])
    """
    check_floating("weighted_forces", x=x, scores=scores)
    n = x.shape[0] if x.ndim == 2 else None
    if not (x.shape == scores.shape == out.shape and drive.shape == pull.shape == (n, n)):
        given = {"x": x, "scores": scores, "out": out, "drive": drive, "pull": pull}
        raise ValueError(
            "weighted_forces: x, scores and out must be [n, d], drive and pull [n, n], got "
            + ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in given.items())
        )
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
