"""Distances and forces of few long vectors."""

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.functional import distance, squared_distances
from torchrl_stein.functional.distance import flat_squared_distances, weighted_forces


@pytest.fixture
def exact_calls(monkeypatch):
    """How often the slower, always exact form was asked for."""
    calls = []

    def watched(x):
        calls.append(x.shape)
        return squared_distances(x)

    monkeypatch.setattr(distance, "squared_distances", watched)
    return calls


def test_by_hand():
    # The triangle 3-4-5.
    x = torch.zeros(3, 2000)
    x[1, 0], x[2, -1] = 3.0, 4.0
    want = torch.tensor([[0.0, 9.0, 16.0], [9.0, 0.0, 25.0], [16.0, 25.0, 0.0]])
    assert_close(flat_squared_distances(x).square, want)
    assert_close(flat_squared_distances(x + 1.0).square, want)


def test_a_product_is_enough_for_scattered_particles(exact_calls):
    x = 0.5 + torch.randn(70, 3000)
    want = squared_distances(x.double())
    assert_close(flat_squared_distances(x).square.double(), want, rtol=1e-5, atol=0.0)
    assert exact_calls == []


def clusters(n, gap):
    """Two clusters of spread 1e-3, a distance ``gap`` from each other in each dimension."""
    x = 1e-3 * torch.randn(n, 500)
    x[n // 2 :] += gap
    return x


@pytest.mark.parametrize("n", [16, 100])
@pytest.mark.parametrize("gap", [0.1, 1.0, 10.0])
def test_clusters_are_measured_exactly(exact_calls, n, gap):
    # A product relative to a particle of one cluster has lost the distances within the other.
    x = clusters(n, gap)
    want = squared_distances(x.double())
    assert_close(flat_squared_distances(x).square.double(), want, rtol=1e-5, atol=0.0)
    assert len(exact_calls) == 1


@pytest.mark.parametrize("first", [0, 9])
def test_one_far_particle(first):
    x = 1e-3 * torch.randn(16, 500)
    x[first] += 1.0
    want = squared_distances(x.double())
    assert_close(flat_squared_distances(x).square.double(), want, rtol=1e-5, atol=0.0)


def test_coinciding_particles():
    x = torch.randn(1, 50).repeat(4, 1)
    assert (flat_squared_distances(x).square == 0).all()


def test_numbers_that_are_not_finite_stay_visible():
    x = torch.randn(4, 50)
    x[2, 7] = torch.nan
    assert flat_squared_distances(x).square[2, 1].isnan()


def test_half_precision_goes_the_exact_way(exact_calls):
    square = flat_squared_distances(torch.randn(4, 50, dtype=torch.bfloat16)).square
    assert square.dtype == torch.bfloat16
    assert len(exact_calls) == 1


@pytest.mark.parametrize("origin", [None, 0, 3])
def test_forces_against_loop(origin):
    n, d = 5, 7
    drive, pull = torch.randn(2, n, n, dtype=torch.float64)
    scores, x = torch.randn(2, n, d, dtype=torch.float64)
    want = torch.zeros(n, d, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            want[i] += drive[i, j] * scores[j] + pull[i, j] * (x[j] - x[i])
    point = None if origin is None else x[origin : origin + 1]
    out = torch.empty_like(x)
    assert weighted_forces(drive, scores, pull, x, point, out) is out
    assert_close(out, want)


@pytest.mark.parametrize("spread", [1e-4, 10.0])
@pytest.mark.parametrize("d", [200, 20_000])  # one block and several
def test_forces_far_from_zero(spread, d):
    # Around a point of norm 100: exact differences, where x_j and x_i alone round.
    n = 60
    x = 100.0 * torch.ones(d) / d**0.5 + spread * torch.randn(n, d)
    zeros, pull, origin = torch.zeros(n, n), torch.rand(n, n), flat_squared_distances(x).origin
    assert (origin is None) == (spread == 10.0)
    got = weighted_forces(zeros, torch.zeros(n, d), pull, x, origin, torch.empty(n, d))
    x, exact = x.double(), torch.empty(n, d, dtype=torch.float64)
    weighted_forces(zeros.double(), torch.zeros_like(exact), pull.double(), x, x[:1], exact)
    assert ((got - exact).norm() / exact.norm()).item() < 1e-5
