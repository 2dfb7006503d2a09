"""Tasks by name, of our worlds and of gymnasium: one form for all."""

import gymnasium
import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule
from torch.testing import assert_close
from torchrl.envs import GymEnv, RenameTransform, TransformedEnv
from torchrl.envs.utils import check_env_specs

from torchrl_stein.envs import (
    HARD_MAZE,
    MEDIUM_MAZE,
    SIMPLE_MAZE,
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    GoalMazeEnv,
    MountainCarEnv,
    MultiGoalEnv,
    SimpleSpreadEnv,
)
from torchrl_stein.runs import make_configured_task, make_task, targets
from torchrl_stein.runs.settings import Environment
from torchrl_stein.runs.tasks import ROBOTS, goal_maze_of

WORLDS = {
    "cartpole": CartpoleEnv,
    "cartpole_swingup": CartpoleSwingUpEnv,
    "double_pendulum": DoublePendulumEnv,
    "mountain_car": MountainCarEnv,
}
# Observations of single, single and double precision; the last has another size of action.
GYMNASIUM = ["Pendulum-v1", "MountainCarContinuous-v0", "Reacher-v5"]


def constant(value, size=1):
    return TensorDictModule(
        lambda s: torch.full((*s.shape[:-1], size), value), ["observation"], ["action"]
    )


@pytest.mark.parametrize("name", WORLDS)
def test_our_worlds(name):
    env = make_task(name, (2, 3), seed=3, options={"clean_start": True, "horizon": 7})
    assert type(env) is WORLDS[name]
    assert env.batch_size == (2, 3)
    assert (env.horizon, env.world.clean_start) == (7, True)
    assert env.reset()["state"].equal(
        WORLDS[name]((2, 3), seed=3, clean_start=True).reset()["state"]
    )


def test_the_multigoal_world():
    env = make_task("multigoal", (2, 3), seed=3, options={"horizon": 7, "action_cost": 0.0})
    assert type(env) is MultiGoalEnv
    assert (env.batch_size, env.horizon, env.world.action_cost) == ((2, 3), 7, 0.0)


def test_a_world_of_several_agents():
    env = make_task("simple_spread", (2, 3), seed=3, options={"horizon": 7, "num_agents": 2})
    assert type(env) is SimpleSpreadEnv
    assert (env.batch_size, env.horizon, env.world.num_agents) == ((2, 3), 7, 2)


@pytest.mark.parametrize("size", ["simple", "medium", "hard"])
def test_mazes_with_several_goals(size):
    """One map and one form, whether it is our world or MuJoCo's."""
    maze = {"simple": SIMPLE_MAZE, "medium": MEDIUM_MAZE, "hard": HARD_MAZE}[size]
    for name in (f"goal_maze_{size}", f"torchrl_stein/GoalMaze{size.title()}-v0"):
        env = make_task(name, (2,), seed=3, options={"obstacles": True})
        check_env_specs(env)
        env.close()
        values = {"options": {}, "info": [], "_target_": None, "batch_argument": None}
        task = Environment(name=name, num_envs=1, **values)
        assert goal_maze_of(task) is maze
        assert goal_maze_of(task.model_copy(update={"target": "torchrl.envs.GymEnv"})) is None
        assert goal_maze_of(task.model_copy(update={"name": "multigoal"})) is None
    world = make_task(f"goal_maze_{size}", (2, 3), seed=3, options={"horizon": 7})
    assert type(world) is GoalMazeEnv
    assert (world.batch_size, world.horizon, world.world.maze) == ((2, 3), 7, maze)


@pytest.mark.parametrize("name", GYMNASIUM)
def test_environments_of_gymnasium(name):
    env = make_task(name, (2, 3), seed=3)
    check_env_specs(env)
    data = env.rollout(3, break_when_any_done=False)
    assert data.shape == (2, 3, 3)
    assert data["observation"].dtype == data["next", "reward"].dtype == torch.float32
    assert data["elapsed_steps"][0, 0].flatten().tolist() == [0, 1, 2]
    assert_close(data["next", "episode_reward"], data["next", "reward"].cumsum(2))
    env.close()


def test_actions_are_scaled_to_one_and_clipped():
    # The pendulum takes torques up to 2 and pays 0.001 of their square.
    def pay(action):
        env = make_task("Pendulum-v1", (1, 1), seed=0)
        data = env.rollout(1, constant(action))
        angle, speed = data["observation"][..., :2], data["observation"][..., 2:]
        angle = torch.atan2(angle[..., 1:], angle[..., :1])
        return (-data["next", "reward"] - angle.square() - 0.1 * speed.square()).item()

    assert pay(0.5) == pytest.approx(0.001 * 1.0**2, abs=1e-5)
    assert pay(-1.0) == pytest.approx(0.001 * 2.0**2, abs=1e-5)
    assert pay(7.0) == pytest.approx(0.001 * 2.0**2, abs=1e-5)


