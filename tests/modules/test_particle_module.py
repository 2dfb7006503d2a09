"""ParticleModule: a population is n networks, each with its own row of the data."""

import pytest
import torch

from tests.modules.networks import NETWORKS, N, TwoInputs, as_tuple, each, mlp
from torchrl_stein.modules import ParticleModule
from torchrl_stein.modules import particle_module as module_file


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


def test_flat_layout_is_particle_major(strategy):
    flat, leading = ParticleModule(mlp, N, layout="flat"), ParticleModule(mlp, N)
    leading.load_state_dict(flat.state_dict())
    x = torch.randn(N, 4, 3)
    torch.testing.assert_close(flat(x.flatten(0, 1)), leading(x).flatten(0, 1))
    pair = ParticleModule(NETWORKS["gaussian"], N, layout="flat")
    assert [out.shape for out in pair(x.flatten(0, 1))] == [(N * 4, 2)] * 2
