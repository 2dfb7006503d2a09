"""The trust region over actions and over parameters: same noise, the updaters, the exact zero."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.modules import IndependentNormal, TruncatedNormal
from torchrl.objectives import HardUpdate, SoftUpdate

from tests.objectives.builders import NO_UPDATER, make_actor
from tests.objectives.trust_region_builders import laplace, nudge, probabilistic, states
from torchrl_stein.modules import ParticleModule
from torchrl_stein.modules.population import find_population, particles_key
from torchrl_stein.objectives import (
    ActionSpace,
    ParameterSpace,
    SinkhornCost,
    TransportCost,
    WassersteinTrustRegionLoss,
    WGFPotential,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


POLICIES = {
    "sampler": make_actor,
    "tanh normal": probabilistic,
    "normal": lambda: probabilistic(IndependentNormal),
    "truncated": lambda: probabilistic(
        TruncatedNormal, distribution_kwargs={"low": -1.0, "high": 1.0}
    ),
    "laplace": lambda: probabilistic(laplace),
    "population": lambda: probabilistic(particles=4),
}
all_policies = pytest.mark.parametrize("name", POLICIES)


class MeanSquare(TransportCost):
    """|x_i - y_i|^2, which is only small if both policies saw the same noise."""

    def between(self, current, previous):
        return (current - previous).square().sum(-1).mean(-1)


@all_policies
def test_both_policies_see_the_same_noise(name):
    actor = POLICIES[name]()
    region = WassersteinTrustRegionLoss(actor, cost=MeanSquare())
    batch = states(4, 6)
    assert region(batch)["transport_cost"] == 0
    nudge(actor, 1e-3)
    first, second = (region(batch)["transport_cost"].item() for _ in range(2))
    assert 0 < first < 1e-3
    assert first != second  # noise is fresh at every call


@all_policies
def test_zero_at_first_then_a_pull_back(name):
    actor = POLICIES[name]()
    region = WassersteinTrustRegionLoss(actor, cost=SinkhornCost(num_iterations=10))
    batch = states(4, 6)
    losses = region(batch)
    losses["loss_trust_region"].backward()
    assert losses["loss_trust_region"].abs() < 1e-6
    assert all(p.grad.abs().max() < 1e-6 for p in actor.parameters())
    nudge(actor, 0.3)
    before = region(batch)["transport_cost"]
    optimizer = torch.optim.Adam(actor.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        region(batch)["loss_trust_region"].backward()
        optimizer.step()
    assert region(batch)["transport_cost"] < 0.2 * before
    assert all(p.grad is None for p in region.target_actor_network_params.values(True, True))


def test_actions_of_a_sampler_by_hand():
    """u = w xi, actions tanh(u): the loss is the weighted cost of those two sets."""

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor(1.0))

        def forward(self, observation, noise):
            return self.w * noise

    actor = make_actor(Scale(), low=-2.0, high=2.0)
    region = WassersteinTrustRegionLoss(actor, weight=3.0, space=ActionSpace(5))
    with torch.no_grad():
        actor.network.w.fill_(0.5)
    batch = states(7)
    torch.manual_seed(1)
    got = region(batch)["loss_trust_region"]
    torch.manual_seed(1)
    noise = torch.randn(7, 5, 2)
    want = 3.0 * SinkhornCost()(2 * torch.tanh(0.5 * noise), 2 * torch.tanh(noise)).mean()
    assert_close(got, want)


def test_a_population_is_held_row_by_row():
    """Policy i is compared with its own predecessor on its own states."""
    actor = probabilistic(particles=3)
    region = WassersteinTrustRegionLoss(actor, cost=MeanSquare(), reduction="none")
    with torch.no_grad():
        actor[0].module.particles[1].add_(0.1)
    cost = region(states(3, 6))["loss_trust_region"]
    assert cost.shape == (3, 6)
    assert (cost[1] > 0).all()
    assert (cost[[0, 2]] == 0).all()


def test_parameter_space_by_hand():
    """The flat particles, without those outside of kernels; no batch is read."""
    net = ParticleModule(
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)), 5, outside_kernel=["1"]
    )
    actor = TensorDictModule(net, ["observation"], ["action"])
    region = WassersteinTrustRegionLoss(actor, space=ParameterSpace(), weight=0.7)
    assert region.in_keys == []
    before = net.particles.detach().clone()
    nudge(actor, 0.3)
    losses = region(TensorDict())
    losses["loss_trust_region"].backward()
    now = net.particles.detach()[:, :8].clone().requires_grad_()
    want = 0.7 * 5 * SinkhornCost()(now, before[:, :8])
    want.backward()
    # A mask of the batch says nothing of parameters.
    masked = region(TensorDict({"mask": torch.zeros(3, dtype=torch.bool)}, [3]))
    assert_close(masked["loss_trust_region"], want)
    assert_close(losses["loss_trust_region"], want)
    assert_close(net.particles.grad[:, :8], now.grad)
    assert (net.particles.grad[:, 8:] == 0).all()


def test_a_translation_in_parameter_space_is_undone_at_the_rate_of_the_proximal_step():
    """KL + W_2^2 / 2h moves every particle of a shifted set by -shift / h; weight = 1 / 2h."""
    net = ParticleModule(lambda: nn.Linear(3, 2), 6)
    actor = TensorDictModule(net, ["observation"], ["action"])
    h = 0.25
    region = WassersteinTrustRegionLoss(actor, space=ParameterSpace(), weight=0.5 / h)
    shift = torch.full((8,), 0.1)
    with torch.no_grad():
        net.particles.add_(shift)
    losses = region(TensorDict())
    losses["loss_trust_region"].backward()
    assert_close(net.particles.grad, (shift / h).expand(6, 8), rtol=1e-3, atol=1e-4)
    assert_close(losses["transport_cost"], shift.square().sum(), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("space", [ActionSpace(4), ParameterSpace()])
def test_hard_update_before_the_optimizer_is_the_last_iteration(space):
    """Strategy (i) of E.1: with HardUpdate between backward and step, previous lags by one step."""
    actor = probabilistic(particles=4)
    region = WassersteinTrustRegionLoss(actor, space=space)
    previous = HardUpdate(region, value_network_update_interval=0)
    particles = actor[0].module.particles
    key = particles_key(find_population("test", "actor", actor)[0])
    for _ in range(3):
        last = particles.detach().clone()
        previous.step()
        nudge(actor)
        target = region.target_actor_network_params.get(key)
        assert_close(target, last, rtol=0, atol=0)
        assert region(states(4, 2))["loss_trust_region"] > 0
    previous.step()  # too late: nothing to pull back to
    assert region(states(4, 2))["loss_trust_region"].abs() < 1e-6


def test_soft_update_is_a_moving_average():
    """Strategy (ii): phi_bar <- tau phi + (1 - tau) phi_bar."""
    actor = make_actor()
    region = WassersteinTrustRegionLoss(actor)
    previous = SoftUpdate(region, tau=0.25)
    old = region.target_actor_network_params.clone()
    nudge(actor)
    previous.step()
    mean = old.apply(lambda o, n: 0.75 * o + 0.25 * n, region.actor_network_params)
    for key, leaf in mean.items(True, True):
        assert_close(region.target_actor_network_params.get(key), leaf)


def test_parameters_are_those_of_the_policy():
    actor = make_actor()
    region = WassersteinTrustRegionLoss(actor)
    assert {id(p) for p in region.parameters()} == {id(p) for p in actor.parameters()}
    assert region.in_keys == ["observation"]
    assert region.out_keys == ["loss_trust_region", "transport_cost"]
    value, distance = region(observation=torch.randn(3))
    assert value == distance == 0


def test_weight_scales_and_can_be_annealed():
    actor = make_actor()
    region = WassersteinTrustRegionLoss(actor, weight=0.4, cost=WGFPotential())
    batch = states(5)

    def loss():
        torch.manual_seed(3)
        return region(batch)["loss_trust_region"]

    first = loss()
    region.weight = 0.8
    assert_close(loss(), 2 * first)
    region.weight = torch.tensor(0.0, dtype=torch.float64)
    assert loss() == 0
    assert region.weight.dtype == torch.float32
    with pytest.raises(ValueError, match=r"weight must be >= 0, got -1\.0"):
        region.weight = -1.0


def test_float64_and_state_dict():
    actor = make_actor(dtype=torch.float64)
    region = WassersteinTrustRegionLoss(actor)
    nudge(actor)
    batch = states(5).double()
    assert region(batch)["loss_trust_region"].dtype == torch.float64
    other = WassersteinTrustRegionLoss(make_actor(dtype=torch.float64))
    other.load_state_dict(region.state_dict())
    values = []
    for loss in (region, other):
        torch.manual_seed(0)
        values.append(loss(batch)["loss_trust_region"])
    assert_close(*values, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["sampler", "tanh normal"])
def test_compiles_without_graph_breaks(name):
    torch.compiler.reset()
    actor = POLICIES[name]()
    cost = SinkhornCost(debiased=False, num_iterations=4)  # each is traced
    region = WassersteinTrustRegionLoss(actor, cost=cost, space=ActionSpace(4))
    nudge(actor)
    compiled = torch.compile(region, fullgraph=True, backend="eager")
    batch = states(5)
    assert compiled(batch)["loss_trust_region"] > 0
