"""The multi-goal world as a batched TorchRL environment."""

import math

import pytest
import torch
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs import Compose, RewardSum, SerialEnv, StepCounter, TransformedEnv
from torchrl.envs.utils import check_env_specs

from torchrl_stein.envs import MultiGoalEnv


def test_world_options_reach_the_dynamics():
    env = MultiGoalEnv(goals=[[2.0, 0.0]], goal_reward=3.0, action_cost=2.0, distance_cost=4.0)
    data = env.reset()
    data["observation"] = torch.zeros(2)
    after = env.step(data.set("action", torch.tensor([0.5, 0.0])))["next"]
    assert after["reward"].item() == -9.5  # -2 * 0.5^2 - 4 * 1.5^2
    data["observation"] = torch.tensor([1.0, 0.0])
    after = env.step(data.set("action", torch.tensor([0.5, 0.0])))["next"]
    assert after["reward"].item() == 1.5  # -2 * 0.5^2 - 4 * 0.5^2 + 3


def test_uniform_random_actions_cost_twenty_a_step():
    # E|a|^2 = 2/3 for a uniform on [-1, 1]^2, times 30
    data = MultiGoalEnv((256,), seed=0, distance_cost=0.0, goal_reward=0.0)
    torch.manual_seed(0)
    reward = data.rollout(20, break_when_any_done=False)["next", "reward"]
    assert reward.mean().item() == pytest.approx(-20.0, abs=0.3)


# the environment


@pytest.mark.parametrize("batch_size", [(), (1,), (64,), (16, 4)])
def test_specs_hold(batch_size):
    env = MultiGoalEnv(batch_size)
    check_env_specs(env, seed=0, break_when_any_done="both")
    assert env.action_spec.shape == (*batch_size, 2)
    assert env.action_spec.space.low.unique().tolist() == [-1.0]
    assert env.action_spec.space.high.unique().tolist() == [1.0]
    assert env.observation_spec["observation"].space.high.unique().tolist() == [7.0]
    assert env.reward_spec.shape == (*batch_size, 1)
    # what a step reads back, which environments in worker processes must be told
    assert set(env.state_spec.keys()) == {"observation", "elapsed_steps"}
    assert set(env.done_keys) == {"done", "terminated", "truncated"}


def test_time_limit_truncates_and_does_not_terminate():
    env = MultiGoalEnv((3,), horizon=5, seed=0)
    still = {"action": torch.zeros(3, 2)}
    data = env.rollout(100, lambda td: td.update(still))
    assert data.shape == (3, 5)
    assert data["next", "truncated"].squeeze(-1).tolist() == [[False] * 4 + [True]] * 3
    assert data["next", "done"].equal(data["next", "truncated"])
    assert not data["next", "terminated"].any()


def test_reaching_a_goal_terminates_and_does_not_truncate():
    env = MultiGoalEnv((2,), init_sigma=0.0, seed=0)
    action = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    data = env.rollout(100, lambda td: td.set("action", action.clone()))
    # Five full steps end at the goal; after four the distance is exactly 1, not yet within.
    assert data.shape == (2, 5)
    assert data["next", "terminated"].squeeze(-1).tolist() == [[False] * 4 + [True], [False] * 5]
    assert data["next", "done"].equal(data["next", "terminated"])
    assert not data["next", "truncated"].any()
    assert env.goal_reached(data["next", "observation"][:, -1]).tolist() == [0, -1]


def test_start_is_a_small_gaussian_at_the_origin():
    start = MultiGoalEnv((20_000,), seed=0).reset()["observation"]
    assert start.mean(0).abs().max() < 0.005  # seven standard errors of 0.1 / sqrt(20 000)
    assert_close(start.std(0), torch.full((2,), 0.1), atol=0.003, rtol=0)


def test_start_stays_inside_the_square():
    start = MultiGoalEnv((1000,), seed=0, init_sigma=50.0).reset()["observation"]
    assert start.abs().max() == 7.0


def test_same_seed_same_starts_whatever_the_global_generator_does():
    env, other = MultiGoalEnv((8,), seed=3), MultiGoalEnv((8,), seed=4)
    first = [env.reset()["observation"], env.reset()["observation"]]
    assert not first[0].equal(first[1])
    assert not first[0].equal(other.reset()["observation"])
    other.set_seed(3)
    torch.manual_seed(123)
    assert other.reset()["observation"].equal(first[0])
    assert other.reset()["observation"].equal(first[1])


def test_without_a_seed_the_global_generator_decides():
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        starts.append(MultiGoalEnv((4,)).reset()["observation"])
    assert starts[0].equal(starts[1])
    assert not starts[0].equal(starts[2])


