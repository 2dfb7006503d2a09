"""The mountain car: its track, energy, and what rllab's was measured to do."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles.linkages import box_on_cosine
from torchrl_stein.envs import MountainCarWorld

STILL = torch.zeros(1)


def episodes(policy, count=100, **world):
    """Return and length of episodes of at most 500 steps, and which arrived."""
    world = MountainCarWorld(**world)
    state = world.sample_state((count,), generator=torch.Generator().manual_seed(0))
    total, length = torch.zeros(count), torch.zeros(count)
    running = torch.ones(count, dtype=torch.bool)
    for _ in range(500):
        after, reward, ended = world.step(state, policy(state))
        total += torch.where(running, reward[:, 0], 0.0)
        length += running
        state = torch.where(running[:, None], after, state)
        running &= ~ended[:, 0]
        if not running.any():
            break
    return total, length, state[:, 0] >= world.goal_position


# against Box2D, whose contacts no such model can repeat: hence the margins


@pytest.mark.parametrize("clean", [True, False])
def test_without_force_the_car_stays_in_the_valley(clean):
    total, length, arrived = episodes(lambda state: torch.zeros(100, 1), clean_start=clean)
    assert total.mean().item() == pytest.approx(-416.6, abs=4.0)
    assert not arrived.any()
    assert (length == 500).all()


def test_pushing_at_random_never_arrives():
    total, _, arrived = episodes(lambda state: torch.randn(100, 1))
    assert total.mean().item() == pytest.approx(-414.5, abs=3.0)
    assert not arrived.any()


def test_pushing_along_the_velocity_arrives_when_it_does_in_box2d():
    total, length, arrived = episodes(
        lambda state: torch.where(state[:, 1:2] >= 0, 1.0, -1.0), count=500
    )
    assert arrived.all()
    assert length.min() >= 76
    assert length.max() <= 112
    assert total.min() >= -74
    assert total.max() <= -51


def test_pushing_right_all_the_time_does_not_arrive():
    assert not episodes(lambda state: torch.ones(100, 1))[2].any()


# the track


def test_pose_equals_bisection():
    s = torch.linspace(-1.9, 1.9, 39, dtype=torch.float64)
    pose = MountainCarWorld()._pose(s)
    expected = torch.tensor([box_on_cosine(x) for x in s.tolist()]).double()
    computed = torch.stack([pose.x, pose.y, torch.atan2(pose.sin, pose.cos)], -1)
    assert_close(computed, expected, atol=1e-4, rtol=0)


def test_pose_and_its_derivatives_agree():
    s = torch.linspace(-1.9, 1.9, 39, dtype=torch.float64, requires_grad=True)
    pose = MountainCarWorld()._pose(s)
    angle = torch.atan2(pose.sin, pose.cos)
    for value, derivative in ((pose.x, pose.dx), (pose.y, pose.dy), (angle, pose.turn)):
        (expected,) = torch.autograd.grad(value.sum(), s, retain_graph=True)
        assert_close(derivative, expected, atol=3e-4, rtol=0)


@pytest.mark.parametrize("x", [-1.5, -0.3, 0.0, 0.4])
def test_place_puts_the_car_where_it_should_be(x):
    world = MountainCarWorld(clean_start=True)
    state = world.place(torch.tensor([x, 0.7], dtype=torch.float64))
    pose = world._pose(state[2])
    assert pose.x.item() == pytest.approx(x, abs=1e-9)
    assert (state[3] / state[1]).item() == pytest.approx((pose.dy / pose.dx).item())
    assert (state[4] / state[1]).item() == pytest.approx((pose.turn / pose.dx).item())


# theory


def test_without_friction_small_steps_keep_the_energy():
    changes = []
    for steps in (400, 800):
        world = MountainCarWorld(clean_start=True, drag=0.0, time_step=1.0 / steps)
        state = world.place(torch.tensor([0.0, 1.5], dtype=torch.float64))
        energies = []
        for _ in range(steps):
            # Taken before the step: the velocity belongs to the pose it left.
            state = world.step(state, STILL.double())[0]
            pose = world._pose(state[2])
            speed = state[1].square() + state[3].square() + state[4].square() * 0.2 / 12
            energies.append((0.5 * speed + 10.0 * pose.y).item())
        changes.append(max(energies) - min(energies))
    assert changes[1] < 0.03  # of a kinetic energy of 1.125
    assert changes[0] / changes[1] == pytest.approx(2.0, abs=0.2)  # the scheme is of first order


def test_constant_force_pays_its_work():
    world = MountainCarWorld(clean_start=True, drag=0.0, time_step=1e-3, gravity=0.0)
    state = world.place(torch.zeros(2, dtype=torch.float64))
    path = 0.0
    for _ in range(500):
        before = world._pose(state[2])
        state = world.step(state, STILL.double() + 1.0)[0]
        after = world._pose(state[2])
        # the force acts along the box, so its work is what the centre moves along it
        path += (before.cos * (after.x - before.x) + before.sin * (after.y - before.y)).item()
    speed = state[1].square() + state[3].square() + state[4].square() * 0.2 / 12
    assert (0.5 * 0.4 * speed).item() == pytest.approx(path, rel=0.02)


@pytest.mark.parametrize("loss", [{"drag": 1.0}, {"friction": 0.1}])
def test_drag_and_friction_slow_the_car_and_never_turn_it(loss):
    free, slow = (MountainCarWorld(clean_start=True, **kind) for kind in ({"drag": 0.0}, loss))
    state = free.place(torch.stack([torch.zeros(50), torch.linspace(0.01, 2.0, 50)], -1))
    fast, braked = free.step(state, STILL)[0][:, 1], slow.step(state, STILL)[0][:, 1]
    assert (braked < fast).all()
    assert (braked >= 0).all()


# rewards


@pytest.mark.parametrize(
    ("x", "arrived", "ended"),
    [(0.0, False, False), (0.55, False, False), (0.65, True, True), (-2.05, False, True)],
)
def test_reward(x, arrived, ended):
    world = MountainCarWorld(clean_start=True)
    state = world.place(torch.tensor([x, 0.0]))
    after, reward, terminated = world.step(state, STILL)
    assert reward.item() == pytest.approx(box_on_cosine(after[2].item())[1] - 1.0, abs=1e-4)
    assert terminated.item() is ended
    _, sparse, terminated = MountainCarWorld(sparse_reward=True).step(state, STILL)
    assert sparse.item() == float(arrived)
    assert sparse.dtype == torch.float32
    assert terminated.item() is ended


# other ways to run


def test_step_in_every_way(variant):
    world = MountainCarWorld(friction=0.01)
    state = world.sample_state((5,), generator=torch.Generator().manual_seed(0)).to(variant.dtype)
    action = variant.randn(5, 1)
    after, reward, _ = variant(world.step, state, action)
    expected = world.step(state.double(), action.double())
    variant.close(after, expected[0])
    variant.close(reward, expected[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mass": 0}, r"mass must be > 0, got 0"),
        ({"friction": -0.1}, r"friction must be >= 0, got -0\.1"),
        ({"goal_position": math.inf}, r"goal_position must be finite, got inf"),
        ({"clean_start": None}, "clean_start must be a bool, got None"),
        ({"sparse_reward": "both"}, "sparse_reward must be a bool, got 'both'"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        MountainCarWorld(**arguments)
