"""The policy softmax(Q / alpha), and its ways to act."""

import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.data import Binary, Bounded, Categorical, Composite, OneHot
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import QValueActor

from torchrl_stein.envs import GridWorldEnv
from torchrl_stein.modules import BoltzmannActor, ParticleModule

Q = torch.tensor([[0.0, math.log(3.0), -50.0], [1.0, 1.0, 0.0]])


def make(spec=None, *, networks=None, **options):
    network = TensorDictModule(nn.Identity(), ["observation"], ["action_value"])
    return BoltzmannActor(networks or network, action_spec=spec or OneHot(3), **options)


def states(q=Q, **more):
    return TensorDict({"observation": q, **more}, q.shape[:-1])


def test_probabilities_by_hand():
    # exp(Q) = 1, 3 and nearly 0; at alpha = 1/2 they are squared.
    for alpha, odds in ((1.0, 3.0), (0.5, 9.0)):
        probs = make(temperature=alpha).get_dist(states()).probs[0]
        assert_close(probs, torch.tensor([1.0, odds, 0.0]) / (1.0 + odds))


def test_limits_of_the_temperature():
    q = torch.tensor([[0.3, 0.7, 0.1]])
    assert_close(make(temperature=1e-6).get_dist(states(q)).probs, torch.tensor([[0.0, 1.0, 0.0]]))
    uniform = make(temperature=1e6).get_dist(states(q)).probs
    assert_close(uniform, torch.full((1, 3), 1 / 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("spec", [OneHot(3), Categorical(3)])
def test_it_draws_by_its_probabilities(spec):
    torch.manual_seed(0)
    data = make(spec, return_log_prob=True)(states(Q[:1].expand(4000, 3)))
    action = data["action"]
    assert action.dtype == torch.int64
    index = action.argmax(-1) if isinstance(spec, OneHot) else action
    assert spec.expand(4000, *spec.shape).is_in(action.to(spec.dtype))
    assert abs((index == 1).float().mean() - 0.75) < 0.03
    assert_close(data["action_log_prob"].exp(), torch.where(index == 1, 0.75, 0.25))


@pytest.mark.parametrize("how", [ExplorationType.DETERMINISTIC, ExplorationType.MODE])
def test_without_exploration_it_is_greedy_and_takes_the_first_of_equals(how):
    with set_exploration_type(how):
        assert make()(states())["action"].tolist() == [[0, 1, 0], [1, 0, 0]]
        assert make(Categorical(3))(states())["action"].tolist() == [1, 0]


@pytest.mark.parametrize("spec", [OneHot(3), Categorical(3)])
def test_masked_actions_are_never_taken(spec):
    mask = torch.tensor([[True, False, True], [False, False, True]])
    actor = make(spec, mask_key="action_mask", temperature=10.0)
    rows = states(Q.expand(500, 2, 3), action_mask=mask.expand(500, 2, 3))
    torch.manual_seed(0)
    action = actor(rows)["action"]
    index = action.argmax(-1) if isinstance(spec, OneHot) else action
    assert index[:, 0].unique().tolist() == [0, 2]
    assert index[:, 1].unique().tolist() == [2]
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        action = actor(rows)["action"][0]
    index = action.argmax(-1) if isinstance(spec, OneHot) else action
    assert index.tolist() == [0, 2]
    with pytest.raises(KeyError, match="BoltzmannActor: the batch lacks key 'action_mask'"):
        actor.allowed(states(), Q)


def test_an_ensemble_is_reduced_and_writes_what_it_decides_by():
    pair = [
        TensorDictModule(nn.Linear(1, 2, bias=False), ["observation"], ["action_value"])
        for _ in range(2)
    ]
    for net, weights in zip(pair, ([[1.0], [4.0]], [[3.0], [2.0]]), strict=True):
        net.module.weight.data.copy_(torch.tensor(weights))
    one = states(torch.ones(5, 1))
    for reduction, expected in ((torch.amin, [1.0, 2.0]), (torch.mean, [2.0, 3.0])):
        data = make(OneHot(2), networks=pair, temperature=2.0, ensemble_reduction=reduction)(one)
        assert data["action_value"][0].tolist() == expected
        assert data["logits"][0].tolist() == [x / 2 for x in expected]


def test_each_seed_has_its_own_temperature_and_network():
    nets = ParticleModule(lambda: nn.Linear(3, 2), 2)
    network = TensorDictModule(nets, ["observation"], ["action_value"])
    alpha = torch.tensor([[0.5], [2.0]])
    actor = BoltzmannActor(network, action_spec=OneHot(2), temperature=alpha)
    data = actor(states(torch.randn(2, 7, 3)))
    assert data["action"].shape == (2, 7, 2)
    assert_close(data["logits"], data["action_value"] / alpha.unsqueeze(-1))


def test_a_collector_takes_it():
    env = GridWorldEnv((4,), seed=0)
    network = TensorDictModule(nn.Linear(49, 4), ["observation"], ["action_value"])
    actor = BoltzmannActor(network, action_spec=env.action_spec)
    collector = Collector(env, actor, frames_per_batch=20, total_frames=60, init_random_frames=20)
    for data in collector:
        assert (data["action"].sum(-1) == 1).all()
    collector.shutdown()


NET = TensorDictModule(nn.Linear(3, 3), ["observation"], ["action_value"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"action_spec": Bounded(-1.0, 1.0, (3,))},
            TypeError,
            "action_spec must be OneHot or Categorical, got Bounded.*take SoftQLoss and Amort",
        ),
        ({"action_spec": Binary(3)}, TypeError, "action_spec must be OneHot or Cat.*got Binary"),
        ({"action_spec": Composite(action=OneHot(3))}, TypeError, "Composite; take its leaf"),
        ({"qvalue_network": nn.Linear(3, 3)}, TypeError, "qvalue_network must be a TensorDictM"),
        ({"qvalue_network": []}, ValueError, "qvalue_network must be different networks, got none"),
        ({"qvalue_network": [NET, NET]}, ValueError, "got 2, of which some are one"),
        (
            {"qvalue_network": QValueActor(nn.Linear(3, 3), spec=OneHot(3))},
            ValueError,
            "qvalue_network must write one entry, the values of all actions, got",
        ),
        ({"temperature": 0.0}, ValueError, "temperature must be > 0, got 0.0"),
        ({"temperature": torch.tensor([[1.0], [-1.0]])}, ValueError, "temperature must be > 0"),
        ({"ensemble_reduction": "min"}, TypeError, "ensemble_reduction must be a function such as"),
    ],
)
def test_what_it_refuses(options, error, message):
    right = {"qvalue_network": NET, "action_spec": OneHot(3)}
    with pytest.raises(error, match=f"BoltzmannActor: .*{message}"):
        BoltzmannActor(**{**right, **options})


def test_a_network_of_other_values():
    with pytest.raises(
        ValueError, match=r"qvalue_network must return \[\*B, n\] = \[2, 4\], .*3\]"
    ):
        make(OneHot(4))(states())
