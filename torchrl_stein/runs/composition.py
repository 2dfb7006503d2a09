"""The multi-goal world whose reward is the sum of those of several others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from torchrl_stein.envs import MultiGoalWorld

__all__ = ["sum_of_worlds"]

_OF_THE_ENVIRONMENT = ("horizon", "init_sigma")
_SHARED = ("distance_cost", "goal_threshold", "position_limit")


def sum_of_worlds(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Options of that world, with the first part's horizon and the default start.

    It exists where each part's goals are lines of a coordinate of its own, x = 5 of one and y = 3
    of the other, and no part ends or pays a bonus: squared distances to lines add up to those to
    their crossings, and the costs of actions add up.

    Raises:
        ValueError: if there is no such world, naming the option.

    Example:
        >>> options = {"ends_at_goal": False, "goal_reward": 0.0, "action_cost": 15.0}
        >>> total = sum_of_worlds(
        ...     [{"goals": [[5, None]], **options}, {"goals": [[None, 3], [None, -3]], **options}]
        ... )
        >>> total["goals"], total["action_cost"]
        ([[5.0, 3.0], [5.0, -3.0]], 30.0)
    """
    worlds = [
        MultiGoalWorld(**{k: v for k, v in part.items() if k not in _OF_THE_ENVIRONMENT})
        for part in parts
    ]
    for world in worlds:
        if world.ends_at_goal or world.goal_reward != 0:
            raise ValueError(
                "composition: every part must have ends_at_goal false and goal_reward 0, got "
                f"{world.ends_at_goal} and {world.goal_reward}"
            )
    shared = {name: _the_same(name, worlds) for name in _SHARED}
    horizon = {"horizon": parts[0]["horizon"]} if "horizon" in parts[0] else {}
    return horizon | {
        "goals": [_crossing(lines) for lines in product(*(world.goals for world in worlds))],
        "goal_reward": 0.0,
        "action_cost": sum(world.action_cost for world in worlds),
        "ends_at_goal": False,
        **shared,
    }


def _the_same(name: str, worlds: Sequence[MultiGoalWorld]) -> float:
    values = {getattr(world, name) for world in worlds}
    if len(values) > 1:
        raise ValueError(f"composition: every part must have the same {name}, got {sorted(values)}")
    return values.pop()


def _crossing(lines: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The point that lines of different coordinates have in common."""
    point = []
    for axis in range(2):
        given = [line[axis] for line in lines if line[axis] is not None]
        if len(given) > 1:
            raise ValueError(
                "composition: goals of the parts must be lines of different coordinates, such as "
                f"(5, None) and (None, 3), got {[tuple(line) for line in lines]}"
            )
        point.append(given[0] if given else None)
    return point
