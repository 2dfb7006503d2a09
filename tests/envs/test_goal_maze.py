"""Mazes with several goals: the maps, the batched world, and MuJoCo beside it."""

import math
import pickle
from itertools import pairwise

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from torch.testing import assert_close
from torchrl.envs.utils import check_env_specs

from torchrl_stein.envs import (
    HARD_MAZE,
    MEDIUM_MAZE,
    SIMPLE_MAZE,
    GoalMaze,
    GoalMazeEnv,
    GoalMazeWorld,
    World,
    goal_maze,
)
from torchrl_stein.envs.mujoco import PointGoalMazeEnv

MAZES = {"simple": SIMPLE_MAZE, "medium": MEDIUM_MAZE, "hard": HARD_MAZE}
all_mazes = pytest.mark.parametrize("maze", MAZES.values(), ids=MAZES)
# A lane of 5 m with the start in its middle, a goal at its right end and an obstacle at the left.
LANE = GoalMaze("1111111 120R0G1 1111111", horizon=50)
# One wall in the middle of a room: four corners that stick out.
PILLAR = GoalMaze("111111 1G00R1 101001 100001 111111", horizon=50)


def play(world, state, action, steps):
    """The state after so many steps of one action, rewards added up and the last flag."""
    total = 0.0
    for _ in range(steps):
        state, reward, terminated = world.step(state, action)
        total += reward
    return state, total, terminated


# Maps


def test_a_map_in_metres():
    maze = GoalMaze("11111 1G021 10R01 11111", horizon=7)
    assert maze.goals == ((-1.0, 1.0),)
    assert maze.obstacles == ((1.0, 1.0),)
    assert maze.extent == (-2.5, 2.5, -1.5, 2.5)
    rows = [(1.5, 2.5), (0.5, 1.5), (-0.5, 0.5), (-1.5, -0.5)]
    long, short = [(-2.5, 2.5)], [(-2.5, -1.5), (1.5, 2.5)]
    want = [(*x, *y) for y, xs in zip(rows, (long, short, short, long), strict=True) for x in xs]
    assert list(maze.walls) == want
    assert maze.middle(0, 0) == (-2.0, 2.0)
    assert [maze.is_wall(2, j) for j in range(-1, 6)] == [False, True, *[False] * 3, True, False]


@pytest.mark.parametrize(
    ("maze", "size", "goals", "obstacles", "horizon"),
    [
        (SIMPLE_MAZE, (11, 11), 4, 4, 150),
        (MEDIUM_MAZE, (11, 13), 4, 4, 300),
        (HARD_MAZE, (15, 15), 8, 8, 600),
    ],
    ids=MAZES,
)
def test_the_published_maps(maze, size, goals, obstacles, horizon):
    assert (maze.size, maze.horizon) == (size, horizon)
    assert (len(maze.goals), len(maze.obstacles)) == (goals, obstacles)
    # Both maps are the same upside down and in a mirror, and so are goals and obstacles.
    assert maze.rows == maze.rows[::-1] == tuple(row[::-1] for row in maze.rows)
    for points in (maze.goals, maze.obstacles):
        assert {(-x, y) for x, y in points} == {(x, -y) for x, y in points} == set(points)


@all_mazes
@pytest.mark.parametrize("walled", [False, True])
def test_every_goal_can_be_reached_in_time(maze, walled):
    """By a flood from the start: at 4 m/s along a shortest way 80 % of the time is enough."""
    closed = "12o" if walled else "1o"
    start = next((i, row.index("R")) for i, row in enumerate(maze.rows) if "R" in row)
    steps, edge = {start: 0}, [start]
    while edge:
        i, j = edge.pop(0)
        for cell in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
            if cell not in steps and maze.rows[cell[0]][cell[1]] not in closed:
                steps[cell] = steps[i, j] + 1
                edge.append(cell)
    lengths = [n for (i, j), n in steps.items() if maze.rows[i][j] == "G"]
    assert len(lengths) == len(maze.goals)
    assert max(lengths) / 4.0 < 0.8 * maze.horizon * 0.02


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1111 1RG1 111", "have rows of one length"),
        ("", "have rows of one length"),
        ("1111 1RX1 1111", "consist of"),
        ("1111 1GG1 1111", "have one R"),
        ("11111 1RRG1 11111", "have one R"),
        ("1111 1R01 1111", "have one R and at least one G"),
        ("1111 1RG0 1111", "have walls between free cells and the outside"),
        ("1111 1RGo 1111", "have walls between free cells and the outside"),
    ],
)
def test_maps_that_are_none(text, message):
    with pytest.raises(ValueError, match=rf"^GoalMaze: text must {message}.*, got "):
        GoalMaze(text, horizon=5)


