"""Every kernel of the library passes the shipped contract, and none can be forgotten."""

import inspect

import torch
from tensordict import TensorDict

from tests.kernels.policies import gaussian_actor
from torchrl_stein import kernels
from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    IdentityKernel,
    IMQKernel,
    Kernel,
    LayerwiseKernel,
    LinearKernel,
    MeanBandwidth,
    MedianBandwidth,
    ProductKernel,
    RadialControl,
    RadialKernel,
    RBFKernel,
    ScaledKernel,
    SharedDriftControl,
    SumKernel,
    TangentialControl,
)
from torchrl_stein.testing import KernelContract

BASES = {Kernel, RadialKernel}
# No functions of a pair of points: tested in test_controls.py and test_grouped.py.
NO_CONTRACT = {
    IdentityKernel,
    DriftControl,
    SharedDriftControl,
    RadialControl,
    TangentialControl,
}


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


class TestLayerwiseKernel(KernelContract):
    dims = (6,)
    large_dim = None  # made for one d; test_layerwise.py measures its memory

    def make_kernel(self):
        return LayerwiseKernel([slice(0, 2), slice(2, 3), slice(3, 6)])


class TestLayerwiseKernelOfOthers(KernelContract):
    stationary = False
    dims = (6,)
    large_dim = None

    def make_kernel(self):
        return LayerwiseKernel(
            {"second": slice(4, 6), "first": slice(0, 4)}, lambda: IMQKernel() * LinearKernel()
        )


class TestBehaviourKernel(KernelContract):
    stationary = False
    dims = (8,)  # a linear policy of 3 inputs and 1 action
    large_dim = None  # test_behaviour.py measures its memory

    def make_kernel(self):
        torch.manual_seed(0)
        kernel = BehaviourKernel(gaussian_actor(1, inputs=3), num_states=7)
        kernel.observe(TensorDict({"observation": torch.randn(2, 20, 3).double()}, [2, 20]))
        return kernel


def test_every_kernel_has_a_contract():
    public = {getattr(kernels, name) for name in kernels.__all__}
    concrete = (
        {c for c in public if inspect.isclass(c) and issubclass(c, Kernel)} - BASES - NO_CONTRACT
    )
    covered = {
        type(c().make_kernel()) for c in KernelContract.__subclasses__() if c.__module__ == __name__
    }
    missing = sorted(c.__name__ for c in concrete - covered)
    assert not missing, f"add a KernelContract subclass to this file for {missing}"
