"""Pictures of the MuJoCo tasks from above."""

import gymnasium
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from torchrl_stein.envs.mujoco import (
    AntMazeEnv,
    AntPretrainEnv,
    SwimmerFinishLineEnv,
    Wall,
    draw_top_view,
)
from torchrl_stein.envs.mujoco.__main__ import draw_all
from torchrl_stein.envs.tasks import MUJOCO_TASKS


@pytest.fixture
def drawn(monkeypatch):
    """The axes of what ``draw_top_view`` draws."""
    axes = []
    subplots = Figure.subplots

    def keep(figure, *args, **kwargs):
        axes.append(subplots(figure, *args, **kwargs))
        return axes[-1]

    monkeypatch.setattr(Figure, "subplots", keep)
    return axes


def lines(axes):
    return [np.column_stack(line.get_data()).tolist() for line in axes.lines]


def test_walls_target_threshold_and_start_are_where_the_plan_says(tmp_path, drawn):
    env = AntMazeEnv()
    path = draw_top_view(env, tmp_path / "maze.png")
    assert path == tmp_path / "maze.png"
    rectangles = [patch for patch in drawn[0].patches if hasattr(patch, "get_bbox")]
    boxes = [rectangle.get_bbox() for rectangle in rectangles]
    assert [Wall(b.x0, b.x1, b.y0, b.y1) for b in boxes] == list(env.arena.walls)
    circles = [patch for patch in drawn[0].patches if getattr(patch, "radius", 0) > 1]
    assert [(c.center, c.radius) for c in circles] == [((12.0, 0.0), env.threshold)]
    assert lines(drawn[0]) == [[[12.0, 0.0]], [[0.0, 0.0]]]
    # the view holds all of it
    assert (drawn[0].get_xlim(), drawn[0].get_ylim()) == ((-5.0, 17.0), (-8.0, 8.0))


def test_finish_line(tmp_path, drawn):
    draw_top_view(SwimmerFinishLineEnv(finish_line=7.0), tmp_path / "line.png")
    line, start = drawn[0].lines
    assert set(line.get_xdata()) == {7.0}
    assert start.get_xdata() == [0.0]
    assert drawn[0].get_xlim() == (-5.0, 8.0)


def test_trajectories_are_drawn_and_in_view(tmp_path, drawn):
    ways = [[[0.0, 0.0], [-20.0, 3.0]], np.array([[0.0, 0.0], [1.0, 30.0], [2.0, 2.0]])]
    draw_top_view(AntPretrainEnv(), tmp_path / "ways.png", ways)
    assert lines(drawn[0])[-2:] == [ways[0], ways[1].tolist()]
    assert drawn[0].get_xlim()[0] == -21.0
    assert drawn[0].get_ylim()[1] == 31.0


@pytest.mark.parametrize(
    ("env_class", "reach"), [(AntPretrainEnv, 1.1), (SwimmerFinishLineEnv, 1.7)]
)
def test_robot_is_drawn_to_scale_where_it_stands(tmp_path, drawn, env_class, reach):
    env = env_class()
    env.reset(seed=0)
    for x in (0.0, 5.0):
        env.data.qpos[0] = x
        draw_top_view(env, tmp_path / "robot.png")
        ends = np.array([p.center for p in drawn[-1].patches if hasattr(p, "radius")])
        assert 0.7 * reach < np.abs(ends - [x, 0.0]).max() < reach


def test_wrapped_environments(tmp_path):
    draw_top_view(gymnasium.make("torchrl_stein/AntMaze-v0"), tmp_path / "wrapped.png")
    draw_top_view(AntMazeEnv(), tmp_path / "bare.png")
    assert (imread(tmp_path / "wrapped.png") == imread(tmp_path / "bare.png")).all()


@pytest.mark.parametrize("way", [[0.0, 1.0], [[0.0, 1.0, 2.0]], np.zeros((2, 3, 2))])
def test_bad_trajectories_are_named(tmp_path, way):
    with pytest.raises(ValueError, match=r"trajectories must be arrays \[T, 2\], got \["):
        draw_top_view(AntPretrainEnv(), tmp_path / "x.png", [way])


def test_other_environments_are_refused(tmp_path):
    env = gymnasium.make("torchrl_stein/MultiGoal-v0")
    with pytest.raises(
        TypeError, match=r"draw_top_view: env must be a task of torchrl_stein\.envs\.mujoco"
    ):
        draw_top_view(env, tmp_path / "x.png")


def test_the_command_draws_one_picture_of_each_task(tmp_path):
    files = draw_all(tmp_path)
    assert len(files) == len(MUJOCO_TASKS)
    assert sorted(files) == sorted(tmp_path.iterdir())
    assert tmp_path / "top_view_AntUMaze.png" in files
