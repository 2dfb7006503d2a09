"""Several populations in one kernel: each is what it would be alone."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close

from torchrl_stein.kernels import (
    BehaviourKernel,
    DriftControl,
    GroupedKernel,
    IdentityKernel,
    IMQKernel,
    LayerwiseKernel,
    LinearKernel,
    RadialControl,
    RBFKernel,
    SharedDriftControl,
    TangentialControl,
    count_groups,
    diagonal_blocks,
)

G, N, D = 3, 4, 6
KERNELS = {
    "rbf, median": RBFKernel,
    "rbf": lambda: RBFKernel(2.0),
    "imq": IMQKernel,
    "linear": LinearKernel,
    "sum": lambda: RBFKernel() + 0.5 * LinearKernel(),
    "product": lambda: RBFKernel(3.0) * LinearKernel(),
    "scaled": lambda: 0.5 * RBFKernel(),
    "layers": lambda: LayerwiseKernel([slice(0, 2), slice(2, D)]),
    "identity": IdentityKernel,
    "radial": lambda: RadialControl(RBFKernel()),
}


def points(scale=(1.0, 3.0, 0.2)):
    """Groups of different spread, so that bandwidths differ."""
    torch.manual_seed(0)
    x = torch.randn(G, N, D, dtype=torch.float64)
    return (torch.tensor(scale, dtype=torch.float64)[:, None, None] * x).flatten(0, 1)


@pytest.mark.parametrize("name", KERNELS)
def test_every_group_is_as_it_would_be_alone(name):
    x, kernel = points(), KERNELS[name]()
    evaluation = GroupedKernel(kernel, G).evaluate(x)
    gram, repulsion = torch.zeros(G * N, G * N, dtype=x.dtype), torch.zeros_like(x)
    bandwidths = []
    for g in range(G):
        rows = slice(g * N, (g + 1) * N)
        alone = kernel.evaluate(x[rows])
        gram[rows, rows], repulsion[rows] = alone.gram, alone.weighted_repulsion(None)
        bandwidths.append(alone.bandwidth)
    assert_close(evaluation.gram, gram, rtol=0, atol=1e-12)
    assert_close(evaluation.weighted_repulsion(None), repulsion, rtol=0, atol=1e-12)
    if bandwidths[0] is None:
        assert evaluation.bandwidth is None
    else:
        assert_close(evaluation.bandwidth, torch.stack(bandwidths).mean())
    assert GroupedKernel(kernel, G).has_bandwidth == (bandwidths[0] is not None)


@pytest.mark.parametrize("name", ["rbf, median", "linear", "sum", "layers"])
def test_weights_between_groups_count_for_nothing(name):
    x, kernel = points(), KERNELS[name]()
    weights = torch.randn(G * N, G * N, dtype=x.dtype)
    got = GroupedKernel(kernel, G).evaluate(x).weighted_repulsion(weights)
    for g in range(G):
        rows = slice(g * N, (g + 1) * N)
        alone = kernel.evaluate(x[rows]).weighted_repulsion(weights[rows, rows])
        assert_close(got[rows], alone, rtol=0, atol=1e-12)


def test_it_takes_batches_and_one_group():
    x = points()
    one, two = x, x.flip(0)
    gram, repulsion = GroupedKernel(RBFKernel(), G).gram_and_repulsion(torch.stack([one, two]))
    for i, single in enumerate((one, two)):
        want = GroupedKernel(RBFKernel(), G).gram_and_repulsion(single)
        assert_close((gram[i], repulsion[i]), want)
    want = RBFKernel().gram_and_repulsion(x)
    assert_close(GroupedKernel(RBFKernel(), 1).gram_and_repulsion(x), want)


@pytest.mark.parametrize("control", [RadialControl, TangentialControl])
def test_a_control_outside_is_a_control_of_every_group(control):
    x = points()
    outside = control(GroupedKernel(RBFKernel(), G)).gram_and_repulsion(x)
    for g in range(G):
        rows = slice(g * N, (g + 1) * N)
        gram, repulsion = control(RBFKernel()).gram_and_repulsion(x[rows])
        assert_close(outside[0][rows, rows], gram)
        assert_close(outside[1][rows], repulsion)
    assert outside[0][:N, N:].abs().max() == 0


@pytest.mark.parametrize("control", [DriftControl, SharedDriftControl])
def test_drifts_outside_have_directions_of_their_own(control):
    x = points()
    drift = control(GroupedKernel(RBFKernel(), G), num_particles=G * N, dim=D, seed=3)
    pushes = drift.gram_and_repulsion(x)[1]
    sizes = torch.cat([RBFKernel().gram_and_repulsion(x[g * N : (g + 1) * N])[1] for g in range(G)])
    assert_close(pushes.norm(dim=-1), sizes.norm(dim=-1))
    directions = nn.functional.normalize(pushes, dim=-1)
    assert (directions @ directions.mT).fill_diagonal_(0.0).abs().max() < 0.99


def test_diagonal_blocks_and_their_number():
    matrix = torch.arange(2 * 36).view(2, 6, 6)
    blocks = diagonal_blocks(matrix, 3)
    assert blocks.shape == (2, 3, 2, 2)
    for b in range(2):
        for g in range(3):
            rows = slice(2 * g, 2 * g + 2)
            assert torch.equal(blocks[b, g], matrix[b, rows, rows])
    assert count_groups(0.5 * TangentialControl(GroupedKernel(RBFKernel(), 4))) == 4
    assert count_groups(RBFKernel() + LinearKernel()) == 1


# errors


def behaviour():
    class Policies(nn.Module):
        def __init__(self):
            super().__init__()
            self.particles = nn.Parameter(torch.randn(4, 2))

        def forward(self, observation):
            return self.particles.unsqueeze(1).expand(*observation.shape[:2], 2)

    kernel = BehaviourKernel(TensorDictModule(Policies(), ["observation"], ["logits"]))
    kernel.observe(TensorDict({"observation": torch.zeros(4, 5, 1)}, [4, 5]))
    return kernel


@pytest.mark.parametrize("wrap", [lambda k: k, lambda k: 0.5 * k, lambda k: RBFKernel() + k])
def test_kernels_that_look_at_the_data_are_refused(wrap):
    with pytest.raises(ValueError, match=r"must not observe the data, .* got BehaviourKernel"):
        GroupedKernel(wrap(behaviour()), 2)


def test_bad_arguments():
    with pytest.raises(TypeError, match="kernel must be a Kernel, got the class RBFKernel"):
        GroupedKernel(RBFKernel, 2)
    with pytest.raises(ValueError, match="num_groups must be >= 1, got 0"):
        GroupedKernel(RBFKernel(), 0)
    with pytest.raises(ValueError, match=r"multiple of num_groups=5 rows, got shape \[12, 6\]"):
        GroupedKernel(RBFKernel(), 5)(points())
    with pytest.raises(ValueError, match=r"y must be None .* got a second set of shape \[12, 6\]"):
        GroupedKernel(RBFKernel(), 3)(points(), points())
