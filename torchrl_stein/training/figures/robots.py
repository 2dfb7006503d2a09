"""The ways of a robot from above: figures 4 and 7 of Haarnoja et al. 2017 (arXiv:1702.08165)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym

from ..evaluation import Episodes
from ..tasks import ROBOTS

__all__ = ["draw_robot_traces"]


def draw_robot_traces(path: str | Path, task: Mapping[str, Any], episodes: Episodes) -> Path:
    """Draw where the centre of mass went in each episode, over the plan of the task.

    Args:
        path: where the PNG goes.
        task: "name", one of :data:`ROBOTS` or an id, and "options".
        episodes: one per row, with the entry "centre_of_mass".

    Returns:
        Path: the file.

    Raises:
        TypeError: if the task is no robot task of this package.

    Example:
        >>> import tempfile
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.training import make_configured_task, play_episodes
        >>> task = {"name": "swimmer_finish_line", "options": {}, "info": ["centre_of_mass"]}
        >>> env = make_configured_task(task, 2, seed=0)
        >>> episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_robot_traces(Path(folder) / "traces.png", task, episodes).name
        'traces.png'
    """
    # Not at the top: brings MuJoCo's renderer, which other runs do not need.
    from torchrl_stein.envs.mujoco import draw_top_view

    name = task["name"]
    env = gym.make(ROBOTS.get(name, name), **task["options"])
    env.reset(seed=0)  # the robot is drawn where it starts
    places = episodes.data.get(("next", "centre_of_mass")).cpu()
    lengths = episodes.lengths.tolist()
    ways = [places[row, :length].numpy() for row, length in enumerate(lengths)]
    try:
        return draw_top_view(env, path, ways)
    finally:
        env.close()
