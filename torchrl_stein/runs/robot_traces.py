"""The ways of a robot from above: figures 4 and 7 of Haarnoja et al. 2017 (arXiv:1702.08165)."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym

from .evaluation import Episodes
from .settings import Environment
from .tasks import ROBOTS

__all__ = ["draw_robot_traces"]


def draw_robot_traces(path: str | Path, task: Environment, episodes: Episodes) -> Path:
    """Draw where the centre of mass went in each episode, over the plan of the task.

    Args:
        path: where the PNG goes.
        task: of this package.
        episodes: one per row, with the entry "centre_of_mass".

    Returns:
        Path: the file.

    Raises:
        TypeError: if the task is no robot task of this package.
    """
    # Not at the top: brings MuJoCo's renderer, which other runs do not need.
    from torchrl_stein.envs.mujoco import draw_top_view

    name = task.name
    env = gym.make(ROBOTS.get(name, name), **task.options)
    env.reset(seed=0)  # the robot is drawn where it starts
    places = episodes.data.get(("next", "centre_of_mass")).cpu()
    lengths = episodes.lengths.tolist()
    ways = [places[row, :length].numpy() for row, length in enumerate(lengths)]
    try:
        return draw_top_view(env, path, ways)
    finally:
        env.close()
