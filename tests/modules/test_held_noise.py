"""Noise that is held: how long, that it is the same meanwhile, and that an episode has its own."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import (
    AmortizedSVGDActor,
    HeldNoiseActor,
    ParticleModule,
    SamplingActor,
    TanhGaussianActor,
    TanhGaussianMixtureActor,
)

BOX = Bounded(-1.0, 1.0, shape=(2,))


class Noise(SamplingActor):
    """The action is the squashed noise, whatever the state."""

    def unsquashed(self, tensordict, noise):
        return noise


NOISE = Noise(BOX, None, ["observation"], ["action"])


def acts(policy, rows, steps, begins=()):
    """Actions [steps, rows, 2] at one state; in the steps ``begins`` all rows begin an episode."""
    data = TensorDict({"observation": torch.zeros(rows, 3)}, [rows])
    actions = []
    for t in range(steps):
        data["is_init"] = torch.full((rows, 1), t == 0 or t in begins)
        actions.append(policy(data)["action"])
    return torch.stack(actions)


def law(most, exponent=2.0):
    weights = torch.arange(1, most + 1) ** -exponent
    return weights / weights.sum()


@pytest.mark.parametrize(("most", "exponent"), [(1, 2.0), (3, 2.0), (16, 2.0), (16, 1.0)])
def test_how_long_noise_is_held(most, exponent):
    torch.manual_seed(0)
    held = HeldNoiseActor(NOISE, most, exponent=exponent)
    drawn = held.draw_steps((50_000,))
    assert (drawn.min(), drawn.max()) == (1, most)
    share = torch.bincount(drawn, minlength=most + 1)[1:] / 50_000
    assert_close(share, law(most, exponent), atol=0.008, rtol=0)
    # As it acts: of the first noise of an episode, which no end of the observation cuts off.
    actions = acts(held, 20_000, most + 1)
    same = (actions[1:] == actions[0]).all(-1).long().cumprod(0).sum(0) + 1
    share = torch.bincount(same, minlength=most + 1)[1:] / 20_000
    assert_close(share, law(most, exponent), atol=0.012, rtol=0)


def test_one_stretch_after_the_other():
    """The second stretch has the law of the first, and the noise of every step is normal."""
    torch.manual_seed(0)
    actions = acts(HeldNoiseActor(NOISE, 4), 20_000, 9)
    change = (actions[1:] != actions[:-1]).any(-1)
    ends = change.long().cumsum(0)
    second = (ends == 1).sum(0)
    share = torch.bincount(second, minlength=5)[1:] / 20_000
    assert_close(share, law(4), atol=0.012, rtol=0)
    u = torch.atanh(actions.double())
    assert_close(u.mean((1, 2)), torch.zeros(9).double(), atol=0.025, rtol=0)
    assert_close(u.std((1, 2)), torch.ones(9).double(), atol=0.025, rtol=0)
    assert len(actions[0].unique(dim=0)) == 20_000  # rows draw for themselves


def test_with_a_new_episode_it_is_drawn_anew():
    torch.manual_seed(0)
    held = HeldNoiseActor(NOISE, 1000, exponent=0.01)  # nearly uniform: most last for long
    actions = acts(held, 500, 6, begins=[3])
    kept = (actions[1:] == actions[:-1]).all(-1).float().mean(1)
    assert kept[[0, 1, 3, 4]].min() > 0.98
    assert kept[2] == 0
    # Only in the rows that begin one.
    data = TensorDict({"observation": torch.zeros(4, 3)}, [4])
    data["is_init"] = torch.ones(4, 1).bool()
    first = held(data)["action"].clone()
    data["is_init"] = torch.tensor([[False], [True], [False], [True]])
    data["_held_steps"].fill_(7)
    second = held(data)["action"]
    assert (second == first).all(-1).tolist() == [True, False, True, False]
    assert data["_held_steps"][[0, 2]].flatten().tolist() == [6, 6]


def actor_of(kind):
    torch.manual_seed(0)
    if kind == "svgd":
        return AmortizedSVGDActor(nn.Linear(2 + 3, 2), action_spec=BOX, noise_dim=3)
    if kind == "noise set":
        return AmortizedSVGDActor(nn.Linear(2 + 2, 2), action_spec=BOX, noise_set_size=5)

    def network():
        return nn.Sequential(nn.Linear(2, 4), Split())

    if kind == "gaussian":
        return TanhGaussianActor(network(), action_spec=BOX)
    return TanhGaussianMixtureActor(ParticleModule(network, 3), action_spec=BOX)


class Split(nn.Module):
    def forward(self, x):
        loc, scale = x.chunk(2, -1)
        return loc, scale.exp()


@pytest.mark.parametrize("kind", ["svgd", "noise set", "gaussian", "mixture"])
@pytest.mark.parametrize("batch", [(), (6,), (2, 3)])
def test_a_policy_of_state_and_noise(kind, batch):
    actor = actor_of(kind)
    held = HeldNoiseActor(actor, 16)
    data = TensorDict({"observation": torch.randn(*batch, 2)}, batch)
    data["is_init"] = torch.ones(*batch, 1).bool()
    held(data)
    assert data["action"].shape == (*batch, 2)
    data["is_init"] = torch.zeros(*batch, 1).bool()
    data["_held_steps"].fill_(3)
    noise = data["_held_noise"].clone()
    for _ in range(3):
        data["observation"] = torch.randn(*batch, 2)
        held(data)
        assert data["_held_noise"].equal(noise)
        expected = actor.squash(actor.unsquashed(data, noise.unsqueeze(-2))).squeeze(-2)
        assert_close(data["action"], expected)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert_close(held(data.clone())["action"], actor(data.clone())["action"])


@pytest.mark.parametrize("how", ["collector", "rollout"])
def test_who_drives_it_carries_it(how):
    env = TransformedEnv(MultiGoalEnv((300,), horizon=5, seed=0), InitTracker())
    torch.manual_seed(0)
    held = HeldNoiseActor(NOISE, 16)
    if how == "rollout":
        data = env.rollout(15, held, break_when_any_done=False)
    else:
        collector = Collector(
            env,
            held,
            frames_per_batch=300 * 3,
            total_frames=300 * 15,
            auto_register_policy_transforms=False,
        )
        data = torch.cat([part.clone() for part in collector], 1)
        collector.shutdown()
    if how == "collector":
        assert not [key for key in data.keys() if key.startswith("_")]  # noqa: SIM118
    action, init = data["action"], data["is_init"].squeeze(-1)
    kept = (action[:, 1:] == action[:, :-1]).all(-1)
    assert init[:, 1:].any()
    assert not kept[init[:, 1:]].any()
    # At the second step of an episode it is kept unless n = 1.
    at_second = kept[:, 1:][init[:, 1:-1]].float().mean()
    assert at_second.item() == pytest.approx(1 - law(16)[0].item(), abs=0.05)


def test_nothing_is_read_back():
    """Tensors without numbers raise where a program waits for one."""
    actor = AmortizedSVGDActor(nn.Linear(4, 2), action_spec=BOX).to("meta")
    data = TensorDict({"observation": torch.zeros(6, 2), "is_init": torch.ones(6, 1).bool()}, [6])
    data, held = data.to("meta"), HeldNoiseActor(actor, 16)
    held(data)
    assert held(data)["action"].device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"actor": TensorDictModule(nn.Linear(2, 2), ["a"], ["b"])}, TypeError, "a SamplingActor"),
        ({"max_steps": 0}, ValueError, "max_steps must be >= 1, got 0"),
        ({"exponent": 0.0}, ValueError, "exponent must be > 0, got 0"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=f"HeldNoiseActor: .*{message}"):
        HeldNoiseActor(**{"actor": NOISE, "max_steps": 16} | arguments)


def test_without_the_flag_it_is_refused():
    data = TensorDict({"observation": torch.zeros(4, 3)}, [4])
    with pytest.raises(KeyError, match="HeldNoiseActor: the batch lacks key 'is_init'"):
        HeldNoiseActor(NOISE, 16)(data)