def test_arguments_of_another_kind():
    with pytest.raises(TypeError, match="GoalMaze: text must be a string, got 3"):
        GoalMaze(3, horizon=5)
    with pytest.raises(TypeError, match="GoalMazeWorld: maze must be a GoalMaze, got 'simple'"):
        GoalMazeWorld("simple")
    with pytest.raises(TypeError, match="GoalMazeWorld: obstacles must be a bool, got 1"):
        GoalMazeWorld(obstacles=1)


# The world


def test_one_step_by_hand():
    # m = 4000/3 pi 0.1^3; v1 = h F a / (m + h d), v2 = (m v1 + h F a) / (m + h d).
    state, reward, terminated = GoalMazeWorld().step(
        torch.zeros(4, dtype=torch.float64), torch.tensor([1.0, -3.0], dtype=torch.float64)
    )
    mass = 4000.0 / 3.0 * math.pi * 0.1**3
    first = 1.0 / (mass + 0.01)
    second = (mass * first + 1.0) / (mass + 0.01)
    moved = 0.01 * (first + second)
    want = torch.tensor([moved, -moved, second, -second], dtype=torch.float64)
    assert_close(state, want, rtol=0, atol=1e-12)
    assert (reward.item(), terminated.item()) == (0.0, False)


def test_no_velocity_exceeds_the_limit_and_the_direction_stays():
    action = torch.tensor([1.0, 0.5])
    state, *_ = play(GoalMazeWorld(), torch.zeros(4), action, 25)
    assert_close(state[2:], 5.0 * action)
    assert_close(state[1] / state[0], torch.tensor(0.5))


def test_a_goal_pays_once_reached_and_ends():
    world = GoalMazeWorld(LANE)
    near = torch.tensor([1.45, 0.0, 2.0, 0.0])  # 0.04 m per step; the goal begins at 1.5
    state, reward, terminated = world.step(near, torch.zeros(2))
    assert (reward.item(), terminated.item()) == (0.0, False)
    state, reward, terminated = world.step(state, torch.zeros(2))
    assert (reward.item(), terminated.item()) == (100.0, True)
    assert world.goal_reached(state).item() == 0


@all_mazes
def test_goal_reached_is_a_square_of_one_metre(maze):
    world, goals = GoalMazeWorld(maze), torch.tensor(maze.goals)
    for offset, inside in ((0.49, True), (0.51, False)):
        for push in torch.tensor([[1.0, 1.0], [-1.0, 0.3], [0.2, -1.0]]):
            found = world.goal_reached(goals + offset * push).tolist()
            assert found == (list(range(len(goals))) if inside else [-1] * len(goals))
    assert world.goal_reached(torch.zeros(3, 4)).tolist() == [-1, -1, -1]


def test_touching_an_obstacle_ends_without_reward_and_only_if_asked():
    # The obstacle ends at x = -1.5; the ball touches it from -1.4 on.
    before = torch.tensor([[-1.37, 0.0, -1.0, 0.0], [-1.39, 0.0, -1.0, 0.0]])
    *_, free = GoalMazeWorld(LANE).step(before, torch.zeros(2, 2))
    _, reward, ended = GoalMazeWorld(LANE, obstacles=True).step(before, torch.zeros(2, 2))
    assert free.flatten().tolist() == [False, False]
    assert ended.flatten().tolist() == [False, True]
    assert reward.flatten().tolist() == [0.0, 0.0]
    # Where a goal and an obstacle are reached at once, there is no reward.
    narrow = GoalMaze("11111 1R2G1 11111", horizon=9)
    reward, ended = GoalMazeWorld(narrow, obstacles=True).judge(torch.tensor([1.55, 0.0]))
    assert (reward.item(), ended.item()) == (0.0, True)
    # The corners of what touches are round.
    world = GoalMazeWorld(SIMPLE_MAZE, obstacles=True)
    x, y = SIMPLE_MAZE.obstacles[0]
    for gap, touched in ((0.06, True), (0.08, False)):  # 0.1 along the diagonal is 0.0707
        *_, ended = world.judge(torch.tensor([x + 0.5 + gap, y - 0.5 - gap]))
        assert ended.item() == touched