def test_clipped_actions_cost_what_they_do():
    # Reacher pays for an action as it is given.
    rewards = [
        make_task("Reacher-v5", (1, 1), seed=0).rollout(2, constant(value, size=2))[
            "next", "reward"
        ]
        for value in (1.0, 7.0, 0.5)
    ]
    assert rewards[0].equal(rewards[1])
    assert not rewards[0].equal(rewards[2])


def test_rows_are_simulators_that_are_stepped_alone():
    env = make_task("InvertedPendulum-v5", (2, 2), seed=3)
    data = env.rollout(40, constant(0.1), break_when_any_done=False)
    assert data["next", "terminated"].any(2).all()
    for row, rows in enumerate(data.flatten(0, 1)):
        single = gymnasium.make("InvertedPendulum-v5").unwrapped
        single.reset()
        for step in rows:
            if step["elapsed_steps"] == 0:
                state = step["observation"].double().numpy()
                single.set_state(state[:2], state[2:])
            # 0.1 of the largest force, which is 3.
            observation, reward, terminated, *_ = single.step(np.array([0.3]))
            assert step["next", "observation"].tolist() == pytest.approx(
                observation.tolist(), abs=1e-4
            ), row
            assert step["next", "reward"].item() == reward
            assert step["next", "terminated"].item() == terminated


def test_a_seed_fixes_the_starts_and_rows_differ():
    starts = [make_task("Pendulum-v1", (2, 3), seed=s).reset()["observation"] for s in (1, 1, 2)]
    assert starts[0].equal(starts[1])
    assert not starts[0].equal(starts[2])
    assert len(starts[0].flatten(0, 1).unique(dim=0)) == 6


def test_options_reach_a_simulator():
    env = make_task("Pendulum-v1", (1, 1), seed=0, options={"g": 0.0, "max_episode_steps": 4})
    data = env.rollout(9, constant(0.0))
    assert data["next", "truncated"].flatten().tolist() == [False] * 3 + [True]
    speed = data["observation"][..., 2]
    assert_close(speed, speed[..., :1].expand_as(speed))  # nothing accelerates it


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        ("Foo-v0", {}, ValueError, r"env must be one of \['ant_.* or the id of .*'Foo-v0'"),
        ("nowhere:Foo-v0", {}, ValueError, "env must be the id of a registered .*'nowhere:Foo-v0'"),
        (
            "CartPole-v1",
            {},
            ValueError,
            "'CartPole-v1' must have a finite box of actions, got OneHot",
        ),
        (
            "cartpole",
            {"lenght": 1},
            ValueError,
            "env.options of cartpole: .*unexpected keyword argument 'lenght'",
        ),
        (
            "Ant-v5",
            {"xml_file": "/nowhere.xml"},
            ValueError,
            "got 'Ant-v5' .File .* does not exist",
        ),
        ("Pendulum-v1", {"lenght": 1}, ValueError, "unexpected keyword argument 'lenght'"),
    ],
)
def test_what_there_is_not(name, options, kind, message):
    with pytest.raises(kind, match=message):
        make_task(name, (1, 1), seed=0, options=options)


def test_observations_must_be_vectors():
    class Picture(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 1, (8, 8))
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

    gymnasium.register("test_tasks/Picture-v0", Picture)
    try:
        with pytest.raises(ValueError, match=r"Picture-v0': .* a vector as observation, got Box"):
            make_task("test_tasks/Picture-v0", (1, 1), seed=0)
    finally:
        del gymnasium.registry["test_tasks/Picture-v0"]


# the package's robots, and what their info says


@pytest.mark.parametrize("name", ROBOTS)
def test_every_robot_has_a_short_name(name):
    env = make_task(name, (1,), seed=0, info=["centre_of_mass"])
    data = env.rollout(2)
    assert data["next", "centre_of_mass"].shape == (1, 2, 2)
    size = 10 if name == "swimmer_finish_line" else 107
    assert data["observation"].shape == (1, 2, size)
    env.close()


