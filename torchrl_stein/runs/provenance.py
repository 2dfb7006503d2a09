"""Where the numbers of a run come from: code, command, versions, machine."""

from __future__ import annotations

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

__all__ = ["git_state", "read_provenance"]

PACKAGES = (
    "torchrl_stein",
    "torch",
    "torchrl",
    "tensordict",
    "gymnasium",
    "mujoco",
    "numpy",
)
_GIT_TIMEOUT_S = 10


def read_provenance(device: str = "cpu") -> dict[str, Any]:
    """What one must know to repeat this process, of plain JSON types.

    Args:
        device: on which tensors live, ``"cpu"`` or ``"cuda:1"``; it is named.

    Returns:
        dict: ``git`` of the folder of the started script, see :func:`git_state`; ``command``;
        ``versions`` by package, None if it is not installed; ``python``; ``platform``;
        ``device``; ``started``, the time in UTC.

    Example:
        >>> sorted(read_provenance())
        ['command', 'device', 'git', 'platform', 'python', 'started', 'versions']
    """
    return {
        "git": git_state(Path(sys.argv[0]).resolve().parent),
        "command": shlex.join(sys.orig_argv),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": _device_name(device),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_state(folder: str | Path) -> dict[str, Any] | None:
    """Commit and state of the repository that a folder lies in.

    Args:
        folder: any folder of the working tree.

    Returns:
        dict | None: ``commit``, and ``dirty``: whether the working tree differs from it, files
        that git does not know included. None outside of a repository, without commits, or if git
        is missing or does not answer.

    Example:
        >>> git_state("/") is None
        True
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


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda" and torch.cuda.is_available():
        return torch.cuda.get_device_name(device)
    return _processor()


def _processor() -> str:
    try:  # platform.processor() is empty on most Linux systems
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
