"""The state of collectors, buffers and meters: what goes on where it was, to the bit."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.data import (
    LazyTensorStorage,
    RandomSampler,
    SamplerWithoutReplacement,
    TensorDictPrioritizedReplayBuffer,
    TensorDictReplayBuffer,
)
from torchrl.envs import RewardScaling, RewardSum, TransformedEnv
from torchrl.envs.utils import RandomPolicy

from tests.objectives.test_soft_q_prioritized import PINNED
from torchrl_stein.envs import CartpoleEnv, MultiGoalEnv, NStepReturns
from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.runs import (
    WorldCollector,
    make_explorer,
    make_gaussian_actor,
    make_mlp,
    make_reward_scaling,
    make_task,
)
from torchrl_stein.runs.collect import CollectorState, ReplayState, ReturnMeter

prioritized = pytest.mark.skipif(
    not torch.__version__.startswith(f"{PINNED}."), reason="TorchRL's compiled extension"
)
KEYS = ("observation", "action", ("next", "observation"), ("next", "reward"), ("next", "done"))


def torchrl_collector(seed, noise, transformed=True):
    """Of a batched world, three rows that end at different times."""
    world = MultiGoalEnv((3,), horizon=5, seed=seed, init_sigma=2.0)
    env = TransformedEnv(world, RewardSum()) if transformed else world
    torch.manual_seed(5)
    if "hold" in noise:
        net = AmortizedSVGDActor(make_mlp(4, 2, [8]), action_spec=env.action_spec_unbatched)
    else:
        net = TensorDictModule(make_mlp(2, 2, [8]), ["observation"], ["action"])
    explorer = make_explorer(net, env.action_spec, **noise)
    collector = Collector(
        env,
        explorer,
        frames_per_batch=3,
        total_frames=300,
        init_random_frames=12,
        auto_register_policy_transforms=False,
        track_traj_ids=False,
    )
    return collector, CollectorState(collector)


def world_collector(seed, *_):
    env = CartpoleEnv((2, 3), seed=seed, horizon=7)
    torch.manual_seed(5)
    actor = make_gaussian_actor(env, 2, [8])
    collector = WorldCollector(env, actor, frames_per_batch=12, total_frames=1200)
    return collector, collector


NOISES = {
    "none": {},
    "white": {"noise": 0.3},
    "ornstein_uhlenbeck": {"noise": 0.3, "theta": 0.2},
    "held": {"hold": 16},
    "uniform": {"uniform_fraction": 0.3},
}


@pytest.mark.parametrize("make", [torchrl_collector, world_collector])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("batches", [1, 3, 4, 9])  # among random actions, at their end, later
def test_worlds_go_on_in_the_middle_of_their_episodes(make, noise, batches, copied, tmp_path):
    if make is world_collector and noise != "none":
        return  # acts as its policy draws
    first, state = make(0, NOISES[noise])
    data = iter(first)
    for _ in range(batches):
        next(data)
    draws, saved = torch.get_rng_state(), copied(state.state_dict())
    expected = [next(data).clone() for _ in range(8)]
    torch.save(saved, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)

    other, there = make(99, NOISES[noise])
    there.load_state_dict(saved)
    torch.set_rng_state(draws)
    for want, got in zip(expected, iter(other), strict=False):
        for key in KEYS:
            assert got[key].equal(want[key]), key
    ends = torch.stack([batch["next", "done"].flatten() for batch in expected]).sum(0)
    assert ends.max() > 0
    for collector in (first, other):
        collector.shutdown()


def test_without_it_a_run_would_go_another_way(copied):
    """Guards the test above."""
    first, state = torchrl_collector(0, {})
    data = iter(first)
    for _ in range(9):
        next(data)
    draws, saved = torch.get_rng_state(), copied(state.state_dict())
    expected = next(data).clone()
    other, there = torchrl_collector(99, {})
    there._collector.load_state_dict(
        {"frames": saved["frames"], "iter": saved["iter"]}, strict=False
    )
    torch.set_rng_state(draws)
    assert not next(iter(other))["observation"].equal(expected["observation"])


@pytest.mark.parametrize("transformed", [True, False])
def test_another_number_of_environments_starts_anew(transformed):
    first, state = torchrl_collector(0, {}, transformed)
    next(iter(first))
    env = MultiGoalEnv((5,), horizon=5, seed=1)
    env = TransformedEnv(env, RewardSum()) if transformed else env
    other = Collector(env, RandomPolicy(env.action_spec), frames_per_batch=5, total_frames=50)
    with pytest.warns(UserWarning, match=r"has environments \[3\], here are \[5\]: .* start anew"):
        CollectorState(other).load_state_dict(state.state_dict())
    assert next(iter(other)).shape == (5, 1)
    ours, theirs = world_collector(0)[0], CartpoleEnv((2, 4), seed=0)
    more = WorldCollector(
        theirs, make_gaussian_actor(theirs, 2, [8]), frames_per_batch=8, total_frames=80
    )
    with pytest.warns(UserWarning, match=r"has environments \[2, 3\], here are \[2, 4\]"):
        more.load_state_dict(ours.state_dict())


def test_simulators_start_from_another_reset():
    def starts(state=None):
        env = make_task("Pendulum-v1", (2,), seed=0)
        explorer = RandomPolicy(env.action_spec)
        collector = Collector(env, explorer, frames_per_batch=2, total_frames=100)
        part = CollectorState(collector)
        if state is not None:
            part.load_state_dict(state)
        first = next(iter(collector))["observation"]
        saved = part.state_dict()
        collector.shutdown()
        return first, saved

    torch.manual_seed(0)
    first, saved = starts()
    assert first.equal(starts()[0])
    later = starts(saved)[0]
    assert later.equal(starts(saved)[0])
    assert not (later == first).all(-1).any()
    torch.manual_seed(1)  # a checkpoint of another time
    assert not (starts(starts()[1])[0] == later).all(-1).any()


# buffers


def buffer_of(size, capacity=27, scale=1.0):
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(capacity),
        batch_size=6,
        transform=RewardScaling(0.0, scale, in_keys=[("next", "reward")]),
    )
    for start in range(0, size, 4):
        count = torch.arange(start, min(start + 4, size)).float().unsqueeze(-1)
        following = TensorDict({"reward": count}, [len(count)])
        buffer.extend(TensorDict({"observation": count, "next": following}, [len(count)]))
    return buffer


@pytest.mark.parametrize("size", [0, 3, 27, 41])  # empty, in part, full, one that has forgotten
def test_a_buffer_goes_on_to_the_bit(size, same, tmp_path):
    buffer, other = buffer_of(size, scale=0.1), buffer_of(0, scale=0.1)
    torch.save(ReplayState(buffer).state_dict(), tmp_path / "state.pt")
    ReplayState(other).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert len(other) == len(buffer) == min(size, 27)
    for added in (4, 8):
        more = TensorDict({"observation": torch.full((added, 1), 7.0)}, [added])
        more["next", "reward"] = torch.ones(added, 1)
        draws = []
        for each in (buffer, other):
            torch.manual_seed(3)
            each.extend(more.clone())
            draws.append(each.sample().to_dict())
        same(*draws)
        assert buffer[:]["observation"].equal(other[:]["observation"])


def test_what_a_sampler_remembers_goes_on_too(tmp_path):
    def make():
        sampler = SamplerWithoutReplacement()
        return TensorDictReplayBuffer(storage=LazyTensorStorage(27), sampler=sampler, batch_size=6)

    buffer, other = make(), make()
    rows = torch.arange(24.0).unsqueeze(-1)
    buffer.extend(TensorDict({"observation": rows}, [24]))
    drawn = [buffer.sample()["observation"]]
    torch.save(ReplayState(buffer).state_dict(), tmp_path / "state.pt")
    ReplayState(other).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    drawn += [other.sample()["observation"] for _ in range(3)]
    assert torch.cat(drawn).unique().numel() == 24  # the other three batches are the other rows


def test_a_running_scale_of_rewards_goes_on_too(tmp_path):
    def make(seed, rows=3):
        env = MultiGoalEnv((rows,), horizon=5, seed=seed)
        scaling = make_reward_scaling("auto", env, gamma=0.9)
        storage = LazyTensorStorage(100)
        return TensorDictReplayBuffer(storage=storage, batch_size=6, transform=scaling)

    def step(rows=3):
        ends = torch.rand(rows, 1) < 0.3
        return TensorDict({"next": {"reward": torch.randn(rows, 1), "done": ends}}, [rows])

    buffer, other = make(0), make(1)
    torch.manual_seed(0)
    for _ in range(7):
        buffer.extend(step())
    torch.save(ReplayState(buffer).state_dict(), tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    ReplayState(other).load_state_dict(saved)
    more, draws = step(), []
    for each in (buffer, other):
        torch.manual_seed(3)
        each.extend(more.clone())
        draws.append(each.sample()["next", "reward"])
    assert draws[0].equal(draws[1])
    # A run whose settings have changed: a fixed scale has no use for it, and a new one begins.
    ReplayState(buffer_of(0, capacity=100)).load_state_dict(saved)
    del saved["reward_scaling"]
    fresh = make(1)
    ReplayState(fresh).load_state_dict(saved)
    assert fresh.transform[0].count == 0
    assert len(fresh) == 21


def test_a_fixed_scale_of_rewards():
    scaling = make_reward_scaling(30.0, MultiGoalEnv((3,)), gamma=0.9)
    batch = TensorDict({"next": {"reward": torch.ones(2, 1)}}, [2])
    assert scaling(batch)["next", "reward"].tolist() == [[30.0], [30.0]]


@prioritized
@pytest.mark.parametrize("size", [0, 3, 27, 41])  # empty, in part, full, one that has forgotten
def test_priorities_and_steps_that_wait_go_on_too(size, same, tmp_path):
    def make():
        return TensorDictPrioritizedReplayBuffer(
            alpha=0.7,
            beta=0.5,
            storage=LazyTensorStorage(27),
            batch_size=6,
            transform=NStepReturns(2, gamma=0.9),
        )

    def step(count):
        now, ends = torch.full((1, 1, 1), float(count)), torch.full((1, 1, 1), count % 5 == 4)
        following = {"observation": now + 1, "reward": now, "done": ends, "terminated": ends}
        return TensorDict({"observation": now, "next": following}, [1, 1])

    buffer, other = make(), make()
    for count in range(size):
        buffer.extend(step(count))
    for _ in range(4 if size > 2 else 0):
        sample = buffer.sample()
        buffer.update_priority(sample["index"], torch.rand(6))
    torch.save(ReplayState(buffer).state_dict(), tmp_path / "state.pt")
    ReplayState(other).load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for count in range(size, size + 4):
        draws = []
        for each in (buffer, other):
            each.set_rng(torch.Generator().manual_seed(3))
            each.extend(step(count))
            if len(each) > 0:
                sample = each.sample()
                each.update_priority(sample["index"], sample["observation"].flatten() + 0.1)
                draws.append(sample.to_dict())
        assert len(buffer) == len(other) == min(27, max(0, count - 1))
        if draws:
            same(*draws)


def test_a_sampler_that_no_checkpoint_could_give_back_is_refused():
    class Odd(RandomSampler):
        def state_dict(self):
            return {"rule": object()}

    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(27), sampler=Odd(), batch_size=6)
    with pytest.raises(TypeError, match=r"and numbers, got object of Odd"):
        ReplayState(buffer)


def test_it_is_as_large_as_what_it_holds(tmp_path):
    for size, name in ((8, "few.pt"), (400, "many.pt")):
        torch.save(ReplayState(buffer_of(size, capacity=100_000)).state_dict(), tmp_path / name)
    assert (tmp_path / "few.pt").stat().st_size < 10_000
    assert (tmp_path / "many.pt").stat().st_size < 30_000


def test_another_capacity_is_refused():
    with pytest.raises(ValueError, match="has 27 places in the checkpoint, it cannot have 30"):
        ReplayState(buffer_of(0, capacity=30)).load_state_dict(
            ReplayState(buffer_of(5)).state_dict()
        )


# returns of training episodes


def test_returns_that_ended_since_the_last_reading():
    def data(done, totals):
        rows = {"done": torch.tensor(done).unsqueeze(-1), "episode_reward": torch.tensor(totals)}
        rows["episode_reward"] = rows["episode_reward"].unsqueeze(-1)
        return TensorDict({"next": TensorDict(rows, [len(done)])}, [len(done)])

    meter = ReturnMeter()
    assert meter.read() is None
    meter.add(data([True, False], [1.0, 9.0]))
    meter.add(data([True, True], [3.0, 5.0]))
    other = ReturnMeter()
    other.load_state_dict(meter.state_dict())
    assert meter.read() == other.read() == 3.0
    assert meter.read() is None
    meter.add(TensorDict({"next": {}}, [2]))
    assert meter.read() is None
