"""Dynamics, reward and goals of the multi-goal world, as pure functions."""

import math

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.envs import MultiGoalEnv, MultiGoalWorld


def loop_step(state, action):
    """The world for one row, in plain Python floats, written from the definition."""
    action = [max(-1.0, min(1.0, a)) for a in action]
    state = [max(-7.0, min(7.0, s + a)) for s, a in zip(state, action, strict=True)]
    nearest = min(math.dist(state, goal) for goal in ((5, 0), (-5, 0), (0, 5), (0, -5)))
    reward = -30 * (action[0] ** 2 + action[1] ** 2) - nearest**2 + (10 if nearest < 1 else 0)
    return state, reward, nearest < 1


def undiscounted_return(distances):
    """Return of a straight walk towards the goal (5, 0) that visits the given distances to it."""
    world, state, total = MultiGoalWorld(), torch.zeros(2, dtype=torch.float64), 0.0
    for before, after in zip([5.0, *distances], distances, strict=False):
        state, reward, terminated = world.step(
            state, torch.tensor([before - after, 0.0], dtype=torch.float64)
        )
        total += reward.item()
    assert terminated.item()
    return total


# by hand


@pytest.mark.parametrize(
    ("state", "action", "position", "reward", "terminated"),
    [
        # -30 * 1 - (5 - 1)^2
        ((0.0, 0.0), (1.0, 0.0), (1.0, 0.0), -46.0, False),
        # standing still at the origin: -5^2
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), -25.0, False),
        # the action is clipped to (1, -1) before it costs: -60 - min(4^2 + 1, 1 + 4^2)
        ((0.0, 0.0), (3.0, -2.0), (1.0, -1.0), -77.0, False),
        # reached, at distance 0.5 after the step: -30 * 0.25 - 0.25 + 10
        ((-4.0, 0.0), (-0.5, 0.0), (-4.5, 0.0), 2.25, True),
        # distance exactly 1 is not within 1: -0 - 1
        ((0.0, 4.0), (0.0, 0.0), (0.0, 4.0), -1.0, False),
        # the wall holds the mass at 7, the action still costs: -30 - (2^2 + 7^2)
        ((7.0, 7.0), (1.0, 0.0), (7.0, 7.0), -83.0, False),
        # leaving a goal counts by where it ends: -30 - 1.5^2
        ((5.5, 0.0), (1.0, 0.0), (6.5, 0.0), -32.25, False),
    ],
)
def test_one_step_by_hand(state, action, position, reward, terminated):
    after, paid, ended = MultiGoalWorld().step(torch.tensor(state), torch.tensor(action))
    assert after.tolist() == list(position)
    assert paid.tolist() == [reward]
    assert ended.tolist() == [terminated]


def test_goal_reached_names_the_goal_and_minus_one_elsewhere():
    positions = torch.tensor(
        [[[5.9, 0.0], [-5.0, 0.9]], [[0.5, 4.5], [0.0, -4.1]], [[0.0, 0.0], [6.0, 0.0]]]
    )
    expected = [[0, 1], [2, 3], [-1, -1]]
    assert MultiGoalWorld().goal_reached(positions).tolist() == expected
    reached = MultiGoalEnv().goal_reached(positions)
    assert reached.tolist() == expected
    assert reached.dtype == torch.int64


# against a slow loop


@pytest.mark.parametrize("batch_size", [(), (64,), (16, 4)])
def test_step_equals_a_loop(batch_size):
    generator = torch.Generator().manual_seed(0)
    state = 14.0 * torch.rand((*batch_size, 2), generator=generator, dtype=torch.float64) - 7.0
    action = 2.0 * torch.randn((*batch_size, 2), generator=generator, dtype=torch.float64)
    after, reward, terminated = MultiGoalWorld().step(state, action)
    assert reward.shape == terminated.shape == (*batch_size, 1)
    rows = zip(state.reshape(-1, 2).tolist(), action.reshape(-1, 2).tolist(), strict=True)
    expected = [loop_step(*row) for row in rows]
    assert_close(after.reshape(-1, 2), torch.tensor([e[0] for e in expected]).double())
    assert_close(reward.flatten(), torch.tensor([e[1] for e in expected]).double())
    assert terminated.flatten().tolist() == [e[2] for e in expected]


@pytest.mark.parametrize("way", ["vmap", "compile"])
def test_step_is_the_same_under(way):
    step = MultiGoalWorld().step
    state = torch.linspace(-7.0, 7.0, 24).reshape(12, 2)
    action = torch.linspace(1.5, -1.5, 24).reshape(12, 2)
    # why backend "eager": the test is about graph breaks, not about the code generator
    other = {
        "vmap": torch.vmap(step),
        "compile": torch.compile(step, backend="eager", fullgraph=True),
    }[way]
    for computed, expected in zip(other(state, action), step(state, action), strict=True):
        assert_close(computed, expected)


def test_step_differentiates():
    action = torch.tensor([0.5, 0.0], requires_grad=True)
    MultiGoalWorld().step(torch.zeros(2), action)[1].sum().backward()
    assert action.grad.tolist() == [-21.0, 0.0]  # -60 a + 2 (5 - a) at a = 0.5


