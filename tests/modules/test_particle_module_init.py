"""New weights for a population that is there: by one's own rule, or drawn anew."""

import copy
import pickle
import warnings

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import (
    MLP,
    NoisyLinear,
    OneHotCategorical,
    ProbabilisticActor,
    ValueOperator,
    reset_noise,
)
from torchrl.objectives import A2CLoss, SACLoss

from tests.modules.networks import N, each, mlp
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import SteinPolicyLoss


def orthogonal(layer):
    if isinstance(layer, nn.Linear):
        nn.init.orthogonal_(layer.weight, 1.5)
        layer.bias.data.fill_(0.25)


def assert_orthogonal(net):
    for i in range(net.num_particles):
        for layer in net.particle(i):
            if isinstance(layer, nn.Linear):
                small = min(layer.weight.shape)
                square = layer.weight @ layer.weight.T
                if layer.weight.shape[0] > small:
                    square = layer.weight.T @ layer.weight
                torch.testing.assert_close(square, 2.25 * torch.eye(small), rtol=0, atol=1e-5)
                assert (layer.bias == 0.25).all()
    assert torch.pdist(net.particles.detach()).min() > 0.1


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: TensorDictModule(net, ["a"], ["b"])])
def test_apply_reaches_the_layers_of_every_particle(wrap):
    net = ParticleModule(mlp, N)
    module, parameter = wrap(net), net.particles
    assert module.apply(orthogonal) is module
    assert net.particles is parameter
    assert_orthogonal(net)
    x = torch.randn(N, 6, 3)
    torch.testing.assert_close(net(x), each(net, x)[0])


def test_apply_reaches_shared_layers_and_those_outside_the_kernel():
    net = ParticleModule(mlp, N, shared=["0"], outside_kernel=["2"])
    net.apply(orthogonal)
    plain = net.particle(3)
    for layer in (plain[0], plain[2], plain[4]):
        assert (layer.bias == 0.25).all()
    torch.testing.assert_close(
        net.shared, torch.cat([p.reshape(-1) for p in plain[0].parameters()])
    )


def test_apply_keeps_buffers_and_attributes():
    net = ParticleModule(lambda: nn.Sequential(NoisyLinear(3, 200), nn.Dropout(0.5)), N)
    net.apply(reset_noise)
    noise = torch.stack([net.particle(i)[0].weight_epsilon for i in range(N)])
    assert torch.pdist(noise.flatten(1)).min() > 0.1

    def without_dropout(layer):
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0

    net.apply(without_dropout)
    x = torch.randn(N, 6, 3)
    assert torch.equal(net(x), net(x))
    assert net.particle(0)[1].p == 0.0


def test_a_hook_that_is_applied_acts_once():
    net, x = ParticleModule(mlp, N), torch.randn(N, 6, 3)
    before = net(x)

    def add_hook(layer):
        if isinstance(layer, MLP):
            layer.register_forward_hook(lambda _, args, out: out + 1)

    net.apply(add_hook)
    torch.testing.assert_close(net(x), before + 1)


def test_a_function_that_only_looks_spoils_no_backward_pass():
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), N)
    total = net(torch.randn(N, 6, 3)).square().sum()
    seen = []
    net.apply(seen.append)
    assert sum(isinstance(layer, nn.Linear) for layer in seen) == N
    assert seen[-1] is net
    total.backward()


def test_reset_draws_every_particle_anew():
    net = ParticleModule(mlp, 200)
    before, parameter = net.particles.detach().clone(), net.particles
    net.reset_parameters()
    assert net.particles is parameter
    assert (net.particles != before).all()
    assert torch.pdist(net.particles.detach()).min() > 0.5
    # as fresh networks: uniform on an interval that belongs to each layer
    for columns, inputs in zip(net.layer_slices.values(), (3, 8, 7), strict=True):
        assert net.particles[:, columns].abs().max() < inputs**-0.5
        assert net.particles[:, columns].abs().max() > 0.95 * inputs**-0.5


def test_reset_restores_running_statistics():
    net = ParticleModule(lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), N)
    net(torch.randn(N, 20, 3) + 3)
    assert net.particle(0)[0].running_mean.abs().max() > 0.1
    net.reset_parameters()
    assert net.particle(0)[0].running_mean.abs().max() == 0


