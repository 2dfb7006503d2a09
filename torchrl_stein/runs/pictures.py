"""Pictures of a run: kernels, goals and Q-functions, the ways of robots and through mazes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl_stein.envs import GoalMaze, GoalMazeWorld, MultiGoalEnv
from torchrl_stein.objectives import SteinPolicyLoss

from .evaluation import Episodes
from .settings import Environment, OffPolicySettings
from .tasks import ROBOTS, goal_maze_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .loggers import Recorder

__all__ = ["draw_goal_maze", "draw_multigoal", "draw_robot_traces", "draw_run", "kernel_image"]
__all__ += ["kernel_matrix"]

PROBE_STATES = ((-2.5, 0.0), (0.0, 0.0), (2.5, 2.5))
"""States at which the picture of the multi-goal world shows Q."""

_GOAL_COLOURS = (
    *("#4269d0", "#d1603d", "#3a9d5d", "#a463f2"),
    *("#c99a1b", "#2aa7b8", "#d65c9f", "#7a5c3e"),
)
_WALL_COLOUR = "#8a8d94"
_LOST_COLOUR = "#9aa0a6"


@torch.no_grad()
def kernel_matrix(loss: SteinPolicyLoss) -> Tensor:
    """The Gram matrix of the particles as they are now: k of Liu et al. 2017, eq. (9).

    ``[n, n]``, of several seeds ``[S, n, n]``.

    Near the identity, particles do not interact; with all entries alike they interact whatever
    they do.
    """
    if not isinstance(loss, SteinPolicyLoss):
        raise TypeError(f"kernel_matrix: loss must be a SteinPolicyLoss, got {type(loss).__name__}")
    return loss.kernel(loss.particles.detach()[..., : loss.population.kernel_dim])


def kernel_image(matrix: Tensor, size: int = 480) -> Tensor:
    """A finite matrix ``[n, m]`` as squares of colour: dark for its lowest entry or 0, else bright.

    Row j is the j-th row of squares from the top, ``size`` is what the longer side has at most, if
    every entry has one pixel.

    Returns:
        Tensor: uint8 ``[n * c, m * c, 3]``, with c pixels for each entry.
    """
    if matrix.ndim != 2 or not matrix.numel() or not matrix.isfinite().all():
        raise ValueError(
            f"kernel_image: matrix must be [n, m] and finite, got shape {list(matrix.shape)} with "
            f"{int((~matrix.isfinite()).sum())} values that are not"
        )
    if size < 1:
        raise ValueError(f"kernel_image: size must be >= 1, got {size}")
    from matplotlib import colormaps  # an extra: only recipes need it

    values = matrix.detach().double().cpu()
    low, high = values.min().clamp(max=0.0), values.max()
    shade = (values - low) / (high - low) if high > low else torch.zeros_like(values)
    colours = torch.from_numpy(np.asarray(colormaps["viridis"](shade.numpy(), bytes=True)))[..., :3]
    pixels = max(1, size // max(matrix.shape))
    return colours.repeat_interleave(pixels, 0).repeat_interleave(pixels, 1)


def draw_run(
    recorder: Recorder, settings: OffPolicySettings, episodes: Episodes, loss: Any
) -> None:
    """Goals and Q of the multi-goal world, or ways through a maze or of a robot; else nothing.

    Of ``loss`` the policy, ``actor_network``, and ``qvalue`` are drawn, if they are those of soft
    Q-learning. The picture lies in the run's directory, and loggers show it as ``test/NAME``.
    """
    assert recorder.directory is not None, "track() comes first"
    if settings.env.name == "multigoal" and hasattr(loss, "qvalue"):

        def states(s: Tensor) -> TensorDict:
            return TensorDict({"observation": s}, s.shape[:1])

        path = draw_multigoal(
            recorder.directory / "multigoal.png",
            MultiGoalEnv((1,), settings.device, **settings.env.options),
            episodes,
            qvalue=lambda s, a: loss.qvalue(states(s), a),
            sample=lambda s, k: loss.actor_network.sample(states(s), k).detach(),
        )
    elif (maze := goal_maze_of(settings.env)) is not None:
        path = draw_goal_maze(recorder.directory / "goal_maze.png", maze, episodes)
    elif "centre_of_mass" in settings.env.info and settings.env.target is None:
        path = draw_robot_traces(recorder.directory / "traces.png", settings.env, episodes)
    else:
        return
    recorder.show_picture(f"test/{path.stem}", path)
    recorder.print(f"Picture: {path}")


def draw_robot_traces(path: str | Path, task: Environment, episodes: Episodes) -> Path:
    """The centre of mass in each episode, over the plan of a robot task of this package.

    Source: figures 4 and 7 of Haarnoja et al. 2017 (arXiv:1702.08165).
    """
    # Not at the top: brings MuJoCo's renderer, which other runs do not need.
    from torchrl_stein.envs.mujoco import draw_top_view

    env = gym.make(ROBOTS.get(task.name, task.name), **task.options)
    env.reset(seed=0)  # the robot is drawn where it starts
    places = episodes.data.get(("next", "centre_of_mass")).cpu()
    lengths = episodes.lengths.tolist()
    ways = [places[row, :length].numpy() for row, length in enumerate(lengths)]
    try:
        return draw_top_view(env, path, ways)
    finally:
        env.close()


def draw_goal_maze(
    path: str | Path, maze: GoalMaze, episodes: Episodes, *, num_trajectories: int = 80
) -> Path:
    """Draw trajectories through a maze from above, coloured by the goal they reach, as PNG.

    Cells that may be obstacles are hatched. The mazes are those of Wang et al. 2025
    (arXiv:2511.01374).

    Args:
        path: where it goes.
        maze: the map.
        episodes: of which the first are drawn.
        num_trajectories: drawn at most.
    """
    from matplotlib.figure import Figure  # an extra; Figure needs no display
    from matplotlib.patches import Rectangle

    x_min, x_max, y_min, y_max = maze.extent
    height = 5.0 * (y_max - y_min) / (x_max - x_min)
    figure = Figure(figsize=(5.0, height), layout="constrained", dpi=160)
    ax = figure.subplots()
    for left, right, bottom, top in maze.walls:
        size = right - left, top - bottom
        ax.add_patch(Rectangle((left, bottom), *size, color=_WALL_COLOUR, linewidth=0))
    for x, y in maze.obstacles:
        box = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="///", color=_LOST_COLOUR)
        ax.add_patch(box)
    for (x, y), colour in zip(maze.goals, cycle(_GOAL_COLOURS)):
        ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=colour, alpha=0.35, linewidth=0))
    goals = GoalMazeWorld(maze).goal_reached(episodes.last())[:num_trajectories].tolist()
    _draw_tracks(ax, episodes, goals)
    ax.set(xlim=(x_min, x_max), ylim=(y_min, y_max), aspect="equal", xticks=[], yticks=[])
    figure.savefig(path, bbox_inches="tight", pad_inches=0.06)
    return Path(path)


def draw_multigoal(
    path: str | Path,
    env: MultiGoalEnv,
    episodes: Episodes,
    qvalue: Callable[[Tensor, Tensor], Tensor],
    sample: Callable[[Tensor, int], Tensor],
    *,
    num_trajectories: int = 80,
    num_actions: int = 200,
) -> Path:
    """Draw figure 1 of Haarnoja et al. 2017 (arXiv:1702.08165) for a trained sampler, as PNG.

    Left: trajectories, coloured by the goal they reach, over level curves of the distance to
    the nearest goal. Right: Q over actions at the three probe states, with sampled actions.

    Args:
        path: where it goes.
        env: the world.
        episodes: of which the first are drawn.
        qvalue: ``qvalue(states [B, 2], actions [B, K, 2]) -> [B, K]``.
        sample: ``sample(states [B, 2], K) -> actions [B, K, 2]``.
        num_trajectories: drawn at most.
        num_actions: sampled in each state.
    """
    from matplotlib.figure import Figure  # an extra; Figure needs no display

    figure = Figure(figsize=(11.0, 3.7), layout="constrained", dpi=160)
    panels = figure.subplots(1, 4, width_ratios=[1.35, 1, 1, 1])
    _draw_trajectories(panels[0], env, episodes, num_trajectories)
    states = torch.tensor(PROBE_STATES, device=env.device)
    grid = torch.linspace(-1.0, 1.0, 81, device=env.device)
    mesh = torch.cartesian_prod(grid, grid).expand(len(PROBE_STATES), -1, -1)
    values = qvalue(states, mesh).reshape(-1, 81, 81).mT.cpu()
    actions = sample(states, num_actions).cpu()
    for panel, state, value, action in zip(panels[1:], PROBE_STATES, values, actions, strict=True):
        _draw_qvalue(panel, state, grid.cpu(), value, action)
    panels[1].set_ylabel("action $a_y$", labelpad=-4)
    for panel in panels[2:]:
        panel.set_yticklabels([])
    path = Path(path)
    figure.savefig(path, bbox_inches="tight", pad_inches=0.06)
    return path


def _draw_trajectories(ax: Axes, env: MultiGoalEnv, episodes: Episodes, count: int) -> None:
    limit = env.world.position_limit
    axis = torch.linspace(-limit, limit, 201, device=env.device)
    mesh = torch.cartesian_prod(axis, axis)
    height = env.world.squared_distances(mesh).amin(-1).reshape(201, 201).mT.cpu()
    axis = axis.cpu()
    levels = [(0.5 * i) ** 2 for i in range(15)]  # evenly spaced circles around the goals
    ax.contourf(axis, axis, height, levels=levels, cmap="Blues_r", vmin=-60, vmax=45, alpha=0.5)
    ax.contour(axis, axis, height, levels=levels, colors="white", linewidths=0.6)
    goals = env.goal_reached(episodes.last())[:count].tolist()
    _draw_tracks(ax, episodes, goals)
    for i, goal in enumerate(env.world.goals):
        _draw_goal(ax, goal, _GOAL_COLOURS[i % len(_GOAL_COLOURS)])
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$x$", ylabel="$y$")
    ax.set_title(f"{len(goals)} rollouts of one policy", fontsize=10)


def _draw_tracks(ax: Axes, episodes: Episodes, goals: Sequence[int]) -> None:
    """The first episodes, as many as there are goals that they reached or -1."""
    count = len(goals)
    start = episodes.data.get("observation")[:count, :1, :2]
    after = episodes.data.get(("next", "observation"))[:count, :, :2]
    track = torch.cat([start, after], 1).cpu()
    for line, length, goal in zip(track, episodes.lengths[:count].tolist(), goals, strict=True):
        colour = _GOAL_COLOURS[goal % len(_GOAL_COLOURS)] if goal >= 0 else _LOST_COLOUR
        x, y = line[: length + 1].unbind(-1)
        ax.plot(x, y, color=colour, linewidth=0.9, alpha=0.6, solid_capstyle="round")
    ax.plot(0, 0, "o", markersize=4, color="black", zorder=3)


def _draw_goal(ax: Axes, goal: Sequence[float | None], colour: str) -> None:
    x, y = goal
    if x is not None and y is not None:
        ax.plot(x, y, "o", markersize=10, color=colour, markeredgecolor="white", zorder=3)
    elif x is not None:
        ax.axvline(x, color=colour, linewidth=2.5, zorder=3)
    elif y is not None:
        ax.axhline(y, color=colour, linewidth=2.5, zorder=3)


def _draw_qvalue(
    ax: Axes, state: Sequence[float], grid: Tensor, value: Tensor, action: Tensor
) -> None:
    ax.contourf(grid, grid, value, levels=24, cmap="viridis")
    x, y = action.unbind(-1)
    ax.scatter(x, y, s=7, color="white", edgecolors="black", linewidths=0.3)
    ticks = [-1, 0, 1]
    ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=ticks, yticks=ticks)
    ax.set_xlabel("action $a_x$")
    ax.set_title(f"$Q(s, \\cdot)$ at $s$ = ({state[0]:g}, {state[1]:g})", fontsize=10)
