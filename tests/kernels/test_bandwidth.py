"""Bandwidth rules: by hand, by loop, by theory; and how kernels use them."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.oracles import bandwidth as oracle
from tests.oracles import distance
from torchrl_stein.functional import squared_distances
from torchrl_stein.functional.distance import distinct_pairs
from torchrl_stein.kernels import IMQKernel, MeanBandwidth, MedianBandwidth, RBFKernel, bandwidth

DENOMINATORS = ["log(n+1)", "2log(n+1)", "log(n)"]
RULES = [(MedianBandwidth, oracle.lower_median), (MeanBandwidth, oracle.mean)]


@pytest.mark.parametrize(
    ("denominator", "want"),
    # Squared distances 1, 4, 9 of three particles at 0, 1, 3: median 4.
    # 4 / log 4 = 2.885390, 4 / (2 log 4) = 1.442695, 4 / log 3 = 3.640957.
    [("log(n+1)", 2.88539008), ("2log(n+1)", 1.44269504), ("log(n)", 3.64095691)],
)
def test_median_by_hand(variant, denominator, want):
    rule = MedianBandwidth(denominator)
    variant.close(variant(lambda p: rule(p, 3), variant.tensor([1.0, 9.0, 4.0])), want)


@pytest.mark.parametrize(
    ("denominator", "want"),
    # The mean is 14 / 3: over log 4, 2 log 4, log 3.
    [("log(n+1)", 3.36628843), ("2log(n+1)", 1.68314421), ("log(n)", 4.24778306)],
)
def test_mean_by_hand(variant, denominator, want):
    rule = MeanBandwidth(denominator)
    variant.close(variant(lambda p: rule(p, 3), variant.tensor([1.0, 9.0, 4.0])), want)


def test_median_of_an_even_number_is_the_lower_one(variant):
    # Four particles have six pairs; 3 and 5 are in the middle. numpy's median would give 4.
    rule = MedianBandwidth("log(n+1)")
    value = variant(lambda p: rule(p, 4), variant.tensor([8.0, 5.0, 1.0, 3.0, 9.0, 2.0]))
    variant.close(value, 3.0 / math.log(5.0))


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize(("rule", "statistic"), RULES)
@pytest.mark.parametrize("shape", [(2, 1), (5, 3), (6, 8), (66, 5)])
def test_each_distinct_pair_counts_once(denominator, rule, statistic, shape):
    # The diagonal's zeros are no distances between particles.
    n, d = shape
    x, y = torch.randn(n, d, dtype=torch.float64), torch.randn(4, d, dtype=torch.float64)
    kernel = RBFKernel(rule(denominator))
    a, b = x.numpy(), y.numpy()
    scale = oracle.denominator(denominator, n)
    own, cross = statistic(distance.distinct_pairs(a)), statistic(distance.all_pairs(a, b))
    assert_close(kernel.bandwidth(x).item(), own / scale)
    assert_close(kernel.bandwidth(x, y).item(), cross / scale)


@pytest.mark.parametrize(("rule", "statistic"), RULES)
def test_against_loop(variant, rule, statistic):
    x, y = variant.randn(5, 6), variant.randn(4, 6, seed=1)
    kernel = RBFKernel(rule())
    a, b = x.double().numpy(), y.double().numpy()
    own, cross = statistic(distance.distinct_pairs(a)), statistic(distance.all_pairs(a, b))
    variant.close(variant(kernel.bandwidth, x), own / math.log(6))
    variant.close(variant(kernel.bandwidth, x, y), cross / math.log(6))


def test_against_numpy(variant):
    square = squared_distances(variant.randn(7, 2))  # 21 pairs, an odd number
    upper = square.double().numpy()[np.triu_indices(7, 1)]
    own = distinct_pairs(square, same=True)
    variant.close(MedianBandwidth("log(n)")(own, 7), np.median(upper) / np.log(7))
    variant.close(MeanBandwidth("log(n)")(own, 7), np.mean(upper) / np.log(7))


@pytest.mark.parametrize("n", [3, 6])
def test_table_of_conventions(variant, n):
    # What the denominators mean: at the median distance k = exp(-log(n+1)) = 1 / (n + 1), so that
    # sum_j k is about 1; 1 / (n + 1)^2 with the factor two; 1 / n without the one.
    x = variant.randn(n, 3)
    median = oracle.lower_median(distance.distinct_pairs(x.double().numpy()))
    for denominator, want in zip(DENOMINATORS, (1 / (n + 1), 1 / (n + 1) ** 2, 1 / n), strict=True):
        gram = variant(RBFKernel(MedianBandwidth(denominator)), x)
        at_median = squared_distances(x).double().sub(median).abs().argmin()
        variant.close(gram.flatten()[at_median], want)


@pytest.mark.parametrize(("rule", "statistic"), RULES)
def test_each_problem_of_a_batch_has_its_own(variant, rule, statistic):
    x = variant.randn(2, 3, 5, 2) * variant.tensor([1.0, 10.0, 0.1])[:, None, None]
    h = variant(RBFKernel(rule()).bandwidth, x)
    want = [
        [
            statistic(distance.distinct_pairs(x[a, b].double().numpy())) / math.log(6)
            for b in range(3)
        ]
        for a in range(2)
    ]
    variant.close(h, want)


def test_scales_with_the_square_of_the_points(variant):
    x = variant.randn(6, 3)
    for kernel in (RBFKernel(), RBFKernel(MeanBandwidth())):
        variant.close(variant(kernel.bandwidth, 4.0 * x), 16.0 * kernel.bandwidth(x).double())
        # ... and hence the Gram matrix does not depend on the units of the points.
        variant.close(variant(kernel, 4.0 * x), kernel(x).double())


def test_floor(variant):
    # Identical particles: the statistic is zero, the bandwidth the floor.
    x = variant.tensor([[0.5, 0.5]] * 4)
    for rule in (MedianBandwidth(floor=1e-3), MeanBandwidth(floor=1e-3)):
        variant.close(variant(RBFKernel(rule).bandwidth, x), 1e-3)
    variant.close(MedianBandwidth()(variant.tensor([0.0]), 2), 1e-12)
    # The floor changes nothing above it.
    pair = variant.tensor([2.0])
    assert_close(MedianBandwidth(floor=1e-3)(pair, 2), MedianBandwidth()(pair, 2))


@pytest.mark.parametrize("rule", [MedianBandwidth, MeanBandwidth])
def test_one_particle(variant, rule):
    # A particle on its own: k = 1 and no force, although log(1) = 0.
    kernel, one = RBFKernel(rule("log(n)")), variant.tensor([[1.0, 2.0]])
    gram, repulsion = variant(kernel.gram_and_repulsion, one)
    variant.close(gram, [[1.0]])
    variant.close(repulsion, [[0.0, 0.0]])
    # One that acts on others: infinitely wide.
    others = variant.tensor([[2.0, 2.0], [5.0, 0.0]])
    gram, repulsion = variant(kernel.gram_and_repulsion, one, others)
    variant.close(gram, [[1.0, 1.0]])
    variant.close(repulsion, [[0.0, 0.0], [0.0, 0.0]])


@pytest.mark.parametrize("denominator", DENOMINATORS)
@pytest.mark.parametrize("rule", [MedianBandwidth, MeanBandwidth])
def test_one_and_two_particles(denominator, rule):
    one, two = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 2.0], [2.0, 2.0]])
    for kernel in (RBFKernel(rule(denominator)), IMQKernel(rule(denominator))):
        assert kernel.bandwidth(one).item() == 1.0
        # Two: one pair, of squared distance 1.
        want = 1.0 / oracle.denominator(denominator, 2)
        assert_close(kernel.bandwidth(two).item(), want)
        for x, y in ((one, None), (two, None), (one, two), (two, one)):
            for value in kernel.gram_and_repulsion(x, y):
                assert value.isfinite().all()


def test_bandwidth_is_not_differentiated():
    # h depends on x, but neither the gradient of k nor the repulsion may see it.
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    kernel = RBFKernel(MeanBandwidth())
    h = kernel.bandwidth(x)
    assert not h.requires_grad
    (adaptive,) = torch.autograd.grad(kernel(x).sum(), x)
    (fixed,) = torch.autograd.grad(RBFKernel(h.item())(x).sum(), x)
    assert_close(adaptive, fixed)


def test_any_callable_is_a_rule(variant):
    def twice_the_largest(pairs, n):
        return 2.0 * n * pairs.amax(-1)

    x = variant.tensor([[0.0], [1.0], [3.0]])
    variant.close(variant(RBFKernel(twice_the_largest).bandwidth, x), 2.0 * 3 * 9.0)
    kernel = RBFKernel(lambda pairs, n: MedianBandwidth()(pairs, n) * 0.5)
    variant.close(variant(kernel.bandwidth, x), 0.5 * 4.0 / math.log(4.0))


def test_repr_says_which_rule():
    assert repr(MedianBandwidth("log(n)")) == "MedianBandwidth('log(n)', floor=1e-12)"


@pytest.mark.parametrize("rule", [MedianBandwidth, MeanBandwidth])
def test_errors(rule):
    message = rf"{rule.__name__}: denominator must be one of .*'2log\(n\+1\)'.*, got 'log\(m\)'"
    with pytest.raises(ValueError, match=message):
        rule("log(m)")
    for floor in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=rf"{rule.__name__}: floor must be .*> 0, got"):
            rule(floor=floor)


def test_a_rule_may_return_a_number():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert_close(RBFKernel(lambda pairs, n: 2.0)(x), RBFKernel(2.0)(x))


def test_a_rule_that_returns_another_shape():
    with pytest.raises(ValueError, match=r"must return h of shape \[\], got \[3\]"):
        RBFKernel(lambda pairs, n: pairs)(torch.tensor([[0.0], [1.0], [3.0]]))


def test_a_kernel_shows_its_bandwidth():
    assert repr(RBFKernel(2.0)) == "RBFKernel(bandwidth=2.0)"


@pytest.mark.parametrize("shape", [(3, 2000), (5, 1001), (6001,)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_median_of_many_pairs_is_that_of_torch(shape, dtype):
    # Where another program partitions them; with ties, and with numbers that are not finite.
    pairs = torch.rand(shape, dtype=dtype).round(decimals=2)
    assert pairs.numel() >= bandwidth._PARTITION_SIZE
    rule = MedianBandwidth("log(n)")
    before = pairs.clone()
    assert torch.equal(rule.statistic(pairs), pairs.median(-1).values)
    pairs.view(-1)[7] = torch.inf
    assert torch.equal(rule.statistic(pairs), pairs.median(-1).values)
    pairs.view(-1)[7] = torch.nan
    assert_close(rule.statistic(pairs), pairs.median(-1).values, equal_nan=True)
    pairs.view(-1)[7] = before.view(-1)[7]
    assert torch.equal(pairs, before)


def test_the_median_of_many_pairs_inside_of_a_transform():
    pairs = torch.rand(3, 5000)
    rule = MedianBandwidth()
    assert_close(torch.vmap(lambda p: rule(p, 5))(pairs), rule(pairs, 5))


@pytest.mark.parametrize("rule", [MedianBandwidth, MeanBandwidth])
def test_the_scale_is_a_factor(rule):
    pairs = torch.tensor([1.0, 2.0, 4.0])
    torch.testing.assert_close(rule(scale=0.3)(pairs, 3), 0.3 * rule()(pairs, 3))
    assert rule(scale=0.3, floor=9.0)(pairs, 3).item() == 9.0
    assert repr(rule(scale=0.3)) == f"{rule.__name__}('log(n+1)', scale=0.3, floor=1e-12)"
    with pytest.raises(ValueError, match="scale must be > 0, got 0"):
        rule(scale=0.0)
