"""Entropic transport: marginals, symmetry, gradient, stopping and errors."""

import math
from itertools import pairwise

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.functional.transport_builders import CONVERGED, assert_coupling, points, weights
from torchrl_stein.functional import squared_distances, transport
from torchrl_stein.functional.transport import (
    entropic_plan,
    entropic_transport,
    sinkhorn_divergence,
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("max_iterations", [1, 2, 7, 30, 200])
def test_marginals_are_exact_wherever_it_stops(dtype, max_iterations):
    x, y = points(12, 2, dtype=dtype), points(9, 2, dtype=dtype) + 1.0
    a, b = weights(12, dtype=dtype), weights(9, dtype=dtype)
    a[:2], b[-1] = 0.0, 0.0
    a, b = a / a.sum(), b / b.sum()
    cost = squared_distances(x, y)
    far = squared_distances(torch.cat([x, x[:1] + 1e3])[1:], y)
    for c in (cost, 1e-6 * cost, 1e6 * cost, cost + 100.0, -cost, 0.0 * cost, far):
        for fraction in (1e-4, 1e-2, 1.0, 1e6):
            regularization = fraction * (c.abs().median().item() or 1.0)
            plan, error = entropic_plan(c, regularization, a, b, max_iterations=max_iterations)
            assert_coupling(plan, a, b)
            assert error.isfinite()
            assert (plan[:2] == 0).all()
            assert (plan[:, -1] == 0).all()
            value = entropic_transport(c, regularization, a, b, max_iterations=max_iterations)
            assert value.isfinite()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 5), (5, 1), (6, 6)])
def test_trivial_plans(dtype, n, m):
    # One point, or equal ones: the plan is the product of the weights.
    a, b = weights(n, dtype=dtype), weights(m, dtype=dtype)
    cost = torch.full((n, m), 3.0, dtype=dtype)
    assert_close(entropic_plan(cost, 0.01, a, b).plan, a[:, None] * b)
    assert_close(entropic_transport(cost, 0.01, a, b), cost[0, 0])
    x = torch.full((n, 2), 0.3, dtype=dtype, requires_grad=True)
    value = sinkhorn_divergence(x, x.detach()[:1].expand(m, 2), 0.01)
    (gradient,) = torch.autograd.grad(value, x)
    assert_close((value, gradient), (torch.zeros_like(value), torch.zeros_like(x)))


