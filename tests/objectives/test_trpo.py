"""TRPOLoss: surrogate and divergence by hand, TorchRL's conventions, populations, bad input."""

import math
import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import distributions as D
from torch import nn
from torch.testing import assert_close
from torchrl.modules import TruncatedNormal, ValueOperator
from torchrl.objectives import PPOLoss
from torchrl.objectives.value import GAE

from tests.objectives.stein_builders import N, batch, discrete, gaussian, value
from tests.objectives.trpo_builders import (
    ACT,
    OBS,
    LinearMean,
    actor_of,
    alone,
    data_of,
)
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import SteinPolicyLoss, TRPOLoss


def nudge(actor, size=0.3):
    with torch.no_grad():
        for p in actor.parameters():
            p.add_(size * torch.randn_like(p))


def network():
    return nn.Sequential(nn.Linear(OBS, 2 * ACT), NormalParamExtractor()).double()


def critic():
    return ValueOperator(nn.Linear(OBS, 1).double())


def test_a_shift_by_hand():
    """Old N(0, 1), new N(1, 2): KL(old || new) = log 2 + (1 + 1) / 8 - 1/2, and not KL(new || old).

    The action 2 was 2 deviations out and is half a one now: the ratio is exp(2 - 1/8) / 2.
    """
    net = LinearMean(torch.tensor([2.0], dtype=torch.float64))
    net.weight = nn.Parameter(torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))
    data = TensorDict(
        {
            "observation": torch.tensor([[1.0, 0.0, 0.0]]).double(),
            "loc": torch.zeros(1, 1).double(),
            "scale": torch.ones(1, 1).double(),
            "action": torch.full((1, 1), 2.0).double(),
            "action_log_prob": torch.tensor([-2.0 - 0.5 * math.log(2 * math.pi)]).double(),
            "advantage": torch.full((1, 1), 3.0).double(),
        },
        [1],
    )
    losses = TRPOLoss(actor_of(net), normalize_advantage=False)(data)
    assert_close(losses["kl"].item(), math.log(2) - 0.25)
    assert_close(losses["loss_objective"].item(), -3.0 * 0.5 * math.exp(1.875))
    assert not losses["kl"].requires_grad


@pytest.mark.parametrize("normalize", [False, True])
def test_the_objective_is_that_of_ppo_without_its_clip(normalize):
    actor, value_net = actor_of(network()), critic()
    data = data_of(actor, 6, 5)
    nudge(actor)
    loss = TRPOLoss(actor, value_net, normalize_advantage=normalize)(data)
    ppo = PPOLoss(actor, value_net, normalize_advantage=normalize, entropy_bonus=False)(data)
    assert_close(loss["loss_objective"], ppo["loss_objective"])
    assert_close(loss["loss_critic"], ppo["loss_critic"])


@pytest.mark.parametrize("make", [gaussian, discrete])
def test_a_population_is_the_mean_of_n_losses(make):
    actor = make()
    data = data_of(actor, N, 6, 5)
    nudge(actor)
    loss = TRPOLoss(actor)
    together = loss(data)
    single = [TRPOLoss(alone(actor, j))(data[j].clone()) for j in range(N)]
    surrogate, kl = loss.surrogate_and_kl(data)
    assert_close(-surrogate, torch.stack([one["loss_objective"] for one in single]))
    assert_close(kl, torch.stack([one["kl"] for one in single]))
    assert_close(together["loss_objective"], -surrogate.mean())
    assert_close(together["kl"], kl.mean().detach())


