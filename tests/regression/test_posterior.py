"""The joint density against scipy, one factor at a time, and its maxima in closed form."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import regression as oracle
from torchrl_stein.regression import RegressionPosterior

S, M, F = 2, 3, 4


@pytest.fixture(params=[None, 2.5], ids=["learnt lambda", "given lambda"])
def posterior(request):
    options = {"weight_precision": request.param, "precision_prior": (1.5, 0.3)}
    made = RegressionPosterior(F, S, M, num_cells=5, **options).double()
    with torch.no_grad():  # biases start at zero
        made.networks.particles.add_(0.3 * torch.randn_like(made.networks.particles))
    return made


@pytest.fixture
def data():
    return torch.randn(S, 7, F, dtype=torch.float64), torch.randn(S, 7, dtype=torch.float64)


def particle(posterior, split, index):
    return posterior.networks.particle(split, index)


def test_the_networks_of_a_split_see_its_rows(posterior, data):
    mean, log_precision = posterior.predict(data[0])
    for s in range(S):
        for i in range(M):
            net = particle(posterior, s, i)
            expected = [oracle.network(net, row) for row in data[0][s].tolist()]
            assert_close(mean[s, i].tolist(), expected)
            assert log_precision[s, i] == net.precisions.logarithms[-1]


@pytest.mark.parametrize("num_rows", [7, 100])
def test_the_density_is_the_product_of_its_factors(posterior, data, num_rows):
    value = posterior.log_joint(*data, num_rows)
    for s in range(S):
        for i in range(M):
            expected = oracle.log_joint(
                particle(posterior, s, i),
                *(d[s].tolist() for d in data),
                num_rows,
                *(1.5, 0.3),
                posterior.weight_precision,
            )
            assert value[s, i].item() == pytest.approx(expected, rel=1e-12)


def test_precisions_are_largest_where_their_conditional_density_is(posterior, data):
    # Given the weights, gamma ~ Gamma(a + N/2, b + SSE/2) and lambda ~ Gamma(a + d/2, b + |w|^2/2);
    # the density of the logarithm of Gamma(A, B) is largest at log(A / B).
    residual = data[1].unsqueeze(1) - posterior.predict(data[0]).mean
    precisions = [(1.5 + 7 / 2) / (0.3 + residual.square().sum(-1) / 2)]
    if posterior.weight_precision is None:
        weights = posterior.particles[..., :-2]
        weight = (1.5 + weights.shape[-1] / 2) / (0.3 + weights.square().sum(-1) / 2)
        precisions.insert(0, weight)
    count = len(precisions)
    with torch.no_grad():
        posterior.particles[..., -count:] = torch.stack(precisions, -1).log()
    posterior.log_joint(*data, num_rows=7).sum().backward()
    slopes = posterior.particles.grad[..., -count:]
    assert_close(slopes, torch.zeros_like(slopes), atol=1e-10, rtol=0.0)


def test_a_learnt_weight_precision_prefers_no_weights():
    """The degenerate mode of the docstring beats a perfect fit of a small table, a given one not.

    Weights of the size of a fit (|w|^2 = 20), each set with the precisions that suit it best.
    """
    rows, dim = 300, 501
    features, target = torch.randn(1, rows, 8), torch.randn(1, rows)

    def density(weight_precision, weights, noise):
        made = RegressionPosterior(8, 1, 1, weight_precision=weight_precision)
        assert made.particles.shape[-1] == dim + made.num_precisions
        with torch.no_grad():
            made.particles[..., :dim] = weights
            made.particles[..., -1] = math.log(noise)
            if weight_precision is None:
                best = (dim / 2 + 1) / (0.1 + weights.square().sum() / 2)
                made.particles[..., -2] = best.log()
        # As if the network explained all of the target but 1 / noise of its variance.
        shown = made.predict(features).mean[0] + target / noise**0.5
        return made.log_joint(features, shown.detach(), rows).item()

    fit = torch.randn(dim) * (20 / dim) ** 0.5
    none = torch.zeros(dim)
    assert density(None, none, 1.0) > density(None, fit, 100.0) + 100
    assert density(1.0, fit, 100.0) > density(1.0, none, 1.0) + 100


def test_first_particles():
    made = RegressionPosterior(24, 1, 400, num_cells=15, weight_precision=None)
    layers = made.networks.layer_slices
    assert list(layers) == ["hidden", "output", "precisions"]
    hidden, output = (made.particles[0, :, layers[name]] for name in ("hidden", "output"))
    assert hidden[:, : 24 * 15].std().item() == pytest.approx(1 / 5, rel=0.02)
    assert output[:, :15].std().item() == pytest.approx(1 / 4, rel=0.05)
    assert hidden[:, 24 * 15 :].eq(0.0).all()
    assert output[:, 15:].eq(0.0).all()
    # Gamma(1, rate 0.1) is exponential with mean 10 and median 10 log 2.
    precisions = made.particles[0, :, -2:].exp()
    assert precisions.mean().item() == pytest.approx(10.0, rel=0.15)
    assert precisions.median().item() == pytest.approx(10.0 * math.log(2.0), rel=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_features": 0}, "num_features must be >= 1, got 0"),
        ({"num_splits": 0}, "num_splits must be >= 1, got 0"),
        ({"num_particles": -1}, "num_particles must be >= 1, got -1"),
        ({"num_cells": 0}, "num_cells must be >= 1, got 0"),
        ({"weight_precision": 0.0}, "weight_precision must be > 0, got 0.0"),
        ({"precision_prior": (1.0, 0.0)}, "precision_prior must be > 0, got 0.0"),
    ],
)
def test_bad_sizes(options, message):
    with pytest.raises(ValueError, match=message):
        RegressionPosterior(**{"num_features": 2, "num_splits": 1, **options})


def test_bad_data(posterior, data):
    features, target = data
    with pytest.raises(ValueError, match=r"\[S, B, F\] with S = 2, got \[7, 4\]"):
        posterior.predict(features[0])
    with pytest.raises(ValueError, match=r"with S = 2, got \[1, 7, 4\]"):
        posterior.predict(features[:1])
    with pytest.raises(ValueError, match=r"target must be .* got \[2, 1\] and \[2, 7, 4\]"):
        posterior.log_joint(features, target[:, :1], 7)