@given(
    st.integers(1, 6), st.integers(1, 6), st.floats(-3.0, 3.0), st.integers(1, 40), st.integers(0)
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_plan_is_a_coupling_above_the_exact_cost(n, m, exponent, max_iterations, seed):
    rng = np.random.default_rng(seed)
    cost = torch.as_tensor(rng.standard_normal((n, m)))
    a, b = (torch.as_tensor(rng.dirichlet(np.ones(k))) for k in (n, m))
    arguments = cost, 10.0**exponent, a, b
    assert_coupling(entropic_plan(*arguments, max_iterations=max_iterations).plan, a, b)
    value = entropic_transport(*arguments, max_iterations=max_iterations).item()
    assert value >= ot.emd2(a.numpy(), b.numpy(), cost.numpy()) - 1e-9


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-3), (torch.float64, 1e-12)])
@pytest.mark.parametrize("regularization", [0.1, 1.0])
@pytest.mark.parametrize("max_iterations", [1, 2, 3, 10, 100])
def test_identical_sets(dtype, rounding, regularization, max_iterations):
    # Sums over rows and columns round differently, and c / lambda = 1000 enlarges that in P.
    options = {"tolerance": None, "max_iterations": max_iterations}
    x, a = points(40, 3, dtype=dtype), weights(40, dtype=dtype)
    for scale in (1e-2, 1.0):
        plan = entropic_plan(squared_distances(x, x), scale * regularization, a, a, **options).plan
        assert_coupling(plan, a, a)
        assert_close(plan, plan.mT, rtol=0.0, atol=rounding * plan.max().item())
    moving = x.clone().requires_grad_()
    cost = squared_distances(moving, x)
    (biased,) = torch.autograd.grad(entropic_transport(cost, regularization, **options), moving)
    value = sinkhorn_divergence(moving, x, regularization, **options)
    (gradient,) = torch.autograd.grad(value, moving)
    assert_close(value.item(), 0.0, rtol=0.0, atol=1e-6)
    assert gradient.norm() < rounding * biased.norm()
    assert biased.norm() > 1e-3
    # Nor does the order of the points matter.
    value = sinkhorn_divergence(x, x[torch.randperm(40)], regularization, **options)
    assert_close(value.item(), 0.0, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("m", [8, 6])
@pytest.mark.parametrize("regularization", [0.3, 3.0])
def test_divergence_is_a_positive_symmetric_combination(m, regularization):
    x, y = points(5, 8, 2), points(5, m, 2)
    options = {"tolerance": 1e-9, "max_iterations": 2000}

    def cost(x, y):
        return entropic_transport(squared_distances(x, y), regularization, **options)

    value = sinkhorn_divergence(x, y, regularization, **options)
    assert value.shape == (5,)
    assert (value > 1e-3).all()
    assert_close(value, sinkhorn_divergence(y, x, regularization, **options))
    assert_close(value, cost(x, y) - cost(x, x) / 2.0 - cost(y, y) / 2.0)


@pytest.mark.parametrize("m", [8, 6])
def test_batch_is_a_loop(m):
    x, y, a, b = points(3, 2, 8, 2), points(3, 2, m, 2), weights(3, 2, 8), weights(3, 2, m)
    regularization = torch.tensor([[0.1, 0.3], [1.0, 3.0], [10.0, 1e-3]], dtype=torch.float64)
    options = {"tolerance": None, "max_iterations": 50}
    cost = squared_distances(x, y)
    plan, error = entropic_plan(cost, regularization, a, b, **options)
    shared = entropic_plan(cost, 0.5, a[0, 0], b[0, 0], **options).plan
    value = entropic_transport(cost, regularization, a, b, **options)
    divergence = sinkhorn_divergence(x, y, regularization, **options)
    for i in np.ndindex(3, 2):
        one = cost[i], regularization[i].item(), a[i], b[i]
        assert_close((plan[i], error[i]), tuple(entropic_plan(*one, **options)))
        assert_close(value[i], entropic_transport(*one, **options))
        assert_close(shared[i], entropic_plan(cost[i], 0.5, a[0, 0], b[0, 0], **options).plan)
        assert_close(divergence[i], sinkhorn_divergence(x[i], y[i], one[1], **options))


@pytest.mark.parametrize("m", [3, 2])
def test_regularization_in_another_precision(m):
    each = torch.tensor([0.5], dtype=torch.float64)
    assert sinkhorn_divergence(torch.randn(1, 3, 2), torch.randn(1, m, 2), each).dtype.itemsize == 4


def test_three_regularizations_are_not_for_the_three_costs():
    with pytest.raises(ValueError, match=r"sinkhorn_divergence: regularization .*\[3\]"):
        sinkhorn_divergence(torch.randn(4, 2), torch.randn(4, 2), torch.tensor([0.1, 1.0, 10.0]))


@pytest.mark.parametrize("m", [4, 3])
def test_gradient_is_that_of_the_converged_value(m):
    x, y = (points(k, 2).requires_grad_() for k in (4, m))
    a, b = weights(4), weights(m)
    cost = squared_distances(x, y).detach().requires_grad_()
    value = entropic_transport(cost, 0.5, a, b, **CONVERGED)
    (gradient,) = torch.autograd.grad(value, cost)
    assert_close(gradient, entropic_plan(cost, 0.5, a, b, **CONVERGED).plan)
    # Newton's steps converge to rounding where the iteration alone takes a thousand steps. Central
    # differences of step 1e-6 are exact to 1e-8.
    exact = {"tolerance": None, "max_iterations": 30, "newton_steps": 4}
    assert torch.autograd.gradcheck(lambda c: entropic_transport(c, 0.5, a, b, **exact), cost)
    assert torch.autograd.gradcheck(lambda *xy: sinkhorn_divergence(*xy, 0.5, **exact), (x, y))


def test_plan_is_a_constant():
    cost = torch.rand(3, 3, requires_grad=True)
    plan, error = entropic_plan(cost, 0.5)
    assert not plan.requires_grad
    assert not error.requires_grad
    (gradient,) = torch.autograd.grad(entropic_transport(cost, 0.5), cost, create_graph=True)
    assert not gradient.requires_grad


def test_weights_are_constants():
    # The envelope gradient in a is f; that of the formula alone, -lambda, would be wrong.
    a = weights(3).requires_grad_()
    assert not entropic_transport(points(3, 3), 0.5, a, a).requires_grad


def test_tolerance(monkeypatch):
    calls, kernel = [], transport._kernel
    monkeypatch.setattr(transport, "_kernel", lambda *args: calls.append(1) or kernel(*args))

    def kernels(*args, **options):
        """How many it forms, one per iteration and one at the end, and the error."""
        calls.clear()
        return entropic_plan(*args, **options).marginal_error, len(calls)

    cost = squared_distances(points(2, 10, 2), points(2, 10, 2))
    both = torch.tensor([10.0, 0.5], dtype=torch.float64)
    before = 0
    for tolerance in (1e-2, 1e-5, 1e-8):
        error, used = kernels(cost, both, tolerance=tolerance)
        assert (error < tolerance).all()
        assert before <= used < 1001
        # It waits for every problem of the batch: the easy one alone is done before.
        assert kernels(cost[0], 10.0, tolerance=tolerance)[1] < used
        before = used
    # It never ends while the regularization still falls, however good the marginals.
    falling = math.log(cost[0].max().item() / 1e-3) / 18 * 1000
    assert falling < kernels(cost[0], 1e-3, tolerance=10.0)[1] < falling + 12
    for tolerance in (None, 1e-30):
        assert kernels(cost, both, tolerance=tolerance, max_iterations=123)[1] == 124


@pytest.mark.parametrize("fraction", [0.1, 0.3, 3.0])
def test_more_iterations_are_better(fraction):
    cost, a, b = squared_distances(points(30, 2), points(20, 2)), weights(30), weights(20)
    regularization = fraction * cost.median().item()
    errors, values = [], []
    for max_iterations in (20, 40, 80, 160, 320):
        arguments = cost, regularization, a, b
        options = {"tolerance": None, "max_iterations": max_iterations}
        errors.append(entropic_plan(*arguments, **options).marginal_error.item())
        values.append(entropic_transport(*arguments, **options).item())
    floor = 1e-14  # where only rounding is left
    assert all(b < max(0.9 * a, floor) for a, b in pairwise(errors))
    assert all(b < a + floor for a, b in pairwise(values))
    assert errors[-1] < 1e-8  # 5e-11 at the smallest; without momentum 2e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": torch.zeros(3)}, r"cost must have at least 2 dimension\(s\), got shape \[3\]"),
        ({"source": torch.ones(4) / 4}, r"source has size 4 in dimension -1 but cost has 3"),
        ({"target": torch.ones(3) / 3}, r"target has size 3 in dimension -1 but cost has 2"),
        ({"target": torch.tensor(1.0)}, r"target must have at least 1 dimension\(s\), got shape"),
        ({"regularization": 0.0}, r"regularization must be > 0, got 0\.0"),
        ({"regularization": math.nan}, r"regularization must be finite and > 0, got nan"),
        ({"tolerance": 0.0}, r"tolerance must be > 0, got 0\.0"),
        ({"max_iterations": 0}, r"max_iterations must be >= 1, got 0"),
    ],
)
def test_errors(change, message):
    arguments = {"cost": torch.zeros(3, 2), "regularization": 1.0} | change
    for function in (entropic_plan, entropic_transport):
        with pytest.raises(ValueError, match="entropic_plan: " + message):
            function(**arguments)
    with pytest.raises(ValueError, match=r"y has size 3 in dimension -1 but x has 2"):
        sinkhorn_divergence(torch.zeros(4, 2), torch.zeros(4, 3), 1.0)
    with pytest.raises(ValueError, match=r"regularization must be > 0, got -1\.0"):
        sinkhorn_divergence(torch.zeros(4, 2), torch.zeros(5, 2), -1.0)


