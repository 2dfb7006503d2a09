"""ParticleModule: a population is n networks, each with its own row of the data."""

import copy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import AddStateIndependentNormalScale, NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.modules import MLP

from torchrl_stein.modules import ParticleModule
from torchrl_stein.modules import particle_module as module_file

N = 5


def mlp(**kwargs):
    return MLP(in_features=3, out_features=2, num_cells=[8, 7], activation_class=nn.Tanh, **kwargs)


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Bilinear(3, 2, 4)

    def forward(self, x, y):
        return self.layer(x, y), x.sum(-1, keepdim=True)


class Trunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(3, 8), nn.Tanh())
        self.head = nn.Linear(8, 2)
        self.log_std = nn.Parameter(torch.randn(2))

    def forward(self, x):
        mean = self.head(self.trunk(x))
        return mean, self.log_std.exp().expand_as(mean)


NETWORKS = {
    "linear": lambda: nn.Linear(3, 2),
    "linear without bias": lambda: nn.Linear(3, 2, bias=False),
    "mlp": mlp,
    "normalised": lambda: nn.Sequential(
        nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)
    ),
    "gaussian": lambda: nn.Sequential(mlp(), AddStateIndependentNormalScale(2)),
    "extractor": lambda: nn.Sequential(nn.Linear(3, 4), NormalParamExtractor()),
    "custom": Trunk,
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ELU()), nn.Linear(4, 2)),
}


def as_tuple(output):
    return output if isinstance(output, tuple) else (output,)


def each(net, *inputs):
    """The oracle: one plain network after the other."""
    rows = [as_tuple(net.particle(i)(*(x[i] for x in inputs))) for i in range(net.num_particles)]
    return [torch.stack(column) for column in zip(*rows, strict=True)]


