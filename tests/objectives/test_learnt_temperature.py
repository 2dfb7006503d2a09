"""Temperatures that hold entropy or log-distance at a target."""

import math

import pytest
import torch
from tensordict.nn import NormalParamExtractor
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP

from tests.objectives.builders import (
    ACT,
    NO_UPDATER,
    OBS,
    make_actor,
    make_batch,
    make_known_qvalue,
    make_loss,
    make_qvalue,
    run,
)
from torchrl_stein.modules import ParticleModule, SVGDActor, TanhGaussianActor
from torchrl_stein.objectives import (
    BoxSquash,
    EntropyTarget,
    LogDistanceTarget,
    S2ACLoss,
    SoftQLoss,
    log_distance_force,
    repulsion_force,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER, "ignore:Using lock_:UserWarning")
RULES = [EntropyTarget, LogDistanceTarget]


@pytest.mark.parametrize("rule", RULES)
def test_the_loss_of_alpha_by_hand(rule):
    loss = make_loss(temperature=rule(alpha_init=0.5))
    losses = run(loss, make_batch(6))
    target = -2.0 if rule is EntropyTarget else math.log(0.2 * math.sqrt(2))
    measured = losses["entropy" if rule is EntropyTarget else "log_distance"]
    torch.testing.assert_close(losses["loss_alpha"], math.log(0.5) * (measured - target))
    assert losses["alpha"].item() == pytest.approx(0.5)
    assert set(losses.keys()) == set(loss.out_keys)
    losses["loss_alpha"].backward()
    torch.testing.assert_close(loss.log_alpha.grad, measured - target)


def test_the_log_distance_is_that_of_actions_in_units_of_half_the_box():
    actor = make_actor(low=-10.0, high=30.0)
    first, second = torch.tensor([[10.0, 10.0]]), torch.tensor([[30.0, 10.0], [10.0, 20.0]])
    measured = LogDistanceTarget().measure(actor, None, first, second)
    expected = (math.log(1 + 1e-5) + math.log(0.5 + 1e-5)) / 2
    assert measured.item() == pytest.approx(expected, rel=1e-5)


