"""The swimmer with a finish line."""

import mujoco
import numpy as np
import pytest

from torchrl_stein.envs.mujoco import SwimmerFinishLineEnv

STILL = np.zeros(2, dtype=np.float32)


def place(env, x, velocity=0.0):
    """A straight swimmer along x; its centre of mass is at its joints' origin."""
    env.reset(seed=0)
    qpos, qvel = np.zeros(5), np.zeros(5)
    qpos[0], qvel[0] = x, velocity
    env.set_state(qpos, qvel)


def centre_of_mass(env):
    """Mean position of the bodies weighted by mass: a loop on a second copy of the state."""
    data = mujoco.MjData(env.model)
    data.qpos[:] = env.data.qpos
    mujoco.mj_forward(env.model, data)
    total = np.zeros(3)
    for body in range(1, env.model.nbody):
        total += env.model.body_mass[body] * data.xipos[body]
    return total[:2] / env.model.body_mass.sum()


def swim(env, direction, steps=500):
    """A wave along the body, tracked by a spring: a gait found by hand. Returns infos."""
    env.reset(seed=0)
    infos = []
    for step in range(steps):
        angles, rates = env.data.qpos[3:], env.data.qvel[3:]
        wave = 1.1 * np.sin(0.15 * step - 1.2 * direction * np.arange(2))
        infos.append(env.step(np.clip(2 * (wave - angles) - 0.2 * rates, -1, 1))[4])
    return infos


def test_reward_at_rest_by_hand():
    env = SwimmerFinishLineEnv(finish_line=3.0, finish_bonus=2.5, ctrl_cost_weight=0.1)
    place(env, 2.9)
    assert env.step(STILL)[1] == pytest.approx(0.0, abs=1e-12)
    place(env, 3.1)
    assert env.step(STILL)[1] == pytest.approx(2.5)
    place(env, -3.1)  # the line lies on one side only
    assert env.step(STILL)[1] == pytest.approx(0.0, abs=1e-12)
    place(env, 3.1)
    _, reward, _, _, info = env.step(np.array([1.0, -0.5], dtype=np.float32))
    assert info["reward_ctrl"] == pytest.approx(-0.1 * 1.25)
    assert reward == info["reward_task"] + info["reward_finish"] + info["reward_ctrl"]


@pytest.mark.parametrize("velocity", [2.0, -2.0])
def test_speed_pays_either_way(velocity):
    env = SwimmerFinishLineEnv(finish_line=100.0, forward_reward_weight=3.0)
    place(env, 0.0, velocity)
    _, reward, terminated, truncated, info = env.step(STILL)
    # a straight swimmer is not turned by the water, only slowed down a little
    assert reward == info["reward_task"] == pytest.approx(3 * abs(env.data.qpos[0]) / env.dt)
    assert 3 * 1.8 < reward < 3 * 2.0
    assert not terminated
    assert not truncated


def test_velocity_is_that_of_the_centre_of_mass():
    env = SwimmerFinishLineEnv()
    env.reset(seed=3)
    env.action_space.seed(3)
    for _ in range(20):
        before = centre_of_mass(env)
        info = env.step(env.action_space.sample())[4]
        after = centre_of_mass(env)
        np.testing.assert_allclose(info["centre_of_mass"], after, atol=1e-12)
        np.testing.assert_allclose(env.velocity, (after - before) / env.dt, atol=1e-9)
        assert info["reward_task"] == abs(env.velocity[0])


def test_wriggling_on_the_spot_does_not_pay():
    # The frame of the torso swings to and fro: its speed would be paid many times as much.
    env = SwimmerFinishLineEnv(ctrl_cost_weight=0.0)
    env.reset(seed=0)
    paid = of_the_frame = 0.0
    for step in range(200):
        action = np.sin(0.2 * step + np.array([0.0, 2.0]))
        _, reward, _, _, info = env.step(action)
        paid += reward
        of_the_frame += abs(info["x_velocity"])
    assert np.abs(env.centre_of_mass).max() < 0.5
    assert of_the_frame > 10 * paid


def test_the_line_can_be_reached_and_only_forwards_pays():
    env = SwimmerFinishLineEnv()
    forwards, backwards = swim(env, 1), swim(env, -1)
    assert forwards[-1]["centre_of_mass"][0] > 5.0
    assert backwards[-1]["centre_of_mass"][0] < -5.0
    bonus = [info["reward_finish"] for info in forwards]
    assert bonus == [float(info["centre_of_mass"][0] > 3.0) for info in forwards]
    assert 100 < sum(bonus) < 400
    assert sum(info["reward_finish"] for info in backwards) == 0.0


def test_furthest_point_of_the_episode():
    env = SwimmerFinishLineEnv()
    start = env.reset(seed=0)[1]
    assert start["max_forward_distance"] == start["centre_of_mass"][0]
    infos = swim(env, -1, steps=100) + swim(env, 1, steps=100)  # two episodes
    for episode in (infos[:100], infos[100:]):
        best = start["centre_of_mass"][0]
        for info in episode:
            best = max(best, info["centre_of_mass"][0])
            assert info["max_forward_distance"] == best
    assert infos[99]["max_forward_distance"] < 0.5 < infos[-1]["max_forward_distance"]


def test_position_is_in_the_observation_unless_excluded():
    env = SwimmerFinishLineEnv()
    observation, _ = env.reset(seed=0)
    assert observation.shape == (10,)
    assert observation[:2].tolist() == env.data.qpos[:2].tolist()
    short = SwimmerFinishLineEnv(exclude_current_positions_from_observation=True)
    assert short.reset(seed=0)[0].tolist() == observation[2:].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"finish_line": float("inf")}, r"finish_line must be finite, got inf"),
        ({"finish_bonus": float("nan")}, r"finish_bonus must be finite, got nan"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SwimmerFinishLineEnv(**arguments)


def test_unknown_arguments_are_refused():
    with pytest.raises(TypeError, match="finnish_line"):
        SwimmerFinishLineEnv(finnish_line=3.0)
