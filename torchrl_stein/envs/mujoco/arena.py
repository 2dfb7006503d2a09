"""Ground plans of the MuJoCo tasks: what the physics builds and what the pictures show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

from torchrl_stein._checks import check_number, check_type
from torchrl_stein.envs.world import as_row, keep_numbers

CLEARANCE = 1.0  # free ground around the start, in metres: legs reach 0.9 m along each axis

Point = tuple[float, float]


class _Edges(NamedTuple):
    x_min: float
    x_max: float
    y_min: float
    y_max: float


class Wall(_Edges):
    """An upright box, seen from above; edges in metres.

    Raises:
        TypeError, ValueError: naming the edge that is not a finite number, or in the wrong order.

    Example:
        >>> Wall(x_min=3.0, x_max=9.0, y_min=-2.0, y_max=2.0).distance((0.0, 6.0))
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
        """Metres from a point (x, y) to the box, 0 inside."""
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
        goals: squares of ground in which a goal is reached.
        obstacles: boxes that end an episode when touched; nothing bounces off them.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range.

    Example:
        >>> Arena(walls=(Wall(2.0, 3.0, -1.0, 1.0),)).wall_height
        2.0
    """

    walls: tuple[Wall, ...] = ()
    wall_height: float = 2.0
    target: Point | None = None
    threshold: float | None = None
    finish_line: float | None = None
    goals: tuple[Wall, ...] = ()
    obstacles: tuple[Wall, ...] = ()

    def __post_init__(self) -> None:
        for name in ("walls", "goals", "obstacles"):
            boxes = getattr(self, name)
            check_type("Arena", "a sequence of Walls", Sequence, **{name: boxes})
            for box in boxes:
                check_type("Arena", "a sequence of Walls", Wall, **{name: box})
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
    """Two parallel walls along x, on both sides of the start. The ends are open."""
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

    The ``threshold`` is the distance from the target to the nearest point of the upper passage in
    front of the barrier. The arguments are those of ``AntMazeEnv``.
    """
    owner = "two_passages"
    left, right = as_row(owner, 2, x_range=x_range)
    block_left, block_right = as_row(owner, 2, block=block)
    check_number(owner, at_least=2 * CLEARANCE, corridor_width=corridor_width)
    check_number(owner, above=0, wall_thickness=wall_thickness)
    check_number(owner, barrier=barrier)
    half = corridor_width / 2
    front, back = barrier - wall_thickness / 2, barrier + wall_thickness / 2
    edges = {
        "x_range[0]": left,
        "-1": -CLEARANCE,
        "1": CLEARANCE,
        "block[0]": block_left,
        "barrier - wall_thickness / 2": front,
        "barrier + wall_thickness / 2": back,
        "block[1]": block_right,
        "x_range[1]": right,
    }
    if any(first > second for first, second in pairwise(edges.values())):  # they may touch
        raise ValueError(f"{owner}: must have {' <= '.join(edges)}, got {list(edges.values())}")
    room = Wall(left, right, -3 * half, 3 * half)
    inside = Wall(block_left, block_right, -half, half), Wall(front, back, half, 3 * half)
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
    """A hallway that turns back on itself around a divider: the plan of ``AntUMazeEnv``."""
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