def test_the_entropy_is_the_policys():
    """Of a Gaussian that the squash hardly bends: log(scale) + 1/2 log(2 pi e) per dimension."""
    network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
    nn.init.zeros_(network[0].weight)
    nn.init.zeros_(network[0].bias)
    with torch.no_grad():
        network[0].bias[2:] = -9.0  # a small scale
    actor = TanhGaussianActor(network, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
    states = make_batch(4000)
    scale = network(states["observation"])[1][0, 0].item()
    torch.manual_seed(0)
    measured = EntropyTarget().measure(actor, states, None, None).mean().item()
    expected = 2 * (math.log(scale) + 0.5 * math.log(2 * math.pi * math.e))
    assert measured == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("rule", RULES)
def test_the_temperature_brings_the_policy_to_its_target(rule):
    """Of Q = -4 |a|^2: actions spread until their measure is the target, from either side."""
    for first in (0.02, 5.0):
        torch.manual_seed(0)
        network = nn.Sequential(MLP(3, 4, num_cells=[32]), NormalParamExtractor())
        actor = TanhGaussianActor(network, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        qvalue = make_known_qvalue(
            lambda s, a: -4 * a.square().sum(-1, keepdim=True), dtype=torch.float32
        )
        temperature = rule(alpha_init=first)
        loss = SoftQLoss(actor, qvalue, temperature=temperature, num_action_samples=16)
        groups = [{"params": list(loss.actor_network_params.parameters()), "lr": 1e-2}]
        groups += [{"params": [loss.log_alpha], "lr": 3e-2}]
        optimizer, batch = torch.optim.Adam(groups), make_batch(32)
        for _ in range(600):
            optimizer.zero_grad()
            losses = loss.actor_loss(batch)
            (losses["loss_actor"] + losses["loss_alpha"]).backward()
            optimizer.step()
        measured = losses[temperature.measure_key].item()
        assert measured == pytest.approx(temperature.target(actor), abs=0.3)
        assert 0.05 < loss.temperature.item() < 3.0


def test_bounds_hold():
    loss = make_loss(temperature=LogDistanceTarget(alpha_init=1.0, min_alpha=0.9, max_alpha=1.1))
    for value, bound in ((-5.0, 0.9), (5.0, 1.1)):
        loss.log_alpha.data.fill_(value)
        assert run(loss, make_batch(6))["alpha"].item() == pytest.approx(bound)
        assert loss.log_alpha.item() == pytest.approx(math.log(bound))


def test_each_seed_learns_its_own():
    torch.manual_seed(0)
    seeds = 3
    actor = make_actor(ParticleModule(lambda: MLP(5, 2, num_cells=[8]), seeds))
    qvalue = make_qvalue(ParticleModule(lambda: MLP(5, 1, num_cells=[8]), seeds))
    first = torch.tensor([[0.1], [0.5], [2.0]])
    loss = make_loss(actor, qvalue, temperature=LogDistanceTarget(alpha_init=first))
    batch = make_batch(seeds, 6)
    assert run(loss, batch)["alpha"].item() == pytest.approx(first.mean().item())
    torch.manual_seed(0)
    loss.actor_loss(batch)["loss_alpha"].backward()
    # A seed alone, of the same noise: the temperature of the others changes nothing.
    torch.manual_seed(0)
    noise = actor.draw_noise_sets(batch, [6, 4])
    for s in range(seeds):
        sets = [torch.tanh(actor.unsquashed(batch, xi))[s] for xi in noise]
        measured = LogDistanceTarget().measure(actor, None, *sets).mean()
        expected = (measured - loss._learnt.target(actor)) / seeds
        torch.testing.assert_close(loss.log_alpha.grad[s, 0], expected)


def test_the_temperature_of_another_seed_changes_nothing():
    torch.manual_seed(0)
    actor = make_actor(ParticleModule(lambda: MLP(5, 2, num_cells=[8]), 2))
    qvalue = make_qvalue(ParticleModule(lambda: MLP(5, 1, num_cells=[8]), 2))
    loss = make_loss(actor, qvalue, temperature=LogDistanceTarget(alpha_init=torch.ones(2, 1)))
    batch, found = make_batch(2, 6), []
    for alphas in ([1.0, 1.0], [1.0, 0.1]):
        loss.log_alpha.data = torch.tensor(alphas).log().unsqueeze(-1)
        loss.zero_grad()
        torch.manual_seed(1)
        loss.actor_loss(batch)["loss_actor"].backward()
        found.append(next(loss.actor_network_params.parameters()).grad.clone())
    torch.testing.assert_close(found[0][0], found[1][0])
    assert (found[0][1] - found[1][1]).abs().max() > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_compiled_and_saved(rule):
    loss = make_loss(temperature=rule(alpha_init=0.5, max_alpha=2.0))
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(run(compiled, make_batch(6)), run(loss, make_batch(6)))
    other = make_loss(temperature=rule(alpha_init=3.0))
    other.load_state_dict(loss.state_dict())
    assert other.log_alpha.item() == loss.log_alpha.item()
    assert loss.double().log_alpha.dtype == torch.float64


def test_refuses():
    for wrong in (0.0, -1.0, math.nan, torch.tensor([1.0, -1.0])):
        with pytest.raises(ValueError, match="EntropyTarget: alpha_init must be"):
            EntropyTarget(alpha_init=wrong)
    with pytest.raises(ValueError, match="LogDistanceTarget: beta must be > 0, got 0"):
        LogDistanceTarget(0.0)
    with pytest.raises(ValueError, match="min_alpha must be at most max_alpha, got 2"):
        LogDistanceTarget(min_alpha=2.0, max_alpha=1.0)
    with pytest.raises(TypeError, match="EntropyTarget: target_entropy must be"):
        EntropyTarget("automatic")
    loss = make_loss(temperature=EntropyTarget())
    with pytest.raises(AttributeError, match="temperature is learnt, as EntropyTarget says"):
        loss.temperature = 1.0
    with pytest.raises(ValueError, match="log_prob needs noise_dim equal to the action dimension"):
        run(make_loss(make_actor(noise_dim=5), temperature=EntropyTarget()), make_batch(6))


def of_s2ac():
    qvalue = make_qvalue(MLP(OBS + ACT, 1, num_cells=[8], activation_class=nn.SiLU))
    network = nn.Sequential(nn.Linear(OBS, 2 * ACT), NormalParamExtractor())
    return SVGDActor(network, qvalue, action_spec=Bounded(-1.0, 1.0, shape=(ACT,))), qvalue


def test_s2ac_refuses_a_log_distance():
    with pytest.raises(TypeError, match="S2ACLoss: temperature must be an EntropyTarget"):
        S2ACLoss(*of_s2ac(), temperature=LogDistanceTarget())


@pytest.mark.parametrize("dims", [1, 2, 6])
def test_how_spread_uniform_actions_are(dims):
    torch.manual_seed(0)
    pairs = torch.rand(2, 400_000, dims, dtype=torch.float64) * 2 - 1
    expected = (pairs[0] - pairs[1]).norm(dim=-1).log().mean().item()
    assert LogDistanceTarget.of_uniform(dims) == pytest.approx(expected, abs=0.005)


def test_targets_that_no_temperature_meets():
    """A box of sides 2 and two dimensions: alpha would grow without end."""
    make_loss(temperature=LogDistanceTarget(0.63))
    make_loss(temperature=EntropyTarget(1.38))
    with pytest.raises(ValueError, match=r"beta below that of uniform .* 0.632 in 2 .* got 0.64"):
        make_loss(temperature=LogDistanceTarget(0.64))
    with pytest.raises(
        ValueError, match=r"target_entropy below that of uniform .* 1.39 .*got 1.39"
    ):
        make_loss(temperature=EntropyTarget(1.39))
    with pytest.raises(ValueError, match=r"-4.61 in this box, got -2"):
        make_loss(make_actor(low=-0.05, high=0.05), temperature=EntropyTarget())
    with pytest.raises(ValueError, match="S2ACLoss: temperature must have target_entropy below"):
        S2ACLoss(*of_s2ac(), temperature=EntropyTarget(2.0))


@pytest.mark.parametrize(
    "options",
    [
        {"force": log_distance_force},
        {"force": repulsion_force},
        {"squash": BoxSquash(barrier=False)},
    ],
)
def test_samplers_that_may_be_more_spread_than_uniform(options):
    make_loss(temperature=LogDistanceTarget(0.8), **options)
    with pytest.raises(ValueError, match="target_entropy below"):
        make_loss(temperature=EntropyTarget(2.0), **options)
