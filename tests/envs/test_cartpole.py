"""Balancing and swinging up a pole: against Box2D, matrices and the equations of motion."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.oracles import box2d_traces as box2d
from tests.oracles.linkages import Cartpole, impulse_step, runge_kutta
from torchrl_stein.envs import CartpoleSwingUpWorld, CartpoleWorld

STILL = torch.zeros(1)


# against Box2D


@pytest.mark.parametrize(
    ("clean", "trace", "tolerance"),
    [(True, box2d.CARTPOLE_CLEAN, 3e-6), (False, box2d.CARTPOLE_RLLAB, 2e-4)],
)
@pytest.mark.parametrize("world", [CartpoleWorld, CartpoleSwingUpWorld])
def test_ten_steps_of_box2d(world, clean, trace, tolerance):
    world = world(clean_start=clean)
    state = world.place(torch.tensor(box2d.CARTPOLE_START).double())
    for force, expected in zip(box2d.CARTPOLE_FORCES, trace, strict=True):
        state, _, _ = world.step(state, torch.tensor([force / 10.0], dtype=torch.float64))
        assert_close(world.observe(state), torch.tensor(expected).double(), atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("world", "clean", "spread", "furthest"),
    [
        # Box2D: 0.100 and 0.193
        (CartpoleWorld, False, 0.101, 0.200),
        (CartpoleWorld, True, 0.0084, 0.0205),
        # Box2D: 0.776 and 1.59, its joints solved one after the other
        (CartpoleSwingUpWorld, False, 0.79, 1.66),
        (CartpoleSwingUpWorld, True, 0.565, 1.12),
    ],
)
def test_spread_of_the_angle_after_one_step(world, clean, spread, furthest):
    world = world(clean_start=clean)
    start = world.sample_state((100_000,), generator=torch.Generator().manual_seed(0))
    angle = world.step(start, STILL.expand(100_000, 1))[0][:, 2] - world.start_angle
    assert angle.std().item() == pytest.approx(spread, rel=0.02)
    assert angle.abs().max().item() == pytest.approx(furthest, rel=0.02)


# against a slow loop over matrices


@pytest.mark.parametrize("clean", [True, False])
def test_steps_equal_lagrange_multipliers(clean):
    world = CartpoleSwingUpWorld(clean_start=clean)
    generator = torch.Generator().manual_seed(0)
    states = world.sample_state((6,), generator=generator, dtype=torch.float64)
    actions = 2.0 * torch.randn(8, 6, 1, generator=generator, dtype=torch.float64)
    rows = []
    for x, speed, th, w in states[:, :4].tolist():
        q, v = Cartpole.place(x, th), np.array([speed, speed, 0.0, w])
        if clean:
            v -= w * np.array([0.0, 0.5 * np.cos(th), 0.5 * np.sin(th), 0.0])
        else:
            q[1], v[1] = -0.5 * np.sin(th), 0.0
        rows.append((q, v))
    for action in actions:
        states = world.step(states, action)[0]
        for i, (q, v) in enumerate(rows):
            force = Cartpole.force(10.0 * np.clip(action[i, 0].item(), -1, 1))
            q, v = impulse_step(
                q, v, force, Cartpole.mass, Cartpole.joint, Cartpole.jacobian, 0.05, 2
            )
            rows[i] = Cartpole.place(q[0], q[3]), v
        expected = np.array([[q[0], v[0], q[3], v[3]] for q, v in rows])
        assert_close(states[:, :4], torch.from_numpy(expected), atol=1e-10, rtol=0)


# theory


@pytest.mark.parametrize("u", [0.0, 3.0])
def test_small_steps_follow_the_equations_of_motion(u):
    start, duration = np.array([0.3, -0.5, 2.0, 1.0]), 0.4
    expected = torch.from_numpy(runge_kutta(Cartpole.acceleration, start, u, duration, 400))
    errors = []
    for steps in (200, 400):
        world = CartpoleSwingUpWorld(clean_start=True, time_step=duration / steps)
        state = world.place(torch.from_numpy(start))
        for _ in range(steps):
            state = world.step(state, torch.tensor([u / 10.0]))[0]
        errors.append((state[:4] - expected).abs().max().item())
    assert errors[1] < 0.01
    assert errors[0] / errors[1] == pytest.approx(2.0, abs=0.1)  # the scheme is of first order


def test_a_mirror_image_moves_as_a_mirror_image():
    world, generator = CartpoleSwingUpWorld(), torch.Generator().manual_seed(0)
    state = world.sample_state((100,), generator=generator)
    mirror = torch.tensor([-1.0, -1, -1, -1, -1, 1, -1])
    action = torch.rand(100, 1, generator=generator) * 2 - 1
    after, reward, ended = world.step(state, action)
    mirrored = world.step(state * mirror, -action)
    assert_close(mirrored[0], after * mirror, atol=1e-4, rtol=1e-5)
    assert_close(mirrored[1], reward)
    assert mirrored[2].equal(ended)


# rewards


@pytest.mark.parametrize(
    ("x", "angle", "action", "reward", "ended"),
    [
        # at rest upright: 10 - 0 - 1e-5 * 0^2
        (0.0, 0.0, 0.0, 10.0, False),
        # the clipped force costs 1e-3 and gives theta'' = 0.5 / (1.1 * 0.0334167 - 0.05^2) = 14.6,
        # so theta = 14.6 * 0.05^2 = 0.0365 and 1 - cos theta = 6.66e-4
        (0.0, 0.0, 5.0, 9.998334, False),
        (2.5, 0.0, 0.0, 0.0, True),
        (-2.5, 0.0, 0.0, 0.0, True),
        (0.0, 0.21, 0.0, 0.0, True),
        (0.0, -0.21, 0.0, 0.0, True),
    ],
)
def test_cartpole_reward(x, angle, action, reward, ended):
    state = torch.tensor([x, 0.0, angle, 0.0, 0.0, 0.0, 0.0])
    _, paid, terminated = CartpoleWorld().step(state, torch.tensor([action]))
    assert paid.item() == pytest.approx(reward, abs=2e-5)
    assert terminated.item() is ended


@pytest.mark.parametrize(
    ("x", "angle", "dense", "sparse", "ended"),
    [
        (0.0, math.pi, -1.0, 0.0, False),
        (0.0, 0.0, 1.0, 1.0, False),
        (2.9, 0.0, 1.0, 1.0, False),
        (3.1, 0.0, -100.0, 0.0, True),
        (-3.1, math.pi, -100.0, 0.0, True),
    ],
)
def test_swing_up_reward(x, angle, dense, sparse, ended):
    state = torch.tensor([x, 0.0, angle, 0.0, 0.0, 0.0, 0.0])
    for kind, expected in ((False, dense), (True, sparse)):
        _, paid, terminated = CartpoleSwingUpWorld(sparse_reward=kind).step(state, STILL)
        assert paid.item() == pytest.approx(expected, abs=1e-4)
        assert paid.dtype == torch.float32
        assert terminated.item() is ended


def test_sparse_reward_is_paid_above_the_threshold_only():
    world = CartpoleSwingUpWorld(sparse_reward=True, sparse_threshold=0.9)
    state = torch.zeros(101, 7)
    state[:, 2] = torch.linspace(0.0, 1.0, 101)
    after, reward, _ = world.step(state, STILL)
    assert reward.squeeze(-1).equal((after[:, 2].cos() > 0.9).float())
    assert 0 < reward.sum() < 101


# other ways to run


@pytest.mark.parametrize("world", [CartpoleWorld(), CartpoleSwingUpWorld(sparse_reward=True)])
def test_step_in_every_way(variant, world):
    state = world.sample_state((5,), generator=torch.Generator().manual_seed(0)).to(variant.dtype)
    action = variant.randn(5, 1)
    after, reward, _ = variant(world.step, state, action)
    expected = world.step(state.double(), action.double())
    variant.close(after, expected[0])
    variant.close(reward, expected[1])


def test_constants_matter():
    state = CartpoleWorld().sample_state((3,), generator=torch.Generator().manual_seed(0))
    usual = CartpoleWorld().step(state, STILL)[0]
    for change in (
        {"cart_mass": 2.0},
        {"pole_mass": 1.0},
        {"pole_length": 2.0},
        {"pole_width": 0.5},
        {"gravity": 5.0},
        {"time_step": 0.02},
    ):
        assert not CartpoleWorld(**change).step(state, STILL)[0].allclose(usual)
    strong, weak = (CartpoleWorld(force_limit=f).step(state, STILL + 1)[0] for f in (20.0, 1.0))
    assert (strong[:, 1] > weak[:, 1] + 0.5).all()


@pytest.mark.parametrize(
    ("world", "arguments", "message"),
    [
        (CartpoleWorld, {"pole_mass": 0.0}, r"pole_mass must be > 0, got 0\.0"),
        (CartpoleWorld, {"angle_limit": -1}, r"angle_limit must be > 0, got -1"),
        (CartpoleWorld, {"gravity": math.nan}, r"gravity must be finite, got nan"),
        (CartpoleWorld, {"start_spread": (1, 2)}, r"start_spread must be 4 numbers, got \(1, 2"),
        (CartpoleWorld, {"clean_start": "clean"}, "clean_start must be a bool, got 'clean'"),
        (CartpoleSwingUpWorld, {"sparse_reward": 1}, "sparse_reward must be a bool, got 1"),
    ],
)
def test_bad_arguments_are_named(world, arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        world(**arguments)
