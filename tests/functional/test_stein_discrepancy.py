"""stein_kernel, its profile and the two statistics: by hand, by loop, by theory."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import discrepancy as oracle
from torchrl_stein.functional import (
    inverse_multiquadric,
    ksd_u_statistic,
    ksd_v_statistic,
    stein_kernel,
)


def gaussian(t):
    return torch.exp(-0.5 * t)


def all_three(x, scores):
    return stein_kernel(x, scores), ksd_v_statistic(x, scores), ksd_u_statistic(x, scores)


def test_inverse_multiquadric(variant):
    # (1 + 0)^(-1/2) = 1, (1 + 3)^(-1/2) = 1/2, (1 + 8)^(-1/2) = 1/3.
    t = variant.tensor([0.0, 3.0, 8.0])
    variant.close(variant(inverse_multiquadric, t), [1.0, 0.5, 1.0 / 3.0])
    # Its slope is -k^3 / 2: heavy tails, no kink at zero.
    slope = variant(torch.func.grad(lambda t: inverse_multiquadric(t).sum()), t)
    variant.close(slope, [-0.5, -0.0625, -1.0 / 54.0])


def test_stein_kernel_by_hand(variant):
    # x = (0, 1) under N(0, 1), scores (0, -1), q = 1 + r^2 = 2 off the diagonal.
    # u_00 = d = 1, u_11 = 1 + s^2 = 2,
    # u_01 = -s_1 r q^(-3/2) + q^(-3/2) - 3 q^(-5/2) with r = -1, s_1 = -1:
    #      = -2^(-3/2) + 2^(-3/2) - 3 2^(-5/2) = -0.530330.
    x = variant.tensor([[0.0], [1.0]])
    u = -3.0 * 2.0**-2.5
    matrix, v_statistic, u_statistic = variant(all_three, x, -x)
    variant.close(matrix, [[1.0, u], [u, 2.0]])
    # V = (1 + 2 + 2 u) / 4, U = 2 u / 2.
    variant.close(v_statistic, (3.0 + 2.0 * u) / 4.0)
    variant.close(u_statistic, u)


@pytest.mark.parametrize("shape", [(6, 2), (6, 7)])
def test_against_loop(variant, shape):
    x, scores = variant.randn(*shape), variant.randn(*shape, seed=1)
    arrays = x.double().numpy(), scores.double().numpy()
    matrix, v_statistic, u_statistic = variant(all_three, x, scores)
    variant.close(matrix, oracle.stein_kernel(*arrays))
    variant.close(v_statistic, oracle.ksd_v(*arrays))
    variant.close(u_statistic, oracle.ksd_u(*arrays))


@pytest.mark.parametrize("profile", [inverse_multiquadric, gaussian])
def test_against_autograd_of_the_definition(profile):
    # u = s.s' k + s.grad_y k + s'.grad_x k + tr grad_x grad_y k, for one pair at a time.
    x, scores = torch.randn(2, 5, 3, dtype=torch.float64)

    def k(a, b):
        return profile((a - b).square().sum())

    def pair(a, b, s_a, s_b):
        first, second = torch.func.grad(k, 0), torch.func.grad(k, 1)
        trace = torch.func.jacrev(first, 1)(a, b).trace()
        return s_a @ s_b * k(a, b) + s_a @ second(a, b) + s_b @ first(a, b) + trace

    u = stein_kernel(x, scores, profile)
    for i in range(5):
        for j in range(5):
            assert_close(u[i, j], pair(x[i], x[j], scores[i], scores[j]))


def test_symmetric_and_positive_semi_definite(variant):
    x, scores = variant.randn(3, 12, 2), variant.randn(3, 12, 2, seed=1)
    u = variant(stein_kernel, x, scores)
    assert_close(u, u.mT)
    assert (torch.linalg.eigvalsh(u.double()) > -1e-5).all()


def test_v_statistic_is_non_negative_and_grows_with_the_shift(variant):
    x = variant.randn(100, 2)
    values = [variant(lambda x: ksd_v_statistic(x, -x), x + s).item() for s in (0.0, 0.3, 1.0, 2.0)]
    assert values[0] >= 0.0
    assert values == sorted(values)
    # For samples of the target, V is the bias of the diagonal, E[d + |x|^2] / n = 4 / 100.
    assert values[0] < 0.08


def test_u_statistic_is_unbiased(variant):
    # 2000 sets of 5 samples of the target: U averages to zero within four standard errors; V
    # averages to mean(u_ii) / n = (d + E|x|^2) / n = 4 / 5.
    x = variant.randn(2000, 5, 2)
    u = variant(lambda x: ksd_u_statistic(x, -x), x)
    assert u.shape == (2000,)
    assert abs(u.mean().item()) < 4.0 * u.std().item() / math.sqrt(2000)
    v = variant(lambda x: ksd_v_statistic(x, -x), x)
    assert abs(v.mean().item() - 0.8) < 4.0 * v.std().item() / math.sqrt(2000)
    # Not of another density's samples.
    off = ksd_u_statistic(x + 0.5, -(x + 0.5))
    assert off.mean().item() > 4.0 * off.std().item() / math.sqrt(2000)


def test_invariant_to_rotation_and_translation(variant):
    x, scores = variant.randn(8, 3), variant.randn(8, 3, seed=1)
    rotation = torch.linalg.qr(variant.randn(3, 3, seed=2))[0]
    u = stein_kernel(x.double(), scores.double())
    turned = variant(stein_kernel, x @ rotation, scores @ rotation)
    # Two float32 products more than in the other tests: 1e-4 of entries around 3.
    assert_close(turned.double(), u, rtol=1e-4, atol=1e-4)
    # Samples on a grid of 1/64 are exact in float32 also at 2^16, where s.x alone would be wrong
    # by 2^16 times the rounding unit, 0.004.
    x = (x * 64.0).round() / 64.0
    far = variant(stein_kernel, x + 2.0**16, scores)
    assert_close(far.double(), stein_kernel(x.double(), scores.double()), rtol=1e-5, atol=1e-5)


def test_coincident_samples_are_finite(variant):
    x = variant.tensor([[0.3] * 6] * 4)
    u = variant(stein_kernel, x, -x)
    # d + |s|^2
    variant.close(u, torch.full((4, 4), 6.0 + 6.0 * 0.09, dtype=torch.float64))


def test_errors():
    x = torch.zeros(3, 2)
    for function in (stein_kernel, ksd_v_statistic, ksd_u_statistic):
        with pytest.raises(ValueError, match=r"scores must have the shape of x, got scores \[3, 1"):
            function(x, torch.zeros(3, 1))
    with pytest.raises(
        ValueError, match=r"ksd_u_statistic: the number of rows of x must be >= 2, got 1"
    ):
        ksd_u_statistic(torch.zeros(1, 2), torch.zeros(1, 2))