def test_the_ball_stops_at_a_wall_and_slides_along_it():
    world = GoalMazeWorld(SIMPLE_MAZE)  # whose walls are 4.5 m away
    state, *_ = play(world, torch.tensor([4.0, 0.0, 2.0, 1.0]), torch.tensor([1.0, 0.0]), 20)
    assert_close(state[0], torch.tensor(4.4))
    assert state[2] == 0.0
    # Along the wall only the damping works: 40 substeps of m / (m + h d).
    assert_close(state[3], torch.tensor((goal_maze.MASS / (goal_maze.MASS + 0.01)) ** 40))
    assert state[1] > 0.35


def test_a_ball_in_a_dead_end_rests():
    state, *_ = play(GoalMazeWorld(LANE), torch.zeros(4), torch.tensor([-0.3, 1.0]), 100)
    assert_close(state, torch.tensor([-2.4, 0.4, 0.0, 0.0]))


def test_the_ball_is_round_at_corners():
    # From the left, with the middle 0.04 above the pillar: it is lifted onto its top edge.
    world = GoalMazeWorld(PILLAR)
    left, right, _, top = box = (-2.5, -1.5, -1.5, -0.5)
    assert box in PILLAR.walls
    state = torch.tensor([left - 0.15, top + 0.04, 2.0, 0.0])
    heights = []
    for _ in range(30):
        state, *_ = world.step(state, torch.tensor([1.0, 0.0]))
        heights.append(state[1].item())
        corner = math.dist(state[:2].tolist(), (left, top))
        assert corner >= 0.1 - 1e-6
    assert heights[0] == pytest.approx(top + 0.04)
    assert max(heights) > top + 0.1 - 1e-6
    assert state[0] > right


@all_mazes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ball_never_overlaps_a_wall_nor_gains_speed_from_it(maze, dtype):
    """Random pushes held for random times; distances by an obvious loop over all boxes."""
    world, generator = GoalMazeWorld(maze), torch.Generator().manual_seed(0)
    state = world.sample_state((64,), dtype=dtype)
    action = torch.zeros(64, 2, dtype=dtype)
    touched = 0
    for _ in range(200):
        fresh = 2.0 * torch.rand(64, 2, generator=generator, dtype=dtype) - 1.0
        held = torch.rand(64, 1, generator=generator) < 0.9
        action = torch.where(held, action, fresh.sign() * fresh.abs() ** 0.3)
        before = state[:, 2:]
        state, *_ = world.step(state, action)
        gained = state[:, 2:].norm(dim=-1) - before.norm(dim=-1)
        assert gained.max() <= 0.02 * 100.0 / goal_maze.MASS * math.sqrt(2.0)  # by the push alone
        gaps = []
        for x_min, x_max, y_min, y_max in maze.walls:
            x, y = state[:, 0], state[:, 1]
            dx = torch.maximum(x_min - x, x - x_max).clamp_min(0.0)
            dy = torch.maximum(y_min - y, y - y_max).clamp_min(0.0)
            gaps.append(torch.hypot(dx, dy))
        gap = torch.stack(gaps).amin(0)
        assert gap.min() >= 0.1 - 1e-5
        touched += (gap < 0.1 + 1e-5).sum().item()
    assert touched > 100  # the walls were there
    # They went everywhere: episodes do not end here.
    assert state[:, 0].amax() > 3.0
    assert state[:, 0].amin() < -3.0


