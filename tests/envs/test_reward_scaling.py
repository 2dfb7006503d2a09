"""The running scale of rewards: by hand, against a loop over single transitions, in a buffer."""

import math
from statistics import pstdev

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import TransformedEnv
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.envs import CartpoleEnv, MultiGoalEnv, RunningRewardScaling


def transitions(reward, done=None):
    """Data whose batch size is the shape of the rewards."""
    reward = torch.as_tensor(reward)
    done = torch.zeros(reward.shape, dtype=torch.bool) if done is None else torch.as_tensor(done)
    following = {"reward": reward.unsqueeze(-1), "done": done.unsqueeze(-1)}
    return TensorDict({"next": TensorDict(following, reward.shape)}, reward.shape)


def slow_scale(rewards, dones, gamma, bound, eps):
    """One row after the other, one step after the other."""
    seen = []
    for row, ends in zip(rewards.tolist(), dones.tolist(), strict=True):
        running = 0.0
        for reward, end in zip(row, ends, strict=True):
            running = reward + gamma * running
            seen.append(running)
            if end:
                running = 0.0
    return max(math.sqrt(pstdev(seen) ** 2 + eps), max(map(abs, seen)) / bound)


def test_by_hand():
    scaling = RunningRewardScaling([2], gamma=0.5, bound=100.0, eps=1e-12)
    assert scaling.scale.item() == pytest.approx(1e-6)
    scaling.inv(transitions([1.0, -3.0], [False, True]))  # G = 1, -3
    assert scaling.scale.item() == pytest.approx(2.0)
    assert scaling.discounted_returns.tolist() == [1.0, 0.0]  # the second episode is over
    scaling.inv(transitions([3.0, 4.0]))  # G = 3.5, 4; mean of the four 1.375
    squares = 0.375**2 + 4.375**2 + 2.125**2 + 2.625**2
    assert scaling.scale.item() == pytest.approx(math.sqrt(squares / 4))
    batch = scaling(transitions([2.0, 5.0, 7.0]))
    expected = torch.tensor([2.0, 5.0, 7.0]) / math.sqrt(squares / 4)
    assert_close(batch["next", "reward"].squeeze(-1), expected)


def test_a_rare_large_reward_is_held_at_the_bound():
    scaling = RunningRewardScaling([])
    for reward in [0.0] * 999 + [100.0]:
        scaling.inv(transitions(reward))
    assert scaling.scale.item() == pytest.approx(20.0)  # the standard deviation is 3.2
    assert scaling(transitions([100.0]))["next", "reward"].item() == pytest.approx(5.0)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("bound", [1.0, 50.0])  # the largest G decides, the variance decides
@pytest.mark.parametrize("sizes", [[24], [1] * 24, [5, 1, 11, 7]])
@pytest.mark.parametrize("flat", [True, False])
def test_against_the_loop_whatever_the_batches(rows, bound, sizes, flat):
    generator = torch.Generator().manual_seed(0)
    rewards = 1000.0 + 3.0 * torch.randn(rows, 24, generator=generator, dtype=torch.float64)
    dones = torch.rand(rows, 24, generator=generator) < 0.2
    scaling = RunningRewardScaling([rows], gamma=0.9, bound=bound)
    pieces = zip(rewards.split(sizes, 1), dones.split(sizes, 1), strict=True)
    for reward, done in pieces:
        data = transitions(reward, done)
        scaling.inv(data.reshape(-1) if flat else data)
    expected = slow_scale(rewards, dones, 0.9, bound, 1e-8)
    assert scaling.scale.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batch_size", [(), (3,), (2, 3)])
