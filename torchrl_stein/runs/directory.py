"""What a run takes before it begins: a directory of its own, random numbers, the processor."""

from __future__ import annotations

import ctypes
import json
import sys
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import torch

from .checkpoint import find_checkpoint

if TYPE_CHECKING:
    from .settings import RecipeSettings

__all__ = ["claim_directory", "prepare_cpu", "release_directory", "spawn_seeds"]

_locks: dict[Path, IO[str]] = {}  # a file that is closed is unlocked
# Of mallopt, from malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def claim_directory(settings: RecipeSettings) -> Path:
    """A directory that no other run has, locked for the life of this process.

    Without ``run_dir`` a new one below ``runs``, named by time, task and seed; two runs that
    start in the same second get different ones. A ``run_dir`` may exist, but may not hold a run,
    unless that was killed before its first checkpoint and had the same settings.

    Raises:
        FileExistsError: if ``run_dir`` holds another run.
    """
    if settings.run_dir is not None:
        path = Path(settings.run_dir).absolute()
        path.mkdir(parents=True, exist_ok=True)
        if not _lock(path):
            raise FileExistsError(f"run_dir must be a new directory, another run uses {path}")
        if _settings_file(path) is not None and not _may_start_again(path, settings):
            raise FileExistsError(
                f"run_dir must be a new directory, {path} already holds a run; to go on with it: "
                f"resume={path}"
            )
        return path
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    name = f"{now}_{settings.task.replace('/', '-')}_seed{settings.seed}"
    parent = Path("runs", settings.recipe).absolute()
    parent.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = parent / (name if number == 1 else f"{name}_{number}")
        try:
            path.mkdir()  # of two processes one succeeds
        except FileExistsError:
            continue
        _lock(path)
        return path
    raise AssertionError("count() does not end")


def _lock(path: Path) -> bool:
    """Whether the directory is ours from now on; the system unlocks it when the process ends."""
    file = (path / ".lock").open("a")
    _locks[path] = file
    try:
        import fcntl
    except ImportError:  # a system without it has no such lock
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _settings_file(path: Path) -> Path | None:
    files = [path / name for name in ("config.json", "batch.json")]
    return next((file for file in files if file.exists()), None)


def release_directory(path: Path) -> None:
    """Unlock a directory, at the end of the run."""
    file = _locks.pop(path, None)
    if file is not None:
        file.close()


def _may_start_again(path: Path, settings: RecipeSettings) -> bool:
    try:
        find_checkpoint(path)
    except FileNotFoundError:
        pass
    else:
        return False
    file = _settings_file(path)
    try:
        saved = None if file is None else json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return bool(saved == settings.plain() | {"run_dir": str(path)})


def spawn_seeds(seed: int, count: int) -> list[int]:
    """Seed torch and NumPy, and return independent seeds for the environments.

    Seeds of neighbouring runs do not overlap, unlike seed + 1, seed + 2, ...

    Args:
        seed: of the run, >= 0.
        count: number of seeds to return.

    Example:
        >>> spawn_seeds(0, 2) == spawn_seeds(0, 2)
        True
    """
    children = np.random.SeedSequence(seed).spawn(count + 1)
    own, *others = (int(child.generate_state(1)[0]) for child in children)
    torch.manual_seed(own)
    np.random.seed(own)  # noqa: NPY002 - gymnasium tools and TorchRL draw from the global state
    return others


def prepare_cpu(threads: int) -> None:
    """Set the number of threads, and keep memory that tensors give back for the next ones.

    By default the GNU C library returns large blocks to the system at once and asks for them anew,
    page by page, some thousand times per update: a third of the time of soft Q-learning. From
    here on the process keeps what it once had. Elsewhere only the threads are set.

    Args:
        threads: of torch, >= 1.

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
