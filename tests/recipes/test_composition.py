"""The world whose reward is the sum of those of several others."""

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("hydra")
pytest.importorskip("tqdm")

from tests.recipes.loops import load, values_of
from torchrl_stein.envs import MultiGoalWorld

sum_of_worlds = load("compose").sum_of_worlds

LINES = {"ends_at_goal": False, "goal_reward": 0.0, "action_cost": 15.0}
X = {"goals": [[5.0, None], [-4.0, None]], "horizon": 9, "init_sigma": 3.0, **LINES}
Y = {"goals": [[None, 3.0], [None, -2.0], [None, 0.5]], **LINES, "action_cost": 7.0}


def world_of(options):
    return MultiGoalWorld(
        **{k: v for k, v in options.items() if k not in ("horizon", "init_sigma")}
    )


def test_rewards_add_up():
    total = sum_of_worlds([X, Y])
    assert total["horizon"] == 9
    assert "init_sigma" not in total
    state = 14 * torch.rand(500, 2, dtype=torch.float64) - 7
    action = 3 * torch.rand(500, 2, dtype=torch.float64) - 1.5
    results = [world_of(options).step(state, action) for options in (X, Y, total)]
    assert_close(results[0][1] + results[1][1], results[2][1])
    assert not any(terminated.any() for *_, terminated in results)
    both = (world_of(X).goal_reached(state) >= 0) & (world_of(Y).goal_reached(state) >= 0)
    # Near both lines is a square around a corner, within a distance a disc.
    corner = world_of(total).goal_reached(state) >= 0
    assert corner.any()
    assert both[corner].all()
    assert len(total["goals"]) == 6


def test_one_part_alone_is_what_it_is():
    alone = sum_of_worlds([X])
    assert world_of(alone) == world_of(X)
    assert alone["horizon"] == 9


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            [X, X],
            r"must be lines of different coordinates, .* got \[\(5.0, None\), \(5.0, None\)\]",
        ),
        ([X, {**LINES, "goals": [[1.0, 1.0]]}], r"got \[\(5.0, None\), \(1.0, 1.0\)\]"),
        (
            [X, {**Y, "ends_at_goal": True}],
            "ends_at_goal false and goal_reward 0, got True and 0.0",
        ),
        ([X, {**Y, "goal_reward": 5.0}], "ends_at_goal false and goal_reward 0, got False and 5.0"),
        ([X, {**Y, "distance_cost": 2.0}], r"the same distance_cost, got \[1.0, 2.0\]"),
    ],
)
def test_worlds_without_a_sum(parts, message):
    with pytest.raises(ValueError, match=f"composition: .*{message}"):
        sum_of_worlds(parts)


def test_the_parts_of_the_tasks_add_up():
    x, y, xy = (
        values_of("soft_q", f"task=multigoal_{part}")["env"]["options"] for part in ("x", "y", "xy")
    )
    total = sum_of_worlds([x, y])
    assert {name: total[name] for name in xy if name in total} == {
        name: value for name, value in xy.items() if name != "init_sigma"
    }
