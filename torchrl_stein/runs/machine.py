"""The machine that a run is on: what it is, for the files, and its processor."""

from __future__ import annotations

import ctypes
import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["git_state", "prepare_cpu", "read_provenance"]

PACKAGES = ("torchrl_stein", "torch", "torchrl", "tensordict", "gymnasium", "mujoco", "numpy")
_GIT_TIMEOUT_S = 10
# Of mallopt, from malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def prepare_cpu(threads: int) -> None:
    """Set the number of threads, and keep memory that tensors give back for the next ones.

    By default the GNU C library returns large blocks to the system at once and asks for them anew,
    page by page, some thousand times per update: a third of the time of soft Q-learning. From
    here on the process keeps what it once had. Elsewhere only the threads are set.

    Example:
        >>> prepare_cpu(torch.get_num_threads())
    """
    torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        # None on systems with another C library.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)


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
    """The ``commit`` of the repository that a folder lies in, and whether its files differ.

    Files that git does not know make it ``dirty``, too. None outside of a repository, without
    commits, or if git is missing or does not answer.
    """
    try:
        commit = _git(folder, "rev-parse", "--verify", "HEAD")
        changes = _git(folder, "status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def _git(folder: str | Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        check=True,
        text=True,
        timeout=_GIT_TIMEOUT_S,
        # Reading must not lock the index: someone may be committing.
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    ).stdout


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
