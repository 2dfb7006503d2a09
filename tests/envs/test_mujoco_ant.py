"""The ant: pretraining reward, flipping over, rewards near a target."""

import math

import gymnasium
import numpy as np
import pytest

from tests.envs.ant_states import ON_THE_GROUND, place
from torchrl_stein.envs.mujoco import (
    AntHallwayEnv,
    AntMazeEnv,
    AntPretrainEnv,
    AntTargetEnv,
    AntUMazeEnv,
    Arena,
)

LIMP = np.zeros(8, dtype=np.float32)


def tilted(degrees):
    """Quaternion of a turn about the x axis."""
    half = math.radians(degrees) / 2
    return math.cos(half), math.sin(half), 0.0, 0.0


@pytest.mark.parametrize("env_class", [AntPretrainEnv, AntHallwayEnv])
@pytest.mark.parametrize("velocity", [(3.0, 4.0), (-3.0, 4.0), (0.0, -5.0)])
def test_reward_in_free_flight_by_hand(env_class, velocity):
    # Nothing touches the ant, so its centre of mass keeps its horizontal velocity: 5 m/s.
    env = env_class()
    place(env, (0.0, 0.0), velocity=velocity)
    _, reward, terminated, _, info = env.step(np.full(8, 0.5, dtype=np.float32))
    np.testing.assert_allclose(env.velocity, velocity, atol=1e-4)
    assert info["reward_task"] == pytest.approx(5.0, rel=1e-4)
    assert info["reward_survive"] == 0.05
    assert info["reward_ctrl"] == pytest.approx(-0.005 * 8 * 0.25)
    assert info["reward_contact"] == 0.0
    assert reward == pytest.approx(5.0 + 0.05 - 0.01, rel=1e-4)
    assert not terminated
    env.reset(seed=1)
    assert env.velocity.tolist() == [0.0, 0.0]


def test_weights_are_arguments():
    env = AntPretrainEnv(
        forward_reward_weight=2.0,
        healthy_reward=0.5,
        ctrl_cost_weight=0.25,
        contact_cost_weight=1.0,
    )
    place(env, (0.0, 0.0), velocity=(5.0, 0.0))
    assert env.step(np.ones(8, dtype=np.float32))[1] == pytest.approx(2 * 5.0 + 0.5 - 2.0, rel=1e-4)


def test_touching_the_ground_costs():
    env = AntPretrainEnv(contact_cost_weight=1.0)
    place(env, (0.0, 0.0), z=ON_THE_GROUND)
    costs = []
    for _ in range(10):
        info = env.step(LIMP)[4]
        squares = sum(min(abs(force), 1.0) ** 2 for force in env.data.cfrc_ext.flat)
        assert info["reward_contact"] == pytest.approx(-squares)
        costs.append(squares)
    assert max(costs) > 1.0


def test_dynamics_are_those_of_gymnasiums_ant():
    env = gymnasium.make("torchrl_stein/AntPretrain-v0")
    theirs = gymnasium.make("Ant-v5", exclude_current_positions_from_observation=False)
    assert env.reset(seed=1)[0].tolist() == theirs.reset(seed=1)[0].tolist()
    env.action_space.seed(1)
    for _ in range(30):
        action = env.action_space.sample()
        observation, _, _, _, _ = env.step(action)
        assert observation.tolist() == theirs.step(action)[0].tolist()


def test_walls_far_away_change_nothing():
    maze = AntUMazeEnv(corridor_width=10.0, target=(0.0, 14.0))
    ours = [AntPretrainEnv(), AntHallwayEnv(hallway_width=30.0), maze]
    for env in ours:
        env.reset(seed=1)
    ours[0].action_space.seed(1)
    for _ in range(20):
        action = ours[0].action_space.sample()
        first, *others = (env.step(action)[0].tolist() for env in ours)
        assert others == [first, first]


@pytest.mark.parametrize(
    ("degrees", "healthy"), [(0, True), (70, True), (-70, True), (85, False), (180, False)]
)
def test_flipping_over_terminates(degrees, healthy):
    env = AntPretrainEnv()
    # high enough that no leg touches the ground, which could turn it back
    place(env, (0.0, 0.0), z=0.95, quaternion=tilted(degrees))
    assert env.up == pytest.approx(math.cos(math.radians(degrees)), abs=1e-12)
    assert env.is_healthy is healthy
    env = AntPretrainEnv(healthy_z_range=(0.0, 10.0))
    place(env, (0.0, 0.0), z=5.0, quaternion=tilted(degrees))
    _, _, terminated, truncated, info = env.step(LIMP)
    assert terminated is not healthy
    assert truncated is False
    assert info["reward_survive"] == (0.05 if healthy else 0.0)


