"""What ParticleModule refuses, and what it says."""

import pytest
import torch
from torch import nn

from tests.modules.networks import N, mlp
from torchrl_stein.modules import ParticleModule


@pytest.mark.parametrize("shape", [(4, 3), (N + 1, 6, 3), (2 * N, 3), ()])
def test_wrong_leading_dimension(shape):
    with pytest.raises(ValueError, match=rf"leading dimension of input 0 must be {N} "):
        ParticleModule(mlp, N)(torch.zeros(shape))


def test_wrong_flat_dimension():
    with pytest.raises(ValueError, match=f"multiple of {N} .* got shape \\[12, 3\\]"):
        ParticleModule(mlp, N, layout="flat")(torch.zeros(12, 3))


def test_identical_particles():
    def seeded():
        torch.manual_seed(0)
        return mlp()

    with pytest.raises(ValueError, match="3 particles are identical"):
        ParticleModule(seeded, 3)


def test_the_same_network_twice():
    net = mlp()
    with pytest.raises(ValueError, match="parameters in common"):
        ParticleModule(lambda: net, 2)


def tied():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    return net


def frozen():
    net = nn.Linear(3, 2)
    net.weight.requires_grad_(False)
    return net


def mixed():
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).double())


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (tied, "0.weight and 1.weight are tied"),
        (frozen, "weight does not require a gradient"),
        (mixed, "mix dtypes or devices"),
        (lambda: nn.LazyLinear(2), "weight is lazy"),
        (nn.Tanh, "Tanh has no parameters"),
        (lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU(inplace=True)), "layer 1 works in place"),
    ],
)
def test_networks_it_cannot_stack(factory, message):
    with pytest.raises(ValueError, match=message):
        ParticleModule(factory, 2)


def test_architectures_must_agree():
    widths = iter([2, 3])
    with pytest.raises(ValueError, match="same architecture"):
        ParticleModule(lambda: nn.Linear(3, next(widths)), 2)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_particles": 0}, ValueError, "num_particles must be >= 1, got 0"),
        ({"num_particles": 2.0}, TypeError, "num_particles must be an int, got 2.0"),
        ({"factory": mlp()}, TypeError, r"lambda: nn.Linear\(3, 2\), got a module"),
        ({"factory": 3}, TypeError, "factory must be a function that returns a new module.*got 3"),
        ({"factory": lambda: 3}, TypeError, "factory must return a module, got int"),
        ({"layout": "rows"}, ValueError, "layout must be 'leading' or 'flat', got 'rows'"),
        ({"shared": ["body"]}, ValueError, "shared names 'body', but the parameters are"),
        ({"outside_kernel": ["7"]}, ValueError, "outside_kernel names '7'"),
        ({"shared": "0"}, TypeError, "shared must be a list of names"),
        ({"shared": ["0"], "outside_kernel": ["0.bias"]}, ValueError, "named by both"),
        ({"shared": ["0", "2", "4"]}, ValueError, "leave no parameter to a kernel"),
    ],
)
def test_bad_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        ParticleModule(**{"factory": mlp, "num_particles": 2, **kwargs})


def test_names_match_whole_parts_only():
    # "1" must not match "10".
    factory = lambda: nn.Sequential(*[nn.Linear(3, 3) for _ in range(11)])  # noqa: E731
    net = ParticleModule(factory, 2, outside_kernel=["1"])
    assert net.num_parameters - net.kernel_dim == 12


def test_no_such_particle():
    with pytest.raises(IndexError):
        ParticleModule(mlp, N).particle(N)
