"""Sums, products and scalings: by hand, by loop, by theory; and the abstract base."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import kernels as oracle
from torchrl_stein.kernels import (
    IMQKernel,
    Kernel,
    LinearKernel,
    ProductKernel,
    RBFKernel,
    ScaledKernel,
    SumKernel,
)


def test_by_hand(variant):
    # k1 = xy + 1 and k2 = xy at x = 2, y = 3: values 7 and 6, gradients in x 3 and 3.
    x, y = variant.tensor([[2.0]]), variant.tensor([[3.0]])
    first, second = LinearKernel(1.0), LinearKernel(0.0)
    for kernel, value, slope in (
        (first + second, 13.0, 6.0),
        (first * second, 42.0, 3.0 * 6.0 + 7.0 * 3.0),
        (0.5 * first, 3.5, 1.5),
        (first * 2, 14.0, 6.0),
    ):
        gram, repulsion = variant(kernel.gram_and_repulsion, x, y)
        variant.close(gram, [[value]])
        variant.close(repulsion, [[slope]])


def test_against_loop(variant):
    x, y = variant.randn(5, 2), variant.randn(4, 2, seed=1)
    a, b = x.double().numpy(), y.double().numpy()
    rbf, imq, linear = RBFKernel(2.0), IMQKernel(1.5), LinearKernel(1.0)
    pair_rbf, pair_imq, pair_linear = oracle.rbf(2.0), oracle.imq(1.5), oracle.linear(1.0)
    for kernel, pair in (
        ((rbf + imq) * linear, oracle.multiply(oracle.add(pair_rbf, pair_imq), pair_linear)),
        (rbf * imq + linear, oracle.add(oracle.multiply(pair_rbf, pair_imq), pair_linear)),
    ):
        gram, repulsion = variant(kernel.gram_and_repulsion, x, y)
        variant.close(gram, oracle.gram(pair, a, b))
        variant.close(repulsion, oracle.repulsion(pair, a, b))


def test_product_of_two_rbf_kernels_is_an_rbf_kernel(variant):
    # exp(-t / 2) exp(-t / 3) = exp(-t 5/6), h = 1.2.
    x = variant.randn(5, 3)
    product, one = RBFKernel(2.0) * RBFKernel(3.0), RBFKernel(1.2)
    gram, repulsion = variant(product.gram_and_repulsion, x)
    want = one.gram_and_repulsion(x.double())
    variant.close(gram, want[0])
    variant.close(repulsion, want[1])


def test_operators_build_the_named_classes():
    k = RBFKernel()
    assert isinstance(k + k, SumKernel)
    assert isinstance(k * k, ProductKernel)
    assert isinstance(2 * k, ScaledKernel)
    assert isinstance(k * 0.0, ScaledKernel)
    # Kernels are modules: a composite moves and stores its parts.
    assert [type(m).__name__ for m in (0.5 * k).modules()] == ["ScaledKernel", "RBFKernel"]


def test_operators_reject_what_is_no_kernel():
    k = RBFKernel()
    for other in (1.0, "k", None):
        with pytest.raises(TypeError, match="unsupported operand"):
            k + other
    for other in ("k", None, torch.tensor(2.0)):
        with pytest.raises(TypeError):
            k * other
    with pytest.raises(TypeError, match="unsupported operand"):
        k - k


def test_scale_must_not_be_negative():
    for scale in (-1.0, math.nan):
        with pytest.raises(ValueError, match=r"ScaledKernel: scale must be .*>= 0, got"):
            scale * RBFKernel()


def test_a_kernel_must_define_something():
    with pytest.raises(NotImplementedError, match=r"Kernel must define forward or evaluate"):
        Kernel()(torch.zeros(2, 2))
    with pytest.raises(NotImplementedError, match=r"Kernel must define forward or evaluate"):
        Kernel().gram_and_repulsion(torch.zeros(2, 2))


def test_composite_has_no_single_bandwidth():
    x = torch.randn(3, 2)
    assert (RBFKernel() + IMQKernel()).evaluate(x).bandwidth is None
    assert_close((RBFKernel() + RBFKernel())(x), 2.0 * RBFKernel()(x))
