"""RBF and inverse multiquadric kernels: by hand, by loop, by theory; and the base class."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.oracles import kernels as oracle
from torchrl_stein.kernels import IMQKernel, MeanBandwidth, RadialKernel, RBFKernel

CASES = [
    (RBFKernel, oracle.rbf),
    (IMQKernel, oracle.imq),
    (lambda h=None: IMQKernel(h, exponent=0.3), lambda h: oracle.imq(h, 0.3)),
]
KERNELS = pytest.mark.parametrize(("kernel", "pair"), CASES, ids=["rbf", "imq", "imq 0.3"])


def test_rbf_by_hand(variant):
    # x = (0, 1), y = (0, 3), h = 2: k = exp(-|x - y|^2 / 2), grad_x k = (y - x) k.
    x, y = variant.tensor([[0.0], [1.0]]), variant.tensor([[0.0], [3.0]])
    gram, repulsion = variant(RBFKernel(2.0).gram_and_repulsion, x, y)
    a, b, c = math.exp(-0.5), math.exp(-2.0), math.exp(-4.5)  # 0.606531, 0.135335, 0.011109
    variant.close(gram, [[1.0, c], [a, b]])
    # At y = 0: 0 + (0 - 1) a = -0.606531; at y = 3: 3 c + 2 b = 0.303998.
    variant.close(repulsion, [[-a], [3.0 * c + 2.0 * b]])


def test_imq_by_hand(variant):
    # x = (0, 1), y = (0, 2), h = 1: 1/sqrt(1 + 0, 4, 1, 1); grad_x k = (y - x) (1 + r^2)^(-3/2).
    x, y = variant.tensor([[0.0], [1.0]]), variant.tensor([[0.0], [2.0]])
    gram, repulsion = variant(IMQKernel(1.0).gram_and_repulsion, x, y)
    variant.close(gram, [[1.0, 5.0**-0.5], [2.0**-0.5, 2.0**-0.5]])
    variant.close(repulsion, [[-(2.0**-1.5)], [2.0 * 5.0**-1.5 + 2.0**-1.5]])


@KERNELS
@pytest.mark.parametrize("shape", [(5, 3), (5, 7)])
def test_against_loop(variant, kernel, pair, shape):
    x, y = variant.randn(*shape), variant.randn(4, shape[1], seed=1)
    a, b = x.double().numpy(), y.double().numpy()
    for k, target in ((kernel(1.7), b), (kernel(), None)):
        points = (x,) if target is None else (x, y)
        target = a if target is None else target
        exact = pair(k.bandwidth(*points).item())
        gram, repulsion = variant(k.gram_and_repulsion, *points)
        variant.close(gram, oracle.gram(exact, a, target))
        variant.close(repulsion, oracle.repulsion(exact, a, target))


@KERNELS
def test_repulsion_points_away(variant, kernel, pair):
    # Two particles: moving ALONG the repulsion takes each away from the other.
    x = variant.tensor([[0.0, 0.0], [0.6, -0.8]])
    _, repulsion = variant(kernel().gram_and_repulsion, x)
    apart = x[1] - x[0]
    assert repulsion[1] @ apart > 0
    assert repulsion[0] @ apart < 0
    assert (apart + 0.1 * (repulsion[1] - repulsion[0])).norm() > apart.norm()


@KERNELS
@pytest.mark.parametrize("shape", [(9, 2), (9, 20), (80, 20)])
def test_forces_of_a_set_on_itself_cancel(kernel, pair, shape):
    _, repulsion = kernel().gram_and_repulsion(torch.randn(shape))
    # Rounding of a sum of n terms up to size n.
    assert repulsion.sum(0).abs().max() < 1e-5 * shape[0]


@KERNELS
def test_decreases_from_one_to_zero(variant, kernel, pair):
    x = variant.tensor([[0.0]])
    y = variant.tensor(torch.linspace(0.0, 30.0, 50))[:, None]
    gram = variant(kernel(1.0), x, y)[0]
    assert gram[0] == 1.0
    assert (gram.diff() <= 0).all()
    assert (gram >= 0).all()


def test_imq_has_the_heavier_tail():
    # At ten bandwidths' distance the RBF kernel has vanished and the multiquadric pulls at 1/10.
    x, y = torch.tensor([[0.0]]), torch.tensor([[10.0]])
    assert RBFKernel(1.0)(x, y).item() < 1e-40
    assert_close(IMQKernel(1.0)(x, y).item(), 101.0**-0.5)


def test_imq_and_rbf_agree_nearby():
    # exp(-r^2 / 2) and (1 + r^2)^(-1/2) are both 1 - r^2 / 2 + O(r^4).
    x, y = torch.zeros(1, 1, dtype=torch.float64), torch.full((1, 1), 1e-3, dtype=torch.float64)
    assert_close(RBFKernel(2.0)(x, y), IMQKernel(1.0)(x, y), rtol=0.0, atol=1e-12)


@KERNELS
def test_closed_slope_is_the_autograd_one(variant, kernel, pair):
    k = kernel(1.0)
    t = variant.tensor([0.0, 0.3, 2.0, 40.0])
    value, slope = variant(k.profile_and_slope, t)
    exact_value, exact_slope = RadialKernel.profile_and_slope(k, t.double())
    variant.close(value, exact_value)
    variant.close(slope, exact_slope)


@KERNELS
def test_evaluation_reports_the_bandwidth(kernel, pair):
    x = torch.randn(3, 5, 2)
    k = kernel()
    assert_close(k.evaluate(x).bandwidth, k.bandwidth(x))


coordinates = st.floats(-5.0, 5.0, width=32)
point_sets = st.integers(1, 6).flatmap(
    lambda d: st.lists(st.lists(coordinates, min_size=d, max_size=d), min_size=1, max_size=6)
)


@given(point_sets, coordinates, st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_translation_and_permutation(rows, shift, random):
    x = torch.tensor(rows, dtype=torch.float64)
    order = list(range(len(rows)))
    random.shuffle(order)
    # A floor above the rounding of repeated points, and the mean, which is no step function.
    for kernel in (RBFKernel(MeanBandwidth(floor=1e-2)), IMQKernel(1.0)):
        gram, repulsion = kernel.gram_and_repulsion(x)
        tolerance = {"rtol": 1e-8, "atol": 1e-8}
        assert_close(kernel.gram_and_repulsion(x + shift), (gram, repulsion), **tolerance)
        want = gram[order][:, order], repulsion[order]
        assert_close(kernel.gram_and_repulsion(x[order]), want, **tolerance)


@KERNELS
def test_errors(kernel, pair):
    for bandwidth in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"Kernel: bandwidth must be .*> 0, got"):
            kernel(bandwidth)
    with pytest.raises(TypeError, match=r"Kernel: bandwidth must be a number > 0 or a .* 'median'"):
        kernel("median")
    with pytest.raises(ValueError, match=r"Kernel: y has size 2 .* but x has 3"):
        kernel(1.0)(torch.zeros(4, 3), torch.zeros(4, 2))


def test_imq_exponent_error():
    for exponent in (0.0, 1.0, -0.5, math.nan):
        with pytest.raises(ValueError, match=r"IMQKernel: exponent must be .*> 0 and < 1, got"):
            IMQKernel(exponent=exponent)


def test_profile_must_be_defined():
    with pytest.raises(NotImplementedError, match=r"RadialKernel must define profile"):
        RadialKernel(1.0)(torch.zeros(2, 2))
