"""The process of a run: its processor, random numbers, origin, signals, and what ends it."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import traceback
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase

from .command_line import first_line

__all__ = ["Signals", "check_losses", "explain_failure", "git_state", "prepare_cpu"]
__all__ += ["read_provenance", "spawn_seeds"]

PACKAGES = ("torchrl_stein", "torch", "torchrl", "tensordict", "gymnasium", "mujoco", "numpy")
_GIT_TIMEOUT_S = 10
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of mallopt, from malloc.h of the GNU C library
_RUNS, _OURS = str(Path(__file__).parent), str(Path(__file__).parents[1])
_REFUSALS = (FileExistsError, FileNotFoundError, ImportError, KeyError, TypeError, ValueError)


def prepare_cpu(threads: int) -> None:
    """Set the number of threads, and keep memory that tensors give back for the next ones.

    The GNU C library returns large blocks to the system and asks for them again, page by page,
    some thousand times per update: a third of the time of soft Q-learning.
    """
    torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)


def spawn_seeds(seed: int, count: int) -> list[int]:
    """Seed torch and NumPy, and return independent seeds for the environments.

    Seeds of neighbouring runs do not overlap, unlike seed + 1, seed + 2, ...
    """
    children = np.random.SeedSequence(seed).spawn(count + 1)
    own, *others = (int(child.generate_state(1)[0]) for child in children)
    torch.manual_seed(own)
    np.random.seed(own)  # noqa: NPY002 - gymnasium tools and TorchRL draw from the global state
    return others


def read_provenance(device: str = "cpu") -> dict[str, Any]:
    """What one must know to repeat this process, of plain JSON types."""
    on_a_gpu = torch.device(device).type == "cuda" and torch.cuda.is_available()
    return {
        "git": git_state(Path(sys.argv[0]).resolve().parent),
        "command": shlex.join(sys.orig_argv),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if on_a_gpu else _processor(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state(folder: str | Path) -> dict[str, Any] | None:
    """The ``commit`` of a folder's repository, and whether its files differ (``dirty``) or are new.

    None outside of a repository, without commits, or if git is missing or does not answer.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            check=True,
            text=True,
            timeout=_GIT_TIMEOUT_S,
            # Reading must not lock the index: someone may be committing.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.strip()

    try:
        commit = git("rev-parse", "--verify", "HEAD")
        return {"commit": commit, "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:  # platform.processor() is empty on most Linux systems
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


class Signals:
    """Ctrl-C, SIGTERM and SIGHUP: the first one may wait for a loop, a second one never does.

    Attributes:
        number: of the first one.
        may_wait: whether a loop looks at ``number``; else the first one, too, interrupts at once.
        at_once: whether one has interrupted.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.may_wait = self.at_once = False
        self._handlers: dict[int, Any] = {}

    def listen(self) -> None:
        """From now on, if this is the main thread: others hear no signals."""
        if threading.current_thread() is not threading.main_thread():
            return
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)  # not all systems have all
            # nohup ignores SIGHUP; but a shell starts background jobs with Ctrl-C ignored.
            if number and (name == "SIGINT" or signal.getsignal(number) is not signal.SIG_IGN):
                self._handlers[number] = signal.signal(number, self._hear)

    def restore(self) -> None:
        """As it was before."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.number = self.number is not None, self.number or number
        if again or not self.may_wait:
            self.at_once = True
            raise KeyboardInterrupt


def explain_failure(
    error: BaseException | None, directory: Path | None, updates: int
) -> str | None:
    """One line for what a user can mend, None where only a traceback helps."""
    if error is None or not (frames := traceback.extract_tb(error.__traceback__)):
        return None
    if isinstance(error, FloatingPointError):
        return str(error)
    # Only on the way through this folder: a file that an edited recipe does not find is its own.
    written = directory is not None and any(frame.filename.startswith(_RUNS) for frame in frames)
    if isinstance(error, OSError) and written:
        if error.strerror is None:  # one of ours
            return str(error)
        return f"cannot write to {error.filename or directory}: {error.strerror}"
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if memory or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return f"there is not enough memory: {first_line(error)}"
    # A refusal by the library, before anything was learnt, is about a setting. An error that the
    # library did not mean to raise needs its traceback, and so does one of an edited recipe.
    last = frames[-1]
    meant = (last.line or "").startswith(("raise ", "import ", "from "))
    if isinstance(error, _REFUSALS) and updates == 0 and meant and last.filename.startswith(_OURS):
        return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return None


def check_losses(losses: TensorDictBase, step: int, batch: TensorDictBase | None = None) -> None:
    """Stop if a loss, an entry that begins with ``loss_``, is not finite: FloatingPointError.

    Example:
        >>> from tensordict import TensorDict
        >>> check_losses(TensorDict({"loss_actor": torch.tensor(float("nan"))}), step=7)
        Traceback (most recent call last):
        FloatingPointError: loss_actor is nan at update 7
    """
    names = [name for name in losses.keys() if name.startswith("loss_")]  # noqa: SIM118
    if not names:
        return
    values = torch.stack([losses.get(name).detach().mean() for name in names]).tolist()
    for name, value in zip(names, values, strict=True):
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value} at update {step}{_culprits(batch)}")


def _culprits(batch: TensorDictBase | None) -> str:
    if batch is None:
        return ""
    bad = [
        f"{key!r} ({int((~value.isfinite()).sum())} of {value.numel()} values)"
        for key, value in batch.items(True, True)
        # Losses of TorchRL write it, so it is no cause.
        if key != "td_error" and value.dtype.is_floating_point and not value.isfinite().all()
    ]
    return f"; the batch is not finite in {', '.join(bad)}" if bad else "; the batch is finite"
