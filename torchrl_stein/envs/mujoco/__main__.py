"""Draw the top views of the tasks: ``python -m torchrl_stein.envs.mujoco docs/pictures``."""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium

from torchrl_stein.envs.tasks import MUJOCO_TASKS

from .top_view import draw_top_view


def draw_all(folder: str | Path) -> list[Path]:
    """Draw every task of ``MUJOCO_TASKS`` into a folder that exists, as top_view_NAME.png."""
    files = []
    for env_id in MUJOCO_TASKS:
        env = gymnasium.make(env_id)
        env.reset(seed=0)
        name = env_id.partition("/")[2].partition("-")[0]
        files.append(draw_top_view(env, Path(folder) / f"top_view_{name}.png"))
        env.close()
    return files


if __name__ == "__main__":
    draw_all(sys.argv[1])
