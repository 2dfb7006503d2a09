"""Ground plans of the MuJoCo tasks: what the physics builds and what the pictures show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

from torchrl_stein._checks import check_number, check_type
from torchrl_stein.envs.world import as_row, keep_numbers

__all__ = ["CLEARANCE", "Arena", "Wall", "hallway", "two_passages", "u_maze"]

CLEARANCE = 1.0
"""Free ground in metres that layouts keep around the start: legs reach 0.9 m along each axis."""

Point = tuple[float, float]


class _Edges(NamedTuple):
    x_min: float
    x_max: float
    y_min: float
    y_max: float


class Wall(_Edges):
    """An upright box, seen from above.

    Args:
        x_min: left edge in metres.
        x_max: right edge.
        y_min: lower edge.
        y_max: upper edge.

    Raises:
        TypeError: if an edge is no number.
        ValueError: if one is not finite, or the edges have swapped places.

    Example:
        >>> Wall(3.0, 9.0, -2.0, 2.0).distance((0.0, 6.0))
        5.0
    """

    __slots__ = ()

    def __new__(cls, x_min: float, x_max: float, y_min: float, y_max: float) -> Self:
        """Made of edges in order; they may touch."""
        check_number("Wall", x_min=x_min, y_min=y_min)
        check_number("Wall", at_least=x_min, x_max=x_max)
        check_number("Wall", at_least=y_min, y_max=y_max)
        return super().__new__(cls, x_min, x_max, y_min, y_max)

    def distance(self, point: Point) -> float:
        """Metres from a point (x, y) to the box, 0 inside.

        Example:
            >>> Wall(3.0, 9.0, -2.0, 2.0).distance((4.0, 1.0))
            0.0
        """
        x, y = point
        return math.hypot(
            max(self.x_min - x, 0.0, x - self.x_max), max(self.y_min - y, 0.0, y - self.y_max)
        )


@dataclass(frozen=True)
class Arena:
    """Ground plan of a task, in metres. The robot starts at (0, 0).

    Args:
        walls: boxes that stand on the ground.
        wall_height: their height.
        target: where the reward peaks, (x, y); None where there is no target.
        threshold: smallest distance to the target that is possible without finding the way.
        finish_line: x of the line, beyond which a bonus is paid.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``wall_height`` is not above 0, ``threshold`` negative, or a number not
            finite.

    Example:
        >>> Arena(walls=(Wall(2.0, 3.0, -1.0, 1.0),)).wall_height
        2.0
    """

    walls: tuple[Wall, ...] = ()
    wall_height: float = 2.0
    target: Point | None = None
    threshold: float | None = None
    finish_line: float | None = None

    def __post_init__(self) -> None:
        check_type("Arena", "a sequence of Walls", Sequence, walls=self.walls)
        for wall in self.walls:
            check_type("Arena", "a sequence of Walls", Wall, walls=wall)
        keep_numbers(self, "wall_height", above=0)
        if self.target is not None:
            object.__setattr__(self, "target", as_row("Arena", 2, target=self.target))
        if self.threshold is not None:
            keep_numbers(self, "threshold", at_least=0)
        if self.finish_line is not None:
            keep_numbers(self, "finish_line")


def hallway(
    hallway_width: float, half_length: float, wall_thickness: float, wall_height: float
) -> Arena:
    """Two parallel walls along x, on both sides of the start. The ends are open.

    Args:
        hallway_width: free ground between the walls, at least 2.
        half_length: how far the walls reach from the start, to either side.
        wall_thickness: of each wall.
        wall_height: of each wall.

    Raises:
        TypeError: naming the argument, if it is no number.
        ValueError: if ``hallway_width`` is below 2 or another length not above 0.

    Example:
        >>> hallway(3.0, 40.0, 1.0, 2.0).walls[0]
        Wall(x_min=-40.0, x_max=40.0, y_min=1.5, y_max=2.5)
    """
    check_number("hallway", at_least=2 * CLEARANCE, hallway_width=hallway_width)
    check_number("hallway", above=0, half_length=half_length, wall_thickness=wall_thickness)
    inner, end = hallway_width / 2, half_length
    outer = inner + wall_thickness
    return Arena((Wall(-end, end, inner, outer), Wall(-end, end, -outer, -inner)), wall_height)


def two_passages(
    x_range: Point,
    block: Point,
    barrier: float,
    corridor_width: float,
    wall_thickness: float,
    wall_height: float,
    target: Point,
) -> Arena:
    """A room with a block in its middle; of the two passages around it, the upper one is barred.

    The block and both passages are ``corridor_width`` wide, so the room is three times as wide.

    Args:
        x_range: left and right end of the room.
        block: left and right end of the block.
        barrier: x of the middle of the barrier across the upper passage, which is
            ``wall_thickness`` thick.
        corridor_width: of each passage and of the block, at least 2.
        wall_thickness: of the walls around the room and of the barrier.
        wall_height: of all walls.
        target: (x, y) of the target.

    Returns:
        The plan. Its ``threshold`` is the distance from the target to the nearest point of the
        upper passage in front of the barrier.

    Raises:
        TypeError: naming the argument, if it is no number.
        ValueError: if a length is not positive, the parts are not in order along x, or the target
            does not stand on free ground of the room.

    Example:
        >>> arena = two_passages((-3.0, 15.0), (3.0, 9.0), 8.0, 4.0, 1.0, 2.0, (12.0, 0.0))
        >>> round(arena.threshold, 2)
        4.92
    """
    owner = "two_passages"
    left, right = as_row(owner, 2, x_range=x_range)
    block_left, block_right = as_row(owner, 2, block=block)
    check_number(owner, at_least=2 * CLEARANCE, corridor_width=corridor_width)
    check_number(owner, above=0, wall_thickness=wall_thickness)
    check_number(owner, barrier=barrier)
    half = corridor_width / 2
    front, back = barrier - wall_thickness / 2, barrier + wall_thickness / 2
    _check_order(
        owner,
        {
            "x_range[0]": left,
            "-1": -CLEARANCE,
            "1": CLEARANCE,
            "block[0]": block_left,
            "barrier - wall_thickness / 2": front,
            "barrier + wall_thickness / 2": back,
            "block[1]": block_right,
            "x_range[1]": right,
        },
    )
    room = Wall(left, right, -3 * half, 3 * half)
    inside = (
        Wall(block_left, block_right, -half, half),
        Wall(front, back, half, 3 * half),
    )
    target = _check_target(owner, target, room, inside)
    dead_end = Wall(block_left, front, half, 3 * half)
    return Arena(
        _around(room, wall_thickness) + inside,
        wall_height,
        target=target,
        threshold=dead_end.distance(target),
    )


def u_maze(
    corridor_width: float,
    arm_length: float,
    divider: float,
    wall_thickness: float,
    wall_height: float,
    target: Point,
) -> Arena:
    """A hallway along x that turns back on itself: two arms around a divider, joined at the right.

    Args:
        corridor_width: of both arms and of the bend, at least 2.
        arm_length: from the start, in the middle of the lower arm's closed end, to the middle of
            the bend.
        divider: thickness of the wall between the arms.
        wall_thickness: of the walls around the maze.
        wall_height: of all walls.
        target: (x, y) of the target.

    Raises:
        TypeError: naming the argument, if it is no number.
        ValueError: if a length is not positive, or the target does not stand on free ground of the
            maze.

    Example:
        >>> u_maze(4.0, 8.0, 4.0, 1.0, 2.0, (0.0, 8.0)).walls[-1]
        Wall(x_min=-2.0, x_max=6.0, y_min=2.0, y_max=6.0)
    """
    owner = "u_maze"
    check_number(owner, at_least=2 * CLEARANCE, corridor_width=corridor_width)
    check_number(owner, above=0, arm_length=arm_length, divider=divider)
    check_number(owner, above=0, wall_thickness=wall_thickness)
    half, upper = corridor_width / 2, corridor_width / 2 + divider
    room = Wall(-half, arm_length + half, -half, upper + corridor_width)
    inside = (Wall(-half, arm_length - half, half, upper),)
    target = _check_target(owner, target, room, inside)
    return Arena(_around(room, wall_thickness) + inside, wall_height, target=target)


def _around(room: Wall, thickness: float) -> tuple[Wall, ...]:
    """Four walls around a rectangle of free ground."""
    x_min, x_max, y_min, y_max = room
    left, right = x_min - thickness, x_max + thickness
    return (
        Wall(left, x_min, y_min, y_max),
        Wall(x_max, right, y_min, y_max),
        Wall(left, right, y_min - thickness, y_min),
        Wall(left, right, y_max, y_max + thickness),
    )


def _check_target(
    owner: str, target: Sequence[float], room: Wall, inside: tuple[Wall, ...]
) -> Point:
    x, y = as_row(owner, 2, target=target)
    if room.distance((x, y)) > 0 or any(wall.distance((x, y)) == 0 for wall in inside):
        raise ValueError(f"{owner}: target must be a point on free ground of {room}, got {(x, y)}")
    return x, y


def _check_order(owner: str, edges: Mapping[str, float]) -> None:
    """Edges may touch, but not swap places."""
    if any(first > second for first, second in pairwise(edges.values())):
        raise ValueError(f"{owner}: must have {' <= '.join(edges)}, got {list(edges.values())}")
