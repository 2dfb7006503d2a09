"""Costs of a trust region: eq. (9) by a loop, the zero of the debiased one, the two directions."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.functional import entropic_transport, squared_distances
from torchrl_stein.kernels import MeanBandwidth, MedianBandwidth
from torchrl_stein.objectives import (
    SinkhornCost,
    TransportCost,
    WGFPotential,
    WGFPotentialDescent,
    transport_costs,
)

COSTS = {
    "sinkhorn": SinkhornCost,
    "biased": lambda *a: SinkhornCost(*a, debiased=False),
    "force": WGFPotential,
    "descent": WGFPotentialDescent,
}
all_costs = pytest.mark.parametrize("name", COSTS)


def moved(cost, current, previous):
    """The force on every particle: minus M times the gradient of the cost."""
    current = current.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cost(current, previous).sum(), current)
    return -current.shape[-2] * gradient


def equation_nine(current, previous, scale):
    """Eq. (9) divided by M, one pair of particles at a time."""
    force = np.zeros_like(current)
    for i, x in enumerate(current):
        for y in previous:
            c = np.sum((x - y) ** 2)
            force[i] += 2 * (1 - c / scale) * math.exp(-c / scale) * (x - y) / len(previous)
    return force


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (6, 3), (5, 40)])
@pytest.mark.parametrize(("kind", "sign"), [(WGFPotential, 1.0), (WGFPotentialDescent, -1.0)])
def test_the_force_is_equation_nine(shape, kind, sign):
    current, previous = torch.randn(2, *shape, dtype=torch.float64)
    scale = 0.7 * shape[1]
    force = moved(kind(scale), current, previous)
    want = sign * equation_nine(current.numpy(), previous.numpy(), scale)
    assert_close(force.numpy(), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("distance", "pushed"), [(0.5, True), (1.5, False)])
def test_a_force_pushes_the_near_and_pulls_the_far(distance, pushed):
    """The explanation below eq. (9), with lambda = 1; descending the formula does the opposite."""
    previous, current = torch.zeros(1, 1), torch.tensor([[distance]])
    assert (moved(WGFPotential(1.0), current, previous) > 0) == pushed
    assert (moved(WGFPotentialDescent(1.0), current, previous) < 0) == pushed


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_sinkhorn_vanishes_at_the_previous_policy_and_no_other_does(batch):
    x = torch.randn(*batch, 6, 2)
    assert moved(SinkhornCost(), x, x).abs().max() < 1e-6
    assert SinkhornCost()(x, x).abs().max() < 1e-6
    for name in ("biased", "force", "descent"):
        assert moved(COSTS[name](), x, x).flatten(-2).norm(dim=-1).min() > 0.05, name


def test_the_biased_cost_shrinks_the_particles():
    """At the previous policy the force points to the mean: why the default is debiased."""
    x = torch.randn(30, 2)
    force = moved(SinkhornCost(debiased=False), x, x)
    assert ((x.mean(0) - x) * force).sum() > 0.5 * force.norm() * (x - x.mean(0)).norm()


def test_a_translation_costs_its_squared_length_and_is_pulled_back():
    x, shift = torch.randn(8, 3), torch.tensor([0.1, -0.2, 0.3])
    assert_close(SinkhornCost()(x + shift, x), shift.square().sum(), rtol=1e-4, atol=1e-6)
    assert_close(moved(SinkhornCost(), x + shift, x), -2 * shift.expand(8, 3), rtol=0.05, atol=0.01)


def test_one_particle_is_a_squared_distance():
    """M = 1: log(M + 1) instead of the paper's log M, which would be 0."""
    x, y = torch.randn(5, 1, 2), torch.randn(5, 1, 2)
    square = (x - y).square().sum((-2, -1))
    for cost in (SinkhornCost(), SinkhornCost(debiased=False)):
        assert_close(cost(x, y), square)
        assert_close(moved(cost, x, y), -2 * (x - y))


