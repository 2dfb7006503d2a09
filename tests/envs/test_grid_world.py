"""Cells, walls and goals."""

import pytest
import torch
from torchrl.envs.utils import check_env_specs

from torchrl_stein.envs import GridWorld, GridWorldEnv
from torchrl_stein.envs.grid_world import FOUR_ROOMS

ROOM = ("..#", ".G.")
UP, DOWN, LEFT, RIGHT = torch.eye(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("cell", "action", "after", "reward", "ends"),
    [
        ((0, 0), RIGHT, (0, 1), -1.0, False),
        ((0, 0), DOWN, (1, 0), -1.0, False),
        ((0, 0), UP, (0, 0), -1.0, False),  # the edge
        ((0, 0), LEFT, (0, 0), -1.0, False),
        ((0, 1), RIGHT, (0, 1), -1.0, False),  # a wall
        ((1, 2), UP, (1, 2), -1.0, False),
        ((0, 1), DOWN, (1, 1), 4.0, True),  # the goal
        ((1, 2), LEFT, (1, 1), 4.0, True),
    ],
)
def test_steps(cell, action, after, reward, ends):
    world = GridWorld(ROOM, goal_reward=5.0)
    state, paid, terminated = world.step(torch.tensor(cell, dtype=torch.float32), action)
    assert state.tolist() == list(after)
    assert (paid.tolist(), terminated.tolist()) == ([reward], [ends])
    assert world.observe(state).nonzero().tolist() == [[3 * after[0] + after[1]]]


def test_tables_are_its_steps():
    found = GridWorld(ROOM).transitions()
    assert found.states.tolist() == [[0, 0], [0, 1], [1, 0], [1, 2]]
    # up, down, left, right; where it ends the index is 0
    assert found.following.tolist() == [[0, 2, 0, 1], [1, 0, 0, 1], [0, 2, 2, 0], [3, 3, 0, 3]]
    ends = [[False] * 4, [False, True, False, False], [False] * 3 + [True], [False] * 4]
    ends[3][2] = True
    assert found.terminated.tolist() == ends
    assert (found.rewards == -1.0).all()


def test_it_starts_at_free_cells_alike():
    world, generator = GridWorld(ROOM), torch.Generator().manual_seed(0)
    starts = world.sample_state((4000,), generator=generator)
    cells, counts = starts.unique(dim=0, return_counts=True)
    assert cells.tolist() == [[0, 0], [0, 1], [1, 0], [1, 2]]
    assert (counts - 1000).abs().max() < 120  # four standard deviations


def test_the_environment():
    env = GridWorldEnv((3, 2), seed=0, horizon=5)
    check_env_specs(env)
    data = env.rollout(5, break_when_any_done=False)
    assert data["observation"].shape == (3, 2, 5, 49)
    assert data["action"].shape == (3, 2, 5, 4)
    assert data["next", "truncated"].equal(data["next", "elapsed_steps"] == 5)
    assert data["next", "truncated"].any()
    picture = env.render(data[0, 0])
    assert picture.shape == (5, 140, 140, 3)
    assert [row.count("G") for row in FOUR_ROOMS if "G" in row] == [1, 1]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ("..G", TypeError, "rows must be a list of strings, got '..G'"),
        ([1, 2], TypeError, "rows must be a list of strings, got 1"),
        ([], ValueError, r"rows must be of one length and of '\.', '#' and 'G', got \(\)"),
        (["..", "."], ValueError, "rows must be of one length"),
        (["..x"], ValueError, "rows must be of one length and of"),
        (["#G"], ValueError, "rows must have a free cell"),
    ],
)
def test_maps_that_are_none(rows, error, message):
    with pytest.raises(error, match=f"GridWorld: {message}"):
        GridWorld(rows)
