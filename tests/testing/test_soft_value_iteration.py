"""The exact soft-optimal reference of the multi-goal world."""

import math

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.envs import MultiGoalWorld
from torchrl_stein.testing.soft_value_iteration import MultiGoalStatistics, solve_multigoal

# A goal that no grid point or midpoint hits, so that nothing ends an episode.
ENDLESS = {"goals": [[0.1234, 0.4321]], "goal_threshold": 1e-9, "distance_cost": 0.0}


@pytest.fixture(scope="module")
def optimal():
    """The reference at the paper's temperature, of states on the full grid."""
    return solve_multigoal(10.0, action_cells=21)


@pytest.fixture(scope="module")
def coarse():
    return solve_multigoal(10.0, state_points=29, action_cells=9)


def loop_soft_value(solved, x, y):
    """One soft Bellman backup at (x, y), in plain Python, written from the definition."""
    grid, cells = solved.values.tolist(), solved.action_cells
    spacing = 14.0 / (len(grid) - 1)
    total = 0.0
    for i in range(cells):
        for j in range(cells):
            a, b = -1 + (2 * i + 1) / cells, -1 + (2 * j + 1) / cells
            u, v = max(-7.0, min(7.0, x + a)), max(-7.0, min(7.0, y + b))
            near = min(math.dist((u, v), goal) for goal in ((5, 0), (-5, 0), (0, 5), (0, -5)))
            q = -30 * (a * a + b * b) - near**2
            if near < 1:
                q += 10
            else:
                column, row = (u + 7) / spacing, (v + 7) / spacing
                k, m = min(int(column), len(grid) - 2), min(int(row), len(grid) - 2)
                f, g = column - k, row - m
                low = (1 - g) * grid[k][m] + g * grid[k][m + 1]
                high = (1 - g) * grid[k + 1][m] + g * grid[k + 1][m + 1]
                q += 0.99 * ((1 - f) * low + f * high)
            total += math.exp(q / 10.0) * (2 / cells) ** 2
    return 10.0 * math.log(total)


# by hand and against a slow loop


def test_q_values_by_hand(coarse):
    # From (4, 0) a step of (0.5, 0) ends at a goal: -30 * 0.25 - 0.25 + 10, nothing follows.
    assert coarse.q_values(torch.tensor([4.0, 0.0]), torch.tensor([0.5, 0.0])).item() == 2.25
    # Standing still at the origin: -25 and the value of the origin, a grid point.
    expected = -25.0 + 0.99 * coarse.values[14, 14]
    assert_close(coarse.q_values(torch.zeros(2), torch.zeros(2)), expected)


@pytest.mark.parametrize("i_j", [(14, 14), (3, 20), (23, 15), (0, 28), (24, 14)])
def test_values_satisfy_the_bellman_equation_of_a_loop(coarse, i_j):
    i, j = i_j
    expected = loop_soft_value(coarse, -7 + 0.5 * i, -7 + 0.5 * j)
    assert coarse.values[i, j].item() == pytest.approx(expected, abs=1e-3)


def test_first_coordinate_is_the_first_index():
    # With one goal on the x axis the world is not symmetric in x and y.
    world = MultiGoalWorld(goals=[[5.0, 0.0]])
    solved = solve_multigoal(2.0, world=world, state_points=15, action_cells=9)
    assert solved.soft_values(torch.tensor([3.0, 0.0])) == solved.values[10, 7]
    assert solved.values[10, 7] > solved.values[7, 10] + 20


# theory


def test_a_world_without_reward_gives_pure_entropy():
    # V = alpha log 4 + discount V on a square of area 4
    world = MultiGoalWorld(action_cost=0.0, goal_reward=0.0, **ENDLESS)
    solved = solve_multigoal(3.0, world=world, discount=0.9, state_points=5, action_cells=4)
    assert_close(
        solved.values, torch.full((5, 5), 3 * math.log(4) / 0.1).double(), rtol=1e-4, atol=0
    )
    assert_close(solved.cell_probabilities(torch.zeros(2)), torch.full((16,), 1 / 16).double())


