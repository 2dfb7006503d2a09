"""Every number that a world, an environment or a drawing takes is looked at before it is used."""

import dataclasses
import math
import re
from functools import partial

import gymnasium
import pytest
import torch

import torchrl_stein.envs as envs
from torchrl_stein.envs import mujoco
from torchrl_stein.envs.drawing import Canvas
from torchrl_stein.envs.mujoco.arena import hallway, two_passages, u_maze

NO_NUMBER = ("1", True, [1.0], 1j, torch.ones(2))
NEVER = (math.nan, math.inf, -math.inf, 10**400)
# What each kind of argument must not be: of another type, and of the right type but out of range.
BAD = {
    "any": ((*NO_NUMBER, None), NEVER),
    "optional": (NO_NUMBER, NEVER),
    "at least 0": ((*NO_NUMBER, None), (*NEVER, -1, -1e-9)),
    "share": ((*NO_NUMBER, None), (*NEVER, -1, 1.1)),
    "above 0": ((*NO_NUMBER, None), (*NEVER, -1, 0, 0.0)),
    "count": ((*NO_NUMBER, None, 2.5, 2.0, math.nan, math.inf), (0, -3)),
    "seed": ((*NO_NUMBER, 2.5, 1.0, math.nan), (-1, -(2**70))),
    "pair": ((3.0, None, "12", ("1", 2.0), (1.0, None), (True, 1.0)), ((1.0,), (math.nan, 1.0))),
    "pair above 0": ((3.0, ("1", 2.0)), ((1.0,), (1.0, math.inf), (0.0, 1.0), (1.0, -1.0))),
    "four at least 0": (
        (3.0, "1234", (1, 2, 3, None)),
        ((1, 2, 3), (1, 2, 3, -1), (1, 2, 3, math.nan)),
    ),
}

CART = dict.fromkeys(
    ("cart_mass", "pole_mass", "pole_length", "time_step", "position_limit"), "above 0"
)
CART |= {"pole_width": "at least 0", "force_limit": "at least 0", "gravity": "any"}
CART |= {"start_spread": "four at least 0"}
CARTPOLE = CART | {"angle_limit": "above 0", "alive_reward": "any", "force_cost": "any"}
SWINGUP = CART | {"track_penalty": "any", "sparse_threshold": "any"}
PENDULUM = {"masses": "pair above 0", "lengths": "pair above 0", "start_spread": "four at least 0"}
PENDULUM |= {"link_width": "at least 0", "torque_limit": "at least 0", "time_step": "above 0"}
PENDULUM |= {"gravity": "any", "frame_skip": "count"}
CAR = dict.fromkeys(("mass", "body_width", "body_height", "time_step", "position_limit"), "above 0")
CAR |= dict.fromkeys(("force_limit", "drag", "friction", "start_speed"), "at least 0")
CAR |= {"gravity": "any", "goal_position": "any"}
GOALS = dict.fromkeys(("goal_reward", "action_cost", "distance_cost"), "any")
GOALS |= {"goal_threshold": "above 0", "position_limit": "above 0", "init_sigma": "at least 0"}
GRID = {"step_cost": "any", "goal_reward": "any"}
SPREAD = dict.fromkeys(("agent_radius", "force_limit", "contact_force"), "at least 0")
SPREAD |= {"num_agents": "count", "damping": "share"}
SPREAD |= {"time_step": "above 0", "contact_margin": "above 0"}
BATCHED = {"horizon": "count", "seed": "seed"}
ROBOT = {"ctrl_cost_weight": "any", "forward_reward_weight": "any", "frame_skip": "count"}
ROBOT |= {"reset_noise_scale": "at least 0", "width": "count", "height": "count"}
ANT = ROBOT | {"healthy_reward": "any", "contact_cost_weight": "any", "flip_limit": "any"}
WALLS = {"wall_thickness": "above 0", "wall_height": "above 0"}
HALLWAY = WALLS | {"hallway_width": "above 0", "half_length": "above 0"}
PASSAGES = WALLS | {"x_range": "pair", "block": "pair", "barrier": "any", "target": "pair"}
PASSAGES |= {"corridor_width": "above 0"}
U_MAZE = WALLS | {"corridor_width": "above 0", "arm_length": "above 0", "divider": "above 0"}
U_MAZE |= {"target": "pair"}

world = envs.MultiGoalWorld()
made = partial(gymnasium.make, "torchrl_stein/AntMaze-v0")
wall = partial(mujoco.Wall, x_min=0.0, x_max=1.0, y_min=0.0, y_max=1.0)
plan = {"corridor_width": 4.0, "wall_thickness": 1.0, "wall_height": 2.0}
passages = partial(
    two_passages, **plan, x_range=(-3.0, 15.0), block=(3.0, 9.0), barrier=8.0, target=(12.0, 0.0)
)
around = partial(u_maze, **plan, arm_length=8.0, divider=4.0, target=(0.0, 8.0))
straight = {"hallway_width": 3.0, "half_length": 40.0, "wall_thickness": 1.0, "wall_height": 2.0}
picture = partial(Canvas, torch.zeros(()), size=(4, 4), centre=(0.0, 0.0))
canvas = picture(width=2.0)