@all_mazes
def test_a_step_by_an_obvious_loop(maze):
    """Out of the nearest of all boxes, twice, as an inner corner has two of them."""
    world, generator = GoalMazeWorld(maze), torch.Generator().manual_seed(0)
    left, right, bottom, top = torch.tensor(maze.walls, dtype=torch.float64).T
    low, high = torch.stack((left, bottom), -1), torch.stack((right, top), -1)
    rows, touched = torch.arange(256), 0
    state, action = torch.zeros(256, 4, dtype=torch.float64), torch.zeros(256, 2)
    for _ in range(300):
        fresh = torch.randn(256, 2, generator=generator)
        action = torch.where(torch.rand(256, 1, generator=generator) < 0.9, action, fresh)
        p, v = state[:, :2], state[:, 2:]
        for _ in range(2):
            push = 100.0 * action.clamp(-1.0, 1.0).double()
            v = (goal_maze.MASS * v + 0.01 * push) / (goal_maze.MASS + 0.01)
            p = p + 0.01 * v
            for _ in range(2):
                away = p[:, None] - p[:, None].clamp(low, high)
                away = away[rows, away.norm(dim=-1).argmin(-1)]
                gap = away.norm(dim=-1, keepdim=True)
                inside, normal = gap < 0.1 - 1e-12, away / gap
                p = torch.where(inside, p + (0.1 - gap) * normal, p)
                into = (v * normal).sum(-1, keepdim=True).clamp_max(0.0)
                v = torch.where(inside, v - into * normal, v)
                touched += inside.sum().item()
        v = v / (v.abs().amax(-1, keepdim=True) / 5.0).clamp_min(1.0)
        state, *_ = world.step(state, action.double())
        assert_close(state, torch.cat((p, v), -1), rtol=0, atol=1e-9)
    assert touched > 1000


def test_states_that_are_not_finite_stay_alone():
    world = GoalMazeWorld()
    state = torch.zeros(3, 4)
    state[0, 0], state[1, 1] = math.nan, 1e9
    after, *_ = world.step(state, torch.ones(3, 2))
    assert after[0].isnan().any()
    assert_close(after[2], world.step(torch.zeros(4), torch.ones(2))[0])


def test_pure_functions():
    world, state = GoalMazeWorld(HARD_MAZE, obstacles=True), torch.randn(5, 7, 4)
    action = torch.randn(5, 7, 2)
    want = world.step(state, action)
    assert isinstance(world, World)
    fresh = GoalMazeWorld(HARD_MAZE, obstacles=True)
    for got in (
        torch.compile(fresh.step, fullgraph=True, backend="aot_eager")(state, action),
        torch.vmap(world.step)(state, action),
        pickle.loads(pickle.dumps(world)).step(state, action),
    ):
        assert_close(got, want)
    assert hash(world) == hash(GoalMazeWorld(HARD_MAZE, obstacles=True))
    assert world == GoalMazeWorld(HARD_MAZE, obstacles=True) != GoalMazeWorld(HARD_MAZE)


def test_a_picture():
    image = GoalMazeWorld(LANE, obstacles=True).render(torch.zeros(2, 4))
    assert image.shape == (2, 48, 112, 3)
    row = image[0, 24, 8::16].tolist()
    wall, free = [170, 170, 170], [255, 255, 255]
    assert row == [wall, [40, 40, 40], free, [213, 94, 0], free, [0, 158, 115], wall]


# The environment


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_specs_hold(batch):
    env = GoalMazeEnv(batch, maze=MEDIUM_MAZE, obstacles=True)
    check_env_specs(env, seed=0, break_when_any_done="both")
    assert (env.horizon, env.world.obstacles, env.world.maze) == (300, True, MEDIUM_MAZE)
    low, high = env.observation_spec["observation"].space
    assert low.reshape(-1, 4)[0].tolist() == [-6.5, -5.5, -5.0, -5.0]
    assert high.reshape(-1, 4)[0].tolist() == [6.5, 5.5, 5.0, 5.0]
    assert GoalMazeEnv(horizon=9).horizon == 9


def test_episodes_end_at_a_goal_or_in_time():
    env = GoalMazeEnv((2,), maze=LANE, seed=0)
    push = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    data = env.rollout(80, lambda td: td.set("action", push.clone()), break_when_all_done=True)
    ended = data["next", "done"].squeeze(-1).long().argmax(-1)
    assert ended.tolist() == [data["next", "terminated"][0].long().argmax().item(), 49]
    assert data["next", "truncated"][1, 49].item()
    assert data["next", "reward"][0, ended[0]].item() == 100.0


# MuJoCo beside it


def test_both_have_the_same_ball():
    model = PointGoalMazeEnv().model
    assert model.body_mass[1] == pytest.approx(goal_maze.MASS, rel=1e-12)
    assert model.geom("ball").size[0] == goal_maze.RADIUS
    assert model.dof_damping.tolist() == [goal_maze.DAMPING] * 2
    assert model.actuator_gear[:, 0].tolist() == [goal_maze.FORCE] * 2
    assert model.opt.timestep == goal_maze.TIME_STEP
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER


