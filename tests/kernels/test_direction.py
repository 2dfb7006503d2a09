"""Kernel.svgd_direction: one set of particles, a result in memory of its own."""

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import kernels, svgd
from torchrl_stein.functional import distance, svgd_direction
from torchrl_stein.kernels import (
    IdentityKernel,
    IMQKernel,
    LayerwiseKernel,
    LinearKernel,
    MeanBandwidth,
    RBFKernel,
)
from torchrl_stein.testing import LargestTensor

KERNELS = {
    "rbf": RBFKernel(),
    "fixed": RBFKernel(3.0),
    "mean": RBFKernel(MeanBandwidth()),
    "imq": IMQKernel(),
    "linear": LinearKernel(),
    "sum": 0.5 * RBFKernel() + LinearKernel(),
    "product": RBFKernel() * LinearKernel(),
    "layers": LayerwiseKernel({"first": slice(0, 4), "second": slice(4, 9)}),
    "identity": IdentityKernel(),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_the_direction_of_the_two_halves(name, dtype):
    x, scores = torch.randn(2, 6, 9, dtype=dtype)
    kernel = KERNELS[name]
    want = svgd_direction(*kernel.gram_and_repulsion(x), scores).total
    assert_close(kernel.svgd_direction(x, scores), want)


def test_against_loop():
    x, scores = torch.randn(2, 5, 9, dtype=torch.float64)
    want = svgd.direction(kernels.rbf(3.0), x.numpy(), x.numpy(), scores.numpy())
    assert_close(RBFKernel(3.0).svgd_direction(x, scores), torch.as_tensor(want))


@pytest.mark.parametrize("n", [1, 2, 70])
def test_blocks_and_a_ragged_end(monkeypatch, n):
    # 1024 columns are the least; 2500 are two blocks and a part of one.
    monkeypatch.setattr(distance, "_CPU_BLOCK", 1)
    x, scores = torch.randn(2, n, 2500, dtype=torch.float64)
    for shift in (0.0, 100.0):  # with a product, and without
        want = svgd_direction(*RBFKernel().gram_and_repulsion(x + shift), scores).total
        assert_close(RBFKernel().svgd_direction(x + shift, scores), want)


def test_leading_dimensions_are_a_batch():
    x, scores = torch.randn(2, 3, 6, 9)
    want = torch.stack([RBFKernel().svgd_direction(*pair) for pair in zip(x, scores, strict=True)])
    assert_close(RBFKernel().svgd_direction(x, scores), want)


@pytest.mark.parametrize("name", KERNELS)
def test_out_is_written_and_returned(name):
    x, scores = torch.randn(2, 6, 9)
    want = KERNELS[name].svgd_direction(x, scores)
    out = torch.full_like(x, torch.nan)
    assert KERNELS[name].svgd_direction(x, scores, out=out) is out
    assert_close(out, want)


def test_a_part_of_a_larger_tensor():
    both = torch.randn(4, 6, 9)
    x, scores, _, target = both.transpose(0, 1).unbind(1)  # strided, but not one memory with out
    out = torch.empty(6, 3, 9)[:, 1]
    assert_close(
        RBFKernel().svgd_direction(x, scores, out=out),
        RBFKernel().svgd_direction(x.contiguous(), scores.contiguous()),
    )
    with pytest.raises(ValueError, match="memory of its own"):
        RBFKernel().svgd_direction(x, scores, out=target)


def test_gradients_are_not_recorded():
    x = torch.randn(6, 9, requires_grad=True)
    assert not RBFKernel().svgd_direction(x, x.detach()).requires_grad


def test_a_radial_kernel_with_an_evaluate_of_its_own_is_asked():
    class Half(RBFKernel):
        def evaluate(self, x, y=None):
            return (0.5 * RBFKernel()).evaluate(x, y)

    x, scores = torch.randn(2, 6, 9)
    assert_close(Half().svgd_direction(x, scores), 0.5 * RBFKernel().svgd_direction(x, scores))


def test_memory():
    # [n, d] in float32 is 25.6 MB here. Beside the result there is a block, and one particle.
    x, scores = torch.randn(64, 100_000), torch.randn(64, 100_000)
    out = torch.empty_like(x)
    with LargestTensor() as largest:
        RBFKernel().svgd_direction(x, scores, out=out)
    assert largest.bytes == out.nbytes  # views of x, scores and out
    # Close particles need one block of columns more, and a block in double precision.
    x = 100.0 + 1e-3 * x
    with LargestTensor() as largest:
        RBFKernel().svgd_direction(x, scores, out=out)
    assert largest.bytes == out.nbytes


@pytest.mark.parametrize(
    ("scores", "out", "message"),
    [
        (torch.zeros(6, 8), None, r"scores must be \[6, 9\].* as x, got \[6, 8\]"),
        (torch.zeros(6, 9).double(), None, "scores must be .*float32.* got .*float64"),
        (torch.zeros(6, 9), torch.zeros(5, 9), r"out must be \[6, 9\].* got \[5, 9\]"),
    ],
)
def test_bad_input(scores, out, message):
    with pytest.raises(ValueError, match=f"RBFKernel: {message}"):
        RBFKernel().svgd_direction(torch.randn(6, 9), scores, out=out)


def test_out_may_not_be_an_argument():
    x, scores = torch.randn(6, 9), torch.randn(6, 9)
    for out in (x, scores):
        with pytest.raises(ValueError, match="out must have memory of its own"):
            RBFKernel().svgd_direction(x, scores, out=out)


def test_one_vector_is_no_set():
    with pytest.raises(ValueError, match=r"x must have at least 2 dimension\(s\), got shape \[9\]"):
        RBFKernel().svgd_direction(torch.randn(9), torch.randn(9))


def test_compiles_without_breaks():
    kernel = RBFKernel()
    x, scores = torch.randn(6, 9), torch.randn(6, 9)
    compiled = torch.compile(kernel.svgd_direction, fullgraph=True, backend="eager")
    want = kernel.svgd_direction(x, scores)
    assert_close(compiled(x, scores), want)
    assert_close(compiled(x, scores, out=torch.empty_like(x)), want)


def largest_of_actions(batch, fixed, moved):
    x, scores = torch.randn(2, batch, fixed, 3)
    y = torch.randn(batch, moved, 3)
    with LargestTensor() as largest, torch.no_grad():
        evaluation = RBFKernel().evaluate(x, y)
        svgd_direction(evaluation.gram, evaluation.repulsion, scores)
    return largest.bytes


@pytest.mark.parametrize("grown", [(32, 16, 16), (16, 32, 16), (16, 16, 32)])
def test_memory_of_action_particles_is_linear_in_each_size(grown):
    assert largest_of_actions(*grown) <= 2 * largest_of_actions(16, 16, 16)


def test_memory_of_particles_is_quadratic_in_the_small_matrix_alone():
    def largest_of(n, d):
        x, scores = torch.randn(n, d), torch.randn(n, d)
        out = torch.empty_like(x)
        with LargestTensor() as largest:
            RBFKernel().svgd_direction(x, scores, out=out)
        return largest.bytes

    assert largest_of(8, 40_000) <= 2 * largest_of(8, 20_000)
    assert largest_of(16, 20_000) <= 2 * largest_of(8, 20_000)
    assert largest_of(512, 5) <= 4.1 * largest_of(256, 5)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0)])
def test_nothing_has_no_direction(shape):
    with pytest.raises(ValueError, match="RBFKernel: x must not be empty, got shape"):
        RBFKernel().svgd_direction(torch.zeros(shape), torch.zeros(shape))
