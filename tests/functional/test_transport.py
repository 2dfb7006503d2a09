"""Entropic transport: by hand, by loop, against POT and in closed form."""

import math

import ot
import pytest
import torch
from torch.testing import assert_close

from tests.functional.transport_builders import CONVERGED, points, weights
from tests.oracles import transport as oracle
from torchrl_stein.functional import squared_distances
from torchrl_stein.functional.transport import (
    entropic_plan,
    entropic_transport,
    sinkhorn_divergence,
    wgf_potential,
)


def test_two_points_by_hand(variant):
    # c / lambda = log 2: the diagonal gets twice the mass of the rest, and the value is
    # -lambda log((1 + 1/2) / 2). All rows are alike: the correction of the marginals is exact, and
    # one full update of both sides from ratios of 3/4 leaves 1 / (3/4), an error of 1/3 each.
    def plan_and_value(cost):
        options = {"regularization": 3.0, "max_iterations": 1}
        return *entropic_plan(cost, **options), entropic_transport(cost, **options)

    c = 3.0 * math.log(2.0)
    plan, error, value = variant(plan_and_value, variant.tensor([[0.0, c], [c, 0.0]]))
    variant.close(plan, [[1 / 3, 1 / 6], [1 / 6, 1 / 3]])
    variant.close(error, 2 / 3)
    variant.close(value, 3.0 * math.log(4 / 3))


