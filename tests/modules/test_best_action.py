"""The best of K actions by a Q-function."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ValueOperator

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import (
    AmortizedSVGDActor,
    BestActionActor,
    SamplingActor,
    TanhGaussianActor,
)
from torchrl_stein.objectives import SoftQLoss, SoftQVLoss

BOX = Bounded(-1.0, 1.0, shape=(2,))


class Noise(SamplingActor):
    """The action is the squashed noise, whatever the state."""

    def unsquashed(self, tensordict, noise):
        return noise


def make_actor():
    torch.manual_seed(0)
    return AmortizedSVGDActor(MLP(3 + 2, 2, num_cells=[8]), action_spec=BOX)


def make_loss(kind, nets=2):
    actor = make_actor()
    qvalue = ValueOperator(MLP(3 + 2, 1, num_cells=[8]), in_keys=["observation", "action"])
    if kind is SoftQLoss:
        return SoftQLoss(actor, qvalue, num_qvalue_nets=nets, delay_qvalue=False)
    network = nn.Sequential(MLP(3, 4, num_cells=[8]), NormalParamExtractor())
    actor = TanhGaussianActor(network, action_spec=BOX)
    value = ValueOperator(MLP(3, 1, num_cells=[8]))
    return SoftQVLoss(actor, qvalue, value, num_qvalue_nets=nets, delay_value=False)


def states(*batch):
    return TensorDict({"observation": torch.randn(*batch, 3)}, batch)


@pytest.mark.parametrize("batch", [(), (7,), (2, 3)])
@pytest.mark.parametrize("kind", [SoftQLoss, SoftQVLoss])
def test_it_is_the_best_by_a_loop(kind, batch):
    loss = make_loss(kind)
    data = states(*batch)
    best = BestActionActor(loss.actor_network, loss.qvalue, 16)
    torch.manual_seed(1)
    got = best(data.clone())["action"].reshape(-1, 2)
    torch.manual_seed(1)
    actions = loss.actor_network.sample(data, 16).reshape(-1, 16, 2)
    rows = data["observation"].reshape(-1, 3)
    for row, candidates, action in zip(rows, actions, got, strict=True):
        values = []
        for candidate in candidates:
            one = TensorDict({"observation": row, "action": candidate}, [])
            each = []
            for params in loss.qvalue_network_params.unbind(0):
                with params.to_module(loss.qvalue_network):
                    each.append(loss.qvalue_network(one.clone())["state_action_value"].item())
            values.append(min(each))
        assert_close(action, candidates[values.index(max(values))])


def test_with_one_action_it_is_the_sampler_and_with_many_the_maximum():
    actor = Noise(BOX, None, ["observation"], ["action"])
    goal = torch.tensor([0.3, -0.2])

    def qvalue(states, actions):
        return -(actions - goal).square().sum(-1)

    def distance(count):
        data = BestActionActor(actor, qvalue, count)(states(400))
        return (data["action"] - goal).norm(dim=-1).mean().item()

    torch.manual_seed(1)
    alone = actor(states(400))["action"]
    torch.manual_seed(1)
    assert BestActionActor(actor, qvalue, 1)(states(400))["action"].equal(alone)
    assert distance(1) > 2.5 * distance(16)
    assert distance(16) > 2.5 * distance(1024) > 0


def test_it_goes_where_a_policy_goes():
    env = MultiGoalEnv((6,), seed=0)
    torch.manual_seed(0)
    actor = AmortizedSVGDActor(nn.Linear(4, 2), action_spec=env.action_spec_unbatched)
    best = BestActionActor(actor, lambda states, actions: actions.sum(-1), 8)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        data = env.rollout(4, best, break_when_any_done=False)
    assert len(data["action"][:, 0].unique(dim=0)) == 6  # draws all the same
    assert not data["action"].requires_grad
    assert {id(p) for p in best.parameters()} == {id(p) for p in actor.parameters()}


def test_a_loss_that_is_called_is_not_made_part_of_the_policy():
    loss = make_loss(SoftQLoss)
    assert len(list(BestActionActor(loss.actor_network, loss, 8).children())) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"actor": nn.Linear(2, 2)}, TypeError, "actor must be a SamplingActor, got Linear"),
        ({"qvalue": 3}, TypeError, "qvalue must be a function of states and actions"),
        ({"num_action_samples": 0}, ValueError, "num_action_samples must be >= 1, got 0"),
    ],
)
def test_refusals(arguments, error, message):
    given = {"actor": make_actor(), "qvalue": lambda s, a: a.sum(-1), "num_action_samples": 8}
    with pytest.raises(error, match=f"BestActionActor: {message}"):
        BestActionActor(**given | arguments)


def test_a_qvalue_of_another_shape():
    best = BestActionActor(make_actor(), lambda s, a: a[..., :1], 8)
    with pytest.raises(ValueError, match=r"must return \[\*B, K\] = \[5, 8\], got \[5, 8, 1\]"):
        best(states(5))
