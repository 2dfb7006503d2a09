"""Top views of the MuJoCo tasks: walls, goals, finish line, robot and the ways it took."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import gymnasium
import numpy as np
import numpy.typing as npt

from .arena import Arena
from .arena_env import ArenaEnv

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WALL, _ROBOT, _TARGET, _LINE, _WAY = "#8a8d94", "#3b3b3b", "#d1603d", "#3a9d5d", "#4269d0"
_OBSTACLE = "#5a4632"
_MARGIN = 1.0  # metres around everything that is drawn
_MIN_HALF_VIEW = 4.0  # metres seen around the start where there is nothing to see
_LONG_SIDE = 7.0  # inches
_SHORT_SIDE = 1.6  # inches, enough for the labels of the y axis


def draw_top_view(
    env: gymnasium.Env,
    path: str | Path,
    trajectories: Iterable[npt.ArrayLike] | None = None,
) -> Path:
    """Draw a MuJoCo task from above, with the robot as it stands now.

    Walls are grey, goals green and obstacles brown; the target is a cross, with a dotted circle at
    the threshold's distance where there is one; the finish line is dashed; a ring marks the start,
    the origin. Lengths are in metres. Needs matplotlib, which the extra ``recipes`` brings.

    Args:
        env: one of the tasks, wrapped or not.
        path: where the PNG goes.
        trajectories: ways to draw, each [T, 2] with x and y in metres, such as
            ``info["centre_of_mass"]`` of successive steps.

    Returns:
        The file.

    Raises:
        TypeError, ValueError: naming ``env`` that is not a MuJoCo task, or a trajectory that is not
            of shape [T, 2] or not finite.

    Example:
        >>> import tempfile
        >>> from torchrl_stein.envs.mujoco import AntMazeEnv
        >>> way = [[0.0, 0.0], [2.0, -4.0], [11.0, -4.0], [12.0, 0.0]]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_top_view(AntMazeEnv(), Path(folder) / "maze.png", [way]).name
        'maze.png'
    """
    from matplotlib.figure import Figure  # an extra; Figure needs no display

    task = getattr(env, "unwrapped", env)
    if not isinstance(task, ArenaEnv):
        raise TypeError(
            f"draw_top_view: env must be a task of torchrl_stein.envs.mujoco, got {task!r}"
        )
    ways = [np.asarray(way, dtype=float) for way in trajectories or ()]
    for way in ways:
        if way.ndim != 2 or way.shape[1] != 2:
            raise ValueError(
                f"draw_top_view: trajectories must be arrays [T, 2], got {list(way.shape)}"
            )
        if not np.isfinite(way).all():
            raise ValueError("draw_top_view: trajectories must be finite")
    x_min, x_max, y_min, y_max = _view(task.arena, ways)
    width, height = x_max - x_min, y_max - y_min
    inches = _LONG_SIDE / max(width, height)
    size = (max(width * inches, _SHORT_SIDE), max(height * inches, _SHORT_SIDE))
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots()
    axes.set(
        xlim=(x_min, x_max), ylim=(y_min, y_max), aspect="equal", xlabel="x [m]", ylabel="y [m]"
    )
    _draw_arena(axes, task.arena)
    _draw_robot(axes, task)
    for way in ways:
        axes.plot(way[:, 0], way[:, 1], color=_WAY, linewidth=1.0, alpha=0.7)
    figure.savefig(path)
    return Path(path)


def _view(arena: Arena, ways: Sequence[np.ndarray]) -> tuple[float, float, float, float]:
    """The edges of the picture: x_min, x_max, y_min, y_max."""
    xs, ys = [-_MIN_HALF_VIEW, _MIN_HALF_VIEW], [-_MIN_HALF_VIEW, _MIN_HALF_VIEW]
    for wall in arena.walls:
        xs += [wall.x_min, wall.x_max]
        ys += [wall.y_min, wall.y_max]
    for way in ways:
        xs += way[:, 0].tolist()
        ys += way[:, 1].tolist()
    if arena.target is not None:
        xs.append(arena.target[0])
        ys.append(arena.target[1])
    if arena.finish_line is not None:
        xs.append(arena.finish_line)
    return min(xs) - _MARGIN, max(xs) + _MARGIN, min(ys) - _MARGIN, max(ys) + _MARGIN


def _draw_arena(axes: Axes, arena: Arena) -> None:
    from matplotlib.patches import Circle, Rectangle

    for boxes, colour in (
        (arena.walls, _WALL), (arena.goals, _LINE), (arena.obstacles, _OBSTACLE)
    ):  # fmt: skip
        for box in boxes:
            size = box.x_max - box.x_min, box.y_max - box.y_min
            axes.add_patch(Rectangle((box.x_min, box.y_min), *size, color=colour, linewidth=0))
    if arena.target is not None:
        axes.plot(*arena.target, marker="x", markersize=10, markeredgewidth=2.5, color=_TARGET)
        if arena.threshold is not None:
            circle = Circle(
                arena.target, arena.threshold, fill=False, linestyle=":", edgecolor=_TARGET
            )
            axes.add_patch(circle)
    if arena.finish_line is not None:
        axes.axvline(arena.finish_line, color=_LINE, linestyle="--")
    axes.plot(0.0, 0.0, marker="o", markersize=12, markerfacecolor="none", color=_TARGET)


def _draw_robot(axes: Axes, task: ArenaEnv) -> None:
    from matplotlib.patches import Circle, Polygon

    for start, end, radius in task.robot_outline():
        dx, dy = end - start
        length = math.hypot(dx, dy)
        if length > 0:
            side = radius * np.array([-dy, dx]) / length
            corners = [start + side, end + side, end - side, start - side]
            axes.add_patch(Polygon(corners, color=_ROBOT, linewidth=0))
        for x, y in (start, end):
            axes.add_patch(Circle((x, y), radius, color=_ROBOT, linewidth=0))
