"""The picture: not how it looks, but that it is there, with what was asked for."""

import pytest
import torch
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.training import PROBE_STATES, draw_multigoal, play_episodes

image = pytest.importorskip("matplotlib.image")


def picture(path, rows, qvalue=None, **options):
    torch.manual_seed(0)
    env = MultiGoalEnv((rows,), seed=0)
    episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=5)
    asked = {}

    def default_qvalue(states, actions):
        asked["states"], asked["mesh"] = states, actions
        return -(actions - states.unsqueeze(1) / 5).square().sum(-1)

    def sample(states, count):
        asked["count"] = count
        return torch.rand(len(states), count, 2) * 2 - 1

    result = draw_multigoal(path, env, episodes, qvalue or default_qvalue, sample, **options)
    assert result == path
    return image.imread(path)[..., :3], asked


def test_writes_a_picture(tmp_path):
    pixels, asked = picture(tmp_path / "a.png", rows=10, num_actions=30)
    height, width, _ = pixels.shape
    assert 1200 < width < 2400
    assert 300 < height < 900
    # Four panels with colours in them: no quarter of the picture is blank.
    for part in range(4):
        assert pixels[:, part * width // 4 : (part + 1) * width // 4].std() > 0.05
    assert asked["count"] == 30
    assert asked["states"].tolist() == [list(s) for s in PROBE_STATES]
    assert asked["mesh"].shape[0] == len(PROBE_STATES)
    assert asked["mesh"].amin((0, 1)).tolist() == [-1.0, -1.0]
    assert asked["mesh"].amax((0, 1)).tolist() == [1.0, 1.0]


def test_shows_the_trajectories_and_the_q_function(tmp_path):
    pixels, _ = picture(tmp_path / "a.png", rows=30)
    width = pixels.shape[1]
    other, _ = picture(
        tmp_path / "b.png", rows=30, num_trajectories=1, qvalue=lambda s, a: a.sum(-1)
    )
    changed = (pixels != other).any(-1)
    assert changed[:, : width // 4].mean() > 0.01
    assert changed[:, width // 3 :].mean() > 0.1


def test_the_first_action_coordinate_is_horizontal(tmp_path):
    pixels, _ = picture(tmp_path / "a.png", rows=1, num_actions=1, qvalue=lambda s, a: a[..., 0])
    height, width, _ = pixels.shape
    # Viridis grows brighter with Q; look along the middle row and the middle column of a panel.
    last = pixels[:, -int(0.2 * width) : -int(0.04 * width)]
    brightness = last[height // 2 - 5 : height // 2 + 5].mean((0, 2))
    assert brightness[-20:].mean() - brightness[:20].mean() > 0.2
    column = last[height // 3 : 2 * height // 3, last.shape[1] // 2].mean(-1)
    assert abs(column[-20:].mean() - column[:20].mean()) < 0.05


def test_goals_that_are_lines_are_drawn_as_lines(tmp_path):
    def pixels(name, goals):
        env = MultiGoalEnv((3,), seed=0, goals=goals)
        path = draw_multigoal(
            tmp_path / name,
            env,
            play_episodes(env, RandomPolicy(env.action_spec), max_steps=2),
            qvalue=lambda s, a: a[..., 0],
            sample=lambda s, k: torch.zeros(len(s), k, 2),
        )
        return image.imread(path)[..., :3]

    def coloured(picture, colour):
        near = (abs(picture - torch.tensor(colour).numpy()) < 0.02).all(-1)
        return near.any(1).sum(), near.any(0).sum()  # rows and columns with that colour

    first = (0x42 / 255, 0x69 / 255, 0xD0 / 255)
    rows, columns = coloured(pixels("x.png", [[5.0, None]]), first)
    assert rows > 200 > 20 > columns
    rows, columns = coloured(pixels("y.png", [[None, 5.0]]), first)
    assert columns > 200 > 20 > rows