def test_with_a_collector_and_a_buffer(batch_size):
    env = MultiGoalEnv(batch_size, horizon=5, seed=0)
    scaling = RunningRewardScaling(env.batch_size, gamma=0.9)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(500), transform=scaling, batch_size=16
    )
    torch.manual_seed(0)
    collector = Collector(
        env, RandomPolicy(env.action_spec), frames_per_batch=4 * env.numel(), total_frames=200
    )
    parts = []
    for data in collector:
        parts.append(data.clone())
        buffer.extend(data.reshape(-1))
    collector.shutdown()
    every = torch.cat(parts, -1)["next"]
    rows = (every[key].reshape(env.numel(), -1) for key in ("reward", "done"))
    assert scaling.scale.item() == pytest.approx(slow_scale(*rows, 0.9, 5.0, 1e-8), rel=1e-6)
    batch = buffer.sample()
    raw = buffer.storage[:]["next", "reward"][batch["index"]]
    assert_close(batch["next", "reward"], raw / scaling.scale.float())
    assert raw.abs().max() > 5  # stored as they were


def test_all_of_a_batch_has_the_scale_of_now():
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(10), transform=RunningRewardScaling([1]), batch_size=64
    )
    for _ in range(5):
        buffer.extend(transitions([1.0], [True]))
    early = buffer.sample()["next", "reward"].unique()
    buffer.extend(transitions([10.0], [True]))
    late = buffer.sample()["next", "reward"].unique()
    assert early.tolist() == [5.0]  # one over the bound of 1/5
    scale = math.sqrt(100 / 6 + 5 / 6 - 2.5**2)  # and not 10 / 5
    assert_close(late, torch.tensor([1.0, 10.0]) / scale)


def test_its_state_goes_on_to_the_bit():
    def make():
        return RunningRewardScaling([3], gamma=0.9)

    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 20, generator=generator)
    dones = torch.rand(3, 20, generator=generator) < 0.2
    one, other = make(), make()
    one.inv(transitions(rewards[:, :9], dones[:, :9]))
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.inv(transitions(rewards[:, 9:], dones[:, 9:]))
    assert other.scale.equal(one.scale)
    assert other.discounted_returns.equal(one.discounted_returns)
    more = RunningRewardScaling([4], gamma=0.9)  # of another number: their episodes begin anew
    more.inv(transitions([1.0, 2.0, 3.0, 4.0]))
    more.load_state_dict(one.state_dict())
    assert more.scale.equal(one.scale)
    assert not more.discounted_returns.any()


def test_nothing_is_read_back():
    """Tensors without numbers raise where a program waits for one."""
    scaling = RunningRewardScaling([3]).to("meta")
    data = transitions(torch.zeros(3, 4)).to("meta")
    scaling.inv(data)
    assert scaling(data.reshape(-1))["next", "reward"].device.type == "meta"


def test_other_keys():
    scaling = RunningRewardScaling([1], reward_key="gain", done_key="over")
    data = TensorDict({"gain": torch.full((1, 1), 5.0), "over": torch.ones(1, 1).bool()}, [1])
    scaling.inv(data)
    assert scaling(data)["gain"].item() == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("action", "error", "message"),
    [
        (lambda s: s.inv(TensorDict({}, [3])), KeyError, r"the batch lacks key \('next', 'reward"),
        (lambda s: s(TensorDict({}, [3])), KeyError, r"the batch lacks key \('next', 'reward"),
        (lambda s: s.inv(transitions([1.0] * 3).exclude(("next", "done"))), KeyError, "'done'"),
        (lambda s: s.inv(transitions([1.0] * 4)), ValueError, r"whole steps .* \[3\], got 4"),
        (lambda s: s.inv(transitions([1.0, math.nan, 1.0])), ValueError, "must be finite"),
        (
            lambda s: TransformedEnv(CartpoleEnv((3,)), s).rollout(2),
            TypeError,
            "must be the transform of a replay buffer, got an environment",
        ),
        (lambda s: RunningRewardScaling([0]), ValueError, "batch_size must be >= 1"),
        (lambda s: RunningRewardScaling([1], gamma=1.5), ValueError, "gamma must be"),
        (lambda s: RunningRewardScaling([1], bound=0), ValueError, "bound must be"),
        (lambda s: RunningRewardScaling([1], eps=0), ValueError, "eps must be"),
    ],
)
def test_refusals(action, error, message):
    with pytest.raises(error, match=message):
        action(RunningRewardScaling([3]))
