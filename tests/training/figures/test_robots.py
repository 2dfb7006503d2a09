"""The ways of robots from above: what is drawn is what they did in one episode."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.figure import Figure
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.training import make_configured_task, play_episodes
from torchrl_stein.training.figures.robots import draw_robot_traces


def play(task, max_steps):
    env = make_configured_task(task, 2, seed=0)
    try:
        return play_episodes(env, RandomPolicy(env.action_spec), max_steps)
    finally:
        env.close()


def test_a_way_is_that_of_one_episode(tmp_path, monkeypatch):
    drawn, subplots = [], Figure.subplots

    def keep(figure, *args, **kwargs):
        drawn.append(subplots(figure, *args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(Figure, "subplots", keep)
    task = {
        "name": "swimmer_finish_line",
        "options": {"max_episode_steps": 3, "finish_line": 2.5},
        "info": ["centre_of_mass"],
    }
    episodes = play(task, max_steps=5)  # rows go on after their episode of three steps
    path = draw_robot_traces(tmp_path / "traces.png", task, episodes)
    assert path.exists()
    lines = [np.column_stack(line.get_data()) for line in drawn[0].lines]
    for row in range(2):
        expected = episodes.data["next", "centre_of_mass"][row, :3].numpy()
        assert any(line.shape == (3, 2) and np.allclose(line, expected) for line in lines)
    # The options are those of the task: its line is not where it is by default.
    assert any(np.allclose(line[:, 0], 2.5) for line in lines)


def test_other_tasks_have_no_plan(tmp_path):
    episodes = play({"name": "swimmer_finish_line", "options": {}, "info": ["centre_of_mass"]}, 2)
    with pytest.raises(TypeError, match=r"env must be a task of torchrl_stein\.envs\.mujoco"):
        draw_robot_traces(tmp_path / "a.png", {"name": "Pendulum-v1", "options": {}}, episodes)
