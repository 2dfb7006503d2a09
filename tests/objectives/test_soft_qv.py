"""SoftQVLoss: targets of V and Q by hand, by a loop and at their fixed points."""

import math

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate

from tests.objectives.builders import NO_UPDATER, VALUE_TARGETS, make_actor, make_batch, make_qvalue
from torchrl_stein.functional import entropy_regularized_value
from torchrl_stein.modules import (
    ParticleModule,
    SamplingActor,
    TanhGaussianActor,
    TanhGaussianMixtureActor,
)
from torchrl_stein.objectives import ActionSpace, SoftQVLoss, WassersteinTrustRegionLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)
SPEC = Bounded(-1.0, 1.0, shape=(2,))


def gaussian():
    return nn.Sequential(MLP(3, 4, num_cells=[8]), NormalParamExtractor())


ACTORS = {
    "gaussian": lambda: TanhGaussianActor(gaussian(), action_spec=SPEC),
    "mixture": lambda: TanhGaussianMixtureActor(ParticleModule(gaussian, 3), action_spec=SPEC),
    "sampler": make_actor,
}
all_actors = pytest.mark.parametrize("name", ACTORS)


def make_loss(actor=None, *, gamma=0.9, **options):
    options = {"num_action_samples": (6, 4), "num_value_samples": 5, **options}
    actor = ACTORS["gaussian"]() if actor is None else actor
    loss = SoftQVLoss(actor, make_qvalue(), ValueOperator(MLP(3, 1, num_cells=[8])), **options)
    loss.make_value_estimator(gamma=gamma)
    return loss


class Fixed(SamplingActor):
    """Two actions with a known density: a policy by hand."""

    def __init__(self, log_density):
        super().__init__(Bounded(-1.0, 1.0, shape=(1,)), None, ["observation"], ["action"])
        self.shift = nn.Parameter(torch.zeros(()))
        self.log_density = torch.tensor(log_density)

    def unsquashed(self, tensordict, noise):
        return noise + self.shift

    def sample_with_log_prob(self, tensordict, num_samples):
        actions = torch.tensor([[-0.5], [0.5]]).expand(*tensordict.batch_size, 2, 1)
        return actions, self.log_density.expand(*tensordict.batch_size, 2)


class Plus(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(1.0))

    def forward(self, *inputs):
        return self.w * sum(inputs)


# By hand: Q(s, a) = s + a, V(s) = s, alpha = 1/2, two actions -1/2 and 1/2 of log density -1, 0:
#   soft          E[Q - alpha log pi] = s + alpha (1 + 0) / 2                     = s + 0.25
#   mellowmax  alpha log E[e^(Q / alpha) / pi] + alpha E[log pi]
#                 = s + 1/2 log((e^(-1 + 1) + e^1) / 2) - 0.25                    = s + 0.0600575
#   boltzmann     weights e^(-1 + 1) : e^1, times -1/2 and 1/2                    = s + 0.2310586
TARGETS = VALUE_TARGETS | {"soft": entropy_regularized_value}
BY_HAND = {"soft": 0.25, "mellowmax": 0.0600575, "boltzmann": 0.2310586}


@pytest.mark.parametrize("value_target", BY_HAND)
def test_values_by_hand(value_target):
    loss = SoftQVLoss(
        Fixed([-1.0, 0.0]),
        TensorDictModule(Plus(), ["observation", "action"], ["state_action_value"]),
        TensorDictModule(Plus(), ["observation"], ["state_value"]),
        temperature=0.5,
        num_action_samples=2,
        num_value_samples=2,
        value_target=TARGETS[value_target],
        reduction="none",
    )
    loss.make_value_estimator(gamma=0.9)
    batch = make_batch(4, obs=1, act=1)
    batch["next", "terminated"] = torch.tensor([[True], [False], [False], [False]])
    losses = loss(batch)
    assert_close(losses["loss_value"], torch.full((4,), 0.5 * BY_HAND[value_target] ** 2))
    assert_close(losses["entropy"], torch.tensor(0.5))
    bootstrap = torch.tensor([0.0, 1.0, 1.0, 1.0]) * batch["next", "observation"].squeeze(-1)
    target = batch["next", "reward"].squeeze(-1) + 0.9 * bootstrap
    prediction = (batch["observation"] + batch["action"]).squeeze(-1)
    assert_close(losses["loss_qvalue"], 0.5 * (target - prediction) ** 2)


@all_actors
def test_each_loss_reaches_its_own_network(name):
    loss = make_loss(ACTORS[name]())
    losses = loss(make_batch(6))
    assert set(losses.keys()) == set(loss.out_keys)
    owners = {"loss_qvalue": "qvalue", "loss_value": "value", "loss_actor": "actor"}
    for key, owner in owners.items():
        loss.zero_grad()
        losses[key].backward(retain_graph=True)
        for other in owners.values():
            params = getattr(loss, f"{other}_network_params").values(True, True)
            moved = [
                p.grad is not None and p.grad.abs().sum() > 0 for p in params if p.requires_grad
            ]
            assert all(moved) if other == owner else not any(moved), (key, other)


