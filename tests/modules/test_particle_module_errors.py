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


def tied_buffers():
    norm = nn.BatchNorm1d(3, affine=False)
    return nn.Sequential(nn.Linear(3, 3), norm, nn.Linear(3, 3), norm)


def with_attribute(name, value):
    net = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    setattr(net[1], name, value)
    return net


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (tied_buffers, "buffers 1.running_mean and 3.running_mean are tied"),
        (lambda: nn.utils.weight_norm(nn.Linear(3, 2)), "a hook makes 'weight' of layer Linear"),
        (lambda: nn.utils.spectral_norm(nn.Linear(3, 2)), "a hook makes 'weight' of layer Linear"),
        (lambda: nn.Embedding(5, 2, max_norm=1.0), "layer Embedding changes its weights at every"),
        (lambda: nn.Embedding(5, 2, sparse=True), "layer Embedding has sparse gradients"),
        (
            lambda: with_attribute("scale", torch.ones(2, requires_grad=True)),
            "'scale' of layer 1 requires a gradient, but is no parameter",
        ),
    ],
)
def test_layers_it_cannot_stack(factory, message):
    with pytest.raises(ValueError, match=f"ParticleModule: {message}"):
        ParticleModule(factory, 2)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (lambda: nn.Linear(3, 2), lambda: nn.Linear(3, 3), r"weight of the network is .*\[3, 3\]"),
        (lambda: nn.Linear(3, 2), lambda: nn.Linear(3, 2).double(), "weight of .* torch.float64"),
        (
            lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh()),
            lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
            "layer 1 is Tanh in one and ReLU in another",
        ),
        (
            lambda: nn.Sequential(nn.Linear(3, 2)),
            lambda: nn.Sequential(nn.Linear(3, 2), nn.ReLU()),
            "layer 1 is in one and not in another",
        ),
        (
            lambda: nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(0.1)),
            lambda: nn.Sequential(nn.Linear(3, 2), nn.LeakyReLU(0.2)),
            "negative_slope of layer 1 is 0.1 in one and 0.2 in another",
        ),
        (
            lambda: with_attribute("offset", torch.zeros(2)),
            lambda: with_attribute("offset", torch.ones(2)),
            r"offset of layer 1 is a tensor \[2\] in one and a tensor \[2\] in another",
        ),
        (
            lambda: with_attribute("function", torch.tanh),
            lambda: with_attribute("function", torch.sigmoid),
            "function of layer 1 is .*tanh.*sigmoid",
        ),
        (
            lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout()),
            lambda: nn.Sequential(nn.Linear(3, 2), nn.Dropout()).eval(),
            "training of the network is True in one and False in another",
        ),
    ],
)
def test_architectures_must_agree(first, second, message):
    nets = iter([first, first, second])
    with pytest.raises(ValueError, match=rf"same architecture every time, but {message}"):
        ParticleModule(lambda: next(nets)(), 3)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: nn.GRU(3, 4),
        lambda: nn.TransformerEncoderLayer(4, 2, 8),
        lambda: with_attribute("function", lambda x: x),
        lambda: with_attribute("rate", float("nan")),
        lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
        lambda: nn.BatchNorm1d(3, track_running_stats=False),
    ],
)
def test_architectures_that_agree(factory):
    with torch.no_grad():
        net = ParticleModule(lambda: nn.Sequential(factory(), nn.Linear(4, 2)), 2)
    assert net.num_particles == 2


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"num_particles": 0}, ValueError, "num_particles must be >= 1, got 0"),
        ({"num_particles": 2.0}, TypeError, "num_particles must be an integer >= 1, got 2.0"),
        ({"num_particles": True}, TypeError, "num_particles must be an integer >= 1, got True"),
        ({"num_particles": None}, TypeError, "num_particles must be an integer >= 1, got None"),
        ({"num_particles": "2"}, TypeError, "num_particles must be an integer >= 1, got '2'"),
        ({"factory": mlp()}, TypeError, r"lambda: nn.Linear\(3, 2\), got a module"),
        ({"factory": 3}, TypeError, "factory must be a function that returns a new module.*got 3"),
        ({"factory": lambda: 3}, TypeError, "factory must return a module, got int"),
        ({"layout": "rows"}, ValueError, "layout must be one of .*, got 'rows'"),
        ({"layout": None}, ValueError, r"layout must be one of \['flat', 'leading'\], got None"),
        ({"shared": ["body"]}, ValueError, "shared names 'body', but the parameters are"),
        ({"outside_kernel": ["7"]}, ValueError, "outside_kernel names '7'"),
        ({"shared": "0"}, TypeError, "shared must be a list of names, got '0'"),
        ({"shared": None}, TypeError, "shared must be a list of names, got None"),
        ({"outside_kernel": [1]}, TypeError, r"outside_kernel must be a list of names, got \[1\]"),
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
    net = ParticleModule(mlp, N)
    for index in (N, -N - 1):
        with pytest.raises(IndexError):
            net.particle(index)
    for index in (1.0, True, None, "1", [0], slice(0, 1)):
        with pytest.raises(TypeError, match=r"ParticleModule.particle: index must be an integer"):
            net.particle(index)


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([], ValueError, "indices must name a particle, got none"),
        ([0.5], TypeError, "indices must be integers, got dtype torch.float32"),
        ([True] * N, TypeError, "indices must be integers, got dtype torch.bool"),
        (torch.tensor([1], dtype=torch.uint8), TypeError, "indices must be integers"),
    ],
)
def test_selections_that_name_no_particles(indices, error, message):
    with pytest.raises(error, match=f"ParticleModule.select: {message}"):
        ParticleModule(mlp, N).select(indices)


@pytest.mark.parametrize("value", [None, 3.0, [1.0], "x"])
def test_inputs_are_tensors(value):
    net = ParticleModule(mlp, N)
    with pytest.raises(TypeError, match=r"ParticleModule: input 1 must be a tensor, got"):
        net(torch.zeros(N, 6, 3), value)
    with pytest.raises(TypeError, match=r"ParticleModule: input scale must be a tensor, got"):
        net(torch.zeros(N, 6, 3), scale=value)