@all_mazes
def test_off_the_walls_both_agree_to_rounding(maze):
    """The pushes stay in the free cells around the start: eight episodes of 40 steps."""
    env, world = PointGoalMazeEnv(maze), GoalMazeWorld(maze)
    rng, compared = np.random.default_rng(0), 0
    for _ in range(8):
        observation, _ = env.reset()
        state = torch.zeros(4, dtype=torch.float64)
        for _ in range(40):
            action = rng.uniform(-1.2, 1.2, 2)
            observation, reward, terminated, _, info = env.step(action)
            state, pay, ended = world.step(state, torch.from_numpy(action))
            if env.data.ncon or abs(state[2:]).min() == 0.0:
                break
            np.testing.assert_allclose(observation, state.numpy(), rtol=0, atol=1e-12)
            assert (reward, terminated) == (pay.item(), ended.item())
            assert info["goal"] == world.goal_reached(state).item()
            compared += 1
    assert compared > 100


@all_mazes
def test_at_walls_both_agree_to_what_soft_contacts_give(maze):
    """Held pushes from the start into a wall: where the ball comes to rest."""
    env, world = PointGoalMazeEnv(maze), GoalMazeWorld(maze)
    for angle in np.linspace(0.1, 2 * math.pi + 0.1, 9)[:-1]:
        action = 0.3 * np.array([math.cos(angle), math.sin(angle)])
        env.reset()
        state = torch.zeros(4, dtype=torch.float64)
        for _ in range(300):
            observation, *_ = env.step(action)
            state, *_ = world.step(state, torch.from_numpy(action))
        np.testing.assert_allclose(observation[:2], state[:2].numpy(), rtol=0, atol=0.02)


@pytest.mark.parametrize("name", MAZES)
def test_the_registered_mazes(name):
    env = gymnasium.make(f"torchrl_stein/GoalMaze{name.title()}-v0", obstacles=True)
    maze = MAZES[name]
    assert env.spec.max_episode_steps == maze.horizon
    task = env.unwrapped
    assert (task.world.maze, task.world.obstacles) == (maze, True)
    assert task.observation_space.high.tolist()[2:] == [5.0, 5.0]
    assert task.dt == pytest.approx(0.02)
    boxes = [(wall.x_min, wall.x_max, wall.y_min, wall.y_max) for wall in task.arena.walls]
    assert boxes == list(maze.walls)
    assert [len(task.arena.goals), len(task.arena.obstacles)] == [len(maze.goals)] * 2
    assert PointGoalMazeEnv(maze).arena.obstacles == ()


def test_reward_end_and_info_in_mujoco():
    env = PointGoalMazeEnv(LANE, obstacles=True)
    for push, want in ((1.0, (100.0, 0)), (-1.0, (0.0, -1))):
        _, info = env.reset(seed=0)
        assert info["goal"] == -1
        terminated = False
        while not terminated:
            observation, reward, terminated, truncated, info = env.step(np.array([push, 0.0]))
        assert (reward, info["goal"]) == want
        assert (info["reward_task"], truncated) == (reward, False)
        edge = 1.5 if push > 0 else 1.4
        assert edge <= push * observation[0] < edge + 0.11
        assert (info["centre_of_mass"] == observation[:2]).all()


def test_no_velocity_exceeds_the_limit_in_mujoco():
    env = PointGoalMazeEnv()
    env.reset(seed=0)
    speeds = [env.step(np.array([1.0, 0.5]))[0][2:].copy() for _ in range(25)]
    assert all((first <= second + 1e-12).all() for first, second in pairwise(speeds))
    np.testing.assert_allclose(speeds[-1], [5.0, 2.5])


@pytest.mark.parametrize(
    ("maze", "share"), [(SIMPLE_MAZE, 0.19), (MEDIUM_MAZE, 0.16), (HARD_MAZE, 0.53)]
)
def test_how_often_uniform_actions_reach_a_goal(maze, share):
    """What the README and docs/howto/soft_q_settings.md compare with; theirs are of 20 000."""
    torch.manual_seed(0)
    env = GoalMazeEnv((4000,), maze=maze, seed=0)
    data, reached = env.reset(), torch.zeros(4000, 1, dtype=torch.bool)
    for _ in range(maze.horizon):
        data = env.step(env.rand_action(data))["next"]
        reached |= data["terminated"]
    assert reached.float().mean().item() == pytest.approx(share, abs=0.03)