def test_moving_an_environment_keeps_its_seed():
    env = MultiGoalEnv((4,), seed=5)
    start = env.reset()["observation"]
    assert env.to("cpu").reset()["observation"].equal(start)


def test_rows_are_independent():
    env = MultiGoalEnv((4, 3), seed=0)
    data = env.reset()
    data["action"] = torch.full((4, 3, 2), 0.1)
    before = env.step(data.clone())["next"]
    data["action"][2, 1] = 0.9
    after = env.step(data)["next"]
    changed = (before["observation"] != after["observation"]).any(-1)
    assert changed.nonzero().tolist() == [[2, 1]]
    assert (before["reward"] != after["reward"]).squeeze(-1).equal(changed)


def test_partial_reset_leaves_the_others_untouched():
    env = MultiGoalEnv((3,), seed=0)
    data = env.reset()
    data = env.step(data.set("action", torch.ones(3, 2)))["next"].exclude("reward")
    position = data["observation"].clone()
    mask = torch.tensor([[False], [True], [False]])
    fresh = env.reset(data.clone().set("_reset", mask))
    assert fresh["elapsed_steps"].flatten().tolist() == [1, 0, 1]
    assert fresh["observation"][[0, 2]].equal(position[[0, 2]])
    assert fresh["observation"][1].abs().max() < 0.6  # a start again, six sigma


def test_rows_restart_on_their_own_in_a_long_rollout():
    env = MultiGoalEnv((2,), horizon=7, init_sigma=0.0, seed=0)
    action = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    data = env.rollout(14, lambda td: td.set("action", action.clone()), break_when_any_done=False)
    assert data["elapsed_steps"].squeeze(-1).tolist() == [
        [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6],
    ]


@pytest.mark.parametrize("serial", [False, True])
def test_an_episode_may_start_anywhere(serial):
    env = SerialEnv(3, MultiGoalEnv) if serial else MultiGoalEnv((3,), seed=0)
    data = env.reset()
    probes = torch.tensor([[-2.5, 0.0], [0.0, 0.0], [2.5, 2.5]])
    data["observation"] = probes
    still = {"action": torch.zeros(3, 2)}
    walked = env.rollout(2, lambda td: td.update(still), auto_reset=False, tensordict=data)
    assert walked["next", "observation"][:, -1].equal(probes)


def test_transforms_and_collector_of_torchrl():
    env = TransformedEnv(
        MultiGoalEnv((16, 4), horizon=6, seed=0), Compose(RewardSum(), StepCounter())
    )
    check_env_specs(env, seed=0)
    for data in Collector(env, None, frames_per_batch=64 * 12, total_frames=64 * 12):
        assert data.shape == (16, 4, 12)
        after = data["next"]
        assert after["step_count"].equal(after["elapsed_steps"])
        assert after["truncated"].equal(after["elapsed_steps"] == 6)
        whole = after["truncated"][..., 5, 0] & (after["elapsed_steps"][..., 5, 0] == 6)
        total = after["reward"][..., :6, :].sum(-2)
        assert_close(after["episode_reward"][..., 5, :][whole], total[whole])
        assert whole.any()


def test_serial_env_stacks_it():
    check_env_specs(SerialEnv(2, lambda: MultiGoalEnv((3,))), seed=0)


# bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, r"horizon must be >= 1, got 0"),
        ({"init_sigma": -0.1}, r"init_sigma must be >= 0, got -0\.1"),
        ({"goals": [[1.0, 2.0, 3.0]]}, r"goals must have shape \[G, 2\].*got \[\[1\.0, 2"),
        ({"goals": torch.zeros(0, 2)}, r"goals must have shape \[G, 2\].*got tensor"),
        ({"goals": [[1.0], [2.0, 3.0]]}, r"goals must have shape \[G, 2\].*got \[\[1\.0\]"),
        ({"goals": [[9.0, 0.0]]}, r"goals must be >= -7\.0 and <= 7\.0, got 9\.0"),
        ({"goals": [[math.nan, 0.0]]}, r"goals must be finite and >= -7\.0 .*got nan"),
        ({"goal_reward": math.inf}, r"goal_reward must be finite, got inf"),
        ({"action_cost": math.nan}, r"action_cost must be finite and >= 0, got nan"),
        ({"goal_threshold": 0.0}, r"goal_threshold must be > 0, got 0\.0"),
        ({"position_limit": -7.0}, r"position_limit must be > 0, got -7\.0"),
        ({"batch_size": (2, -1)}, r"batch_size must be >= 1, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiGoalEnv(**arguments)