class Own(nn.Module):
    """A layer that says itself how it is drawn, after its children."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.layer.weight, 10.0)

    def forward(self, x):
        return self.layer(x)


def test_reset_asks_children_first():
    net = ParticleModule(Own, N)
    net.reset_parameters()
    assert (net.particles[:, :6].mean(1) - 10).abs().max() < 3


class Bare(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return x * self.weight


def test_what_cannot_be_reset():
    with pytest.raises(RuntimeError, match=r"ParticleModule: Bare has no layer with reset_param"):
        ParticleModule(Bare, N).reset_parameters()

    class Constant(Bare):
        def reset_parameters(self):
            nn.init.ones_(self.weight)

    with pytest.raises(ValueError, match=f"{N} particles are identical; .*must be random"):
        ParticleModule(Constant, N).reset_parameters()


def make_actor(net):
    return ProbabilisticActor(
        TensorDictModule(net, ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
        return_log_prob=True,
    )


def assert_fresh(now, before):
    assert (now != before).all()
    assert torch.pdist(now.detach().flatten(0, -2)).min() > 0.01


def test_losses_reset_their_populations():
    net, values = (ParticleModule(lambda o=o: nn.Linear(3, o), N) for o in (2, 1))
    before = [net.particles.detach().clone(), values.particles.detach().clone()]
    loss = SteinPolicyLoss(A2CLoss(make_actor(net), ValueOperator(values)), temperature=1.0)
    loss.reset_parameters_recursive()
    assert_fresh(net.particles, before[0])
    assert_fresh(values.particles, before[1])
    assert loss.particles.data_ptr() == net.particles.data_ptr()
    make_actor(net).reset_parameters_recursive()


def test_ensembles_of_populations_are_reset():
    actor = ProbabilisticActor(
        TensorDictModule(
            ParticleModule(lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh()), N),
            ["observation"],
            ["param"],
        ),
        in_keys={"loc": "param"},
        distribution_class=lambda loc: torch.distributions.Normal(loc, 1.0),
    )
    critic = ParticleModule(lambda: MLP(7, 1, num_cells=[4]), N)
    loss = SACLoss(
        actor,
        ValueOperator(critic, in_keys=["observation", "action"]),
        num_qvalue_nets=2,
        target_entropy=-1.0,
    )
    weights = loss.qvalue_network_params["module", "particles"]
    assert weights.shape == (2, N, critic.num_parameters)
    before = weights.detach().clone()
    loss.reset_parameters_recursive()
    assert_fresh(weights, before)
    last = critic.layer_slices["2"]
    assert weights[..., last].abs().max() <= 0.5  # as the layer draws, of 4 inputs


@pytest.mark.parametrize(
    "walk",
    [
        lambda net: list(net.modules()),
        lambda net: dict(net.named_modules()),
        lambda net: [layer for child in net.children() for layer in child.children()],
        lambda net: [m for m in TensorDictModule(net, ["a"], ["b"]).modules() if m.training],
        lambda net: [m for name, m in nn.Sequential(net).named_modules() if name],
    ],
)
def test_a_loop_that_looks_for_layers_is_told(walk):
    net = ParticleModule(mlp, N)
    with pytest.warns(
        UserWarning, match=r"a loop over modules finds no layers.*apply\(fn\)"
    ) as got:
        walk(net)
    assert got[0].filename == __file__


def test_what_libraries_do_with_modules_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net = ParticleModule(mlp, N)
        module = TensorDictModule(nn.Sequential(net), ["a"], ["b"])
        list(module.parameters()), module.state_dict(), module.train(), module.eval()
        module.double().float().requires_grad_(True).zero_grad()
        (
            copy.deepcopy(module),
            str(module),
            list(module.buffers()),
            module.reset_parameters_recursive(),
        )
        torch.compile(net, fullgraph=True, backend="aot_eager")(torch.randn(N, 6, 3))
        SteinPolicyLoss(A2CLoss(make_actor(net), ValueOperator(ParticleModule(mlp, N))))


def test_a_population_can_be_pickled():
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), N)
    other = pickle.loads(pickle.dumps(net))
    x = torch.randn(N, 6, 3)
    torch.testing.assert_close(other(x), net(x))
    other.reset_parameters()
    assert (other.particles != net.particles)[:, :12].all()
