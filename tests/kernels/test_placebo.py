"""Identity kernel and controls: by hand, by their definition, and what they refuse."""

import copy
import math

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.kernels import (
    DriftControl,
    IdentityKernel,
    Kernel,
    LinearKernel,
    RadialControl,
    RBFKernel,
    SharedDriftControl,
    TangentialControl,
)

N, D = 5, 7
CONTROLS = [
    lambda kernel: DriftControl(kernel, N, D, seed=3),
    lambda kernel: SharedDriftControl(kernel, N, D, seed=3),
    RadialControl,
    TangentialControl,
]
EVERY = pytest.mark.parametrize(
    "make", CONTROLS, ids=["drift", "shared drift", "radial", "tangential"]
)
# Away from the origin, so that the radial part of the repulsion is not small.
POINTS = 1.0 + torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_identity_is_n_independent_gradients(variant):
    x = variant.randn(3, 2)
    gram, repulsion = variant(IdentityKernel().gram_and_repulsion, x)
    variant.close(gram, torch.eye(3))
    variant.close(repulsion, torch.zeros(3, 2))


def test_identity_in_batches_sums_and_products():
    x = POINTS.expand(2, N, D)
    assert_close(IdentityKernel()(x), torch.eye(N, dtype=torch.float64).expand(2, N, N))
    rbf = RBFKernel(2.0)
    gram, repulsion = (0.5 * IdentityKernel() + rbf).gram_and_repulsion(POINTS)
    assert_close(gram, 0.5 * torch.eye(N, dtype=torch.float64) + rbf(POINTS))
    assert_close(repulsion, rbf.gram_and_repulsion(POINTS)[1])
    # Only k(x_i, x_i) is left of a product, and its gradient: zero for the stationary kernel, x_i
    # for the linear one.
    gram, repulsion = (IdentityKernel() * rbf).gram_and_repulsion(POINTS)
    assert_close(gram, torch.eye(N, dtype=torch.float64))
    assert_close(repulsion, torch.zeros_like(POINTS))
    assert_close((IdentityKernel() * LinearKernel()).gram_and_repulsion(POINTS)[1], POINTS)


def test_radial_by_hand(variant):
    # x = (2, 0), (0, 3), h = 13: k = exp(-1); R_1 = (2/13) (x_1 - x_2) / e, and |R| the same for
    # both: (2/13) sqrt(13) / e = 0.204.
    x = variant.tensor([[2.0, 0.0], [0.0, 3.0]])
    size = 2.0 / math.sqrt(13.0) / math.e
    gram, repulsion = variant(RadialControl(RBFKernel(13.0)).gram_and_repulsion, x)
    variant.close(gram, [[1.0, 0.0], [0.0, 1.0]])
    variant.close(repulsion, [[size, 0.0], [0.0, size]])


def test_tangential_by_hand(variant):
    # As above: R_1 = (2/13) (2, -3) / e without its first component, R_2 = -R_1 without its second.
    x = variant.tensor([[2.0, 0.0], [0.0, 3.0]])
    unit = 2.0 / 13.0 / math.e
    kernel = RBFKernel(13.0)
    gram, repulsion = variant(TangentialControl(kernel).gram_and_repulsion, x)
    variant.close(gram, kernel(x.double()))
    variant.close(repulsion, [[0.0, -3.0 * unit], [-2.0 * unit, 0.0]])


def test_drift_has_the_size_of_the_repulsion_and_its_own_directions():
    kernel = RBFKernel()
    control = DriftControl(kernel, N, D).double()
    gram, repulsion = control.gram_and_repulsion(POINTS)
    assert_close(gram, torch.eye(N, dtype=torch.float64))
    size = kernel.gram_and_repulsion(POINTS)[1].norm(dim=-1, keepdim=True)
    assert_close(repulsion, size * control.directions)
    assert_close(repulsion.norm(dim=-1, keepdim=True), size)
    # The directions do not follow the particles.
    moved = control.gram_and_repulsion(POINTS.square())[1]
    cosine = torch.nn.functional.cosine_similarity(moved, repulsion)
    assert_close(cosine, torch.ones_like(cosine))


def test_drift_with_shared_gradients_differs_from_the_kernel_in_its_direction_alone():
    kernel = RBFKernel()
    control = SharedDriftControl(kernel, N, D).double()
    gram, repulsion = control.gram_and_repulsion(POINTS)
    assert_close(gram, kernel(POINTS))
    assert_close(control(POINTS), kernel(POINTS))  # also where only the density is asked for
    assert_close(repulsion, DriftControl(kernel, N, D).double().gram_and_repulsion(POINTS)[1])


