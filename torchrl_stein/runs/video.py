"""One episode of a policy as a video."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from torchrl_stein.envs import BatchedEnv, SimulatorEnv

from .command_line import first_line
from .evaluation import base_env, isolated_draws
from .settings import Environment
from .tasks import make_configured_task

if TYPE_CHECKING:
    from .loggers import Recorder

__all__ = ["log_episode", "prepare_rendering", "record_episode", "write_video"]

# PyOpenGL tells at level INFO, which recipes show, that an accelerator module is missing.
logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)

_FPS = 30.0  # of simulators that do not say theirs
_TIMEOUT_S = 120
_PROBE = """
import mujoco
sphere = "<mujoco><worldbody><geom type='sphere' size='.1'/></worldbody></mujoco>"
model = mujoco.MjModel.from_xml_string(sphere)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 16, 16) as renderer:
    renderer.update_scene(data)
    renderer.render()
"""


@torch.no_grad()
def record_episode(
    env: EnvBase,
    policy: TensorDictModuleBase,
    max_steps: int,
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,
) -> Tensor:
    """Pictures of one episode: of its start, and after each of its steps.

    The environment has one row: a :class:`~torchrl_stein.envs.BatchedEnv` whose world has
    ``render``, or simulators of gymnasium with ``render_mode="rgb_array"``; else
    NotImplementedError. RuntimeError if it is MuJoCo, which finds nothing to draw with.

    Returns:
        Tensor: uint8 ``[T, H, W, 3]``, 1 < T <= max_steps + 1.
    """
    if env.batch_size.numel() != 1:
        raise ValueError(
            f"record_episode: env must have one row, got batch size {list(env.batch_size)}"
        )
    if max_steps < 1:
        raise ValueError(f"record_episode: max_steps must be >= 1, got {max_steps}")
    draw = _painter(env)
    with set_exploration_type(exploration):
        now = env.reset()
        frames = [draw(now)]
        for _ in range(max_steps):
            after = env.step(policy(now))
            frames.append(draw(after["next"]))
            if after["next", "done"].all():
                break
            now = step_mdp(after)
    return torch.stack(frames)


def log_episode(
    recorder: Recorder,
    policy: TensorDictModuleBase,
    task: Environment,
    *,
    max_steps: int,
    seed: int = 0,
    device: str = "cpu",
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,
    name: str = "eval/episode",
) -> Path | None:
    """Play one episode of a task and keep it as a video of the run; 0 steps: none.

    Never stops a run: where it cannot be drawn or encoded, one line says "no video" and why.
    """
    if max_steps == 0:
        return None
    env = None
    try:
        with isolated_draws(seed):
            env = _make_visible_task(task, seed, device)
            frames = record_episode(env, policy, max_steps, exploration)
        return recorder.log_video(name, frames, _frames_per_second(env))
    except Exception as error:  # drivers raise what they like
        recorder.print(f"no video: {first_line(error)}")
        return None
    finally:
        if env is not None:
            env.close()


def write_video(path: Path, frames: npt.NDArray[np.uint8], fps: float) -> None:
    """Write ``[T, H, W, 3]`` as MP4 (H.264), which browsers play.

    Where a side is odd its last pixels are repeated: the format has colours for blocks of four.
    """
    try:
        from imageio_ffmpeg import write_frames  # an extra, with the encoder inside
    except ImportError as error:
        raise ImportError(
            "imageio-ffmpeg is missing, pip install 'torchrl_stein[recipes]'"
        ) from error

    height, width = frames.shape[1:3]
    margin = ((0, height % 2), (0, width % 2), (0, 0))
    size = (width + width % 2, height + height % 2)
    writer = write_frames(str(path), size, fps=fps, macro_block_size=2, ffmpeg_log_level="error")
    writer.send(None)  # starts the encoder
    try:
        for frame in frames:
            writer.send(np.ascontiguousarray(np.pad(frame, margin, mode="edge")))
    finally:
        writer.close()


def _make_visible_task(task: Environment, seed: int, device: str) -> EnvBase:
    env = make_configured_task(task, 1, device=device, seed=seed)
    if not isinstance(base_env(env), SimulatorEnv):  # worlds draw themselves, without render_mode
        return env
    env.close()
    visible = task.model_copy(update={"options": {**task.options, "render_mode": "rgb_array"}})
    return make_configured_task(visible, 1, device=device, seed=seed)


def _painter(env: EnvBase) -> Callable[[TensorDictBase], Tensor]:
    """What draws the state after a step, ``[H, W, 3]``."""
    base = base_env(env)
    if isinstance(base, BatchedEnv):
        return lambda td: base.render(td.reshape(-1)[0]).cpu()
    mode = base.simulators[0].render_mode if isinstance(base, SimulatorEnv) else None
    if mode != "rgb_array":
        raise NotImplementedError(
            f"{type(base).__name__} cannot be drawn: it is neither a BatchedEnv nor simulators "
            'of gymnasium with render_mode="rgb_array"'
        )
    from gymnasium.envs.mujoco import MujocoEnv

    if isinstance(base.simulators[0].unwrapped, MujocoEnv):
        prepare_rendering()
    return lambda td: torch.as_tensor(base.render().copy())


def _frames_per_second(env: EnvBase) -> float:
    base = base_env(env)
    if isinstance(base, BatchedEnv):
        return 1.0 / getattr(base.world, "time_step", 1.0 / _FPS)
    return float(base.metadata.get("render_fps") or _FPS)


def prepare_rendering() -> None:
    """Choose a way to draw MuJoCo scenes that works here, and set ``MUJOCO_GL`` to it.

    A ``MUJOCO_GL`` that is set is the only one tried; else, on Linux, a window (if there is a
    display), EGL and OSMesa. Each is tried once in another process, as a driver may abort.
    RuntimeError, with the reasons in one line, if none works.
    """
    chosen = os.environ.get("MUJOCO_GL")
    reasons = {}
    for backend in (chosen,) if chosen else _candidates():
        reasons[backend or "default"] = reason = _try_backend(backend)
        if reason is None:
            os.environ["MUJOCO_GL"] = backend  # gymnasium reads it when it first draws
            return
    words = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
    raise RuntimeError(f"MuJoCo cannot draw here ({words})")


def _candidates() -> tuple[str, ...]:
    if sys.platform != "linux":
        return ("",)
    displays = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return ("glfw",) * displays + ("egl", "osmesa")


@functools.cache
def _try_backend(backend: str) -> str | None:
    """Draws one picture; returns why it failed, in a few words, or None."""
    try:
        process = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env={**os.environ, "MUJOCO_GL": backend},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no picture within {_TIMEOUT_S} s"
    lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
    return None if process.returncode == 0 else lines[-1][:120]
