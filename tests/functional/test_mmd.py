"""mmd_squared: by hand, by loop, by theory."""

import math

import pytest
import torch

from tests.oracles import discrepancy as oracle
from tests.oracles import kernels
from torchrl_stein.functional import mmd_squared, squared_distances

H = 1.0


def rbf(a, b):
    return torch.exp(-squared_distances(a, b) / H)


def mmd(x, y):
    return mmd_squared(x, y, rbf)


def test_by_hand(variant):
    # x = (0, 1), y = (0, 2), k = exp(-|x - y|^2): within e^-1 and e^-4, across the mean of
    # (1, e^-4, e^-1, e^-1): e^-1 + e^-4 - (1 + e^-4 + 2 e^-1) / 2 = (e^-4 - 1) / 2.
    x, y = variant.tensor([[0.0], [1.0]]), variant.tensor([[0.0], [2.0]])
    variant.close(variant(mmd, x, y), (math.exp(-4.0) - 1.0) / 2.0)


def test_against_loop(variant):
    x, y = variant.randn(6, 2), variant.randn(4, 2, seed=1) + 0.5
    value, _ = kernels.rbf(H)
    variant.close(variant(mmd, x, y), oracle.mmd_squared(x.double().tolist(), y.tolist(), value))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_mean_is_the_closed_form(variant, shift):
    # x ~ N(0, 1), y ~ N(shift, 1): differences are N(0, 2) within and N(shift, 2) across, and
    # E exp(-D^2 / h) = sqrt(h / (h + 4)) exp(-shift^2 / (h + 4)) for D ~ N(shift, 2).
    x, y = variant.randn(4000, 10, 1), variant.randn(4000, 8, 1, seed=1) + shift
    value = variant(mmd, x, y)
    want = 2.0 * math.sqrt(H / (H + 4.0)) * (1.0 - math.exp(-(shift**2) / (H + 4.0)))
    assert value.shape == (4000,)
    # Unbiased: zero for one and the same distribution. Four standard errors.
    assert abs(value.mean().item() - want) < 4.0 * value.std().item() / math.sqrt(4000)


def test_symmetric(variant):
    x, y = variant.randn(6, 2), variant.randn(4, 2, seed=1)
    variant.close(variant(mmd, x, y), mmd(y, x).double())


def test_errors():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"mmd_squared: y has size 1 .* but x has 2"):
        mmd(x, torch.zeros(3, 1))
    with pytest.raises(
        ValueError, match=r"mmd_squared: the number of rows of x must be >= 2, got 1"
    ):
        mmd(x[:1], x)
    with pytest.raises(
        ValueError, match=r"mmd_squared: the number of rows of y must be >= 2, got 1"
    ):
        mmd(x, x[:1])
