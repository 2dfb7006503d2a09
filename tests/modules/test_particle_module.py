"""ParticleModule: a population is n networks, each with its own row of the data."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from tests.modules.networks import NETWORKS, N, TwoInputs, as_tuple, each, mlp
from torchrl_stein.modules import ParticleModule
from torchrl_stein.modules import _population_forward as forward_file


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


@pytest.mark.parametrize("name", ["mlp", "nested", "extractor", "normalised", "custom"])
def test_large_batches_go_in_turn_on_a_cpu_and_small_ones_do_not(name, monkeypatch):
    calls = []
    for way in ("_in_turn", "_at_once"):
        original = getattr(forward_file, way)

        def spy(template, *args, way=way, original=original):
            if template is net._template:
                calls.append(way)
            return original(template, *args)

        monkeypatch.setattr(forward_file, way, spy)
    net = ParticleModule(NETWORKS[name], N)
    for shape in ((1,), (100,), (5000,), (100, 50)):
        net(torch.zeros(N, *shape, 3))
    assert calls == ["_at_once", "_at_once", "_in_turn", "_in_turn"]


def test_an_activation_at_two_places_acts_at_both(strategy):
    def make():
        activation = nn.Tanh()
        return nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2), activation)

    net = ParticleModule(make, N)
    x = 5.0 * torch.randn(N, 6, 3)
    torch.testing.assert_close(net(x), each(net, x)[0])
    assert net(x).abs().max() <= 1


@pytest.mark.parametrize("rows", [6, 500])
def test_inputs_by_keyword(rows):
    class Affine(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x, *, shift, scale=None):
            y = self.layer(x) + shift
            return y if scale is None else scale * y

    net = ParticleModule(Affine, N)
    x, shift, scale = torch.randn(N, rows, 3), torch.randn(N, rows, 2), torch.randn(N, rows, 1)
    for named in ({"shift": shift}, {"shift": shift, "scale": scale}):
        want = [net.particle(i)(x[i], **{k: v[i] for k, v in named.items()}) for i in range(N)]
        torch.testing.assert_close(net(x, **named), torch.stack(want))
    got = TensorDictModule(net, {"x": "a", "shift": "b"}, ["y"])(TensorDict(a=x, b=shift))
    torch.testing.assert_close(got["y"], net(x, shift=shift))
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'shift'"):
        net(x)


def test_a_network_without_inputs():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Parameter(torch.randn(2))

        def forward(self):
            return self.value

    net = ParticleModule(Constant, N)
    torch.testing.assert_close(net(), net.particles)


@pytest.mark.parametrize("rows", [6, 500])
@pytest.mark.parametrize("make", [lambda: nn.Sequential(nn.Linear(3, 2)), lambda: nn.Linear(3, 2)])
def test_several_inputs_are_refused_as_by_the_network(make, rows):
    net, x = ParticleModule(make, N), torch.zeros(N, rows, 3)
    with pytest.raises(TypeError) as plain:
        net.particle(0)(x[0], x[0])
    with pytest.raises(TypeError) as ours:
        net(x, x)
    assert str(ours.value) == str(plain.value)


@pytest.mark.parametrize("with_gradient", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("inside", [False, True])
def test_attention(training, with_gradient, inside):
    def make():
        layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        return nn.TransformerEncoder(layer, 2) if inside else layer

    net = ParticleModule(make, N).train(training)
    with torch.no_grad():  # the layers of an encoder start as copies of one
        net.particles.add_(0.1 * torch.randn_like(net.particles))
    nets = [net.particle(i) for i in range(N)]
    x = torch.randn(N, 3, 5, 4)
    with torch.set_grad_enabled(with_gradient):
        got, want = net(x), torch.stack([plain(x[i]) for i, plain in enumerate(nets)])
        torch.testing.assert_close(got, want)
    if with_gradient:
        got.square().sum().backward()
        want.square().sum().backward()
        flat = [torch.cat([p.grad.reshape(-1) for p in plain.parameters()]) for plain in nets]
        torch.testing.assert_close(net.particles.grad, torch.stack(flat))


def test_a_layer_in_another_mode_than_the_network(strategy):
    def make():
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
        net[1].eval()
        return net

    net = ParticleModule(make, N)
    x = torch.randn(N, 6, 3)
    torch.testing.assert_close(net(x), each(net, x)[0])
    assert not net.particle(0)[1].training
    assert not ParticleModule(lambda: mlp().eval(), N).training


def test_flat_layout_is_particle_major(strategy):
    flat, leading = ParticleModule(mlp, N, layout="flat"), ParticleModule(mlp, N)
    leading.load_state_dict(flat.state_dict())
    x = torch.randn(N, 4, 3)
    torch.testing.assert_close(flat(x.flatten(0, 1)), leading(x).flatten(0, 1))
    pair = ParticleModule(NETWORKS["gaussian"], N, layout="flat")
    assert [out.shape for out in pair(x.flatten(0, 1))] == [(N * 4, 2)] * 2
    assert flat(x[:, :0].flatten(0, 1)).shape == (0, 2)
