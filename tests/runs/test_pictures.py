"""Pictures: not how they look, but that they are there, with what was asked for."""

import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.envs.utils import RandomPolicy
from torchrl.objectives import ReinforceLoss

from torchrl_stein.envs import SIMPLE_MAZE, CartpoleEnv, GoalMazeEnv, MultiGoalEnv
from torchrl_stein.kernels import IdentityKernel, LinearKernel, RBFKernel
from torchrl_stein.objectives import SteinPolicyLoss
from torchrl_stein.runs import (
    make_configured_task,
    make_gaussian_actor,
    make_linear_critic,
    play_episodes,
)
from torchrl_stein.runs.pictures import (
    PROBE_STATES,
    draw_goal_maze,
    draw_multigoal,
    draw_robot_traces,
    kernel_image,
    kernel_matrix,
)
from torchrl_stein.runs.settings import Environment

image = pytest.importorskip("matplotlib.image")
Figure = pytest.importorskip("matplotlib.figure").Figure
to_rgb = pytest.importorskip("matplotlib.colors").to_rgb

# the kernel of a population


def make_loss(kernel, n=5):
    env = CartpoleEnv((n, 2), seed=0)
    actor, critic = make_gaussian_actor(env, n, [4]), make_linear_critic(env, n)
    return SteinPolicyLoss(ReinforceLoss(actor, critic), kernel=kernel)


