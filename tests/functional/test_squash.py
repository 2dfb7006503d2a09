"""Squashing: by hand, by loop, by theory."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.oracles import squash as oracle
from torchrl_stein.functional import squash_log_det, squash_to_box
from torchrl_stein.functional.squash import tanh_log_derivative

# tanh(HALF) = 1/2.
HALF = 0.5 * math.log(3.0)
LOW, HIGH = [-1.0, 0.1, -5.0], [3.0, 0.3, -2.0]


def test_squash_to_box_by_hand(variant):
    # tanh = 1/2 lies three quarters up the interval: -1 + 0.75 * 4 = 2, and 0.1 + 0.75 * 0.2.
    u = variant.tensor([HALF, HALF])
    low, high = variant.tensor(LOW[:2]), variant.tensor(HIGH[:2])
    variant.close(variant(squash_to_box, u, low, high), [2.0, 0.25])


def test_tanh_log_derivative_by_hand(variant):
    # 1 - (1/2)^2 = 3/4; at 0 the slope is 1; at 20: 2 log 2 - 40, the rest is below 1e-16.
    u = variant.tensor([HALF, -HALF, 0.0, 20.0])
    want = [math.log(0.75), math.log(0.75), 0.0, 2.0 * math.log(2.0) - 40.0]
    variant.close(variant(tanh_log_derivative, u), want)


def test_squash_log_det_by_hand(variant):
    # Half widths 2 and 0.1: log(3/4 * 2) + log(3/4 * 0.1) = log 0.1125.
    u = variant.tensor([HALF, HALF])
    low, high = variant.tensor(LOW[:2]), variant.tensor(HIGH[:2])
    variant.close(variant(squash_log_det, u, low, high), math.log(0.1125))


def test_against_loop(variant):
    u, low, high = 3.0 * variant.randn(4, 3), variant.tensor(LOW), variant.tensor(HIGH)
    numbers = u.tolist()
    action = [[oracle.to_interval(*c) for c in zip(row, LOW, HIGH, strict=True)] for row in numbers]
    variant.close(variant(squash_to_box, u, low, high), action)
    log_slope = [[oracle.log_derivative(c) for c in row] for row in numbers]
    variant.close(variant(tanh_log_derivative, u), log_slope)
    log_det = [oracle.log_det(row, LOW, HIGH) for row in numbers]
    variant.close(variant(squash_log_det, u, low, high), log_det)


def test_log_det_is_that_of_the_autograd_jacobian(variant):
    u, low, high = variant.randn(3), variant.tensor(LOW), variant.tensor(HIGH)

    def log_det(u, low, high):
        jacobian = torch.func.jacrev(lambda v: squash_to_box(v, low, high))(u)
        return torch.linalg.slogdet(jacobian).logabsdet

    want = log_det(u.double(), low.double(), high.double())
    variant.close(variant(squash_log_det, u, low, high), want)


def test_log_derivative_is_that_of_tanh(variant):
    u = variant.tensor([-2.0, -0.3, 0.0, 0.7, 1.5])
    variant.close(variant(tanh_log_derivative, u), torch.cosh(u.double()).log() * -2.0)
    # Its own derivative is -2 tanh(u), which is what pulls an actor off the walls.
    slope = variant(torch.func.grad(lambda v: tanh_log_derivative(v).sum()), u)
    variant.close(slope, -2.0 * torch.tanh(u.double()))


def test_finite_far_out(variant):
    # log(1 - tanh(u)^2) is -inf from |u| = 9 on in float32; ours is 2 log 2 - 2 |u|.
    u = variant.tensor([[1e3], [-1e3]])
    low, high = variant.tensor([-1.0]), variant.tensor([1.0])
    want = 2.0 * math.log(2.0) - 2e3
    variant.close(variant(squash_log_det, u, low, high), [want, want])
    slope = variant(torch.func.grad(lambda v: tanh_log_derivative(v).sum()), u)
    variant.close(slope, [[-2.0], [2.0]])


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (0.1, 0.3), (-5.0, 40.0)])
def test_squashed_gaussian_integrates_to_one(variant, low, high):
    # u ~ N(0, 1); the density of the action on 20 000 cells of the box, at their midpoints. It
    # vanishes at the walls with all its derivatives' products, so the midpoint rule is accurate.
    cells = 20_000
    fraction = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    u = variant.tensor(torch.atanh(2.0 * fraction - 1.0))[:, None]
    bounds = variant.tensor([low]), variant.tensor([high])
    log_density = -0.5 * (u[:, 0] ** 2 + math.log(2.0 * math.pi))
    log_density = log_density - variant(squash_log_det, u, *bounds)
    total = (log_density.double().exp() * (high - low) / cells).sum().item()
    assert abs(total - 1.0) < 1e-4
    # The same cells, in the box itself.
    action = variant(squash_to_box, u, *bounds)
    variant.close(action[:, 0], low + (high - low) * fraction)


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.3), (-0.3, 0.1), (1 / 3, 0.7), (-1e-3, 1e3)])
def test_bounds_are_never_exceeded(variant, low, high):
    # 0.2 + 0.1 > 0.3 in floating point: the sum of centre and half width may round past a bound.
    u = variant.tensor([-1e3, -20.0, -9.0, -1.0, 0.0, 1.0, 9.0, 20.0, 1e3])
    low, high = variant.tensor(low), variant.tensor(high)
    action = variant(squash_to_box, u, low, high)
    assert (action >= low).all()
    assert (action <= high).all()
    # ... and are reached, up to the rounding of the larger one.
    ends = torch.stack([low, high])
    assert_close(action[[0, -1]], ends, rtol=0.0, atol=1e-6 * ends.abs().max().item())


numbers = st.floats(-100.0, 100.0, width=32)


@given(numbers, numbers, st.floats(-50.0, 50.0, width=32))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_bounds_hold_for_any_box(a, b, u):
    assume(a != b)
    low, high = torch.tensor([min(a, b)]), torch.tensor([max(a, b)])
    action = squash_to_box(torch.tensor([u]), low, high)
    assert low <= action <= high


def test_monotonic(variant):
    u = variant.tensor(torch.linspace(-4.0, 4.0, 200))[:, None]
    action = variant(squash_to_box, u, variant.tensor([0.1]), variant.tensor([0.3]))
    assert (action.diff(dim=0) > 0).all()
