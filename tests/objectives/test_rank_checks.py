"""What ranks compare of their kernels, without any ranks."""

import pytest

from torchrl_stein.kernels import DriftControl, IMQKernel, MedianBandwidth, RBFKernel
from torchrl_stein.objectives.sharded_stein import _describe


def rule(pairs, n):
    return pairs.mean(-1)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (IMQKernel(exponent=0.3), IMQKernel(exponent=0.6)),
        (0.1 * RBFKernel(), 5 * RBFKernel()),
        (RBFKernel(2.0), RBFKernel(3.0)),
        (RBFKernel(MedianBandwidth(floor=1e-3)), RBFKernel()),
        (RBFKernel(), IMQKernel()),
        (RBFKernel() + IMQKernel(), IMQKernel() + RBFKernel()),
        (DriftControl(RBFKernel(), 4, 3, seed=0), DriftControl(RBFKernel(), 4, 3, seed=1)),
    ],
)
def test_other_kernels_are_seen(one, other):
    assert _describe(one) != _describe(other)


class Rule:
    """One whose usual words hold an address."""

    def __call__(self, pairs, n):
        return pairs.mean(-1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RBFKernel(rule),
        lambda: RBFKernel(Rule()),
        lambda: 2.0 * IMQKernel() + RBFKernel(),
        lambda: DriftControl(RBFKernel(), 4, 3, seed=3),
    ],
)
def test_equal_kernels_are_equal(make):
    one, other = make(), make()
    assert _describe(one) == _describe(other)
    assert "0x" not in str(_describe(one))