def test_targets_follow_the_updater():
    loss = make_loss()
    updater = SoftUpdate(loss, tau=0.1)
    before = loss.target_value_network_params.clone()
    with torch.no_grad():
        for p in loss.value_network_params.parameters():
            p.add_(1.0)
    updater.step()
    want = before.apply(lambda o, n: 0.9 * o + 0.1 * n, loss.value_network_params)
    for key, leaf in want.items(True, True):
        assert_close(loss.target_value_network_params.get(key), leaf)


def test_v_of_next_comes_from_target_parameters():
    loss, batch = make_loss(), make_batch(6)
    first = loss(batch)["soft_value"]
    with torch.no_grad():
        for p in loss.value_network_params.parameters():
            p.add_(1.0)
    assert_close(loss(batch)["soft_value"], first)
    HardUpdate(loss, value_network_update_interval=0).step()
    assert (loss(batch)["soft_value"] - first).abs() > 0.1


def test_with_a_trust_region_it_is_dp_wgf_v_and_weight_zero_changes_nothing():
    grads = {}
    for weight in (None, 0.0, 0.4):
        torch.manual_seed(0)
        actor = ACTORS["mixture"]()
        loss, batch = make_loss(actor), make_batch(6)
        region = WassersteinTrustRegionLoss(actor, weight=weight or 0.0, space=ActionSpace(6))
        with torch.no_grad():
            actor.network.particles.add_(0.1)
        torch.manual_seed(1)
        losses = loss(batch)
        if weight is not None:
            losses.update(region(batch))
        sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
        grads[weight] = actor.network.particles.grad.clone()
    assert_close(grads[None], grads[0.0], rtol=0, atol=0)
    assert (grads[None] - grads[0.4]).abs().max() > 1e-4


# One state that ends at once, three cells of equal width in the box [-1, 1].
REWARD, ALPHA = np.array([0.0, 1.0, -0.5]), 0.5


class Grid(SamplingActor):
    """The Boltzmann policy of a fixed Q, constant on each of three cells, without sampling noise.

    A cell of mass p is written p * 300 times, so that means over samples are exact expectations.
    """

    def __init__(self):
        super().__init__(Bounded(-1.0, 1.0, shape=(1,)), None, ["observation"], ["action"])
        self.shift = nn.Parameter(torch.zeros(()))
        mass = np.exp(REWARD / ALPHA)
        counts = np.round(300 * mass / mass.sum()).astype(int)
        self.cells = torch.tensor(np.repeat([-2 / 3, 0.0, 2 / 3], counts)).float()
        density = counts / counts.sum() / (2 / 3)
        self.log_density = torch.tensor(np.log(np.repeat(density, counts))).float()

    def unsquashed(self, tensordict, noise):
        return noise + self.shift

    def sample_with_log_prob(self, tensordict, num_samples):
        shape = (*tensordict.batch_size, len(self.cells))
        return self.cells.expand(shape).unsqueeze(-1), self.log_density.expand(shape)


class Cells(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(REWARD).float())

    def forward(self, observation, action):
        return self.table[((action + 1) * 1.5).long().clamp(0, 2)]


@pytest.mark.parametrize("value_target", ["soft", "boltzmann", "mellowmax"])
def test_for_the_boltzmann_policy_v_is_the_soft_value_or_the_expected_q(value_target):
    """The practical target has the entropy, the exact one does not: facts of section 4.2."""
    soft = ALPHA * math.log(np.sum(np.exp(REWARD / ALPHA)) * 2 / 3)
    policy = np.exp(REWARD / ALPHA) / np.exp(REWARD / ALPHA).sum()
    want = {"soft": soft, "boltzmann": policy @ REWARD, "mellowmax": policy @ REWARD}
    value = nn.Linear(1, 1)
    loss = SoftQVLoss(
        Grid(),
        TensorDictModule(Cells(), ["observation", "action"], ["state_action_value"]),
        ValueOperator(value),
        temperature=ALPHA,
        num_action_samples=2,
        value_target=TARGETS[value_target],
    )
    batch = make_batch(4, obs=1, act=1)
    optimizer = torch.optim.LBFGS(value.parameters())

    def closure():
        optimizer.zero_grad()
        error = loss(batch)["loss_value"]
        error.backward()
        return error

    for _ in range(10):
        optimizer.step(closure)
    assert value(torch.zeros(1)).item() == pytest.approx(want[value_target], abs=0.01)


def test_bad_input():
    with pytest.raises(TypeError, match=r"SoftQVLoss: value_target must be a function .*'exact'"):
        make_loss(value_target="exact")
    with pytest.raises(TypeError, match="actor_network must be a SamplingActor"):
        make_loss(ValueOperator(MLP(3, 1)))
    actor = ACTORS["gaussian"]()
    wide = SoftQVLoss(actor, make_qvalue(), ValueOperator(MLP(3, 2, num_cells=[8])))
    with pytest.raises(ValueError, match=r"'state_value' must have shape \[\*B, 1\] = \[6, 1\]"):
        wide(make_batch(6))
    with pytest.raises(KeyError, match="lacks key"):
        make_loss()(TensorDict({"observation": torch.zeros(2, 3)}, [2]))
    with pytest.raises(ValueError, match="log_prob needs noise_dim equal to the action dimension"):
        make_loss(make_actor(noise_dim=5))(make_batch(6))
