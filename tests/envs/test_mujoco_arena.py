"""Ground plans of the MuJoCo tasks."""

import pytest

from torchrl_stein.envs.mujoco import Arena, Wall
from torchrl_stein.envs.mujoco.arena import CLEARANCE, hallway, two_passages, u_maze

HALLWAY = {"hallway_width": 3.0, "half_length": 40.0, "wall_thickness": 1.0, "wall_height": 2.0}
TWO_PASSAGES = {
    "x_range": (-3.0, 15.0),
    "block": (3.0, 9.0),
    "barrier": 8.0,
    "corridor_width": 4.0,
    "wall_thickness": 1.0,
    "wall_height": 2.0,
    "target": (12.0, 0.0),
}
U_MAZE = {
    "corridor_width": 4.0,
    "arm_length": 8.0,
    "divider": 4.0,
    "wall_thickness": 1.0,
    "wall_height": 2.0,
    "target": (0.0, 8.0),
}
LAYOUTS = [(hallway, HALLWAY), (two_passages, TWO_PASSAGES), (u_maze, U_MAZE)]


def is_free(arena, *points):
    return all(wall.distance(point) > 0 for wall in arena.walls for point in points)


@pytest.mark.parametrize(
    ("point", "distance"),
    [
        ((4.0, 1.0), 0.0),  # inside
        ((3.0, 2.0), 0.0),  # a corner
        ((0.0, 0.0), 3.0),  # left of it
        ((12.0, -1.0), 3.0),  # right of it
        ((5.0, 2.5), 0.5),  # above
        ((5.0, -4.0), 2.0),  # below
        ((12.0, 6.0), 5.0),  # 3 and 4 off a corner
    ],
)
def test_distance_to_a_wall(point, distance):
    assert Wall(3.0, 9.0, -2.0, 2.0).distance(point) == distance


@pytest.mark.parametrize(("layout", "arguments"), LAYOUTS)
def test_walls_have_an_inside_and_leave_the_start_free(layout, arguments):
    arena = layout(**arguments)
    for wall in arena.walls:
        assert wall.x_min < wall.x_max
        assert wall.y_min < wall.y_max
        assert wall.distance((0.0, 0.0)) >= CLEARANCE
    assert arena.wall_height == 2.0


def test_hallway_is_open_at_its_ends():
    arena = hallway(**HALLWAY)
    assert arena.walls == (Wall(-40.0, 40.0, 1.5, 2.5), Wall(-40.0, 40.0, -2.5, -1.5))
    assert is_free(arena, (-41.0, 0.0), (-39.0, 1.4), (39.0, -1.4), (41.0, 0.0))


def test_two_passages_one_is_barred():
    arena = two_passages(**TWO_PASSAGES)
    below = [(x / 4, -4.0) for x in range(48)]
    assert is_free(arena, *below, (12.0, -4.0), (12.0, 0.0))
    above = [(x / 4, 4.0) for x in range(48)]
    hit = [x for x, y in above if not is_free(arena, (x, y))]
    assert (min(hit), max(hit)) == (7.5, 8.5)  # the barrier and nothing else
    # the block touches the barrier: no gap to slip through
    assert not is_free(arena, (8.0, 2.0))
    assert not is_free(arena, (8.0, 6.0))


def test_threshold_by_hand():
    # the barred passage ends at (7.5, 2), 4.5 and 2 away from the target
    assert two_passages(**TWO_PASSAGES).threshold == (4.5**2 + 2**2) ** 0.5
    # a search over all that can be reached without passing the barrier agrees
    arena = two_passages(**TWO_PASSAGES)
    reachable = [
        (x / 10, y / 10)
        for x in range(-30, 75)
        for y in range(-60, 61)
        if (x < 30 or y > 20) and is_free(arena, (x / 10, y / 10))
    ]
    nearest = min(((x - 12) ** 2 + y**2) ** 0.5 for x, y in reachable)
    assert arena.threshold < nearest < arena.threshold + 0.2


def test_u_maze_is_that_of_rllab():
    # cells of 4 m, 1 is wall, start in row 1, target in row 3 of column 1; rows along y
    cells = ["11111", "1s001", "11101", "1t001", "11111"]
    arena = u_maze(**{**U_MAZE, "wall_thickness": 4.0})
    for row, line in enumerate(cells):
        for column, cell in enumerate(line):
            centre = (4.0 * (column - 1), 4.0 * (row - 1))
            assert is_free(arena, centre) == (cell != "1")
            if cell == "t":
                assert arena.target == centre


@pytest.mark.parametrize(
    ("layout", "arguments", "message"),
    [
        (hallway, {"hallway_width": 1.9}, r"hallway_width must be >= 2\.0, got 1\.9"),
        (hallway, {"half_length": 0.0}, r"half_length must be > 0, got 0\.0"),
        (hallway, {"wall_thickness": -1.0}, r"wall_thickness must be > 0, got -1\.0"),
        (hallway, {"wall_height": 0.0}, r"wall_height must be > 0, got 0\.0"),
        (two_passages, {"corridor_width": 1.0}, r"corridor_width must be >= 2\.0, got 1\.0"),
        (two_passages, {"wall_thickness": 0.0}, r"wall_thickness must be > 0, got 0\.0"),
        (two_passages, {"barrier": float("nan")}, r"barrier must be finite, got nan"),
        (two_passages, {"barrier": 3.2}, r"must have x_range\[0\] <= -1 .*, got \[-3\.0, .*\]"),
        (two_passages, {"barrier": 8.6}, r"barrier \+ wall_thickness / 2 <= block\[1\]"),
        (two_passages, {"block": (0.5, 9.0)}, r"1 <= block\[0\] <= "),
        (two_passages, {"block": (3.0, 16.0)}, r"block\[1\] <= x_range\[1\]"),
        (two_passages, {"x_range": (0.0, 15.0)}, r"x_range\[0\] <= -1"),
        (two_passages, {"x_range": (0.0, 1.0, 2.0)}, r"x_range must be 2 numbers, got \(0"),
        (
            two_passages,
            {"target": (5.0, 0.0)},
            r"target must .* free ground .*, got \(5\.0, 0\.0\)",
        ),
        (
            two_passages,
            {"target": (16.0, 0.0)},
            r"target must .* free ground .*, got \(16\.0, 0\.0\)",
        ),
        (
            two_passages,
            {"target": (8.0, 4.0)},
            r"target must .* free ground .*, got \(8\.0, 4\.0\)",
        ),
        (u_maze, {"corridor_width": 0.0}, r"corridor_width must be >= 2\.0, got 0\.0"),
        (u_maze, {"arm_length": -8.0}, r"arm_length must be > 0, got -8\.0"),
        (u_maze, {"divider": 0.0}, r"divider must be > 0, got 0\.0"),
        (u_maze, {"wall_thickness": 0.0}, r"wall_thickness must be > 0, got 0\.0"),
        (u_maze, {"divider": 8.0}, r"target must .* free ground .*, got \(0\.0, 8\.0\)"),
    ],
)
def test_bad_arguments_are_named(layout, arguments, message):
    defaults = dict(LAYOUTS)[layout]
    with pytest.raises(ValueError, match=message):
        layout(**{**defaults, **arguments})


def test_arena_refuses_flat_walls():
    with pytest.raises(ValueError, match=r"wall_height must be > 0, got -2\.0"):
        Arena(wall_height=-2.0)