@all_costs
def test_a_batch_is_each_set_alone_and_previous_is_a_constant(name):
    cost = COSTS[name]()
    x, y = torch.randn(3, 5, 2, requires_grad=True), torch.randn(3, 5, 2, requires_grad=True)
    together = cost(x, y)
    assert together.shape == (3,)
    assert_close(together, torch.stack([cost(a, b) for a, b in zip(x, y, strict=True)]))
    together.sum().backward()
    assert y.grad is None
    assert x.grad.abs().min() > 0


@all_costs
def test_regularization_is_the_median_rule_over_cross_distances(name):
    x, y = torch.randn(6, 2), torch.randn(6, 2)
    scale = squared_distances(x, y).flatten().median() / math.log(7)
    assert_close(COSTS[name]()(x, y), COSTS[name](scale.item())(x, y))
    mean = squared_distances(x, y).mean() / math.log(7)
    assert_close(COSTS[name](MeanBandwidth())(x, y), COSTS[name](mean.item())(x, y))
    # as a constant: a gradient through the median would make force and cost differ
    assert_close(moved(COSTS[name](), x, y), moved(COSTS[name](scale.item()), x, y))


@all_costs
def test_one_particle_with_the_papers_lambda(name):
    """med^2 / log M is infinite for M = 1; the cost is |x - y|^2 all the same."""
    x, y = torch.tensor([[3.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 4.0]])
    cost = COSTS[name](MedianBandwidth("log(n)"))(x, y)
    cost.backward()
    assert_close(cost.abs(), torch.tensor(25.0), rtol=1e-5, atol=0)
    assert_close(x.grad.abs(), torch.tensor([[6.0, 8.0]]), rtol=1e-5, atol=0)