def test_variants_agree(variant):
    def divergence(x, y):
        return sinkhorn_divergence(x, y, 0.5, tolerance=None, max_iterations=3)

    x, y = variant.randn(4, 2), variant.randn(4, 2, seed=1)
    want = divergence(x.double(), y.double())
    # Kernel entries around e^-20 carry 20 roundings, where those of order 1 carry one.
    assert_close(variant(divergence, x, y).double(), want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("regularization", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("m", [5, 4])
def test_against_loop_and_pot(m, regularization):
    cost, a, b = squared_distances(points(5, 2), points(m, 2)), weights(5), weights(m)
    lists = cost.tolist(), regularization, a.tolist(), b.tolist()
    want = oracle.plan(*lists, iterations=500)
    plan = entropic_plan(cost, regularization, a, b, **CONVERGED).plan
    assert_close(plan, torch.tensor(want, dtype=torch.float64), rtol=0.0, atol=1e-7)
    value = entropic_transport(cost, regularization, a, b, **CONVERGED)
    assert value.item() == pytest.approx(oracle.value(*lists, want), abs=1e-9)
    # POT subtracts the entropy of P, which differs by a constant: one and the same plan.
    options = {"method": "sinkhorn_log", "stopThr": 1e-12, "numItermax": 10_000}
    want = ot.sinkhorn(a.numpy(), b.numpy(), cost.numpy(), regularization, **options)
    assert_close(plan, torch.as_tensor(want), rtol=0.0, atol=1e-10)


@pytest.mark.parametrize("regularization", [0.01, 1e-5])
def test_mass_crosses_between_far_clusters(regularization):
    """16 and 16 particles become 15 and 17: one must travel, whatever the regularization."""

    def clusters(left):
        centres = torch.tensor([-0.9] * left + [0.9] * (32 - left), dtype=torch.float64)
        return centres.unsqueeze(-1) + 0.05 * torch.randn(32, 2, dtype=torch.float64)

    cost = squared_distances(clusters(16), clusters(15))
    found = entropic_plan(cost, regularization)
    assert found.marginal_error < 1e-4
    if regularization == 0.01:
        uniform = torch.full((32,), 1 / 32, dtype=torch.float64).numpy()
        # Not by logarithms, which take ten times as long: no entry of exp(-c / 0.01) underflows.
        options = {"method": "sinkhorn", "stopThr": 1e-9, "numItermax": 20_000, "warn": False}
        want = ot.sinkhorn(uniform, uniform, cost.numpy(), regularization, **options)
        assert_close(found.plan, torch.as_tensor(want), rtol=0.0, atol=1e-4)
    else:
        assert (found.plan * cost).sum().item() == pytest.approx(
            ot.emd2([], [], cost.numpy()), 1e-3
        )


def test_small_regularization_brackets_the_exact_cost():
    # The exact plan has a divergence of at most the entropy of a, so that
    # W <= <P, c> <= OT <= W + lambda H(a); at 0.02 of costs around 4, 1% of W.
    cost, a, b = squared_distances(points(25, 2), points(15, 2) + 1.0), weights(25), weights(15)
    exact = ot.emd2(a.numpy(), b.numpy(), cost.numpy())
    value = entropic_transport(cost, 0.02, a, b, tolerance=1e-9, max_iterations=4000).item()
    plan = entropic_plan(cost, 0.02, a, b, tolerance=1e-9, max_iterations=4000).plan
    transported = (plan * cost).sum().item()
    entropy = -(a * a.log()).sum().item()
    assert exact - 1e-12 <= transported <= value <= exact + 0.02 * entropy + 1e-9
    assert transported < 1.01 * exact


def test_one_dimension_is_sorting():
    # Shuffled integers, and the same moved by up to 0.4: the i-th smallest goes to the i-th
    # smallest, and any swap of two costs at least 2 * 0.2 more, 40 times the regularization.
    n = 12
    x = torch.randperm(n)[:, None].double()
    y = torch.randperm(n)[:, None] + 0.8 * torch.rand(n, 1, dtype=torch.float64) - 0.4
    want = torch.zeros(n, n, dtype=torch.float64)
    want[x[:, 0].argsort(), y[:, 0].argsort()] = 1.0 / n
    plan = entropic_plan(squared_distances(x, y), 0.01, **CONVERGED).plan
    assert_close(plan, want, rtol=0.0, atol=1e-8)
    exact = (x.sort(0).values - y.sort(0).values).square().mean()
    # The divergence of a one-to-one plan from the product is log n, exactly.
    value = entropic_transport(squared_distances(x, y), 0.01, **CONVERGED)
    assert_close(value, exact + 0.01 * math.log(n), rtol=0.0, atol=1e-8)
    assert_close(sinkhorn_divergence(x, y, 0.01, **CONVERGED), exact, rtol=0.0, atol=1e-8)


@pytest.mark.parametrize("regularization", [0.3, 1.0, 10.0])
@pytest.mark.parametrize(("mean", "std"), [((0.0, 0.0), (1.0, 1.0)), ((-0.5, 1.0), (0.7, 1.5))])
def test_gaussians_in_closed_form(mean, std, regularization):
    # Densities on a grid, no samples: the trapezoid rule of smooth functions that vanish at the
    # ends is exact to far beyond 1e-6, what is left being e^(-36/2) at six standard deviations.
    def grid(mean, std):
        t = torch.linspace(-6.0, 6.0, 81, dtype=torch.float64)
        return mean + std * t, torch.softmax(-0.5 * t.square(), 0)

    (x, a), (y, b) = grid(mean[0], std[0]), grid(mean[1], std[1])
    cost = squared_distances(x[:, None], y[:, None])
    value = entropic_transport(cost, regularization, a, b, tolerance=1e-8)
    variance = [s**2 for s in std]
    want = oracle.gaussian_value(mean, variance, regularization)
    assert value.item() == pytest.approx(want, abs=1e-6)


def test_gaussians_of_the_plane_in_closed_form():
    """With rotated axes, so that both dimensions mix: the sum of two problems in one dimension."""
    t = torch.linspace(-6.0, 6.0, 25, dtype=torch.float64)
    plane, weight = torch.cartesian_prod(t, t), torch.softmax(-0.5 * t.square(), 0)
    a = torch.outer(weight, weight).flatten()
    rotation = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=torch.float64)
    x = plane * torch.tensor([1.0, 0.7]) @ rotation
    y = (plane * torch.tensor([1.4, 0.9]) + torch.tensor([0.5, -0.3])) @ rotation
    value = entropic_transport(squared_distances(x, y), 2.0, a, a, tolerance=1e-8)
    want = sum(
        oracle.gaussian_value(*problem, 2.0)
        for problem in (((0.0, 0.5), (1.0, 1.96)), ((0.0, -0.3), (0.49, 0.81)))
    )
    assert value.item() == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize("regularization", [0.1, 1.0, 100.0])
def test_translation_is_its_square(regularization):
    # |x_i - x_j - t|^2 differs from |x_i - x_j|^2 by functions of i and of j: the same plan.
    x, shift = points(8, 2), torch.tensor([3.0, -1.0], dtype=torch.float64)
    y = (x + shift).requires_grad_()
    value = sinkhorn_divergence(x, y, regularization, tolerance=1e-10, max_iterations=5000)
    assert_close(value.item(), 10.0, rtol=0.0, atol=1e-6)
    (gradient,) = torch.autograd.grad(value, y)
    assert_close(gradient, (2.0 / 8.0 * shift).expand(8, 2), rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("regularization", [1e4, 1e6, 1e9])
def test_strong_regularization_forgets_the_cost(dtype, regularization):
    x, y, a, b = points(9, 2), points(7, 2) + 1.0, weights(9), weights(7)
    a, b, cost = a.to(dtype), b.to(dtype), squared_distances(x, y).to(dtype)
    # The plan is off by (c - its fit by rows and columns) / lambda of itself, 1e-3 at most.
    plan = entropic_plan(cost, regularization, a, b).plan
    assert_close(plan, a[:, None] * b, rtol=20.0 / regularization, atol=1e-7)
    # Costs of order 10, so values within 10^2 / lambda: of the mean cost, and of the means.
    close = {"rtol": 1e-5, "atol": 100.0 / regularization}
    value = entropic_transport(cost, regularization, a, b)
    assert_close(value, (a[:, None] * b * cost).sum(), **close)
    value = sinkhorn_divergence(x.to(dtype), y.to(dtype), regularization)
    assert_close(value, (x.mean(0) - y.mean(0)).square().sum().to(dtype), **close)


def test_a_regularization_of_more_dimensions_is_a_batch():
    cost, scale = torch.rand(4, 5), torch.tensor([0.1, 0.5, 1.0])
    plans = entropic_plan(cost, scale).plan
    assert plans.shape == (3, 4, 5)
    for plan, number in zip(plans, scale, strict=True):
        assert_close(plan, entropic_plan(cost, number.item()).plan, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 7, 1), (6, 4, 3)])
def test_the_potential_is_a_slow_loop_and_its_gradient_equation_nine(variant, shape):
    n, m, d = shape
    x, y = variant.randn(2, n, d), variant.randn(2, m, d, seed=1)
    scale = variant.tensor([0.7, 3.0])

    def potential(x, y):
        return wgf_potential(squared_distances(x, y), scale)

    def force(x, y):
        return n * torch.func.grad(lambda x: potential(x, y).sum())(x)

    value, nine = torch.zeros(2).double(), torch.zeros(2, n, d).double()
    for b in range(2):
        lam = float(scale[b])
        for i in range(n):
            for j in range(m):
                shift = x[b, i].double() - y[b, j].double()
                c = float(shift.square().sum())
                value[b] += c * math.exp(-c / lam) / (n * m)
                nine[b, i] += 2 * (1 - c / lam) * math.exp(-c / lam) * shift / m
    variant.close(variant(potential, x, y), value)
    variant.close(variant(force, x, y), nine)
