"""Populations [S, n, d] of several seeds: exactly the networks one by one."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.modules import ValueOperator

from tests.modules.networks import NETWORKS, as_tuple
from torchrl_stein.modules import (
    EnsemblePolicy,
    LinearBaseline,
    ParticleModule,
    StandardizePerParticle,
    shard_particles,
)

S, N = 2, 3


def each(net, x):
    """The oracle: one plain network after the other."""
    rows = [[as_tuple(net.particle(s, i)(x[s, i])) for i in range(N)] for s in range(S)]
    return [
        torch.stack([torch.stack([out[k] for out in seed]) for seed in rows])
        for k in range(len(rows[0][0]))
    ]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rows", [(), (4,), (2, 5)])
def test_outputs_are_those_of_single_networks(strategy, name, rows):
    torch.manual_seed(0)
    net, x = ParticleModule(NETWORKS[name], (S, N)), torch.randn(S, N, *rows, 3)
    for got, want in zip(as_tuple(net(x)), each(net, x), strict=True):
        assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_gradients_and_compilation():
    torch.manual_seed(0)
    net, x = ParticleModule(NETWORKS["mlp"], (S, N)), torch.randn(S, N, 4, 3)
    (want,) = torch.autograd.grad(net(x).square().sum(), net.particles)
    compiled = torch.compile(net, fullgraph=True)
    (got,) = torch.autograd.grad(compiled(x).square().sum(), net.particles)
    assert want.shape == net.particles.shape == (S, N, net.num_parameters)
    assert_close(got, want)
    for s in range(S):
        alone = net.seed(s)
        (own,) = torch.autograd.grad(alone(x[s]).square().sum(), alone.particles)
        assert_close(want[s], own)


def test_the_same_draws_as_one_population():
    torch.manual_seed(0)
    pairs = ParticleModule(NETWORKS["mlp"], (S, N))
    torch.manual_seed(0)
    flat = ParticleModule(NETWORKS["mlp"], S * N)
    assert pairs.particles.flatten(0, 1).equal(flat.particles)
    assert (pairs.leading, pairs.num_particles) == ((S, N), N)
    assert (flat.leading, flat.num_particles) == ((S * N,), S * N)


def test_flat_rows():
    torch.manual_seed(0)
    net = ParticleModule(NETWORKS["mlp"], (S, N), layout="flat")
    x = torch.randn(S * N * 5, 3)
    want = torch.cat(
        [net.particle(s, i)(x.view(S, N, 5, 3)[s, i]) for s in range(S) for i in range(N)]
    )
    assert_close(net(x), want)


def test_buffers_of_every_network(strategy):
    torch.manual_seed(0)
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), (S, N))
    x = torch.randn(S, N, 50, 3)
    singles = [[net.particle(s, i) for i in range(N)] for s in range(S)]
    net(x)
    for s in range(S):
        for i in range(N):
            singles[s][i](x[s, i])
            mean = net.particle(s, i)[1].running_mean
            assert mean.abs().max() > 1e-3
            assert_close(mean, singles[s][i][1].running_mean)
    assert net.seed(1).get_buffer("buffer/1/running_mean").shape == (N, 2)


def test_one_seed_some_particles_and_weights_of_ones_own():
    torch.manual_seed(0)
    net = ParticleModule(NETWORKS["mlp"], (S, N))
    assert net.seed(1).particles.equal(net.particles[1])
    assert net.seed(-1).leading == (N,)
    chosen = net.select([2, 0, 2])
    assert chosen.particles.equal(net.particles[:, [2, 0, 2]])
    other = ParticleModule(NETWORKS["mlp"], (S, N))
    other.load_state_dict(net.state_dict())
    assert other.particles.equal(net.particles)
    one = ParticleModule(NETWORKS["mlp"], N)
    state = {k: v[1] if torch.is_tensor(v) else v for k, v in net.state_dict().items()}
    one.load_state_dict(state)  # a checkpoint of one seed, taken out of that of all
    assert one.particles.equal(net.particles[1])
    net.apply(lambda layer: nn.init.zeros_(layer.bias) if isinstance(layer, nn.Linear) else None)
    assert net.particle(1, 2)[0].bias.abs().max() == 0
    assert not net.particle(1, 2)[0].weight.equal(net.particle(0, 2)[0].weight)


def make(shape, name="mlp", **options):
    return ParticleModule(NETWORKS[name], shape, **options)


SHAPE = r"dimensions of input 0 must be \[2, 3\] \(seeds and particles\), got shape \[6, 4, 3\]"
BAD = {
    SHAPE: lambda net: net(torch.zeros(S * N, 4, 3)),
    r"one number for each of .* \[2, 3\], got \[1\]": lambda net: net.particle(1),
    r"must be a pair \(S, n\), got n alone": lambda net: net.seed(0).seed(0),
    "one population .* got 2 seeds": lambda net: shard_particles(net, 0, 1),
    r"an integer n or a pair \(S, n\), got \(2, 3, 4\)": lambda net: make((2, 3, 4)),
    "num_particles must be >= 1, got 0": lambda net: make((2, 0)),
    "shared must be empty for several": lambda net: make((2, 3), "custom", shared=["trunk"]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments(message):
    with pytest.raises(ValueError, match=message):
        BAD[message](make((S, N)))


@pytest.mark.parametrize("act", [lambda net: net.particle(2, 0), lambda net: net.seed(2)])
def test_there_is_no_such_seed(act):
    with pytest.raises(IndexError, match="out of bounds"):
        act(make((S, N)))


def test_the_best_of_all_seeds_acts():
    torch.manual_seed(0)
    net = ParticleModule(NETWORKS["mlp"], (S, N))
    actor = TensorDictModule(net, ["observation"], ["action"])
    x = torch.randn(7, 3)
    policy = EnsemblePolicy(actor, "best", best=(1, 2))
    action = policy(TensorDict({"observation": x}, [7]))["action"]
    assert_close(action, net.particle(1, 2)(x))
    with pytest.raises(ValueError, match="best must be >= 0 and <= 2, got 3"):
        EnsemblePolicy(actor, "best", best=(1, 3))
    with pytest.raises(ValueError, match="best must be a pair"):
        EnsemblePolicy(actor, "best", best=1)
    with pytest.raises(ValueError, match=r"actor must hold .* one seed \[n, d\], got 2 seeds"):
        EnsemblePolicy(actor, "mean")


def test_baselines_and_standardisation_of_every_seed():
    torch.manual_seed(0)
    s, t = torch.randn(S, N, 4, 9, 5), torch.arange(9.0).expand(S, N, 4, 9).unsqueeze(-1)
    target = torch.randn(S, N, 4, 9, 1)
    baseline = LinearBaseline((S, N), 5)
    baseline.fit(s, t, target)
    standardize = StandardizePerParticle(num_leading=2)
    data = standardize(TensorDict({"advantage": target.clone()}, [S, N, 4, 9]))
    for k in range(S):
        alone = LinearBaseline(N, 5)
        alone.fit(s[k], t[k], target[k])
        assert_close(baseline(s, t)[k], alone(s[k], t[k]))
        own = StandardizePerParticle()(TensorDict({"advantage": target[k].clone()}, [N, 4, 9]))
        assert data["advantage"][k].equal(own["advantage"])
    with pytest.raises(ValueError, match=r"shape \[2, 3, ..., 5\] .* got \[6, 4, 9, 5\]"):
        baseline(s.flatten(0, 1), t.flatten(0, 1))


def test_a_critic_of_several_seeds():
    net = ParticleModule(lambda: nn.Linear(3, 1), (S, N))
    data = TensorDict({"observation": torch.randn(S, N, 4, 3)}, [S, N, 4])
    assert ValueOperator(net)(data)["state_value"].shape == (S, N, 4, 1)
