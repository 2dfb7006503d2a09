"""Advantages of populations, by a loop over particles and steps, and returns of their episodes."""

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close
from torchrl.modules import ValueOperator

from torchrl_stein.envs import CartpoleEnv
from torchrl_stein.runs import (
    WorldCollector,
    estimate_advantages,
    make_gaussian_actor,
    make_linear_critic,
    training_returns,
)

N, E, T = 3, 2, 30


@pytest.fixture
def data():
    env = CartpoleEnv((N, E), seed=0, horizon=8)
    actor = make_gaussian_actor(env, N, [4], gain=3.0)
    collector = WorldCollector(env, actor, frames_per_batch=N * E * T, total_frames=N * E * T)
    return next(iter(collector))


@pytest.fixture
def critic(data):
    found = make_linear_critic(CartpoleEnv((N, E)), N)
    target = torch.randn(N, E, T, 1)
    found.module.fit(data["observation"], data["elapsed_steps"], target)
    return found


@pytest.mark.parametrize(("gamma", "lmbda"), [(0.9, 1.0), (0.99, 0.95), (1.0, 0.0)])
def test_by_hand(data, critic, gamma, lmbda):
    def value(part):
        return critic(part.select("observation", "elapsed_steps"))["state_value"].squeeze(-1)

    now, after = value(data), value(data["next"])
    expected = torch.zeros(N, E, T)
    for i in range(N):
        for e in range(E):
            following = 0.0
            for t in reversed(range(T)):
                step = data["next"][i, e, t]
                ended = step["terminated"].item()
                delta = step["reward"].item() - now[i, e, t].item()
                delta += 0.0 if ended else gamma * after[i, e, t].item()
                following = delta + (0.0 if step["done"].item() else gamma * lmbda * following)
                expected[i, e, t] = following
    found = estimate_advantages(data, critic, gamma, lmbda)
    assert data["next", "terminated"].any()
    assert data["next", "truncated"].any()
    assert_close(found["value_target"].squeeze(-1), expected + now, rtol=1e-4, atol=1e-4)
    mean, std = (f(expected.flatten(1)) for f in (lambda x: x.mean(1), lambda x: x.std(1, False)))
    standardised = (expected - mean[:, None, None]) / std[:, None, None]
    assert_close(found["advantage"].squeeze(-1), standardised, rtol=1e-3, atol=1e-3)
    assert not found["advantage"].requires_grad
    assert set(found.keys()) == {"advantage", "value_target"}


def test_a_critic_of_zero_leaves_the_returns(data):
    critic = make_linear_critic(CartpoleEnv((N, E)), N)
    assert isinstance(critic, ValueOperator)
    target = estimate_advantages(data, critic, 1.0, 1.0)["value_target"][0, 0, :, 0]
    reward, done = (data["next", key][0, 0, :, 0] for key in ("reward", "done"))
    first_end = int(done.nonzero()[0])
    assert_close(target[0], reward[: first_end + 1].sum())


def test_returns_of_episodes_that_ended():
    done = torch.zeros(3, 2, 4, 1, dtype=torch.bool)
    total = torch.arange(24.0).view(3, 2, 4, 1)
    done[0, 0, 1] = done[0, 1, 3] = done[2, 0, 0] = True
    following = TensorDict({"done": done, "episode_reward": total}, [3, 2, 4])
    found = training_returns(TensorDict({"next": following}, [3, 2, 4]))
    assert found[0] == (1.0 + 7.0) / 2
    assert found[1].isnan()
    assert found[2] == 16.0
