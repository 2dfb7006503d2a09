"""A user's own kernels, as the documentation says to write them, pass the contract."""

import torch
from torch.testing import assert_close

from torchrl_stein.kernels import Kernel, RadialKernel, RBFKernel
from torchrl_stein.testing import KernelContract


class StudentKernel(RadialKernel):
    """k = 1 / (1 + t): one method, gradients by autograd of the profile."""

    def profile(self, t):
        return 1.0 / (1.0 + t)


class TestStudentKernel(KernelContract):
    def make_kernel(self):
        return StudentKernel()


class QuadraticKernel(Kernel):
    """k = (x . y + 1)^2: only ``forward``, gradients by autograd of the Gram matrix."""

    def forward(self, x, y=None):
        y = x if y is None else y
        return (x @ y.mT + 1.0).square()


class TestQuadraticKernel(KernelContract):
    stationary = False

    def make_kernel(self):
        return QuadraticKernel()


class HalvesKernel(Kernel):
    """The mean of an RBF kernel on each half of the coordinates; it adapts inside."""

    def __init__(self):
        super().__init__()
        self.inner = RBFKernel()

    def forward(self, x, y=None):
        h = x.shape[-1] // 2
        halves = [
            (x[..., :h], None if y is None else y[..., :h]),
            (x[..., h:], None if y is None else y[..., h:]),
        ]
        return 0.5 * sum(self.inner(a, b) for a, b in halves)

    def evaluate(self, x, y=None):
        h = x.shape[-1] // 2
        a = self.inner.evaluate(x[..., :h], None if y is None else y[..., :h])
        b = self.inner.evaluate(x[..., h:], None if y is None else y[..., h:])

        def repulsion(w):
            return 0.5 * torch.cat([a.weighted_repulsion(w), b.weighted_repulsion(w)], -1)

        return type(a)(0.5 * (a.gram + b.gram), repulsion)


class TestHalvesKernel(KernelContract):
    dims = (2, 7, 12)

    def make_kernel(self):
        return HalvesKernel()


def test_autograd_fallback_in_every_variant(variant):
    # (xy + 1)^2: gradient in x is 2 (xy + 1) y; at x = (1, 2), y = 3: 2 * 4 * 3 + 2 * 7 * 3 = 66.
    x, y = variant.tensor([[1.0], [2.0]]), variant.tensor([[3.0]])
    gram, repulsion = variant(QuadraticKernel().gram_and_repulsion, x, y)
    variant.close(gram, [[16.0], [49.0]])
    variant.close(repulsion, [[66.0]])


def test_profile_only_in_every_variant(variant):
    # 1 / (1 + r^2): slope in r is -2 r / (1 + r^2)^2; x = (0, 2), y = 1: +1/2 and -1/2.
    x, y = variant.tensor([[0.0], [2.0]]), variant.tensor([[1.0]])
    gram, repulsion = variant(StudentKernel(1.0).gram_and_repulsion, x, y)
    variant.close(gram, [[0.5], [0.5]])
    variant.close(repulsion, [[0.0]])


def test_custom_kernels_compose():
    x = torch.randn(5, 2)
    both = 0.5 * QuadraticKernel() + StudentKernel() * RBFKernel()
    want = 0.5 * QuadraticKernel()(x) + StudentKernel()(x) * RBFKernel()(x)
    assert_close(both(x), want)