def test_sinkhorn_cost_is_debiased_entropic_transport():
    x, y = torch.randn(2, 6, 2, dtype=torch.float64)
    ends = [entropic_transport(squared_distances(*pair), 1.0) for pair in ((x, y), (x, x), (y, y))]
    want = ends[0] - 0.5 * (ends[1] + ends[2])
    assert_close(SinkhornCost(1.0, num_iterations=300)(x, y), want, rtol=1e-5, atol=1e-6)
    biased = SinkhornCost(1.0, num_iterations=300, debiased=False)
    assert_close(biased(x, y), ends[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("clusters", [1, 2, 4])
@pytest.mark.parametrize("far", [0.5, 3.0, 10.0])
@pytest.mark.parametrize("shape", [(2, 1), (16, 2), (32, 2), (32, 6)])
def test_the_default_number_of_iterations_suffices(shape, far, clusters):
    """The figure of the docstring: less than 1 % of error in the gradient, of every set here."""
    m, d = shape
    centres = far * torch.randn(24, clusters, d)[:, torch.arange(m) % clusters]
    y = centres + torch.randn(24, m, d)
    moves = torch.tensor([0.01, 0.1, 1.0]).repeat_interleave(8)[:, None, None]
    x = y + moves * torch.randn(24, m, d)
    found = moved(SinkhornCost(), x, y).double()
    exact = moved(SinkhornCost(num_iterations=400), x.double(), y.double())
    error = (found - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)
    assert error.max() < 0.01


def test_newtons_steps_are_what_makes_it_so(monkeypatch):
    """Without them single sets are off by several per cent, at any such number of iterations."""
    centres = 10.0 * torch.randn(64, 2, 2)[:, torch.arange(32) % 2]
    y = centres + torch.randn(64, 32, 2)
    x, y = (y + 0.1 * torch.randn(64, 32, 2)).double(), y.double()
    exact = moved(SinkhornCost(num_iterations=400), x, y)

    def worst(num_iterations):
        error = moved(SinkhornCost(num_iterations=num_iterations), x, y) - exact
        return (error.flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max()

    assert worst(40) < 1e-3
    monkeypatch.setattr(transport_costs, "_NEWTON_STEPS", 0)
    assert worst(60) > 0.01


@all_costs
def test_coincident_particles_give_finite_numbers(name):
    x = torch.ones(3, 4, 2)
    for y in (x, x + 1e-4, x + 1e4):
        assert COSTS[name]()(x, y).isfinite().all()
        assert moved(COSTS[name](), x, y).isfinite().all()


class SquaredMeans(TransportCost):
    def between(self, current, previous):
        return (current.mean(-2) - previous.mean(-2)).square().sum(-1)


def test_a_cost_of_ones_own():
    x = torch.randn(2, 4, 3)
    assert_close(SquaredMeans()(x + 1.0, x), torch.full((2,), 3.0))


@all_costs
@pytest.mark.parametrize("shapes", [((4, 2), (4, 3)), ((4, 2), (5, 2)), ((2,), (2,))])
def test_sets_that_do_not_match(name, shapes):
    current, previous = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(
        ValueError, match=r"current and previous must be .*\[\.\.\., M, d\].*got \["
    ):
        COSTS[name]()(current, previous)


@all_costs
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_bad_regularization(name, value):
    with pytest.raises(ValueError, match=f"regularization must be .*> 0, got {value}"):
        COSTS[name](value)


@all_costs
def test_a_rule_that_returns_no_regularization(name):
    x, y = torch.randn(2, 3, 4, 2)
    owner = type(COSTS[name](1.0)).__name__
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(
            ValueError, match=rf"{owner}: the bandwidth rule .* return h > 0, got (-|0|nan)"
        ):
            COSTS[name](lambda pairs, m, bad=bad: pairs.mean(-1) * bad)(x, y)
    with pytest.raises(TypeError, match="or a bandwidth rule, got the class MedianBandwidth"):
        COSTS[name](MedianBandwidth)


@all_costs
def test_integers_are_no_particles(name):
    x = torch.tensor([[0, 1], [2, 3]])
    for current, previous, which in ((x, x.float(), "current"), (x.float(), x, "previous")):
        with pytest.raises(TypeError, match=rf"\w+: {which} must be a floating-point tensor"):
            COSTS[name]()(current, previous)


def test_bad_options():
    with pytest.raises(TypeError, match=r"regularization must be a number > 0 or .* 'median'"):
        SinkhornCost("median")
    with pytest.raises(TypeError, match="got True"):
        SinkhornCost(True)
    with pytest.raises(ValueError, match="SinkhornCost: num_iterations must be >= 1, got 0"):
        SinkhornCost(num_iterations=0)
    with pytest.raises(TypeError, match="SinkhornCost: debiased must be True or False, got 'no'"):
        SinkhornCost(debiased="no")
    for number in (2.0, 2.5, True, "2", None, math.nan):
        with pytest.raises(TypeError, match="num_iterations must be an integer >= 1, got"):
            SinkhornCost(num_iterations=number)


def test_printed_with_its_options():
    assert "debiased=True" in repr(SinkhornCost())
    assert "log(n)" in repr(WGFPotential(regularization=MedianBandwidth("log(n)")))


def test_a_jump_between_far_clusters_needs_more_iterations_than_the_default():
    """The figure of the docstring: 500 iterations; the default leaves the particle where it is."""
    centres = torch.tensor([[-0.9]] * 16 + [[0.9]] * 16)
    y = centres + 0.05 * torch.randn(32, 2)
    x = y + 0.005 * torch.randn(32, 2)
    x[0] = y[20] + 0.01
    x, y = x.double(), y.double()
    exact = moved(SinkhornCost(num_iterations=3000), x, y)
    errors = [
        (moved(SinkhornCost(num_iterations=n), x, y) - exact).norm() / exact.norm()
        for n in (40, 500)
    ]
    assert errors[0] > 0.5
    assert errors[1] < 0.01


def test_jitter_costs_a_third_of_its_square():
    """The figure of the docstring, in two dimensions; a shift costs all of it."""
    y = torch.randn(100, 32, 2)
    jitter = 0.1 * torch.randn_like(y)
    ratio = SinkhornCost()(y + jitter, y).mean() / jitter.square().sum(-1).mean()
    assert 0.25 < ratio < 0.4