def test_it_is_the_kernel_of_the_columns_it_couples():
    loss = make_loss(RBFKernel(30.0))
    with torch.no_grad():
        loss.particles.add_(0.3 * torch.randn_like(loss.particles))
    d = loss.population.kernel_dim
    assert d < loss.particles.shape[1]  # the log standard deviations stay outside
    matrix = kernel_matrix(loss)
    points = loss.particles.detach()[:, :d].double()
    expected = [[torch.exp(-(a - b).square().sum() / 30.0) for b in points] for a in points]
    torch.testing.assert_close(matrix.double(), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    assert not matrix.requires_grad


def test_it_follows_the_particles():
    loss = make_loss(RBFKernel(30.0))
    before = kernel_matrix(loss)
    with torch.no_grad():
        loss.particles.copy_(loss.particles[:1].expand_as(loss.particles))
    assert kernel_matrix(loss).eq(1.0).all()
    assert not before.eq(1.0).all()
    assert kernel_matrix(make_loss(IdentityKernel(), n=3)).equal(torch.eye(3))


def test_it_agrees_with_the_diagnostics():
    loss = make_loss(RBFKernel())
    matrix = kernel_matrix(loss)
    off_diagonal = (matrix.sum() - matrix.trace()) / (5 * 4)
    env = CartpoleEnv((5, 2), seed=0)
    data = env.rollout(3, loss.loss_module.actor_network, break_when_any_done=False)
    data["advantage"] = torch.zeros(5, 2, 3, 1)
    data["value_target"] = torch.zeros(5, 2, 3, 1)
    torch.testing.assert_close(loss(data)["kernel_offdiag"], off_diagonal)


def test_another_loss_is_refused():
    with pytest.raises(TypeError, match="loss must be a SteinPolicyLoss, got Linear"):
        kernel_matrix(torch.nn.Linear(1, 1))


# colours


def lightness(image):
    return image.double() @ torch.tensor([0.2126, 0.7152, 0.0722], dtype=torch.double)


def test_every_entry_is_a_square_of_one_colour():
    matrix = torch.arange(6.0).reshape(2, 3)
    shown = kernel_image(matrix, size=31)
    assert (shown.shape, shown.dtype) == ((20, 30, 3), torch.uint8)
    squares = shown.reshape(2, 10, 3, 10, 3).transpose(1, 2).flatten(2, 3)
    assert squares.eq(squares[:, :, :1]).all()
    # The larger the entry, the lighter its square.
    light = lightness(squares[:, :, 0]).flatten()
    assert light.diff().gt(0).all()


def test_the_scale_begins_at_zero_unless_an_entry_is_below():
    dark, bright = kernel_image(torch.tensor([[0.0, 1.0]]), size=2)[0]
    assert dark.tolist() == [68, 1, 84]  # the ends of viridis
    assert bright.tolist() == [253, 231, 36]
    assert kernel_image(torch.tensor([[0.9, 1.0]]), size=2)[0, 1].equal(bright)
    assert not kernel_image(torch.tensor([[0.9, 1.0]]), size=2)[0, 0].equal(dark)
    assert kernel_image(torch.tensor([[-3.0, 1.0]]), size=2)[0].equal(torch.stack([dark, bright]))
    assert kernel_image(torch.zeros(2, 2), size=2).eq(dark).all()


def test_matrices_larger_than_the_picture_keep_every_entry():
    assert kernel_image(torch.eye(50), size=20).shape == (50, 50, 3)


def test_a_linear_kernel_works_too():
    shown = kernel_image(kernel_matrix(make_loss(LinearKernel())))
    assert shown.shape == (480, 480, 3)
    assert len(np.unique(shown.numpy())) > 2


@pytest.mark.parametrize(
    ("matrix", "size", "message"),
    [
        (torch.ones(3), 10, r"got shape \[3\]"),
        (torch.ones(0, 0), 10, r"got shape \[0, 0\]"),
        (torch.tensor([[1.0, float("nan")]]), 10, "with 1 values that are not"),
        (torch.ones(2, 2), 0, "size must be >= 1, got 0"),
    ],
)
def test_bad_input_is_refused(matrix, size, message):
    with pytest.raises(ValueError, match=message):
        kernel_image(matrix, size)


# mazes with several goals


def test_ways_through_a_maze(tmp_path, monkeypatch):
    axes, subplots = [], Figure.subplots

    def keep(figure, *args, **kwargs):
        axes.append(subplots(figure, *args, **kwargs))
        return axes[-1]

    monkeypatch.setattr(Figure, "subplots", keep)
    env = GoalMazeEnv((3,), maze=SIMPLE_MAZE, seed=0)
    # One to the goal at (4, 4), one that stays, and one beyond those that are drawn.
    push = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]])
    policy = TensorDictModule(lambda s: push.clone(), ["observation"], ["action"])
    episodes = play_episodes(env, policy, max_steps=60)
    path = draw_goal_maze(tmp_path / "maze.png", SIMPLE_MAZE, episodes, num_trajectories=2)
    assert image.imread(path).std() > 0.05
    there, still, start = axes[0].lines
    assert len(there.get_xdata()) == episodes.lengths[0] + 1 < len(still.get_xdata()) == 61
    assert there.get_xydata()[-1].tolist() == episodes.last()[0, :2].tolist()
    assert start.get_xydata().tolist() == [[0.0, 0.0]]
    boxes = [patch.get_bbox() for patch in axes[0].patches]
    walls, others = boxes[: len(SIMPLE_MAZE.walls)], boxes[len(SIMPLE_MAZE.walls) :]
    assert [(b.x0, b.x1, b.y0, b.y1) for b in walls] == list(SIMPLE_MAZE.walls)
    middles = [((b.x0 + b.x1) / 2, (b.y0 + b.y1) / 2) for b in others]
    assert middles == [*SIMPLE_MAZE.obstacles, *SIMPLE_MAZE.goals]
    # The way has the colour of its goal, the second in the map; the other is grey.
    assert to_rgb(there.get_color()) == axes[0].patches[-3].get_facecolor()[:3]
    assert to_rgb(still.get_color()) not in {p.get_facecolor()[:3] for p in axes[0].patches[-4:]}


# the multi-goal world


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


# robots from above


def robot(name, **options):
    info = ["centre_of_mass"]
    return Environment(
        name=name, num_envs=1, options=options, info=info, target=None, batch_argument=None
    )


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
    task = robot("swimmer_finish_line", max_episode_steps=3, finish_line=2.5)
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
    episodes = play(robot("swimmer_finish_line"), 2)
    with pytest.raises(TypeError, match=r"must be a task of torchrl_stein\.envs\.mujoco"):
        draw_robot_traces(tmp_path / "a.png", robot("Pendulum-v1"), episodes)
