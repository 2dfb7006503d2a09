"""Can MuJoCo draw on this machine? Tried in another process: a graphics driver may abort."""

from __future__ import annotations

import functools
import logging
import os
import subprocess
import sys

__all__ = ["prepare_rendering"]

# PyOpenGL tells at level INFO, which recipes show, that an accelerator module is missing.
logging.getLogger("OpenGL.acceleratesupport").setLevel(logging.WARNING)

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


def prepare_rendering() -> None:
    """Choose a way to draw MuJoCo scenes that works here, and set ``MUJOCO_GL`` to it.

    A ``MUJOCO_GL`` that is set is the only one tried. Otherwise these are, in turn: on Linux a
    window (if there is a display), EGL and OSMesa; elsewhere MuJoCo's default. Each takes
    seconds, once per process.

    Raises:
        RuntimeError: if none works, with the reasons in one line.

    Example:
        >>> try:
        ...     prepare_rendering()
        ... except RuntimeError as error:
        ...     print(error)
    """
    backend, reasons = _find_backend(os.environ.get("MUJOCO_GL", ""))
    if backend is None:
        raise RuntimeError(f"MuJoCo cannot draw here ({'; '.join(reasons)})")
    if backend:
        os.environ["MUJOCO_GL"] = backend  # gymnasium reads it when it draws for the first time


@functools.cache
def _find_backend(chosen: str) -> tuple[str | None, tuple[str, ...]]:
    reasons = []
    for backend in (chosen,) if chosen else _candidates():
        reason = _try_backend(backend)
        if reason is None:
            return backend, ()
        reasons.append(f"{backend or 'default'}: {reason}")
    return None, tuple(reasons)


def _candidates() -> tuple[str, ...]:
    if sys.platform != "linux":
        return ("",)
    displays = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    return ("glfw",) * displays + ("egl", "osmesa")


def _try_backend(backend: str) -> str | None:
    """Draws one picture; returns why it failed, in a few words, or None."""
    environment = {**os.environ, "MUJOCO_GL": backend}
    try:
        process = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return f"no picture within {_TIMEOUT_S} s"
    if process.returncode == 0:
        return None
    lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
    return lines[-1][:120]