def test_masked_transitions_count_for_nothing():
    """Policies keep 2, 4 and no steps of 4; each mean is over its own."""
    actor = gaussian()
    data = data_of(actor, N, 4)
    nudge(actor)
    loss = TRPOLoss(actor, normalize_advantage=False)
    kept = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    short, full = data[0, :2].clone(), data[1].clone()
    data["collector"] = TensorDict({"mask": kept.unsqueeze(-1)}, [N, 4])
    data["advantage"][~kept] = 1e6
    surrogate, kl = loss.surrogate_and_kl(data)
    for j, part in enumerate((short, full)):
        one = TRPOLoss(alone(actor, j), normalize_advantage=False)(part)
        assert_close(surrogate[j], -one["loss_objective"])
        assert_close(kl[j], one["kl"])
    assert surrogate[2] == kl[2] == 0


def test_advantages_are_standardised_for_each_policy():
    actor = gaussian()
    data = data_of(actor, N, 50)
    nudge(actor)
    loss = TRPOLoss(actor)
    want = loss(data)["loss_objective"]
    data["advantage"] = data["advantage"] * torch.tensor([1.0, 10.0, 100.0]).view(N, 1, 1) + 7.0
    assert_close(loss(data)["loss_objective"], want)


def test_gradients_reach_the_right_networks():
    actor, value_net = gaussian(), value()
    loss = TRPOLoss(actor, value_net)
    data = data_of(actor, N, 6)
    copy = data.clone()
    losses = loss(data)
    assert (data == copy).all()
    losses["loss_objective"].backward()
    assert all(p.grad is None for p in value_net.parameters())
    assert all(p.grad.abs().sum() > 0 for p in actor.parameters())
    before = actor[0].module.particles.grad.clone()
    losses["loss_critic"].backward()
    assert torch.equal(actor[0].module.particles.grad, before)
    assert all(p.grad.abs().sum() > 0 for p in value_net.parameters())


def test_advantages_from_the_value_estimator():
    actor, value_net = actor_of(network()), critic()
    loss = TRPOLoss(actor, value_net, normalize_advantage=False)
    loss.make_value_estimator(gamma=0.9, lmbda=0.8)
    data = data_of(actor, 3, 7).exclude("advantage", "value_target")
    ends = torch.zeros(3, 7, 1, dtype=torch.bool)
    ends[:, -1] = True
    data["next"] = TensorDict(
        {
            "observation": torch.randn(3, 7, OBS).double(),
            "reward": torch.randn(3, 7, 1).double(),
            "done": ends,
            "terminated": ends,
        },
        [3, 7],
    )
    nudge(actor)
    found = loss(data)
    assert "advantage" not in data
    GAE(gamma=0.9, lmbda=0.8, value_network=value_net)(data)
    want = TRPOLoss(actor, value_net, normalize_advantage=False)(data)
    for name, number in want.items():
        assert_close(found[name], number, msg=name)


def test_keys():
    actor = actor_of(network())
    loss = TRPOLoss(actor, critic())
    needed = {"observation", "action", "action_log_prob", "loc", "scale", "advantage"}
    assert needed | {"value_target", ("next", "reward")} <= set(loss.in_keys)
    assert len(loss.in_keys) == len(set(loss.in_keys))
    assert loss.out_keys == ["loss_objective", "kl", "loss_critic"]
    assert TRPOLoss(actor).out_keys == ["loss_objective", "kl"]
    data = data_of(actor, 5)
    nudge(actor)
    want = loss(data)
    assert set(want.keys()) == set(loss.out_keys)
    loss.set_keys(advantage=("mine", "advantage"), value_target="returns")
    assert {("mine", "advantage"), "returns"} < set(loss.in_keys)
    renamed = data.rename_key_("advantage", ("mine", "advantage"))
    renamed.rename_key_("value_target", "returns")
    assert_close(loss(renamed)["loss_objective"], want["loss_objective"])
    with pytest.raises(ValueError, match="not an accepted tensordict key"):
        loss.set_keys(advantages="x")


def test_by_keyword():
    actor = actor_of(network())
    data = data_of(actor, 5)
    nudge(actor)
    loss = TRPOLoss(actor).select_out_keys("loss_objective", "kl")
    objective, kl = loss(**data.exclude("value_target").to_dict())
    assert_close(kl, TRPOLoss(actor)(data)["kl"])
    assert objective.requires_grad