@pytest.fixture(params=["batched", "in turn"])
def strategy(request, monkeypatch):
    rows = 10**9 if request.param == "batched" else 0
    monkeypatch.setattr(module_file, "_ROWS_IN_TURN", rows)
    return request.param


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(6, 3), (2, 6, 3)], ids=str)
def test_row_i_goes_through_network_i(name, shape, strategy):
    net = ParticleModule(NETWORKS[name], N).double()
    x = torch.randn(N, *shape, dtype=torch.float64)
    for got, want in zip(as_tuple(net(x)), each(net, x), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_one_row_without_further_dimensions():
    net = ParticleModule(mlp, N)
    x = torch.randn(N, 3)
    torch.testing.assert_close(net(x), each(net, x)[0])


def test_several_inputs_and_outputs(strategy):
    net = ParticleModule(TwoInputs, N)
    x, y = torch.randn(N, 6, 3), torch.randn(N, 6, 2)
    for got, want in zip(net(x, y), each(net, x, y), strict=True):
        torch.testing.assert_close(got, want)


def test_mlp_concatenates_its_inputs(strategy):
    net = ParticleModule(mlp, N)
    x = torch.randn(N, 6, 3)
    torch.testing.assert_close(net(x[..., :1], x[..., 1:]), net(x))


def test_gradients_of_particles_do_not_mix(strategy):
    net = ParticleModule(mlp, N)
    x = torch.randn(N, 6, 3)
    net(x)[2].square().sum().backward()
    gradient = net.particles.grad
    assert gradient[2].abs().sum() > 0
    assert gradient[[0, 1, 3, 4]].abs().max() == 0
    plain = net.particle(2)
    plain(x[2]).square().sum().backward()
    want = torch.cat([p.grad.reshape(-1) for p in plain.parameters()])
    torch.testing.assert_close(gradient[2], want)


def test_large_batches_go_in_turn_on_a_cpu_and_small_ones_do_not(monkeypatch):
    calls = []
    monkeypatch.setattr(module_file, "evaluate_in_turn", lambda *a: calls.append("in turn"))
    monkeypatch.setattr(module_file, "evaluate_batched", lambda *a: calls.append("batched"))
    net = ParticleModule(mlp, N)
    for rows in (1, 100, 5000):
        net(torch.zeros(N, rows, 3))
    net(torch.zeros(N, 100, 50, 3))
    assert calls == ["batched", "batched", "in turn", "in turn"]


# Parameters


def test_all_weights_are_one_flat_parameter():
    net = ParticleModule(mlp, N)
    parameters = dict(net.named_parameters())
    assert list(parameters) == ["particles"]
    assert parameters["particles"].shape == (N, 3 * 8 + 8 + 8 * 7 + 7 + 7 * 2 + 2)
    assert parameters["particles"].is_contiguous()
    assert (net.num_particles, net.num_parameters, net.kernel_dim) == (N, 111, 111)


def test_particles_are_drawn_independently():
    net = ParticleModule(mlp, 200)
    assert torch.pdist(net.particles.detach()).min() > 0.5


def test_layer_slices_cover_the_kernels_columns():
    net = ParticleModule(Trunk, N, outside_kernel=["log_std"])
    assert net.layer_slices == {"trunk.0": slice(0, 32), "head": slice(32, 50)}
    weight = net.particle(3).head.weight.detach()
    torch.testing.assert_close(net.particles[3, 32:48].view(2, 8), weight)


def test_parameters_outside_the_kernel_come_last():
    net = ParticleModule(Trunk, N, outside_kernel=["trunk.0.bias", "log_std"])
    assert (net.kernel_dim, net.num_parameters) == (42, 52)
    torch.testing.assert_close(net.particles[1, 42:44], net.particle(1).log_std.detach())
    x = torch.randn(N, 6, 3)
    torch.testing.assert_close(net(x)[0], each(net, x)[0])


def test_shared_parts_are_one_and_their_gradients_are_averaged(strategy):
    net = ParticleModule(Trunk, N, shared=["trunk"])
    assert dict(net.named_parameters()).keys() == {"particles", "shared"}
    assert net.shared.shape == (32,)
    x = torch.randn(N, 6, 3)
    for got, want in zip(net(x), each(net, x), strict=True):
        torch.testing.assert_close(got, want)
    net(x)[0].square().mean().backward()
    total = torch.zeros(32)
    for i in range(N):
        plain = net.particle(i)
        plain(x[i])[0].square().mean().backward()
        total += torch.cat([p.grad.reshape(-1) for p in plain.trunk.parameters()])
    torch.testing.assert_close(net.shared.grad, total / N)


def test_particle_is_an_independent_plain_module():
    net = ParticleModule(mlp, N)
    plain = net.particle(1)
    assert type(plain) is MLP
    before = net.particles.detach().clone()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.zero_()
    assert torch.equal(net.particles.detach(), before)


def test_select_takes_particles_in_order():
    net = ParticleModule(NETWORKS["normalised"], N)
    chosen = net.select(torch.tensor([3, 0, 3]))
    x = torch.randn(3, 6, 3)
    want = torch.stack([net.particle(i)(x[k]) for k, i in enumerate([3, 0, 3])])
    torch.testing.assert_close(chosen(x), want)
    with torch.no_grad():
        chosen.particles.zero_()
    assert net.particles.abs().sum() > 0
    with pytest.raises(IndexError):
        net.select([N])


# Buffers, modes, devices


def test_running_statistics_belong_to_each_particle(strategy):
    net = ParticleModule(lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), N)
    plain = [net.particle(i) for i in range(N)]
    x = torch.randn(N, 20, 3) + torch.arange(N).view(N, 1, 1)
    for _ in range(3):
        net(x)
        for i in range(N):
            plain[i](x[i])
    net.eval()
    for i in range(N):
        plain[i].eval()
        torch.testing.assert_close(net.particle(i)[0].running_mean, plain[i][0].running_mean)
        torch.testing.assert_close(net(x)[i], plain[i](x[i]))


def test_dropout_differs_between_particles_and_stops_in_evaluation(strategy):
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 200), nn.Dropout(0.5)), N)
    x = torch.ones(N, 4, 3)
    kept = net(x) != 0
    assert not torch.equal(kept[0], kept[1])
    net.eval()
    assert torch.equal(net(x), net(x))
    assert not net.particle(0).training


