"""The evolution-strategies estimate and the shapings of returns, by slow loops and by hand."""

import numpy as np
import pytest
import torch

from torchrl_stein.functional import centred_ranks, evolution_gradient, z_scores

# Ranks by hand; the two 1.0 share ranks 1 and 2, equal values share all eight.
RETURNS = [
    [3.0, 1.0, 1.0, 7.0, 0.0, 2.0, 9.0, 8.0],
    [1e6, -5.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1],
]
RANKS = [
    [4.0, 1.5, 1.5, 5.0, 0.0, 3.0, 7.0, 6.0],
    [7.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    [3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5, 3.5],
]


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_the_estimate_is_a_slow_loop(variant, batch):
    k, d, h = 5, 4, 0.3
    returns, directions = variant.randn(*batch, 2, k), variant.randn(*batch, k, d, seed=1)
    want = np.zeros((*batch, d))
    for index in np.ndindex(*batch):
        for j in range(k):
            rise = float(returns[(*index, 0, j)] - returns[(*index, 1, j)])
            want[index] += rise * directions[(*index, j)].double().numpy() / (2 * h * k)
    variant.close(variant(lambda r, x: evolution_gradient(r, x, h), returns, directions), want)


def test_ranks_by_hand(variant):
    got = variant(centred_ranks, variant.tensor(RETURNS))
    variant.close(got, np.array(RANKS) / 7 - 0.5)


def test_z_scores_by_hand(variant):
    rows = np.array(RETURNS)
    std = rows.std(-1, keepdims=True)
    want = (rows - rows.mean(-1, keepdims=True)) / np.where(std < 1e-9, 1.0, std)
    variant.close(variant(z_scores, variant.tensor(RETURNS)), want)


def test_shapes_that_do_not_fit():
    for returns, message in (
        (torch.zeros(2, 4), r"directions has 5|size 4 in dimension -1 but directions has 5"),
        (torch.zeros(3, 5), r"returns must be \[\.\.\., 2, K\], got \[3, 5\]"),
        (torch.zeros(5), r"returns must be \[\.\.\., 2, K\], got \[5\]"),
    ):
        with pytest.raises(ValueError, match=message):
            evolution_gradient(returns, torch.zeros(5, 3), 0.1)
