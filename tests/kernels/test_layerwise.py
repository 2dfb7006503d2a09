"""LayerwiseKernel: by hand, by loop, with a real population, and what it refuses."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.oracles import kernels as oracle
from torchrl_stein.kernels import IMQKernel, Kernel, LayerwiseKernel, LinearKernel, RBFKernel
from torchrl_stein.modules import ParticleModule
from torchrl_stein.testing import LargestTensor

SLICES = {"head": slice(3, 5), "body": slice(0, 3)}  # in any order


def test_by_hand(variant):
    # x = (0, 0), (1, 2), h = 1: layers exp(-1) and exp(-4); R_1 = (2 (0 - 1) / e, 2 (0 - 2) / e^4)
    # and R_2 = -R_1; all over two layers.
    x = variant.tensor([[0.0, 0.0], [1.0, 2.0]])
    kernel = LayerwiseKernel([slice(0, 1), slice(1, 2)], lambda: RBFKernel(1.0))
    gram, repulsion = variant(kernel.gram_and_repulsion, x)
    a, b = math.exp(-1.0), math.exp(-4.0)
    variant.close(gram, [[1.0, (a + b) / 2], [(a + b) / 2, 1.0]])
    variant.close(repulsion, [[-a, -2.0 * b], [a, 2.0 * b]])


@pytest.mark.parametrize("with_y", [False, True])
def test_against_loop(variant, with_y):
    x, y = variant.randn(5, 5), variant.randn(4, 5, seed=1)
    kernel = LayerwiseKernel(SLICES, RBFKernel)
    gram, repulsion = variant(kernel.gram_and_repulsion, *((x, y) if with_y else (x,)))
    a, b = x.double().numpy(), (y if with_y else x).double().numpy()
    want_gram, want_repulsion = 0.0, []
    for start, stop in ((0, 3), (3, 5)):
        columns = slice(start, stop)
        h = RBFKernel().bandwidth(x[:, columns], y[:, columns] if with_y else None).item()
        want_gram = want_gram + 0.5 * oracle.gram(oracle.rbf(h), a[:, columns], b[:, columns])
        pushes = oracle.repulsion(oracle.rbf(h), a[:, columns], b[:, columns])
        want_repulsion.append(0.5 * torch.as_tensor(pushes))
    variant.close(gram, want_gram)
    variant.close(repulsion, torch.cat(want_repulsion, -1))


def test_each_layer_has_its_own_bandwidth():
    # A layer a thousand times larger leaves the share of the other as it was.
    x = torch.randn(6, 5, dtype=torch.float64)
    scaled = torch.cat([x[:, :3], 1000.0 * x[:, 3:]], -1)
    kernel = LayerwiseKernel(SLICES)
    assert_close(kernel(scaled), kernel(x))
    assert (RBFKernel()(scaled) - RBFKernel()(x)).abs().max() > 0.01
    assert kernel.evaluate(x).bandwidth is None


def test_one_layer_is_the_kernel_itself():
    x = torch.randn(5, 4)
    want = IMQKernel().gram_and_repulsion(x)
    assert_close(LayerwiseKernel([slice(0, 4)], IMQKernel).gram_and_repulsion(x), want)


def test_layers_of_a_population():
    net = ParticleModule(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), 5, outside_kernel=["2"]
    )
    kernel = LayerwiseKernel(net.layer_slices)
    assert [k.stop - k.start for k in kernel.slices] == [16]
    assert kernel(net.particles.detach()[:, : net.kernel_dim]).shape == (5, 5)
    both = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), 5)
    kernel = LayerwiseKernel(both.layer_slices)
    assert len(kernel.kernels) == 2
    assert kernel.gram_and_repulsion(both.particles.detach())[1].shape == both.particles.shape


def test_the_factory_is_called_once_per_layer():
    made = []

    def factory():
        made.append(LinearKernel(float(len(made))))
        return made[-1]

    kernel = LayerwiseKernel(SLICES, factory)
    assert kernel.kernels == made
    assert [k.offset for k in kernel.kernels] == [0.0, 1.0]


def test_the_batch_reaches_every_layer():
    seen = []

    class Recorder(RBFKernel):
        def observe(self, tensordict):
            seen.append(tensordict)

    (LayerwiseKernel(SLICES, Recorder) + RBFKernel()).observe("batch")
    assert seen == ["batch", "batch"]


def test_memory():
    x = torch.randn(16, 20_000)
    kernel = LayerwiseKernel([slice(0, 5_000), slice(5_000, 20_000)])
    with LargestTensor() as largest:
        kernel.gram_and_repulsion(x)
    assert largest.bytes <= 4 * x.nbytes


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ([], "at least one slice, got none"),
        ([slice(0, 2), slice(3, 5)], r"after column 2 comes slice\(3, 5, None\)"),
        ([slice(0, 3), slice(2, 5)], r"after column 3 comes slice\(2, 5, None\)"),
        ([slice(1, 3)], r"after column 0 comes slice\(1, 3, None\)"),
        ([slice(0, 3), slice(3, 3)], r"after column 3 comes slice\(3, 3, None\)"),
        ([slice(-2, 3)], r"after column 0 comes slice\(-2, 3, None\)"),
        ([slice(0, 4, 2)], r"be slices start:stop, got slice\(0, 4, 2\)"),
        ([slice(None, 4)], r"be slices start:stop, got slice\(None, 4, None\)"),
        ([slice(0, None)], r"be slices start:stop, got slice\(0, None, None\)"),
    ],
)
def test_slices_that_do_not_tile_the_columns(slices, message):
    with pytest.raises(ValueError, match=rf"LayerwiseKernel: layer_slices must .*{message}"):
        LayerwiseKernel(slices)


@pytest.mark.parametrize(
    ("factory", "got"),
    [
        (lambda: nn.Linear(1, 1), "one that returns Linear"),
        (RBFKernel(), r"the object RBFKernel\(\.\.\.\)"),
        (nn.Linear(1, 1), r"the object Linear\(\.\.\.\)"),
        ("rbf", r"the object str\(\.\.\.\)"),
    ],
)
def test_what_makes_no_kernels(factory, got):
    message = "kernel_factory must be a callable that returns a Kernel, such as RBFKernel itself"
    with pytest.raises(TypeError, match=f"LayerwiseKernel: {message}, got {got}"):
        LayerwiseKernel(SLICES, factory)


@pytest.mark.parametrize(
    ("slices", "got"),
    [
        (ParticleModule(lambda: nn.Linear(3, 2), 2), "ParticleModule"),
        (nn.Sequential(nn.Linear(3, 2)), "Sequential"),
        (slice(0, 5), "slice"),
        ({"0": (0, 5)}, "dict"),
        (5, "int"),
    ],
)
def test_what_is_not_slices(slices, got):
    message = r"layer_slices must be slices, such as policies\.layer_slices of a ParticleModule"
    with pytest.raises(TypeError, match=f"LayerwiseKernel: {message}, got {got}"):
        LayerwiseKernel(slices)


def test_errors():
    kernel: Kernel = LayerwiseKernel(SLICES)
    with pytest.raises(ValueError, match=r"x must have the 5 columns .* got shape \[2, 6\]"):
        kernel(torch.zeros(2, 6))
    with pytest.raises(ValueError, match=r"y must have the 5 columns .* got shape \[2, 4\]"):
        kernel(torch.zeros(2, 5), torch.zeros(2, 4))
