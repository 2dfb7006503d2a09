"""Episodes as videos, on machines that can draw and on those that cannot."""

import os
import signal
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from tensordict.nn import TensorDictModule
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein.envs import CartpoleEnv, CartpoleSwingUpEnv, MultiGoalEnv
from torchrl_stein.runs import log_episode, make_task, video
from torchrl_stein.runs.loggers import Recorder
from torchrl_stein.runs.settings import Environment
from torchrl_stein.runs.video import record_episode


def task(name, **options):
    return Environment(
        name=name, num_envs=1, options=options, info=[], target=None, batch_argument=None
    )


def run(folder, steps=0):
    found = Recorder()
    found.directory, found.steps = folder, steps
    return found


TASK = task("cartpole")


class Painted(gym.Env):
    """Ends after five steps; its picture has the number of steps so far as its grey."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 12}  # noqa: RUF012
    observation_space = gym.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
    closed = 0

    def __init__(self, render_mode=None, grey=10):
        self.render_mode, self.grey, self.steps = render_mode, grey, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.zeros(3, np.float32), 0.0, self.steps == 5, False, {}

    def render(self):
        return np.full((6, 8, 3), self.grey * self.steps, np.uint8)

    def close(self):
        Painted.closed += 1


@pytest.fixture(autouse=True)
def _registered():
    gym.register("Painted-v0", entry_point=Painted)
    yield
    del gym.registry["Painted-v0"]


def still(action_dim, seen=None):
    """A policy that does nothing, and notes how it is asked to explore."""

    def act(observation):
        if seen is not None:
            seen.append(exploration_type())
        return observation.new_zeros(*observation.shape[:-1], action_dim)

    return TensorDictModule(act, ["observation"], ["action"])


# worlds of tensors


def test_a_world_draws_its_start_and_what_follows_each_step():
    frames = record_episode(CartpoleSwingUpEnv((1,), seed=3), still(1), max_steps=4)
    env = CartpoleSwingUpEnv((1,), seed=3)
    rollout = env.rollout(4, still(1), break_when_any_done=False)
    after = env.render(rollout["next"])[0]
    start = env.render(rollout)[0, :1]
    assert frames.equal(torch.cat([start, after]))
    assert not frames[0].equal(frames[-1])


@pytest.mark.parametrize("batch", [(1,), (1, 1), ()])
def test_any_batch_of_one_row_will_do(batch):
    assert record_episode(CartpoleEnv(batch, seed=0), still(1), 2).shape == (3, 100, 200, 3)


def test_an_episode_that_ends_is_not_followed_by_another():
    env = CartpoleEnv((1,), seed=0, horizon=3)
    assert len(record_episode(env, still(1), max_steps=10)) == 4


@pytest.mark.parametrize("mode", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_the_policy_explores_as_told(mode):
    seen = []
    record_episode(CartpoleEnv((1,), seed=0), still(1, seen), 2, mode)
    assert seen == [mode, mode]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"one row, got batch size \[2\]"):
        record_episode(CartpoleEnv((2,), seed=0), still(1), 3)
    with pytest.raises(ValueError, match="max_steps must be >= 1, got 0"):
        record_episode(CartpoleEnv((1,), seed=0), still(1), 0)


# simulators


def test_simulators_draw_their_start_and_what_follows_each_step():
    env = make_task("Painted-v0", (1,), seed=0, options={"render_mode": "rgb_array"})
    frames = record_episode(env, still(2), max_steps=20)
    assert frames.shape == (6, 6, 8, 3)
    assert frames[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]  # the end, not the next start
    assert len(record_episode(env, still(2), max_steps=2)) == 3
    env.close()


def test_simulators_must_be_made_for_it():
    env = make_task("Painted-v0", (1,), seed=0)
    with pytest.raises(NotImplementedError, match='with render_mode="rgb_array"'):
        record_episode(env, still(2), max_steps=2)
    env.close()


# into a run


def read(path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    reader = ffmpeg.read_frames(str(path))
    return next(reader), [np.frombuffer(frame, np.uint8).mean() for frame in reader]


def test_a_simulator_ends_up_in_the_run(tmp_path):
    closed = Painted.closed
    given = task("Painted-v0", grey=40)
    path = log_episode(run(tmp_path, 7), still(2), given, max_steps=4)
    assert path == tmp_path / "videos/eval/episode_000000000007.mp4"
    meta, greys = read(path)
    assert meta["fps"] == 12
    assert greys == pytest.approx([0, 40, 80, 120, 160], abs=4)
    assert Painted.closed - closed == 2  # the one that cannot draw, and the one that did
    assert given.options == {"grey": 40}


def test_a_world_plays_at_its_own_pace(tmp_path):
    path = log_episode(run(tmp_path), still(1), TASK, max_steps=5, name="test/a")
    assert path == tmp_path / "videos/test/a_000000000000.mp4"
    meta, greys = read(path)
    assert meta["fps"] == pytest.approx(1 / CartpoleEnv().world.time_step)
    assert len(greys) == 6


def test_the_seed_fixes_the_start(tmp_path):
    files = [
        log_episode(run(tmp_path, i), still(1), TASK, max_steps=2, seed=seed).read_bytes()
        for i, seed in enumerate((0, 0, 1))
    ]
    assert files[0] == files[1] != files[2]


class Blind(MultiGoalEnv):
    """A world that cannot draw itself."""

    def render(self, tensordict):
        raise NotImplementedError("Blind has no render(state).\nand more")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (task("no_such_task"), "env must be one of"),
        (task("cartpole", pole_length=-1.0), "pole_length"),
    ],
)
def test_what_cannot_be_made_is_one_line(tmp_path, given, reason, capsys):
    assert log_episode(run(tmp_path), still(1), given, max_steps=2) is None
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("no video: ")
    assert reason in line


def test_what_cannot_be_drawn_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(video, "make_configured_task", lambda *_, **__: Blind((1,)))
    assert log_episode(run(tmp_path), still(2), TASK, max_steps=2) is None
    assert capsys.readouterr().out == "no video: Blind has no render(state).\n"


# MuJoCo


@pytest.fixture
def fresh(monkeypatch):
    """Nothing was tried yet, and the environment says nothing."""
    for name in ("MUJOCO_GL", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")  # so that what is set meanwhile is undone
        monkeypatch.delenv(name)
    video._find_backend.cache_clear()
    yield monkeypatch
    video._find_backend.cache_clear()


def test_mujoco_gives_a_video_or_one_line(tmp_path, fresh, capsys):
    pytest.importorskip("imageio_ffmpeg")
    path = log_episode(
        run(tmp_path), still(2), task("Swimmer-v5", width=32, height=32), max_steps=1
    )
    lines = capsys.readouterr().out.splitlines()
    if path is None:
        (line,) = lines
        assert line.startswith("no video: MuJoCo cannot draw here (egl: ")
    else:
        assert len(read(path)[1]) == 2
        assert os.environ["MUJOCO_GL"] in ("glfw", "egl", "osmesa")


def probe(monkeypatch, script):
    monkeypatch.setattr(video, "_candidates", lambda: ("first", "second"))
    monkeypatch.setattr(video, "_PROBE", "import os; gl = os.environ['MUJOCO_GL']; " + script)


def test_the_first_that_works_is_chosen(fresh):
    probe(fresh, "assert gl == 'second'")
    video.prepare_rendering()
    assert os.environ["MUJOCO_GL"] == "second"


def test_a_choice_of_the_user_is_the_only_one_tried(fresh):
    probe(fresh, "assert gl == 'second', gl")
    fresh.setenv("MUJOCO_GL", "mine")
    with pytest.raises(RuntimeError, match=r"cannot draw here \(mine: AssertionError: mine\)"):
        video.prepare_rendering()
    assert os.environ["MUJOCO_GL"] == "mine"


def test_a_driver_that_aborts_or_hangs_does_not_matter(fresh):
    probe(fresh, "import time; os.abort() if gl == 'first' else time.sleep(60)")
    fresh.setattr(video, "_TIMEOUT_S", 1)
    message = rf"first: exit code -{int(signal.SIGABRT)}; second: no picture within 1 s"
    with pytest.raises(RuntimeError, match=message):
        video.prepare_rendering()
    assert "MUJOCO_GL" not in os.environ


def test_it_is_tried_once(fresh):
    calls = []
    fresh.setattr(video, "_candidates", lambda: ("egl",))
    fresh.setattr(video, "_try_backend", lambda backend: calls.append(backend) or "broken")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="egl: broken"):
            video.prepare_rendering()
    assert calls == ["egl"]


@pytest.mark.parametrize(
    ("platform", "display", "candidates"),
    [
        ("linux", None, ("egl", "osmesa")),
        ("linux", ":0", ("glfw", "egl", "osmesa")),
        ("darwin", None, ("",)),
        ("win32", None, ("",)),
    ],
)
def test_what_is_tried(fresh, platform, display, candidates):
    fresh.setattr(sys, "platform", platform)
    if display:
        fresh.setenv("DISPLAY", display)
    assert video._candidates() == candidates


def test_a_run_without_a_driver_goes_on(tmp_path, fresh, capsys):
    probe(fresh, "raise OSError('no driver')")
    assert log_episode(run(tmp_path), still(2), task("Swimmer-v5"), max_steps=1) is None
    expected = "no video: MuJoCo cannot draw here (first: OSError: no driver; second: OSError"
    assert capsys.readouterr().out.startswith(expected)
