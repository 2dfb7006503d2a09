"""How near particles of one population are to each other; a kernel may hold several populations."""

from __future__ import annotations

from torch import Tensor

from torchrl_stein.functional import distinct_pairs, squared_distances

__all__ = ["mean_between", "median_distance"]


def mean_between(gram: Tensor) -> Tensor:
    """Mean of k between different particles of a population, 0 if it has one.

    Args:
        gram: ``[n, n]`` or ``[S, n, n]``.
    """
    pairs = gram.numel() - gram.shape[:-1].numel()
    own = gram.diagonal(dim1=-2, dim2=-1).sum()
    return (gram.sum() - own) / max(1, pairs)


def median_distance(x: Tensor) -> Tensor:
    """Median distance of two particles of a population, 0 if it has one.

    Args:
        x: ``[n, d]`` or ``[S, n, d]``.
    """
    square = distinct_pairs(squared_distances(x), same=True)
    return square.median().sqrt() if square.numel() else x.new_zeros(())
