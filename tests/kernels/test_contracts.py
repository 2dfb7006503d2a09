"""Every kernel of the library passes the shipped contract, and none can be forgotten."""

import inspect

from torchrl_stein import kernels
from torchrl_stein.kernels import (
    IMQKernel,
    Kernel,
    LinearKernel,
    MeanBandwidth,
    MedianBandwidth,
    ProductKernel,
    RadialKernel,
    RBFKernel,
    ScaledKernel,
    SumKernel,
)
from torchrl_stein.testing import KernelContract

BASES = {Kernel, RadialKernel}


class TestRBFKernel(KernelContract):
    def make_kernel(self):
        return RBFKernel()


class TestRBFKernelFixed(KernelContract):
    def make_kernel(self):
        return RBFKernel(bandwidth=2.0)


class TestRBFKernelMean(KernelContract):
    def make_kernel(self):
        return RBFKernel(MeanBandwidth("2log(n+1)"))


class TestIMQKernel(KernelContract):
    def make_kernel(self):
        return IMQKernel()


class TestIMQKernelOtherExponent(KernelContract):
    def make_kernel(self):
        return IMQKernel(MedianBandwidth("log(n)"), exponent=0.25)


class TestLinearKernel(KernelContract):
    stationary = False

    def make_kernel(self):
        return LinearKernel(offset=0.5)


class TestSumKernel(KernelContract):
    def make_kernel(self):
        return SumKernel(RBFKernel(), IMQKernel(3.0))


class TestProductKernel(KernelContract):
    stationary = False

    def make_kernel(self):
        return ProductKernel(RBFKernel(), LinearKernel())


class TestScaledKernel(KernelContract):
    def make_kernel(self):
        return ScaledKernel(IMQKernel(), 0.3)


class TestNestedAlgebra(KernelContract):
    stationary = False

    def make_kernel(self):
        return 0.5 * RBFKernel() * IMQKernel() + 2.0 * (LinearKernel() * LinearKernel(0.0))


def test_every_kernel_has_a_contract():
    public = {getattr(kernels, name) for name in kernels.__all__}
    concrete = {c for c in public if inspect.isclass(c) and issubclass(c, Kernel)} - BASES
    covered = {
        type(c().make_kernel()) for c in KernelContract.__subclasses__() if c.__module__ == __name__
    }
    missing = sorted(c.__name__ for c in concrete - covered)
    assert not missing, f"add a KernelContract subclass to this file for {missing}"
