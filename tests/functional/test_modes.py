"""mode_frequencies and normalized_entropy: by hand, by loop, by theory."""

import math

import pytest
import torch

from tests.oracles import discrepancy as oracle
from torchrl_stein.functional import mode_frequencies, normalized_entropy


def within_one(x, modes):
    return mode_frequencies(x, modes, 1.0)


def test_mode_frequencies_by_hand(variant):
    # Of five samples: two near (0, 0), one exactly on the radius of (4, 0), one too far out and
    # one between modes that overlap, nearest to (4, 1).
    x = variant.tensor([[0.0, 0.0], [0.5, 0.5], [3.0, 0.0], [9.0, 9.0], [4.0, 0.75]])
    modes = variant.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 1.0]])
    frequencies = mode_frequencies(x, modes, 1.0)
    variant.close(frequencies, [0.4, 0.2, 0.2])
    # vmap halves the second element's coordinates; only this comparison needs the radius.
    variant.close(variant(within_one, x, modes), [0.4, 0.2, 0.2])


def test_mode_frequencies_against_loop(variant):
    x, modes = 2.0 * variant.randn(50, 2), variant.randn(4, 2, seed=1)
    want = oracle.mode_frequencies(x.double().tolist(), modes.double().tolist(), 1.0)
    variant.close(variant(within_one, x, modes), want)


def test_mode_frequencies_of_a_mixture(variant):
    # Weights 0.7 and 0.3, modes 10 apart, standard deviation 1, radius 4: a sample lies farther
    # than that with probability exp(-8) = 3e-4. Four standard errors of a fraction, n = 4000.
    modes = variant.tensor([[0.0, 0.0], [10.0, 0.0]])
    second = torch.rand(4000, generator=torch.Generator().manual_seed(0)) < 0.3
    x = modes[second.long()] + variant.randn(4000, 2)
    found = variant(lambda x, modes: mode_frequencies(x, modes, 4.0), x, modes)
    assert abs(found[0].item() - 0.7) < 4.0 * math.sqrt(0.21 / 4000) + 1e-3
    assert found.sum() <= 1.0


def test_mode_frequencies_of_a_batch(variant):
    x, modes = variant.randn(3, 20, 2), variant.randn(4, 2, seed=1)
    frequencies = variant(within_one, x, modes)
    variant.close(frequencies[1], mode_frequencies(x[1], modes, 1.0))


def test_normalized_entropy_by_hand(variant):
    # (3/4, 1/4): -(3/4 log 3/4 + 1/4 log 1/4) / log 2 = 0.811278. Counts are normalised.
    counts = variant.tensor([[0.75, 0.25], [6.0, 2.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    variant.close(variant(normalized_entropy, counts), [0.81127812, 0.81127812, 1.0, 0.0, 0.0])


def test_normalized_entropy_against_loop(variant):
    histogram = variant.randn(5, 4).abs()
    want = [oracle.normalized_entropy(row) for row in histogram.tolist()]
    variant.close(variant(normalized_entropy, histogram), want)


def test_normalized_entropy_is_largest_for_the_uniform_histogram(variant):
    histogram = variant.randn(100, 4).abs()
    value = variant(normalized_entropy, histogram)
    assert (value >= 0.0).all()
    assert (value < 1.0).all()
    variant.close(variant(normalized_entropy, variant.tensor(torch.ones(4))), 1.0)
    # No matter which mode is which.
    variant.close(normalized_entropy(histogram.flip(-1)), value.double())


def test_errors():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"mode_frequencies: modes has size 3 .* but x has 2"):
        mode_frequencies(x, torch.zeros(4, 3), 1.0)
    for radius in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"mode_frequencies: radius must be .*> 0, got"):
            mode_frequencies(x, x, radius)
    with pytest.raises(
        ValueError, match=r"normalized_entropy: the number of modes must be >= 2, got 1"
    ):
        normalized_entropy(torch.ones(1))
