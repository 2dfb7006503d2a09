"""Weights, buffers and copies of a population."""

import copy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import MLP

from tests.modules.networks import NETWORKS, N, Trunk, as_tuple, each, mlp
from torchrl_stein.modules import ParticleModule


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


@pytest.mark.parametrize("name", ["mlp", "gaussian", "normalised", "custom"])
def test_exports_with_a_dynamic_batch(name):
    net, x = ParticleModule(NETWORKS[name], N), torch.randn(N, 6, 3)
    sizes = (({1: torch.export.Dim("rows", min=2)},),)
    if name == "custom":  # its own operations go through torch.vmap
        sizes = None
    exported = torch.export.export(net, (x,), dynamic_shapes=sizes).module()
    for rows in (6,) if sizes is None else (2, 9, 500):
        x = torch.randn(N, rows, 3)
        for got, want in zip(as_tuple(exported(x)), as_tuple(net(x)), strict=True):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("training", [True, False])
def test_buffers_follow_when_compiled(training):
    net = ParticleModule(lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), N)
    other = copy.deepcopy(net.train(training))
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x = torch.randn(N, 6, 3) + 1
        torch.testing.assert_close(compiled(x), other(x))
    torch.testing.assert_close(dict(net.named_buffers()), dict(other.named_buffers()))


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


@pytest.mark.parametrize("rows", [2, 5])  # 5: as many as the layer has outputs
def test_a_shared_bias_under_weights_of_ones_own(rows):
    def make():
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 5))

    net = ParticleModule(make, N, shared=["0.bias"])
    x = torch.randn(N, rows, 3)
    want = torch.stack([net.particle(i)(x[i]) for i in range(N)])
    torch.testing.assert_close(net(x), want)
