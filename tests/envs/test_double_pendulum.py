"""The double pendulum: against Box2D, matrices and the equations of motion."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.oracles import box2d_traces as box2d
from tests.oracles.linkages import DoublePendulum, impulse_step, runge_kutta
from torchrl_stein.envs import DoublePendulumWorld

STILL = torch.zeros(1)


# against Box2D


@pytest.mark.parametrize(
    ("clean", "trace"), [(True, box2d.PENDULUM_CLEAN), (False, box2d.PENDULUM_RLLAB)]
)
@pytest.mark.parametrize(("geometric", "column"), [(False, 4), (True, 5)])
def test_ten_steps_of_box2d(clean, trace, geometric, column):
    world = DoublePendulumWorld(clean_start=clean, geometric_tip=geometric)
    th1, th2, w1, w2 = box2d.PENDULUM_START
    state = world.place(torch.tensor([th1, w1, th2, w2], dtype=torch.float64))
    # Torques up to the limit: link 2 turns at 15 rad/s, and Box2D solves its joints by sweeps only.
    for i, (torque, row) in enumerate(zip(box2d.PENDULUM_TORQUES, trace, strict=True)):
        action = torch.tensor([torque / 50.0], dtype=torch.float64)
        state, reward, terminated = world.step(state, action)
        expected, bound = torch.tensor(row).double(), 5e-4 if i < 3 else 0.007
        assert_close(state[:4], expected[:4], atol=bound, rtol=0)
        # ... and leaves them open by some 1e-4 m, which its reward sees.
        assert_close(reward[0], expected[column], atol=0.003, rtol=0)
        assert not terminated.item()


# against a slow loop over matrices


@pytest.mark.parametrize("clean", [True, False])
def test_steps_equal_lagrange_multipliers(clean):
    world = DoublePendulumWorld(clean_start=clean, frame_skip=1)
    generator = torch.Generator().manual_seed(0)
    states = world.sample_state((5,), generator=generator, dtype=torch.float64)
    actions = 2.0 * torch.randn(6, 5, 1, generator=generator, dtype=torch.float64)
    rows = []
    for th1, w1, th2, w2 in states[:, :4].tolist():
        q, v = DoublePendulum.place(th1, th2), np.array([0, 0, w1, 0, 0, w2])
        t1, t2 = (np.array([np.cos(th), np.sin(th)]) for th in (th1, th2))
        if clean:
            v[:2], v[3:5] = 0.5 * w1 * t1, w1 * t1 + 0.5 * w2 * t2
        else:
            q[3:5] = [0.5 * np.sin(th2), -1.0 - 0.5 * np.cos(th2)]
        rows.append((q, v))
    for action in actions:
        states = world.step(states, action)[0]
        for i, (q, v) in enumerate(rows):
            force = DoublePendulum.force(50.0 * np.clip(action[i, 0].item(), -1, 1))
            body = DoublePendulum
            q, v = impulse_step(q, v, force, body.mass, body.joint, body.jacobian, 0.01, 2)
            rows[i] = DoublePendulum.place(q[2], q[5]), v
        expected = np.array([[q[2], v[2], q[5], v[5]] for q, v in rows])
        assert_close(states[:, :4], torch.from_numpy(expected), atol=1e-10, rtol=0)


def test_skipped_frames_are_steps():
    generator = torch.Generator().manual_seed(0)
    one, two = DoublePendulumWorld(frame_skip=1), DoublePendulumWorld(frame_skip=2)
    state = two.sample_state((50,), generator=generator, dtype=torch.float64)
    action = 2.0 * torch.rand(50, 1, generator=generator, dtype=torch.float64) - 1.0
    twice = one.step(one.step(state, action)[0], action)
    # The second projection of a frame without a gap changes 1e-5 at most.
    for computed, expected in zip(two.step(state, action), twice, strict=True):
        assert_close(computed, expected, atol=1e-4, rtol=0)


# theory


@pytest.mark.parametrize("u", [0.0, 2.0])
def test_small_steps_follow_the_equations_of_motion(u):
    start, duration = np.array([1.0, -0.5, 2.0, 1.5]), 0.4
    expected = torch.from_numpy(runge_kutta(DoublePendulum.acceleration, start, u, duration, 400))
    errors = []
    for steps in (200, 400):
        world = DoublePendulumWorld(clean_start=True, time_step=duration / steps, frame_skip=1)
        state = world.place(torch.from_numpy(start))
        for _ in range(steps):
            state = world.step(state, torch.tensor([u / 50.0]))[0]
        errors.append((state[:4] - expected).abs().max().item())
    assert errors[1] < 0.03
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.15)  # the scheme is of first order


def test_hanging_still_earns_minus_four_for_ever():
    world = DoublePendulumWorld()
    state, total = world.place(torch.zeros(4)), 0.0
    for _ in range(500):
        state, reward, terminated = world.step(state, STILL)
        total += reward.item()
        assert not terminated.item()
    assert total == -2000.0


@pytest.mark.parametrize(
    ("angles", "rllab", "geometric"),
    [
        ((math.pi, math.pi), 0.0, 0.0),
        # elbow (1, 0), tip (2, 0) or, mirrored, (0, 0): the goal (0, 2) is sqrt(8) or 2 away
        ((math.pi / 2, math.pi / 2), -2.0, -math.sqrt(8.0)),
        # elbow (0, -1), tip (1, -1) or (-1, -1): both sqrt(10) away
        ((0.0, math.pi / 2), -math.sqrt(10.0), -math.sqrt(10.0)),
    ],
)
def test_reward_by_hand(angles, rllab, geometric):
    for true_tip, expected in ((False, rllab), (True, geometric)):
        # The time step is tiny, since the reward looks at the state after it.
        world = DoublePendulumWorld(geometric_tip=true_tip, clean_start=True, time_step=1e-6)
        state = world.place(torch.tensor([angles[0], 0.0, angles[1], 0.0], dtype=torch.float64))
        assert world.step(state, STILL)[1].item() == pytest.approx(expected, abs=1e-6)


def test_rllab_start_leaves_link_two_behind_and_the_step_closes_the_joint():
    world = DoublePendulumWorld()
    state = world.place(torch.tensor([0.5, 0.0, 0.0, 0.0]))
    assert_close(state[8:], torch.tensor([-math.sin(0.5), math.cos(0.5) - 1.0]))
    after = world.step(state, STILL)[0]
    assert after[8:].tolist() == [0.0, 0.0]
    assert (
        after[:4] - DoublePendulumWorld(clean_start=True).step(state, STILL)[0][:4]
    ).abs().max() < 1
    assert abs(after[0].item() - 0.5) > 0.05  # pulled back


# other ways to run


def test_step_in_every_way(variant):
    world = DoublePendulumWorld()
    state = world.sample_state((5,), generator=torch.Generator().manual_seed(0)).to(variant.dtype)
    action = variant.randn(5, 1)
    after, reward, _ = variant(world.step, state, action)
    expected = world.step(state.double(), action.double())
    variant.close(after[:, :8] / 10.0, expected[0][:, :8] / 10.0)
    variant.close(reward, expected[1])


def test_observation():
    state = DoublePendulumWorld().place(torch.tensor([0.1, 2.0, -0.3, 4.0]))
    expected = [math.sin(0.1), math.cos(0.1), 2.0, math.sin(-0.3), math.cos(-0.3), 4.0]
    assert_close(DoublePendulumWorld().observe(state), torch.tensor(expected))


def test_constants_matter():
    state = DoublePendulumWorld().sample_state((3,), generator=torch.Generator().manual_seed(0))
    usual = DoublePendulumWorld().step(state, STILL + 0.1)[0]
    for change in (
        {"masses": (1.0, 0.5)},
        {"masses": (0.5, 1.0)},
        {"lengths": (2.0, 1.0)},
        {"lengths": (1.0, 2.0)},
        {"link_width": 0.3},
        {"gravity": 5.0},
        {"torque_limit": 10.0},
        {"time_step": 0.02},
        {"frame_skip": 1},
    ):
        assert not DoublePendulumWorld(**change).step(state, STILL + 0.1)[0].allclose(usual)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"masses": (0.5, 0.0)}, r"masses must be > 0, got 0\.0"),
        ({"lengths": (1.0, -1.0)}, r"lengths must be > 0, got -1\.0"),
        ({"frame_skip": 0}, r"frame_skip must be >= 1, got 0"),
        ({"geometric_tip": "top"}, "geometric_tip must be a bool, got 'top'"),
        ({"clean_start": None}, "clean_start must be a bool, got None"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DoublePendulumWorld(**arguments)