def test_drift_directions_are_reproducible_and_leave_the_global_seed_alone():
    state = torch.get_rng_state()
    first, same = DriftControl(RBFKernel(), N, D), DriftControl(RBFKernel(), N, D)
    other = DriftControl(RBFKernel(), N, D, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.directions, same.directions)
    assert (first.directions - other.directions).abs().min() > 0
    assert torch.unique(first.directions, dim=0).shape[0] == N
    # A checkpoint keeps them, whatever the seed.
    other.load_state_dict(first.state_dict())
    assert torch.equal(first.directions, other.directions)


def test_drift_has_nothing_to_do_with_weights_of_the_same_seed():
    torch.manual_seed(5)
    weights = torch.randn(50, 20)
    directions = DriftControl(RBFKernel(), 50, 20, seed=5).directions
    cosine = torch.nn.functional.cosine_similarity(weights, directions)
    assert cosine.mean().abs() < 0.15  # the standard deviation is 1 / sqrt(50 * 20) = 0.03


def test_tangential_is_orthogonal_and_the_rest_is_radial():
    for y in (None, POINTS[:3] + 0.5):
        full = RBFKernel().gram_and_repulsion(POINTS, y)[1]
        gram, part = TangentialControl(RBFKernel()).gram_and_repulsion(POINTS, y)
        assert_close(gram, RBFKernel()(POINTS, y))
        target = POINTS if y is None else y
        assert (part * target).sum(-1).abs().max() < 1e-12
        assert (full * target).sum(-1).abs().min() > 1e-6
        rest = torch.nn.functional.cosine_similarity(full - part, target).abs()
        assert_close(rest, torch.ones_like(rest))


@EVERY
def test_bandwidth_dtype_and_batches(make):
    control = make(RBFKernel())
    assert_close(control.evaluate(POINTS).bandwidth, RBFKernel().bandwidth(POINTS))
    assert make(RBFKernel() + RBFKernel()).evaluate(POINTS).bandwidth is None
    assert control.gram_and_repulsion(POINTS.float())[1].dtype == torch.float32
    both = torch.stack([POINTS, 2.0 * POINTS])
    gram, repulsion = control.gram_and_repulsion(both)
    assert_close((gram[1], repulsion[1]), control.gram_and_repulsion(both[1]))


@EVERY
def test_particles_at_the_origin_are_finite(make):
    for value in make(LinearKernel()).gram_and_repulsion(torch.zeros(N, D)):
        assert value.isfinite().all()


@EVERY
def test_the_batch_reaches_the_kernel_inside(make):
    seen = []

    class Recorder(RBFKernel):
        def observe(self, tensordict):
            seen.append(tensordict)

    make(Recorder()).observe("batch")
    assert seen == ["batch"]


@EVERY
def test_weights_are_refused_but_sums_are_fine(make):
    control = make(RBFKernel(2.0))
    name = type(control).__name__
    with pytest.raises(ValueError, match=rf"{name}: weights must be None, got shape \[5, 5\]"):
        control.evaluate(POINTS).weighted_repulsion(torch.ones(N, N))
    with pytest.raises(ValueError, match=rf"{name}: weights must be None"):
        (control * RBFKernel()).gram_and_repulsion(POINTS)
    half = (0.5 * control).gram_and_repulsion(POINTS)[1]
    assert_close(half, 0.5 * control.gram_and_repulsion(POINTS)[1])


@EVERY
def test_copies_and_input(make):
    control, before = make(RBFKernel()), POINTS.clone()
    assert isinstance(control, Kernel)
    want = control.gram_and_repulsion(POINTS)
    assert torch.equal(before, POINTS)
    assert_close(copy.deepcopy(control).gram_and_repulsion(POINTS), want)


def test_errors():
    for kernel in (IdentityKernel(), *(make(RBFKernel()) for make in CONTROLS[:3])):
        name = type(kernel).__name__
        with pytest.raises(ValueError, match=rf"{name}: y must be None .* got .* \[5, 7\]"):
            kernel.evaluate(POINTS, POINTS)
    for make in CONTROLS:
        with pytest.raises(TypeError, match=r"Control: kernel must be a Kernel, got 'rbf'"):
            make("rbf")
    for bad in ((0, D), (N, 0)):
        with pytest.raises(ValueError, match=r"DriftControl: (num_particles|dim) must be >= 1"):
            DriftControl(RBFKernel(), *bad)
    with pytest.raises(ValueError, match=r"DriftControl: x must end in \[5, 7\] .* got .*\[4, 7\]"):
        CONTROLS[0](RBFKernel()).evaluate(POINTS[:4])