def test_flip_limit_is_an_argument():
    for limit, healthy in ((0.6, False), (0.4, True)):
        env = AntMazeEnv(flip_limit=limit)
        place(env, (0.0, 0.0), quaternion=tilted(60))  # up is 0.5
        assert env.is_healthy is healthy
    env = AntMazeEnv(flip_limit=-1.0)
    place(env, (0.0, 0.0), quaternion=tilted(180))
    assert env.is_healthy
    env = AntMazeEnv(terminate_when_unhealthy=False)
    place(env, (0.0, 0.0), quaternion=tilted(180))
    assert not env.is_healthy
    assert env.step(LIMP)[2] is False


@pytest.mark.parametrize("z", [0.1, 1.1])
def test_height_terminates_too(z):
    env = AntUMazeEnv()
    place(env, (0.0, 0.0), z=z)
    assert not env.is_healthy


def test_not_finite_is_not_healthy():
    env = AntPretrainEnv()
    env.reset(seed=0)
    env.data.qvel[0] = float("nan")
    assert not env.is_healthy


@pytest.mark.parametrize(
    ("offset", "expected"),
    [((0.0, 0.0), 1.0), ((0.0, 4.0), math.exp(-0.5)), ((-4.0, -4.0), math.exp(-1.0))],
)
@pytest.mark.parametrize("env_class", [AntMazeEnv, AntUMazeEnv])
def test_bump_by_hand(env_class, offset, expected):
    env = env_class()  # sigma is 4
    place(env, np.add(env.arena.target, offset))
    _, reward, _, _, info = env.step(np.ones(8, dtype=np.float32))
    assert reward == pytest.approx(expected, rel=1e-3)
    assert info["reward_task"] == reward  # no bonus, no costs
    assert info["distance_to_target"] == pytest.approx(math.hypot(*offset), abs=1e-3)


def test_bonus_and_costs_of_a_maze_are_arguments():
    env = AntUMazeEnv(sigma=2.0, healthy_reward=0.1, ctrl_cost_weight=0.5)
    place(env, (2.0, 8.0))
    reward = env.step(np.ones(8, dtype=np.float32))[1]
    assert reward == pytest.approx(math.exp(-0.5) + 0.1 - 4.0, rel=1e-3)


def test_smallest_distance_so_far():
    env = AntMazeEnv()
    place(env, (0.0, 0.0))
    start = env.distance
    smallest = []
    for x in (10.0, 5.0, 11.0, 0.0):
        qpos = env.data.qpos.copy()
        qpos[:2] = x, 0.0
        env.set_state(qpos, np.zeros(14))
        smallest.append(env.step(LIMP)[4]["min_distance_to_target"])
    assert smallest == pytest.approx([2.0, 2.0, 1.0, 1.0], abs=1e-2)
    info = env.reset(seed=1)[1]  # a new episode
    assert info["min_distance_to_target"] == info["distance_to_target"]
    assert info["min_distance_to_target"] == pytest.approx(start, abs=0.2)


def test_threshold_of_the_maze():
    assert AntMazeEnv().threshold == (4.5**2 + 2**2) ** 0.5
    assert AntMazeEnv(target=(13.0, 2.0)).threshold == 5.5


def test_users_own_arena():
    env = AntTargetEnv(Arena(target=(1.0, 0.0)), sigma=1.0)
    place(env, (2.0, 0.0))
    assert env.step(LIMP)[1] == pytest.approx(math.exp(-0.5), rel=1e-3)


@pytest.mark.parametrize(
    ("env_class", "arguments", "message"),
    [
        (AntPretrainEnv, {"flip_limit": 1.0}, r"flip_limit must be >= -1 and < 1, got 1\.0"),
        (AntPretrainEnv, {"flip_limit": float("nan")}, r"flip_limit must .* got nan"),
        (AntMazeEnv, {"flip_limit": -1.5}, r"flip_limit must .* got -1\.5"),
        (AntMazeEnv, {"sigma": 0.0}, r"sigma must be > 0, got 0\.0"),
        (AntUMazeEnv, {"sigma": -1.0}, r"sigma must .* got -1\.0"),
        (AntHallwayEnv, {"hallway_width": 1.0}, r"hallway_width must be >= 2\.0, got 1\.0"),
        (AntTargetEnv, {"arena": Arena()}, r"arena must have a target, got Arena\("),
    ],
)
def test_bad_arguments_are_named(env_class, arguments, message):
    with pytest.raises(ValueError, match=message):
        env_class(**arguments)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="corridor_length"):
        AntUMazeEnv(corridor_length=3.0)