DOORS = {
    "CartpoleWorld": (envs.CartpoleWorld, CARTPOLE),
    "CartpoleSwingUpWorld": (envs.CartpoleSwingUpWorld, SWINGUP),
    "DoublePendulumWorld": (envs.DoublePendulumWorld, PENDULUM),
    "MountainCarWorld": (envs.MountainCarWorld, CAR),
    "MultiGoalWorld": (envs.MultiGoalWorld, GOALS),
    "SimpleSpreadWorld": (envs.SimpleSpreadWorld, SPREAD),
    "ActionRepeatWorld": (partial(envs.ActionRepeatWorld, world), {"repeats": "count"}),
    "CartpoleEnv": (envs.CartpoleEnv, BATCHED | CARTPOLE),
    "CartpoleSwingUpEnv": (envs.CartpoleSwingUpEnv, BATCHED | SWINGUP),
    "DoublePendulumEnv": (envs.DoublePendulumEnv, BATCHED | PENDULUM),
    "MountainCarEnv": (envs.MountainCarEnv, BATCHED | CAR),
    "GridWorld": (envs.GridWorld, GRID),
    "GridWorldEnv": (envs.GridWorldEnv, BATCHED | GRID),
    "MultiGoalEnv": (envs.MultiGoalEnv, BATCHED | GOALS),
    "SimpleSpreadEnv": (envs.SimpleSpreadEnv, BATCHED | SPREAD),
    "GoalMaze": (partial(envs.GoalMaze, "11111 1R0G1 11111"), {"horizon": "count"}),
    "GoalMazeEnv": (envs.GoalMazeEnv, {"seed": "seed"}),
    "BatchedEnv": (lambda **a: envs.BatchedEnv(world, **{"horizon": 5, **a}), BATCHED),
    "set_seed": (envs.CartpoleEnv().set_seed, {"seed": "seed"}),
    "MultiGoalGymEnv": (envs.MultiGoalGymEnv, GOALS),
    "MultiGoalGymEnv.reset": (envs.MultiGoalGymEnv().reset, {"seed": "seed"}),
    "ParticleEnv": (partial(envs.ParticleEnv, envs.MultiGoalEnv((6,))), {"num_particles": "count"}),
    "SimulatorEnv": (partial(envs.SimulatorEnv, envs.MultiGoalGymEnv, (2,)), {"seed": "seed"}),
    "Canvas": (picture, {"width": "above 0"}),
    "Canvas.disc": (partial(canvas.disc, (0.0, 0.0), colour="blue"), {"radius": "at least 0"}),
    "Canvas.line": (partial(canvas.line, (0, 0), (1, 1), colour="blue"), {"radius": "at least 0"}),
    "Canvas.box": (
        partial(canvas.box, (0.0, 0.0), colour="blue", half_width=1.0, half_height=1.0),
        {"half_width": "at least 0", "half_height": "at least 0"},
    ),
    "Wall": (wall, dict.fromkeys(("x_min", "x_max", "y_min", "y_max"), "any")),
    "Arena": (
        mujoco.Arena,
        {"wall_height": "above 0", "target": "pair", "finish_line": "optional"},
    ),
    "hallway": (lambda **a: hallway(**(straight | a)), HALLWAY),
    "two_passages": (passages, PASSAGES),
    "u_maze": (around, U_MAZE),
    "AntPretrainEnv": (mujoco.AntPretrainEnv, ANT),
    "AntHallwayEnv": (mujoco.AntHallwayEnv, ANT | HALLWAY),
    "AntMazeEnv": (mujoco.AntMazeEnv, ANT | PASSAGES | {"sigma": "above 0"}),
    "AntUMazeEnv": (mujoco.AntUMazeEnv, ANT | U_MAZE | {"sigma": "above 0"}),
    "SwimmerFinishLineEnv": (
        mujoco.SwimmerFinishLineEnv,
        ROBOT | {"finish_line": "any", "finish_bonus": "any"},
    ),
    "SwimmerFinishLineEnv.reset": (mujoco.SwimmerFinishLineEnv().reset, {"seed": "seed"}),
    "gymnasium.make": (made, ANT | PASSAGES | {"sigma": "above 0"}),
}  # fmt: skip


@pytest.mark.parametrize("door", DOORS)
def test_bad_numbers_are_refused_in_one_sentence(door):
    function, arguments = DOORS[door]
    assert arguments
    for name, kind in arguments.items():
        for error, values in zip((TypeError, ValueError), BAD[kind], strict=True):
            for value in values:
                if door == "Arena" and value is None:
                    continue  # no target
                with pytest.raises(error, match=rf"^\w+: {name} must ") as caught:
                    function(**{name: value})
                assert "\n" not in str(caught.value), (name, value)
                assert re.search(r", got ", str(caught.value)), (name, value)