def test_info_is_that_of_each_row_and_starts_anew():
    options = {"max_episode_steps": 4, "finish_line": -100.0}
    keys = ["max_forward_distance", "centre_of_mass"]
    env = make_task("swimmer_finish_line", (3,), seed=0, options=options, info=keys)
    check_env_specs(env)
    data = env.rollout(9, break_when_any_done=False)
    assert data["max_forward_distance"].dtype == data["centre_of_mass"].dtype == torch.float32
    x = data["next", "centre_of_mass"][..., 0]
    assert len({*x[:, 0].tolist()}) == 3
    # A slow loop: the largest x of the episode, its start included.
    for row in range(3):
        for step in range(9):
            begin = 4 * (step // 4)
            start = data["centre_of_mass"][row, begin, 0]
            largest = max(start.item(), x[row, begin : step + 1].max().item())
            assert data["next", "max_forward_distance"][row, step].item() == largest
    assert data["max_forward_distance"][:, 4].equal(data["centre_of_mass"][:, 4, 0])
    env.close()


def test_info_of_a_population():
    env = make_task("ant_maze", (2, 2), seed=0, info=["min_distance_to_target"])
    data = env.rollout(2, break_when_any_done=False)
    assert data["next", "min_distance_to_target"].shape == (2, 2, 2)
    assert (data["next", "min_distance_to_target"] - 12).abs().max() < 1
    env.close()


def test_info_that_there_is_not():
    with pytest.raises(
        ValueError, match=r"'ant_maze': .* must report 'speed' in their info, got .*cent"
    ):
        make_task("ant_maze", (1,), seed=0, info=["speed"])
    with pytest.raises(ValueError, match=r"'cartpole' has no info, so \['speed'\] cannot be"):
        make_task("cartpole", (1,), seed=0, info=["speed"])


# any environment of TorchRL


def configured(target, argument=None, info=(), name="label", **options):
    return Environment(
        name=name,
        num_envs=3,
        options=options,
        info=list(info),
        target=target,
        batch_argument=argument,
    )


@pytest.mark.parametrize(
    ("task", "batch"),
    [
        (configured("torchrl_stein.envs.MultiGoalEnv", "batch_size", horizon=7), (3,)),
        (configured("torchrl_stein.envs.MultiGoalEnv", horizon=7), (3,)),
        # TorchRL makes rows of one environment each for this backend.
        (configured("torchrl.envs.AntEnv", "num_envs", backend="mujoco", parallel=False), (3, 1)),
        (configured("torchrl.envs.AntEnv", backend="mujoco"), (3, 1)),
    ],
)
def test_an_environment_class_of_a_configuration(task, batch):
    env = make_configured_task(task, 3, seed=0)
    assert env.batch_size == batch
    check_env_specs(env)
    data = env.rollout(3, break_when_any_done=False)
    assert data["observation"].dtype == torch.float32
    assert data["elapsed_steps"].flatten(1)[:, -1].tolist() == [2, 2, 2]
    assert_close(data["next", "episode_reward"], data["next", "reward"].cumsum(data.ndim - 1))
    assert len(data["observation"].flatten(0, -2)[::3].unique(dim=0)) == 3
    env.close()


def test_a_name_needs_no_class():
    task = configured(None, info=["max_forward_distance"], name="swimmer_finish_line")
    env = make_configured_task(task, 2, seed=0)
    assert env.batch_size == (2,)
    assert "max_forward_distance" in env.reset().keys()  # noqa: SIM118
    env.close()


def test_worlds_add_up_their_rewards_too():
    env = make_configured_task(configured(None, name="multigoal", horizon=7), 3, seed=0)
    data = env.rollout(3)
    assert_close(data["next", "episode_reward"], data["next", "reward"].cumsum(1))


def make_pictures():
    rename = RenameTransform(["observation"], ["pixels"])
    return TransformedEnv(GymEnv("Pendulum-v1"), rename)


@pytest.mark.parametrize(
    ("task", "kind", "message"),
    [
        (("torchrl.envs.NoEnv",), ValueError, "env._target_: there is no torchrl.envs.NoEnv"),
        (("builtins.dict", "num_envs"), TypeError, "must make a TorchRL environment, got dict"),
        (
            ("torchrl_stein.envs.MultiGoalEnv", None, (), "x", {"batch_size": [4]}),
            ValueError,
            r"MultiGoalEnv must have 3 rows, got batch size \[3, 4\]; see env.batch_argument",
        ),
        (
            ("torchrl_stein.envs.MultiGoalEnv", "batch_size", (), "x", {"horizn": 4}),
            ValueError,
            r"env.options: torchrl_stein.envs.MultiGoalEnv: .*unexpected keyword argument 'horizn'",
        ),
        (
            ("torchrl.envs.GymEnv", None, (), "x", {"env_name": "CartPole-v1"}),
            ValueError,
            "torchrl.envs.GymEnv must have a finite box of actions",
        ),
        (
            (f"{__name__}.make_pictures",),
            ValueError,
            r'must have a vector "observation", got \[\'pixels\'\]',
        ),
        (
            ("torchrl_stein.envs.MultiGoalEnv", "batch_size", ["speed"]),
            ValueError,
            r"MultiGoalEnv has no 'speed' to record, it has \[.*'observation'",
        ),
    ],
)
def test_an_environment_class_that_does_not_fit(task, kind, message):
    targets.trust_all_targets()
    *names, options = (*task, {}) if not isinstance(task[-1], dict) else task
    with pytest.raises(kind, match=message):
        make_configured_task(configured(*names, **options), 3, seed=0)


def test_without_trust_settings_name_no_other_class():
    with pytest.raises(ValueError, match=r"env._target_ must be AntEnv"):
        configured("torchrl.envs.GymEnv", env_name="Pendulum-v1")
    values = configured(None).model_dump(by_alias=True) | {"_target_": "os.system"}
    unchecked = Environment.model_construct(**values, target="os.system")
    with pytest.raises(ValueError, match="--trust builds whatever it names"):
        make_configured_task(unchecked, 3, seed=0)