def test_a_quadratic_reward_gives_the_gaussian_integral():
    # int exp(-a^2) da over [-1, 1] = sqrt(pi) erf(1), squared for two dimensions
    world = MultiGoalWorld(goal_reward=0.0, action_cost=10.0, **ENDLESS)
    solved = solve_multigoal(10.0, world=world, discount=0.5, state_points=5, action_cells=33)
    expected = 10 * 2 * math.log(math.sqrt(math.pi) * math.erf(1.0)) / 0.5
    assert_close(solved.values, torch.full((5, 5), expected).double(), rtol=1e-3, atol=0)


def test_scaling_reward_and_temperature_together_scales_the_values(coarse):
    world = MultiGoalWorld(goal_reward=1.0, action_cost=3.0, distance_cost=0.1)
    scaled = solve_multigoal(1.0, world=world, state_points=29, action_cells=9, tolerance=1e-5)
    assert_close(10.0 * scaled.values, coarse.values, rtol=0, atol=1e-3)


def test_low_temperature_approaches_the_best_return():
    # The best undiscounted return from the origin is -110.01. Interpolating a concave function and
    # rounding actions to midpoints both lose a little, so the grid stays just below it.
    solved = solve_multigoal(0.01, discount=1.0)
    assert -112.0 < solved.soft_values(torch.zeros(2)).item() < -110.0


def test_values_have_the_symmetry_of_the_square(coarse):
    assert_close(coarse.values, coarse.values.T)
    assert_close(coarse.values, coarse.values.flip(0))


def test_value_is_the_expected_soft_return(coarse):
    # V(s) = E sum_t discount^t (r_t - alpha log pi(a_t | s_t)) under the policy itself, where
    # midpoints are drawn so that the grid's own Bellman equation holds without error at t = 0.
    q = coarse.q_values(torch.zeros(1, 2), coarse.actions)
    probability = coarse.cell_probabilities(torch.zeros(2))
    density = probability / (2 / coarse.action_cells) ** 2
    soft_return = (probability * (q - 10.0 * density.log())).sum()
    assert_close(soft_return, coarse.soft_values(torch.zeros(2)), rtol=0, atol=1e-3)


def test_sampled_actions_follow_the_cell_probabilities(coarse):
    state = torch.tensor([2.5, 2.5])
    generator = torch.Generator().manual_seed(0)
    actions = coarse.sample_actions(state.expand(40_000, 2), generator)
    assert actions.abs().max() <= 1.0
    cell = ((actions + 1.0) / 2.0 * 9).floor().clamp(0, 8).long()
    counts = torch.bincount(cell[:, 0] * 9 + cell[:, 1], minlength=81) / 40_000
    # more than five standard errors of the most probable cell
    assert_close(counts.double(), coarse.cell_probabilities(state), rtol=0, atol=0.005)
    inside = (actions + 1.0) / 2.0 * 9 - cell
    assert_close(inside.var(0), torch.full((2,), 1 / 12).double(), rtol=0.02, atol=0)