@pytest.mark.parametrize("door", [door for door in DOORS if door.endswith("World")])
def test_the_table_has_every_number_of_a_world(door):
    function, arguments = DOORS[door]
    if dataclasses.is_dataclass(function):
        numbers = {f.name for f in dataclasses.fields(function) if f.type != "bool"}
        assert numbers - {"goals", "rows"} == set(arguments)


def test_constants_are_kept_as_floats_of_python():
    constants = envs.CartpoleWorld(cart_mass=torch.tensor(2.0), start_spread=[1, 0, 0, 0])
    assert type(constants.cart_mass) is float
    assert all(type(half) is float for half in constants.start_spread)
    assert hash(constants) == hash(envs.CartpoleWorld(cart_mass=2.0, start_spread=(1, 0, 0, 0)))


@pytest.mark.parametrize(
    ("batch_size", "error"),
    [
        (64, TypeError),
        (None, TypeError),
        ((2.0,), TypeError),
        ((True,), TypeError),
        ("34", TypeError),
        ((0,), ValueError),
        ((3, 0), ValueError),
        ((2, -1), ValueError),
    ],
)
@pytest.mark.parametrize("make", [envs.CartpoleEnv, envs.MultiGoalEnv])
def test_a_batch_has_rows(make, batch_size, error):
    with pytest.raises(error, match=rf"^{make.__name__}: batch_size must be .*1, got "):
        make(batch_size)


def test_a_horizon_that_int64_does_not_hold():
    with pytest.raises(
        ValueError, match=r"^CartpoleEnv: horizon must be .* got 9223372036854775808"
    ):
        envs.CartpoleEnv(horizon=2**63)


def test_a_seed_that_no_generator_holds():
    with pytest.raises(
        ValueError, match=r"^CartpoleEnv: seed must be >= 0 and <= 18446744073709551615"
    ):
        envs.CartpoleEnv(seed=2**64)
    assert envs.CartpoleEnv(seed=2**64 - 1).reset() is not None


@pytest.mark.parametrize(
    ("goals", "error"),
    [
        (None, TypeError),
        ("ab", TypeError),
        ([1.0, 2.0], TypeError),
        ([[True, 0.0]], TypeError),
        ([["1", 0.0]], TypeError),
        ([[math.nan, 0.0]], ValueError),
        ([[10**400, 0.0]], ValueError),
        ([], ValueError),
    ],
)
def test_goals_are_pairs_of_numbers(goals, error):
    with pytest.raises(error, match=r"^MultiGoalWorld: goals must "):
        envs.MultiGoalWorld(goals=goals)


def test_goals_may_be_an_array():
    assert envs.MultiGoalWorld(goals=torch.tensor([[1, 2]])).goals == ((1.0, 2.0),)


def test_ends_at_goal_is_a_bool():
    with pytest.raises(TypeError, match=r"^MultiGoalWorld: ends_at_goal must be a bool, got 2"):
        envs.MultiGoalWorld(ends_at_goal=2)


def test_a_world_is_made_and_has_sizes():
    class Vast(envs.MultiGoalWorld):
        state_dim = 2.5

    with pytest.raises(TypeError, match="BatchedEnv: Vast: state_dim must be an integer"):
        envs.BatchedEnv(Vast(), horizon=5)
    with pytest.raises(TypeError, match="world must be made, got the class CartpoleWorld"):
        envs.BatchedEnv(envs.CartpoleWorld, horizon=5)


def test_drawings_know_their_colours_and_sizes():
    with pytest.raises(ValueError, match=r"^Canvas: colour must be one of .* got 'pink'"):
        canvas.disc((0.0, 0.0), 1.0, "pink")
    for size in (4, (4, 4, 4), (4, 0), (4, 2.5)):
        with pytest.raises((TypeError, ValueError), match=r"^Canvas: size must be "):
            Canvas(torch.zeros(()), size=size, centre=(0.0, 0.0), width=2.0)


def test_walls_do_not_stand_inside_out():
    with pytest.raises(ValueError, match=r"^Wall: x_max must be >= 2\.0, got 1\.0"):
        mujoco.Wall(2.0, 1.0, 0.0, 1.0)
    with pytest.raises(TypeError, match=r"^Arena: walls must be a sequence of Walls"):
        mujoco.Arena(walls=((0.0, 1.0, 0.0, 1.0),))


@pytest.mark.parametrize("name", ["healthy_z_range", "contact_force_range"])
def test_ranges_of_robots(name):
    for ends, error in [
        (1.0, TypeError),
        (("a", "b"), TypeError),
        ((1.0, 0.5), ValueError),
        ((0.2, math.nan), ValueError),
    ]:
        with pytest.raises(error, match=f"^AntPretrainEnv: {name} must be "):
            mujoco.AntPretrainEnv(**{name: ends})
    mujoco.AntPretrainEnv(**{name: (-0.2, math.inf)})  # open at the top


def test_trajectories_are_finite(tmp_path):
    with pytest.raises(ValueError, match=r"^draw_top_view: trajectories must be finite"):
        mujoco.draw_top_view(mujoco.AntPretrainEnv(), tmp_path / "x.png", [[[0.0, math.nan]]])