# Newton's steps


def divergence_gradient(x, y, **options):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(sinkhorn_divergence(x, y, 0.3, tolerance=None, **options).sum(), x)[
        0
    ]


@pytest.mark.parametrize("m", [12, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_steps_finish_what_the_iteration_began(m, dtype):
    cost, a, b = squared_distances(points(12, 2), points(m, 2)), weights(12), weights(m)
    a[0] = 0.0
    a = a / a.sum()
    want = entropic_plan(cost, 0.3, a, b, **CONVERGED).plan
    given = [tensor.to(dtype) for tensor in (cost, a, b)]
    errors = []
    for newton_steps in range(4):
        options = {"tolerance": None, "max_iterations": 20, "newton_steps": newton_steps}
        plan, error = entropic_plan(given[0], 0.3, *given[1:], **options)
        assert_coupling(plan, *given[1:])
        assert (plan[0] == 0).all()
        errors.append(((plan - want).norm() / want.norm()).item())
        assert error.item() < 10 * errors[-1] + 1e-6
    # Until ten conjugate directions of twelve or rounding are left: c / lambda is up to 70.
    assert errors[0] > 1e-3
    assert errors[1] < 0.1 * errors[0]
    assert errors[3] < (1e-4 if dtype == torch.float32 else 1e-7)


def test_newton_steps_mend_what_the_iteration_is_slow_at():
    """Two clusters that hardly exchange mass, moved by a tenth of their spread."""
    centres = torch.tensor([[0.0, 0.0], [2.5, 0.0]], dtype=torch.float64).repeat_interleave(8, 0)
    y = centres + 0.5 * points(20, 16, 2)
    x = y + 0.05 * points(20, 16, 2)
    exact = divergence_gradient(x, y, max_iterations=2000, newton_steps=4)

    def worst(**options):
        error = divergence_gradient(x, y, **options) - exact
        return (error.flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)).max()

    assert worst(max_iterations=50) > 0.01
    assert worst(max_iterations=40, newton_steps=2) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_steps_are_never_for_the_worse(dtype):
    # From anywhere: the error of the marginals falls, or the plan stays what it was.
    x, y = points(30, 6, 2, dtype=dtype), points(30, 6, 2, dtype=dtype) + 1.0
    cost = squared_distances(x, y)
    for c in (cost, 1e6 * cost, 0.0 * cost, -cost):
        for fraction in (1e-4, 1e-2, 1.0, 1e6):
            scale = fraction * (c.abs().median().item() or 1.0)
            for max_iterations in (1, 3, 30):
                options = {"tolerance": None, "max_iterations": max_iterations}
                before = entropic_plan(c, scale, **options)
                after = entropic_plan(c, scale, **options, newton_steps=3)
                assert (after.marginal_error <= before.marginal_error).all()
                stayed = after.marginal_error == before.marginal_error
                assert torch.equal(after.plan[stayed], before.plan[stayed])
                uniform = torch.full((6,), 1 / 6, dtype=dtype)
                assert_coupling(after.plan, uniform, uniform)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_newton_steps_keep_the_zero_of_identical_sets(dtype):
    x = points(20, 16, 2, dtype=dtype)
    options = {"max_iterations": 10, "newton_steps": 2}
    rounding = 100 * torch.finfo(dtype).eps
    assert divergence_gradient(x, x, **options).abs().max() < rounding
    assert sinkhorn_divergence(x, x, 0.3, tolerance=None, **options).abs().max() < rounding


def test_newton_steps_in_every_variant(variant):
    def plan(x, y):
        options = {"tolerance": None, "max_iterations": 10, "newton_steps": 2}
        return entropic_plan(squared_distances(x, y), 2.0, **options).plan

    x, y = variant.randn(5, 2), variant.randn(4, 2, seed=1)
    want = entropic_plan(squared_distances(x.double(), y.double()), 2.0, **CONVERGED).plan
    variant.close(variant(plan, x, y), want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_newton_steps_in_half_precision(dtype):
    x, y = points(8, 2, dtype=dtype), points(8, 2, dtype=dtype)
    options = {"tolerance": None, "max_iterations": 20}
    want = sinkhorn_divergence(x.float(), y.float(), 1.0, **options, newton_steps=2)
    value = sinkhorn_divergence(x, y, 1.0, **options, newton_steps=2)
    assert value.dtype == dtype
    assert_close(value.float(), want, rtol=0.1, atol=0.1)
