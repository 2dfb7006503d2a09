"""Composing policies: the summed world, the states, and a sampler of the sum."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.testing import assert_close
from torchrl.envs.utils import RandomPolicy
from torchrl.modules import ValueOperator

from torchrl_stein.envs import MultiGoalEnv, MultiGoalWorld
from torchrl_stein.modules import AmortizedSVGDActor, SumQ
from torchrl_stein.objectives import SoftQLoss
from torchrl_stein.training import (
    Checkpoints,
    OffPolicySettings,
    make_mlp,
    make_optimizer,
    replayed_observations,
    sum_of_worlds,
    train_sampler,
)
from torchrl_stein.training.off_policy.replay import ReplayState, make_buffer

LINES = {"ends_at_goal": False, "goal_reward": 0.0, "action_cost": 15.0}
X = {"goals": [[5.0, None], [-4.0, None]], "horizon": 9, "init_sigma": 3.0, **LINES}
Y = {"goals": [[None, 3.0], [None, -2.0], [None, 0.5]], **LINES, "action_cost": 7.0}


# the world


def world_of(options):
    return MultiGoalWorld(
        **{k: v for k, v in options.items() if k not in ("horizon", "init_sigma")}
    )


def test_rewards_add_up():
    total = sum_of_worlds([X, Y])
    assert total["horizon"] == 9
    assert "init_sigma" not in total
    state = 14 * torch.rand(500, 2, dtype=torch.float64) - 7
    action = 3 * torch.rand(500, 2, dtype=torch.float64) - 1.5
    results = [world_of(options).step(state, action) for options in (X, Y, total)]
    assert_close(results[0][1] + results[1][1], results[2][1])
    assert not any(terminated.any() for *_, terminated in results)
    both = (world_of(X).goal_reached(state) >= 0) & (world_of(Y).goal_reached(state) >= 0)
    # Near both lines is a square around a corner, within a distance a disc.
    corner = world_of(total).goal_reached(state) >= 0
    assert corner.any()
    assert both[corner].all()
    assert len(total["goals"]) == 6


def test_one_part_alone_is_what_it_is():
    alone = sum_of_worlds([X])
    assert world_of(alone) == world_of(X)
    assert alone["horizon"] == 9


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [X, X],
            r"must be lines of different coordinates, .* got \[\(5.0, None\), \(5.0, None\)\]",
        ),
        ([X, {**LINES, "goals": [[1.0, 1.0]]}], r"got \[\(5.0, None\), \(1.0, 1.0\)\]"),
        (
            [X, {**Y, "ends_at_goal": True}],
            "ends_at_goal false and goal_reward 0, got True and 0.0",
        ),
        ([X, {**Y, "goal_reward": 5.0}], "ends_at_goal false and goal_reward 0, got False and 5.0"),
        ([X, {**Y, "distance_cost": 2.0}], r"the same distance_cost, got \[1.0, 2.0\]"),
    ],
)
def test_worlds_without_a_sum(parts, message):
    with pytest.raises(ValueError, match=f"composition: .*{message}"):
        sum_of_worlds(parts)


# the states


def test_the_states_are_those_of_all_buffers(tmp_path):
    observations = []
    for name, count, scale in (("a", 3, 1.0), ("b", 5, 0.1)):
        settings = OffPolicySettings(100, buffer_size=7 * count, reward_scale=scale)
        buffer = make_buffer(settings, None)
        env = MultiGoalEnv((7,), seed=count)
        for _ in range(count):
            buffer.extend(env.rollout(1, RandomPolicy(env.action_spec)).reshape(-1))
        observations.append(buffer[:]["observation"])
        others = {"buffer": ReplayState(buffer)}
        Checkpoints(
            tmp_path / name / "checkpoints", loss=nn.Linear(1, 1), config={}, others=others
        ).save(step=1)
    states = replayed_observations([tmp_path / "a", tmp_path / "b"])
    assert states.equal(torch.cat(observations))
    assert states.shape == (7 * 8, 2)


def test_no_states(tmp_path):
    others = {"buffer": ReplayState(make_buffer(OffPolicySettings(10), None))}
    directory = tmp_path / "a" / "checkpoints"
    Checkpoints(directory, loss=nn.Linear(1, 1), config={}, others=others).save(step=1)
    with pytest.raises(ValueError, match=r"the replay buffer of .*a is empty"):
        replayed_observations([tmp_path / "a"])
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        replayed_observations(["nowhere"])
    Checkpoints(tmp_path / "b", loss=nn.Linear(1, 1), config={}, others={}).save(step=1)
    (checkpoint,) = (tmp_path / "b").iterdir()
    with pytest.raises(ValueError, match=r"checkpoint-0+1 holds no buffer, only \['loss'\]"):
        replayed_observations([checkpoint])


# the sampler


class Ridge(nn.Module):
    """-20 (a_i - c)^2 of one coordinate i: its policy has that coordinate at c, the other free."""

    def __init__(self, axis, centre):
        super().__init__()
        self.axis, self.centre = axis, centre
        self.weight = nn.Parameter(torch.tensor(20.0))

    def forward(self, observation, action):
        square = (action[..., self.axis] - self.centre).square()
        return -self.weight * square.unsqueeze(-1)


def test_what_two_parts_leave_open_the_other_decides():
    """exp of the sum is a normal density around (0.5, -0.3), of standard deviation 40^-1/2."""
    torch.manual_seed(0)
    keys = ["observation", "action"]
    ridges = [ValueOperator(Ridge(*which), in_keys=keys) for which in ((0, 0.5), (1, -0.3))]
    states = torch.randn(256, 2)
    spec = MultiGoalEnv((1,)).action_spec

    def samples(network):
        actor = AmortizedSVGDActor(make_mlp(4, 2, [32, 32]), action_spec=spec)
        network.requires_grad_(False)
        loss = SoftQLoss(actor, network, temperature=1.0, num_particles=32, delay_qvalue=False)
        seen = []
        train_sampler(
            loss, states, updates=300, batch_size=32, log=lambda i, x: seen.append((i, x))
        )
        assert [i for i, _ in seen] == list(range(1, 301))
        assert not any(value.requires_grad for value in seen[0][1].values())
        return actor.sample(TensorDict({"observation": states}, [256]), 100).detach().flatten(0, 1)

    both = samples(SumQ(ridges))
    assert_close(both.mean(0), torch.tensor([0.5, -0.3]), rtol=0, atol=0.06)
    assert_close(both.std(0), torch.full((2,), 40**-0.5), rtol=0.3, atol=0)
    alone = samples(ridges[0])
    assert alone[:, 0].mean().item() == pytest.approx(0.5, abs=0.06)
    assert alone[:, 1].std() > 0.35  # of the uniform density 0.58


def test_a_sampler_learns_from_the_states_it_is_given(monkeypatch):
    actor = AmortizedSVGDActor(make_mlp(4, 2, [8]), action_spec=MultiGoalEnv((1,)).action_spec)
    network = ValueOperator(make_mlp(4, 1, [8]), in_keys=["observation", "action"])
    loss = SoftQLoss(actor, network, num_particles=3, delay_qvalue=False)
    asked = []
    states = torch.arange(10.0).unsqueeze(-1).expand(10, 2)
    original = loss.actor_loss

    def watched(batch):
        asked.append(batch["observation"])
        return original(batch)

    loss.actor_loss = watched
    schedulers = []

    def make(*groups, **others):
        optimizer, scheduler = make_optimizer(*groups, **others)
        schedulers.append(scheduler)
        return optimizer, scheduler

    monkeypatch.setattr("torchrl_stein.training.off_policy.composition.make_optimizer", make)
    before = [parameter.clone() for parameter in network.parameters()]
    train_sampler(loss, states, updates=50, batch_size=20, lr=0.1, final_lr_fraction=0.25)
    assert schedulers[0].get_last_lr() == pytest.approx([0.025])
    assert {row[0].item() for batch in asked for row in batch} == set(range(10))
    assert all(batch.shape == (20, 2) for batch in asked)
    assert all(a.equal(b) for a, b in zip(before, network.parameters(), strict=True))
