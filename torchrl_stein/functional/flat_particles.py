"""Few long vectors, such as the parameters of n networks: the two passes over [n, d] of SVGD.

Nothing of size [n, d] is made but the result, except where particles nearly coincide: see
:func:`flat_squared_distances`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, may_look

from .distance import index_nearest_to_all, squared_distances

__all__ = ["FlatDistances", "flat_squared_distances", "weighted_forces"]

# Bytes of a block of columns, which is written once and added to once: a CPU keeps it in its
# second-level cache in between. A GPU wants few launches.
_CPU_BLOCK = 1 << 20
_GPU_BLOCK = 1 << 28
# A squared distance from a product of float32 numbers is off by some 4 eps (a + b), where a and b
# are the squared norms of the two particles. Below this (a + b) / distance that is 1e-5 of the
# distance at most, and coordinates cancel in a sum of differences by a factor of four at most.
_LARGEST_CANCELLATION = 16.0


class FlatDistances(NamedTuple):
    """Squared distances, and a point relative to which coordinates do not cancel.

    Attributes:
        square: ``[n, n]``, non-negative with a zero diagonal.
        origin: one of the particles, ``[1, d]``, or None where zero does as well.

    Example:
        >>> import torch
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
        x: ``[n, d]``, detached.

    Returns:
        FlatDistances: see there.

    Raises:
        TypeError: if ``x`` is no floating-point tensor.
        ValueError: if it is no ``[n, d]`` with d >= 1.

    Example:
        >>> import torch
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
    return FlatDistances(square, x.index_select(0, index_nearest_to_all(square)[None]))


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

    Raises:
        TypeError: if ``x`` or ``scores`` is no floating-point tensor.
        ValueError: if sizes of n or d disagree.

    Example:
        >>> import torch
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