def test_dropout_inside_a_custom_module():
    class Custom(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.dropout = nn.Linear(3, 200), nn.Dropout(0.5)

        def forward(self, x):
            return self.dropout(self.layer(x))

    kept = ParticleModule(Custom, N)(torch.ones(N, 4, 3)) != 0
    assert not torch.equal(kept[0], kept[1])


def test_state_dict_round_trip():
    net, other = (ParticleModule(NETWORKS["normalised"], N) for _ in range(2))
    x = torch.randn(N, 6, 3)
    assert not torch.equal(net(x), other(x))
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
    plain = NETWORKS["normalised"]()
    plain.load_state_dict(net.particle(2).state_dict())
    torch.testing.assert_close(plain(x[2]), net(x)[2])


def test_state_dict_of_another_architecture_of_the_same_size_is_refused():
    wide = ParticleModule(lambda: nn.Linear(3, 2), N)
    tall = ParticleModule(lambda: nn.Linear(1, 4), N)
    assert wide.particles.shape == tall.particles.shape
    with pytest.raises(ValueError, match="another architecture"):
        wide.load_state_dict(tall.state_dict())


def test_state_dict_survives_torch_save(tmp_path):
    net = ParticleModule(mlp, N)
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    ParticleModule(mlp, N).load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))


def test_deepcopy_is_independent():
    net = ParticleModule(mlp, N)
    other = copy.deepcopy(net)
    x = torch.randn(N, 6, 3)
    assert torch.equal(net(x), other(x))
    with torch.no_grad():
        other.particles.zero_()
    assert net.particles.abs().sum() > 0


def test_double_and_meta_device():
    net = ParticleModule(mlp, N).double()
    assert net(torch.zeros(N, 6, 3, dtype=torch.float64)).dtype == torch.float64
    assert net.particle(0)[0].weight.dtype == torch.float64
    net.to("meta")
    assert net(torch.zeros(N, 6, 3, device="meta", dtype=torch.float64)).device.type == "meta"


@pytest.mark.parametrize("name", ["gaussian", "normalised"])
def test_compiles_without_graph_breaks(name):
    net = ParticleModule(NETWORKS[name], N)
    x = torch.randn(N, 6, 3)
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for got, want in zip(as_tuple(compiled(x)), as_tuple(net(x)), strict=True):
        torch.testing.assert_close(got, want)


def test_in_a_tensordict_module_with_swapped_weights():
    network = TensorDictModule(ParticleModule(mlp, N), ["observation"], ["loc"])
    data = TensorDict({"observation": torch.randn(N, 6, 3)}, [N, 6])
    before = network(data.clone())["loc"]
    weights = TensorDict.from_module(network).data.apply(torch.zeros_like)
    with weights.to_module(network, preserve_module_state=False):
        assert network(data.clone())["loc"].abs().max() == 0
    assert torch.equal(network(data.clone())["loc"], before)


def test_vmap_over_stacked_populations():
    # What TorchRL does with an ensemble of critics.
    nets = [TensorDictModule(ParticleModule(mlp, N), ["x"], ["y"]) for _ in range(2)]
    weights = TensorDict.from_modules(*nets, as_module=True)
    data = TensorDict({"x": torch.randn(N, 6, 3)}, [N, 6])

    def call(params, td):
        with params.to_module(nets[0], preserve_module_state=False):
            return nets[0](td)["y"]

    got = torch.vmap(call, (0, None))(weights, data.clone())
    want = torch.stack([net(data.clone())["y"] for net in nets])
    torch.testing.assert_close(got, want)


# Layouts


def test_flat_layout_is_particle_major(strategy):
    flat, leading = ParticleModule(mlp, N, layout="flat"), ParticleModule(mlp, N)
    leading.load_state_dict(flat.state_dict())
    x = torch.randn(N, 4, 3)
    torch.testing.assert_close(flat(x.flatten(0, 1)), leading(x).flatten(0, 1))
    pair = ParticleModule(NETWORKS["gaussian"], N, layout="flat")
    assert [out.shape for out in pair(x.flatten(0, 1))] == [(N * 4, 2)] * 2


# What it refuses


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
        ({"factory": mlp()}, TypeError, None),
        ({"factory": 3}, TypeError, "factory must be callable"),
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
