"""The multi-goal world for gymnasium users."""

import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torchrl.envs import GymEnv
from torchrl.envs.utils import check_env_specs

from torchrl_stein.envs import MultiGoalEnv, MultiGoalGymEnv, register_tasks

ENV_ID = "torchrl_stein/MultiGoal-v0"


def test_gymnasium_checker_has_nothing_to_say():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ENV_ID).unwrapped)


def test_steps_equal_the_torch_environment():
    env = gymnasium.make(ENV_ID)
    position, _ = env.reset(seed=0)
    torch_env = MultiGoalEnv()
    data = torch_env.reset()
    data["observation"] = torch.from_numpy(position)
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 2)).astype(np.float32):
        position, reward, terminated, truncated, info = env.step(action)
        data = torch_env.step(data.set("action", torch.from_numpy(action)))["next"]
        assert position.tolist() == data["observation"].tolist()
        assert reward == data["reward"].item()
        assert terminated == data["terminated"].item()
        assert truncated == data["truncated"].item()
        assert info == {"goal": torch_env.goal_reached(data["observation"]).item()}
    assert truncated


def test_walking_to_a_goal_by_hand():
    env = gymnasium.make(ENV_ID, init_sigma=0.0)
    env.reset(seed=0)
    up = np.array([0.0, 1.0], dtype=np.float32)
    steps = [env.step(up) for _ in range(5)]
    # -30 a step, then -4^2, -3^2, -2^2, -1^2 and on the goal itself +10
    assert [step[1] for step in steps] == [-46.0, -39.0, -34.0, -31.0, -20.0]
    assert [step[2] for step in steps] == [False] * 4 + [True]
    assert [step[4]["goal"] for step in steps] == [-1, -1, -1, -1, 2]
    assert not any(step[3] for step in steps)


def test_twenty_steps_truncate():
    env = gymnasium.make(ENV_ID)
    env.reset(seed=0)
    flags = [env.step(np.zeros(2, dtype=np.float32))[2:4] for _ in range(20)]
    assert flags == [(False, False)] * 19 + [(False, True)]


def test_seed_decides_the_start():
    env = MultiGoalGymEnv()
    starts = [env.reset(seed=seed)[0].tolist() for seed in (0, 0, 1)]
    assert starts[0] == starts[1] != starts[2]
    assert env.reset()[0].tolist() != starts[2]  # no seed: the generator goes on


def test_writing_into_an_observation_does_not_move_the_mass():
    env = MultiGoalGymEnv(init_sigma=0.0)
    start, _ = env.reset(seed=0)
    start += 3.0
    assert env.step(np.zeros(2, dtype=np.float32))[0].tolist() == [0.0, 0.0]


def test_torchrl_wraps_it():
    env = GymEnv(ENV_ID)
    check_env_specs(env, seed=0)
    data = env.rollout(30, lambda td: td.set("action", torch.zeros(2)))
    assert data.shape == (20,)
    assert data["next", "truncated"][-1]
    assert not data["next", "terminated"].any()


def test_registering_again_changes_nothing_and_does_not_warn():
    spec = gymnasium.spec(ENV_ID)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_tasks()
    assert gymnasium.spec(ENV_ID) is spec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init_sigma": -1.0}, r"init_sigma must be >= 0, got -1\.0"),
        ({"goals": [[0.0]]}, r"goals must have shape \[G, 2\] with G >= 1, got \[\[0\.0\]\]"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiGoalGymEnv(**arguments)
