"""What all MuJoCo tasks have in common: registration, checkers, seeds, horizon, documentation."""

import copy
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from torchrl.envs import GymEnv
from torchrl.envs.utils import check_env_specs

import torchrl_stein.envs.mujoco
from torchrl_stein.envs import MEDIUM_MAZE, register_tasks
from torchrl_stein.envs.mujoco import (
    AntHallwayEnv,
    AntMazeEnv,
    PointGoalMazeEnv,
    SwimmerFinishLineEnv,
)
from torchrl_stein.envs.tasks import MUJOCO_TASKS
from torchrl_stein.runs import make_task

DOCS = Path(__file__).parents[2] / "docs"
ANTS = [env_id for env_id in MUJOCO_TASKS if "Ant" in env_id]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path, monkeypatch):
    """MuJoCo writes a log into the working directory when it has something to say."""
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_gymnasium_checker_has_nothing_to_say(env_id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # gymnasium's own robots have unbounded observations too
        warnings.filterwarnings("ignore", ".*Box observation space m.* value is -?infinity")
        check_env(gymnasium.make(env_id).unwrapped, skip_render_check=True)


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_torchrl_checker(env_id):
    env = GymEnv(env_id)
    check_env_specs(env, seed=0)
    assert env.rollout(3)["next", "reward"].isfinite().all()


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_torchrl_reads_info(env_id):
    env = GymEnv(env_id).auto_register_info_dict()
    data = env.rollout(3)
    assert data["next", "centre_of_mass"].shape == (3, 2)
    assert data["next", "reward_task"].isfinite().all()


def play(env, seed, steps=15):
    observation, info = env.reset(seed=seed)
    env.action_space.seed(seed)
    record = [*observation, *info["centre_of_mass"]]
    for _ in range(steps):
        observation, reward, terminated, _, info = env.step(env.action_space.sample())
        record += [*observation, reward, terminated, *info["centre_of_mass"]]
    return record


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_seed_decides_the_episode(env_id):
    first, second = gymnasium.make(env_id).unwrapped, gymnasium.make(env_id).unwrapped
    record = play(first, seed=4)
    assert record == play(second, seed=4) == play(first, seed=4)
    assert record != play(first, seed=5)


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_sum_of_the_terms_is_the_reward(env_id):
    env = gymnasium.make(env_id)
    _, info = env.reset(seed=0)
    assert info["centre_of_mass"].shape == (2,)
    _, reward, _, _, info = env.step(env.action_space.sample())
    terms = [value for key, value in info.items() if key.startswith("reward_")]
    assert reward == pytest.approx(sum(terms), abs=1e-12)


def test_all_ants_have_the_same_observations_and_actions():
    envs = [gymnasium.make(env_id) for env_id in ANTS]
    assert len(envs) == 5
    for env in envs:
        assert env.observation_space.shape == (107,)
        assert env.action_space == gymnasium.make("Ant-v5").action_space
        observation, _ = env.reset(seed=0)
        assert observation[:2].tolist() == env.unwrapped.data.qpos[:2].tolist()
        short = env.spec.make(exclude_current_positions_from_observation=True)
        assert short.reset(seed=0)[0].tolist() == observation[2:].tolist()


def test_widths_of_the_hallways():
    for name, width in (("Wide", 6.0), ("Narrow", 3.0)):
        env = gymnasium.make(f"torchrl_stein/AntHallway{name}-v0").unwrapped
        upper, lower = env.arena.walls
        assert upper.y_min - lower.y_max == width


def test_five_hundred_steps_truncate():
    env = gymnasium.make("torchrl_stein/SwimmerFinishLine-v0")
    env.reset(seed=0)
    flags = [env.step(np.zeros(2, dtype=np.float32))[2:4] for _ in range(500)]
    assert flags == [(False, False)] * 499 + [(False, True)]
    robots = [env_id for env_id in MUJOCO_TASKS if "GoalMaze" not in env_id]
    assert {gymnasium.spec(env_id).max_episode_steps for env_id in robots} == {500}


@pytest.mark.parametrize(
    "env",
    [
        AntMazeEnv(target=(13.0, 1.0), sigma=2.0, frame_skip=4),
        AntHallwayEnv(hallway_width=4.0, flip_limit=0.5),
        SwimmerFinishLineEnv(finish_line=2.0, reset_noise_scale=0.2),
        PointGoalMazeEnv(MEDIUM_MAZE, obstacles=True),
    ],
    ids=lambda env: type(env).__name__,
)
@pytest.mark.parametrize("clone", [lambda env: pickle.loads(pickle.dumps(env)), copy.deepcopy])
def test_copies_keep_the_arguments(env, clone):
    twin = clone(clone(env))
    assert twin.arena == env.arena
    assert play(twin, seed=1) == play(env, seed=1)


@pytest.mark.parametrize("batch_size", [(3,), (2, 2)])
def test_recipes_can_make_them(batch_size):
    env = make_task("torchrl_stein/AntMaze-v0", batch_size, seed=0, options={"sigma": 2.0})
    data = env.rollout(5, break_when_any_done=False)
    assert data["observation"].shape == (*batch_size, 5, 107)
    assert data["next", "reward"].isfinite().all()


def test_registering_again_changes_nothing_and_does_not_warn():
    specs = [gymnasium.spec(env_id) for env_id in MUJOCO_TASKS]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register_tasks()
    assert [gymnasium.spec(env_id) for env_id in MUJOCO_TASKS] == specs


def test_import_registers_without_mujoco_and_make_names_what_is_missing():
    code = """if True:
        import sys
        sys.modules["mujoco"] = None  # as if it were not installed
        import gymnasium, torchrl_stein.envs
        for env_id in gymnasium.registry:
            if env_id.startswith("torchrl_stein/Ant"):
                try:
                    gymnasium.make(env_id)
                except gymnasium.error.DependencyNotInstalled as error:
                    print(env_id, error)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert [line.split()[0] for line in said] == ANTS
    assert all("gymnasium[mujoco]" in line for line in said)


def test_public_names_are_sorted_and_have_examples():
    package = torchrl_stein.envs.mujoco
    classes_first = sorted(package.__all__, key=lambda name: (name[0].islower(), name))
    assert package.__all__ == classes_first
    docs = [vars(getattr(package, name)).get("__doc__") for name in package.__all__[:-1]]
    assert all(">>>" in doc for doc in [*docs, package.draw_top_view.__doc__])


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_every_task_is_in_the_docs_with_a_picture(env_id):
    page = (DOCS / "reference" / "mujoco_tasks.md").read_text()
    name = env_id.partition("/")[2].partition("-")[0]
    assert f"`{env_id}`" in page
    assert f"(../pictures/top_view_{name}.png)" in page
    assert (DOCS / "pictures" / f"top_view_{name}.png").exists()
