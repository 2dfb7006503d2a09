"""LinearKernel: by hand, by loop, by theory."""

import math

import pytest
import torch

from tests.oracles import kernels as oracle
from torchrl_stein.functional import svgd_direction
from torchrl_stein.kernels import LinearKernel


def test_by_hand(variant):
    # k = x . y + 1: (1, 2).(3, 4) = 11, (0, 1).(3, 4) = 4; grad_x k = y for each of the two x.
    x, y = variant.tensor([[1.0, 2.0], [0.0, 1.0]]), variant.tensor([[3.0, 4.0]])
    gram, repulsion = variant(LinearKernel(1.0).gram_and_repulsion, x, y)
    variant.close(gram, [[12.0], [5.0]])
    variant.close(repulsion, [[6.0, 8.0]])


@pytest.mark.parametrize("offset", [0.0, 1.0, 2.5])
def test_against_loop(variant, offset):
    x, y = variant.randn(5, 3), variant.randn(4, 3, seed=1)
    a, b = x.double().numpy(), y.double().numpy()
    kernel, pair = LinearKernel(offset), oracle.linear(offset)
    for points, target in (((x, y), b), ((x,), a)):
        gram, repulsion = variant(kernel.gram_and_repulsion, *points)
        variant.close(gram, oracle.gram(pair, a, target))
        variant.close(repulsion, oracle.repulsion(pair, a, target))


def test_force_is_affine_in_the_point(variant):
    # phi(y) = A y + b with A = mean(s x^T) + 1 and b = mean(s): zero for samples whose mean and
    # covariance are those of a Gaussian target (Liu & Wang 2018, section 3).
    x = variant.randn(6, 2)
    scores = variant.randn(6, 2, seed=1)
    y = variant.randn(3, 2, seed=2)

    def direction(x, y, scores):
        return svgd_direction(*LinearKernel(1.0).gram_and_repulsion(x, y), scores).total

    a = (scores.mT @ x / 6.0 + torch.eye(2)).double()
    want = y.double() @ a.mT + scores.double().mean(0)
    variant.close(variant(direction, x, y, scores), want)


def test_errors():
    for offset in (-1.0, math.nan):
        with pytest.raises(ValueError, match=r"LinearKernel: offset must be .*>= 0, got"):
            LinearKernel(offset)
