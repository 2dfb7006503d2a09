"""Particles that nearly coincide far from the origin, and memory in high dimensions."""

import pytest
import torch

from torchrl_stein.functional import svgd_direction
from torchrl_stein.kernels import IMQKernel, LinearKernel, MeanBandwidth, RBFKernel
from torchrl_stein.testing import LargestTensor

# One for each way of computing distances: loop over d, pairs, product, and several blocks.
SHAPES = [(16, 2), (16, 50), (100, 50), (16, 40_000)]


def close_particles(n, d):
    """Spread 1e-4 around a point of norm 100, in float32, with scores of order one."""
    centre = torch.randn(d)
    x = 100.0 * centre / centre.norm() + 1e-4 * torch.randn(n, d)
    return x, torch.randn(n, d)


def textbook_direction(x, scores):
    """The usual implementation: |x|^2 + |y|^2 - 2 x.y, median heuristic, log(n+1)."""
    n = x.shape[0]
    norms = x.square().sum(-1)
    square = norms[:, None] + norms[None, :] - 2.0 * x @ x.mT
    row, column = torch.triu_indices(n, n, 1)
    h = square[row, column].median() / torch.log(torch.tensor(n + 1.0))
    gram = torch.exp(-square / h)
    repulsion = 2.0 / h * (gram.sum(0)[:, None] * x - gram.mT @ x)
    return (gram.mT @ scores + repulsion) / n


def relative_error(direction, exact):
    return ((direction.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel", [RBFKernel(), RBFKernel(MeanBandwidth()), IMQKernel()])
def test_direction_of_close_particles(kernel, shape):
    x, scores = close_particles(*shape)
    exact = svgd_direction(*kernel.gram_and_repulsion(x.double()), scores.double())
    force = svgd_direction(*kernel.gram_and_repulsion(x), scores)
    # The two terms apart as well: the repulsion is a thousand times the drive here.
    for part, want in ((force.total, exact.total), (force.drive, exact.drive)):
        assert relative_error(part, want) < 1e-5
    # An amortized sampler asks for the force at a second set of points.
    y = x + 1e-4 * torch.randn(shape)
    exact = svgd_direction(*kernel.gram_and_repulsion(x.double(), y.double()), scores.double())
    force = svgd_direction(*kernel.gram_and_repulsion(x, y), scores)
    assert relative_error(force.total, exact.total) < 1e-5


@pytest.mark.parametrize("shape", [(16, 50), (100, 50)])
def test_the_textbook_form_fails_there(shape):
    # Why the library does not use it: in float32 it is garbage, in float64 it agrees with ours.
    x, scores = close_particles(*shape)
    exact = svgd_direction(*RBFKernel().gram_and_repulsion(x.double()), scores.double()).total
    assert relative_error(textbook_direction(x.double(), scores.double()), exact) < 1e-3
    wrong = textbook_direction(x, scores)
    assert not wrong.isfinite().all() or relative_error(wrong, exact) > 0.5


@pytest.mark.parametrize("kernel", [RBFKernel(), IMQKernel()])
def test_one_outlier_does_not_spoil_the_others(kernel):
    for index in (0, 7):
        x, scores = close_particles(16, 50)
        x[index] += 1.0
        exact = svgd_direction(*kernel.gram_and_repulsion(x.double()), scores.double()).total
        total = svgd_direction(*kernel.gram_and_repulsion(x), scores).total
        assert relative_error(total, exact) < 1e-5


@pytest.mark.parametrize(
    "kernel", [RBFKernel(), IMQKernel(), LinearKernel(), RBFKernel() * LinearKernel()]
)
def test_no_tensor_of_all_pairs_and_dimensions(kernel):
    # n = 32, d = 50 000: [n, d] is 6.4 MB and a tensor [n, n, d] would be 205 MB. A float64 block
    # of at most [n, 32 768] and its difference from the origin stay below 3 times [n, d].
    x = torch.randn(32, 50_000)
    for y in (None, torch.randn(32, 50_000)):
        with LargestTensor() as largest:
            gram, repulsion = kernel.gram_and_repulsion(x, y)
        assert gram.shape == (32, 32)
        assert repulsion.shape == x.shape
        assert x.nbytes <= largest.bytes <= 3 * x.nbytes


def test_gradient_needs_no_such_tensor_either():
    x = torch.randn(32, 50_000, requires_grad=True)
    with LargestTensor() as largest:
        RBFKernel()(x).sum().backward()
    assert largest.bytes <= 3 * x.nbytes