def test_same_generator_same_rollout(coarse):
    first, again, other = (
        coarse.rollout(50, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_rollouts_start_where_the_world_does():
    world = MultiGoalWorld(init_sigma=100.0, ends_at_goal=False)
    solved = solve_multigoal(10.0, world=world, discount=0.5, state_points=15, action_cells=5)
    at_walls = solved.rollout(50, torch.Generator().manual_seed(0), horizon=1)
    assert at_walls.mean_return < -50.0  # no goal is near a corner, and nine in ten start in one


def test_rollout_counts_truncated_episodes_in_full(coarse):
    statistics = coarse.rollout(20, torch.Generator().manual_seed(0), horizon=2)
    assert statistics.mean_length == 2.0  # nobody walks five units in two steps
    assert statistics.success == 0.0
    assert statistics.goal_frequencies == (0.0, 0.0, 0.0, 0.0)


def test_rollout_stops_counting_where_an_episode_ends():
    # One goal so wide that the first step ends every episode, with 7 for it and no costs.
    world = MultiGoalWorld(
        goals=[[0.0, 0.0]], goal_threshold=2.0, goal_reward=7.0, action_cost=0.0, distance_cost=0.0
    )
    solved = solve_multigoal(1.0, world=world, discount=0.5, state_points=5, action_cells=2)
    statistics = solved.rollout(50, torch.Generator().manual_seed(0), horizon=20)
    assert statistics == MultiGoalStatistics(7.0, 1.0, 1.0, (1.0,))


# the published world


def test_the_reference_at_temperature_ten(optimal):
    # An independent implementation of the same recipe gave over 1000 rollouts: return -191,
    # success 0.998, length 9.9, a quarter at each goal. Bounds: four standard errors or so.
    statistics = optimal.rollout(1000, torch.Generator().manual_seed(0))
    assert statistics.mean_return == pytest.approx(-191.5, abs=4.0)
    assert statistics.success > 0.985
    assert statistics.mean_length == pytest.approx(9.9, abs=0.4)
    assert statistics.goal_frequencies == pytest.approx((0.25,) * 4, abs=0.055)


@pytest.mark.parametrize(("temperature", "mean_return"), [(2.0, -121.0), (5.0, -142.0)])
def test_cooler_policies_return_more(temperature, mean_return):
    solved = solve_multigoal(temperature, action_cells=21)
    statistics = solved.rollout(500, torch.Generator().manual_seed(0))
    assert statistics.mean_return == pytest.approx(mean_return, abs=3.0)
    assert statistics.success == 1.0


def test_a_hot_policy_almost_never_ends():
    # Above about 12 the entropy per step outweighs the end, whose value is 0.
    hot = solve_multigoal(20.0, state_points=29, action_cells=9, tolerance=0.1)
    statistics = hot.rollout(200, torch.Generator().manual_seed(0))
    assert statistics.success < 0.1
    assert statistics.mean_return < -400.0


# bad arguments


NUMBERS = {"temperature": 0.0, "tolerance": 0.0, "discount": 0.0}
COUNTS = {"state_points": 2, "action_cells": 1, "max_sweeps": 1}


@pytest.mark.parametrize("name", NUMBERS)
def test_bad_numbers(name):
    for value in (NUMBERS[name], -1, math.nan, math.inf, *([1.01] if name == "discount" else [])):
        with pytest.raises(
            ValueError, match=f"solve_multigoal: {name} must be .*> 0.*, got {value}"
        ):
            solve_multigoal(**{"temperature": 10.0, name: value})
    for value in ("1", None, True, [1.0]):
        with pytest.raises(TypeError, match=f"solve_multigoal: {name} must be a number > 0"):
            solve_multigoal(**{"temperature": 10.0, name: value})


@pytest.mark.parametrize("name", COUNTS)
def test_bad_counts(name):
    least = COUNTS[name]
    with pytest.raises(ValueError, match=f"{name} must be >= {least}, got {least - 1}"):
        solve_multigoal(10.0, **{name: least - 1})
    for value in (5.0, 5.5, "5", None, True):
        with pytest.raises(TypeError, match=f"{name} must be an integer >= {least}, got"):
            solve_multigoal(10.0, **{name: value})


def test_bad_rollouts(coarse):
    for name in ("episodes", "horizon"):
        with pytest.raises(ValueError, match=f"rollout: {name} must be >= 1, got 0"):
            coarse.rollout(**{name: 0})
        with pytest.raises(TypeError, match=rf"rollout: {name} must be an integer >= 1, got 2\.5"):
            coarse.rollout(**{name: 2.5})
    with pytest.raises(TypeError, match="world must be a MultiGoalWorld, got the class MultiGoalW"):
        solve_multigoal(10.0, world=MultiGoalWorld)


def test_too_few_sweeps_are_an_error():
    with pytest.raises(RuntimeError, match=r"still moved by .* after max_sweeps=2 sweeps"):
        solve_multigoal(10.0, state_points=15, action_cells=5, max_sweeps=2)
