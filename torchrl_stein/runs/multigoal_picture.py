"""The picture of the multi-goal world: figure 1 of Haarnoja et al. 2017 (arXiv:1702.08165)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchrl_stein.envs import MultiGoalEnv

from .evaluation import Episodes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PROBE_STATES", "draw_multigoal"]

PROBE_STATES = ((-2.5, 0.0), (0.0, 0.0), (2.5, 2.5))
"""States at which the figure shows Q."""

_GOAL_COLOURS = ("#4269d0", "#d1603d", "#3a9d5d", "#a463f2")
_LOST_COLOUR = "#9aa0a6"


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
    """Draw figure 1 of Haarnoja et al. 2017 for a trained sampler.

    Left: trajectories, coloured by the goal they reach, over level curves of the distance to
    the nearest goal. Right: Q over actions at the three probe states, with sampled actions.

    Args:
        path: where the PNG goes.
        env: the world.
        episodes: one per row; the first ``num_trajectories`` are drawn.
        qvalue: ``qvalue(states [B, 2], actions [B, K, 2]) -> [B, K]``.
        sample: ``sample(states [B, 2], K) -> actions [B, K, 2]``.
        num_trajectories: how many to draw.
        num_actions: how many actions to sample per probe state.

    Returns:
        Path: the file.

    Example:
        >>> import tempfile
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.runs import play_episodes
        >>> env = MultiGoalEnv((10,), seed=0)
        >>> episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_multigoal(
        ...         Path(folder) / "goals.png", env, episodes,
        ...         qvalue=lambda states, actions: -actions.square().sum(-1),
        ...         sample=lambda states, k: torch.zeros(len(states), k, 2),
        ...     ).name
        'goals.png'
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
    start = episodes.data.get("observation")[:count, :1]
    after = episodes.data.get(("next", "observation"))[:count]
    track = torch.cat([start, after], 1).cpu()
    goals = env.goal_reached(episodes.last())[:count].tolist()
    for line, length, goal in zip(track, episodes.lengths[:count].tolist(), goals, strict=True):
        colour = _GOAL_COLOURS[goal % len(_GOAL_COLOURS)] if goal >= 0 else _LOST_COLOUR
        x, y = line[: length + 1].unbind(-1)
        ax.plot(x, y, color=colour, linewidth=0.9, alpha=0.6, solid_capstyle="round")
    for i, goal in enumerate(env.world.goals):
        _draw_goal(ax, goal, _GOAL_COLOURS[i % len(_GOAL_COLOURS)])
    ax.plot(0, 0, "o", markersize=4, color="black", zorder=3)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal", xlabel="$x$", ylabel="$y$")
    ax.set_title(f"{len(goals)} rollouts of one policy", fontsize=10)


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
    style: dict[str, Any] = {"s": 7, "color": "white", "edgecolors": "black", "linewidths": 0.3}
    ax.scatter(action[:, 0], action[:, 1], **style)
    ax.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xlabel="action $a_x$")
    ax.set_xticks([-1, 0, 1])
    ax.set_yticks([-1, 0, 1])
    ax.set_title(f"$Q(s, \\cdot)$ at $s$ = ({state[0]:g}, {state[1]:g})", fontsize=10)
