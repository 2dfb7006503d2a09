"""A directory of its own for every run. Imports no torch: settings are checked with it."""

from __future__ import annotations

import json
import os
import shutil
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .checkpoint import find_checkpoint
from .command_line import SettingsError

if TYPE_CHECKING:
    from .settings import RecipeSettings

__all__ = ["check_directory", "claim_directory", "release_directory"]

_locks: dict[Path, IO[str]] = {}  # a file that is closed is unlocked


def check_directory(settings: RecipeSettings) -> None:
    """Refuse settings that give the run no directory; nothing is made.

    Raises:
        SettingsError: if it cannot be written, or holds another run.
    """
    path = Path("runs" if settings.run_dir is None else settings.run_dir).absolute()
    place = path
    try:
        while not place.exists():
            place = place.parent
        if not place.is_dir():
            raise SettingsError(f"run_dir must be a directory, but {place} is a file")
        if not os.access(place, os.W_OK | os.X_OK):
            raise SettingsError(f"run_dir must be a place that can be written, {place} cannot")
        if settings.run_dir is not None and _holds_another_run(path, settings):
            raise SettingsError(
                f"run_dir must be a new directory, {path} already holds a run; to go on with it: "
                f"resume={path}"
            )
    except OSError as error:
        raise SettingsError(f"run_dir must be a directory: {error.strerror}: {place}") from None


def claim_directory(settings: RecipeSettings) -> Path:
    """A directory that no other run has, locked until it is released or the process ends.

    Without ``run_dir`` a new one below ``runs``, named by time, task and seed; two runs that
    start in the same second get different ones. A ``run_dir`` may exist, but may not hold a run,
    unless that was killed before its first checkpoint and had the same settings: what it logged
    is removed.

    Raises:
        SettingsError: if ``run_dir`` holds another run, or another process uses it.
    """
    if settings.run_dir is not None:
        path = Path(settings.run_dir).absolute()
        path.mkdir(parents=True, exist_ok=True)
        if not _lock(path):
            raise SettingsError(f"run_dir must be a new directory, another run uses {path}")
        try:
            check_directory(settings)
        except SettingsError:
            release_directory(path)
            raise
        if _settings_file(path) is not None:
            ours = (path / name for name in ("metrics", "tensorboard", "images"))
            for left in (*ours, *path.glob("seed*")):
                shutil.rmtree(left, ignore_errors=True)
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


def release_directory(path: Path) -> None:
    """Unlock a directory, at the end of the run."""
    file = _locks.pop(path, None)
    if file is not None:
        file.close()


def _lock(path: Path) -> bool:
    """Whether the directory is ours from now on."""
    if path in _locks:
        return False
    file = (path / ".lock").open("a")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    except (ImportError, OSError):  # a system or a disk without such locks
        pass
    _locks[path] = file
    return True


def _settings_file(path: Path) -> Path | None:
    files = [path / name for name in ("config.json", "batch.json")]
    return next((file for file in files if file.exists()), None)


def _holds_another_run(path: Path, settings: RecipeSettings) -> bool:
    file = _settings_file(path)
    if file is None:
        return False
    try:
        find_checkpoint(path)
        return True
    except FileNotFoundError:
        pass
    try:
        return bool(json.loads(file.read_text()) != settings.plain() | {"run_dir": str(path)})
    except ValueError:
        return True
