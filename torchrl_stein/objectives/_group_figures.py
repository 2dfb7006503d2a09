"""How near particles of one population are to each other; a kernel may hold several populations."""

from __future__ import annotations

from torch import Tensor

from torchrl_stein.functional import distinct_pairs, squared_distances
from torchrl_stein.kernels import diagonal_blocks

__all__ = ["mean_between", "median_distance"]


def mean_between(gram: Tensor, num_groups: int) -> Tensor:
    """Mean of k between different particles of a group, 0 if it has one.

    Args:
        gram: ``[G n, G n]``.
        num_groups: G.
    """
    n = gram.shape[-1]
    pairs = n * (n // num_groups - 1)
    return (gram.sum() - gram.diagonal().sum()) / max(1, pairs)


def median_distance(x: Tensor, num_groups: int) -> Tensor:
    """Median distance of two particles of a group, 0 if it has one.

    Args:
        x: ``[G n, d]``.
        num_groups: G.
    """
    square = distinct_pairs(diagonal_blocks(squared_distances(x), num_groups), same=True)
    return square.median().sqrt() if square.numel() else x.new_zeros(())