# theory


@pytest.mark.parametrize(("steps", "best"), [(8, -110.31), (9, -110.01), (10, -110.42)])
def test_best_walks_decelerate_and_nine_steps_are_best(steps, best):
    # Minimising 30 sum (d_{k-1} - d_k)^2 + sum d_k^2 with d_0 = 5 and d_n = 1 gives
    # d_{k+1} - (2 + 1/30) d_k + d_{k-1} = 0, so d_k = (5 sinh((n - k) w) + sinh(k w)) / sinh(n w)
    # with cosh w = 1 + 1/60. The end lies just inside the threshold.
    w, edge = math.acosh(1.0 + 1.0 / 60.0), 1.0 - 1e-9
    walk = [
        (5.0 * math.sinh((steps - k) * w) + edge * math.sinh(k * w)) / math.sinh(steps * w)
        for k in range(1, steps + 1)
    ]
    assert undiscounted_return(walk) == pytest.approx(best, abs=0.005)


def test_equal_steps_cost_more_than_decelerating_ones():
    # Eight steps of 0.5: -30 * 8 * 0.25 - (4.5^2 + 4^2 + ... + 1^2) + 10 = -60 - 71 + 10
    walk = [5.0 - 0.5 * k for k in range(1, 8)] + [1.0 - 1e-9]
    assert undiscounted_return(walk) == pytest.approx(-121.0, abs=1e-6)


def test_four_goals_are_equally_good():
    # A quarter turn permutes the goals, so it changes no reward and no termination.
    world, generator = MultiGoalWorld(), torch.Generator().manual_seed(0)
    state = 14.0 * torch.rand(100, 2, generator=generator) - 7.0
    action = torch.randn(100, 2, generator=generator)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    after, reward, terminated = world.step(state, action)
    turned = world.step(state @ turn, action.clamp(-1.0, 1.0) @ turn)
    assert_close(turned[0], after @ turn)
    assert_close(turned[1], reward)
    assert turned[2].equal(terminated)


# lines for goals, and episodes that go on


def test_a_goal_that_leaves_a_coordinate_open_is_a_line():
    world = MultiGoalWorld(goals=((3.0, None), (None, -4.0)), action_cost=1.0)
    state = torch.tensor([[0.0, 0.0], [2.5, 6.0], [-7.0, -3.5]])
    assert world.squared_distances(state).tolist() == [[9.0, 16.0], [0.25, 100.0], [100.0, 0.25]]
    assert world.goal_reached(state).tolist() == [-1, 0, 1]
    _, reward, terminated = world.step(state, torch.zeros(3, 2))
    assert reward.flatten().tolist() == [-9.0, 9.75, 9.75]
    assert terminated.flatten().tolist() == [False, True, True]


def test_an_episode_that_goes_on_at_its_goal():
    world = MultiGoalWorld(ends_at_goal=False)
    _, reward, terminated = world.step(torch.tensor([5.0, 0.0]), torch.zeros(2))
    assert (reward.item(), terminated.item(), terminated.dtype) == (10.0, False, torch.bool)
    env = MultiGoalEnv((3,), init_sigma=0.0, horizon=6, goals=((0.0, 0.0),), ends_at_goal=False)
    assert not env.rollout(5)["next", "terminated"].any()


def test_a_goal_must_be_somewhere():
    with pytest.raises(ValueError, match=r"at most one None each, got .*\(None, None\)"):
        MultiGoalWorld(goals=((1.0, 2.0), (None, None)))
    with pytest.raises(ValueError, match=r"goals must be >= -7\.0 and <= 7\.0, got 8\.0"):
        MultiGoalWorld(goals=((8.0, None),))


# the picture: 14.7 units of length on 160 pixels, y upwards


def colour_at(image, x, y):
    column, row = round(79.5 + x * 160 / 14.7), round(79.5 - y * 160 / 14.7)
    return image[row, column].tolist()


GREEN, ORANGE, WHITE = [0, 158, 115], [213, 94, 0], [255, 255, 255]


def test_render_draws_the_goals_up_to_their_threshold_and_the_point():
    image = MultiGoalWorld(goals=[(5.0, 0.0), (0.0, -4.0)]).render(torch.tensor([-3.0, 2.0]))
    assert image.shape == (160, 160, 3)
    for x, y, colour in (
        (5.0, 0.0, GREEN),
        (5.0, 0.9, GREEN),
        (5.0, 1.2, WHITE),
        (0.0, -4.0, GREEN),
        (0.0, 4.0, WHITE),
        (-3.0, 2.0, ORANGE),
        (-3.0, -2.0, WHITE),
    ):
        assert colour_at(image, x, y) == colour, (x, y)


def test_render_draws_goals_that_are_lines():
    image = MultiGoalWorld(goals=[(5.0, None), (None, -3.0)]).render(torch.zeros(2))
    for x, y in ((5.0, 6.0), (5.0, -6.0), (6.0, -3.0), (-6.0, -3.0)):
        assert colour_at(image, x, y) == GREEN
    assert colour_at(image, -6.0, 6.0) == WHITE