def test_state_dict_and_dtype():
    actor = gaussian()
    loss, other = TRPOLoss(actor, value()), TRPOLoss(gaussian(), value())
    other.load_state_dict(loss.state_dict())
    data = data_of(actor, N, 4)
    assert_close(other(data), loss(data))
    assert loss.float()(data.float())["loss_objective"].dtype == torch.float32


def test_stein_policy_loss_wraps_it():
    actor = gaussian()
    loss = SteinPolicyLoss(TRPOLoss(actor, value()), kernel=RBFKernel(9.0))
    losses = loss(batch(actor))
    sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
    assert actor[0].module.particles.grad.abs().sum() > 0
    assert losses["kl"] == 0


@pytest.mark.parametrize(
    "key", ["observation", "action", "action_log_prob", "loc", "scale", "advantage"]
)
def test_a_batch_without(key):
    actor = actor_of(network())
    data = data_of(actor, 5).exclude(key)
    with pytest.raises(KeyError, match=f"TRPOLoss: the batch lacks key '{key}'"):
        TRPOLoss(actor)(data)


def test_entries_of_another_shape():
    actor = actor_of(network())
    data = data_of(actor, 5)
    flat = data.clone()
    flat["advantage"] = flat["advantage"].squeeze(-1)
    with pytest.raises(ValueError, match=re.escape("'advantage' must have shape [*B, 1] = [5, 1]")):
        TRPOLoss(actor)(flat)
    data["action_log_prob"] = data["action_log_prob"].unsqueeze(-1)
    message = "must give one log-probability per transition, shape [5], got [5, 5]"
    with pytest.raises(ValueError, match=re.escape(message)):
        TRPOLoss(actor)(data)
    joint = actor_of(network(), distribution_class=D.Normal)
    message = "TRPOLoss: Normal and 'action_log_prob' must give one log-probability"
    with pytest.raises(ValueError, match=message):
        TRPOLoss(joint)(data_of(joint, 5))


@pytest.mark.parametrize("shape", [(), (4, N), (2 * N,)], ids=str)
def test_a_batch_of_other_policies(shape):
    actor = gaussian()
    data = data_of(actor, N, 4)[0, 0].expand(shape).clone()
    message = f"TRPOLoss: the batch must have leading dimension {N} (row i belongs to particle i), "
    with pytest.raises(ValueError, match=re.escape(message + f"got batch size {list(shape)}")):
        TRPOLoss(actor)(data)


def truncated():
    kwargs = {"low": -1.0, "high": 1.0}
    return actor_of(network(), distribution_class=TruncatedNormal, distribution_kwargs=kwargs)


def test_a_distribution_without_a_divergence():
    actor = truncated()
    with pytest.raises(TypeError, match=r"TRPOLoss: .* must know the KL .*; got TruncatedNormal"):
        TRPOLoss(actor)(data_of(actor, 5))


def test_no_actor():
    with pytest.raises(
        TypeError, match=r"TRPOLoss: actor_network must be .*, got TensorDictModule"
    ):
        TRPOLoss(TensorDictModule(network(), ["observation"], ["loc", "scale"]))


def test_policies_that_share_parameters():
    def make():
        return nn.Sequential(nn.Linear(OBS, 4), nn.Linear(4, 2 * ACT), NormalParamExtractor())

    shared = ParticleModule(make, N, shared=["0"])
    with pytest.raises(ValueError, match=r"no parameters but the particles, .*module\.shared"):
        TRPOLoss(actor_of(shared))
    trunk = nn.Sequential(nn.Linear(OBS, OBS), ParticleModule(make, N))
    with pytest.raises(ValueError, match=r"no parameters but the particles, .*0\.weight"):
        TRPOLoss(actor_of(trunk))
    trunk[0].requires_grad_(False)
    assert TRPOLoss(actor_of(trunk)).leading == (N,)
