"""What a run has on the disk: a directory of its own, and checkpoints of its whole state, as data.

Not torchrl.checkpoint (0.14): its manifest has no checksums, so that a flipped bit resumes without
a word; where ``state.pt`` is missing it reads a tensordict's folder, whose pickle runs code; and it
does not wait until directories are on the disk. What is read here is JSON, and tensors loaded with
``weights_only=True``. torch is imported where they are: settings of a run are asked for without it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from .command_line import SettingsError, first_line

if TYPE_CHECKING:
    from .settings import RecipeSettings

__all__ = ["CheckpointError", "Checkpoints", "check_directory", "claim_directory"]
__all__ += ["find_checkpoint", "load_checkpoint", "load_component", "read_component"]
__all__ += ["read_manifest", "release_directory", "write_json"]

FORMAT = 2  # 1 was torchrl.checkpoint's
_MANIFEST = "manifest.json"
_KEEP_LAST = 2
_MANIFEST_TYPES: dict[str, Any] = {
    "config": dict,
    "eval_return": float | int | None,
    "files": dict,
    "notes": dict,
    "step": int,
}
_locks: dict[Path, IO[str]] = {}  # of directories; a file that is closed is unlocked


class CheckpointError(ValueError):
    """A checkpoint that is damaged, or was made by another architecture."""


def check_directory(settings: RecipeSettings) -> None:
    """Refuse a ``run_dir`` that cannot be written or holds another run: SettingsError.

    Nothing is made.
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
    start in the same second get different ones. A ``run_dir`` may exist, but may not hold a run
    (SettingsError), unless that was killed before its first checkpoint and had the same settings:
    what it logged is removed.
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
    if _complete(path / "checkpoints"):
        return True
    try:
        return bool(json.loads(file.read_text()) != settings.plain() | {"run_dir": str(path)})
    except ValueError:
        return True


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a user means by ``path``: FileNotFoundError if there is none.

    Args:
        path: a checkpoint; or the directory of a run, which stands for its newest checkpoint; or
            that directory followed by ``/best``, for the one with the best evaluation. What a
            killed process left half-written is never found.

    Example:
        >>> find_checkpoint("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: no checkpoint at nowhere
    """
    path = Path(path)
    if (path / _MANIFEST).is_file():
        return path
    best = path.name == "best" and not path.exists()
    run = path.parent if best else path
    found = _complete(run / "checkpoints")
    chosen = _best(found) if best else max(found, default=None)
    if chosen is None:
        raise FileNotFoundError(f"no {'evaluated ' * best}checkpoint at {run}")
    return chosen


def read_manifest(path: str | Path) -> dict[str, Any]:
    """What stands beside the state: ``config``, ``step``, ``eval_return``, ``notes``, ``files``.

    Raises FileNotFoundError without a checkpoint, CheckpointError if the manifest is damaged or of
    another format.
    """
    file = find_checkpoint(path) / _MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        version = manifest["format"]
        if version == FORMAT:
            whole = manifest.pop("sha256") == _digest(_canonical(manifest))
            if whole and all(isinstance(manifest[n], t) for n, t in _MANIFEST_TYPES.items()):
                return dict(manifest)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        version = FORMAT
    if version != FORMAT:
        raise CheckpointError(
            f"{file} has format {version!r}, this version of torchrl_stein reads {FORMAT}"
        )
    raise CheckpointError(_damaged(file, "it is not what was written"))


def read_component(path: str | Path, name: str) -> Any:
    """The saved state of one component, such as "loss" or "buffer", as plain data on the CPU.

    Raises FileNotFoundError without a checkpoint, CheckpointError if its file is damaged,
    ValueError if it has no such component.
    """
    import torch

    path = find_checkpoint(path)
    files = read_manifest(path)["files"]
    file = path / f"{name}.pt"
    if file.name not in files:
        held = sorted(found.removesuffix(".pt") for found in files)
        raise ValueError(f"the checkpoint {path} holds no {name}, only {held}")
    try:
        checksum = _checksum(file)
    except OSError as error:
        raise CheckpointError(_damaged(file, error.strerror or str(error))) from error
    if checksum != files[file.name]["sha256"]:
        raise CheckpointError(_damaged(file, "its checksum does not fit"))
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle has many ways to say that this is no plain data
        raise CheckpointError(_damaged(file, "it holds more than tensors and numbers")) from error


def load_component(path: str | Path, name: str, component: Any) -> None:
    """Load one component; see :func:`read_component` and :func:`load_checkpoint`."""
    _load(component, read_component(path, name), f"{name} of {find_checkpoint(path)}")


def load_checkpoint(path: Path, components: Mapping[str, Any]) -> dict[str, Any]:
    """Restore every component, after all files proved to be whole, and return the manifest.

    Raises CheckpointError, which names the first difference, if the checkpoint is damaged or
    belongs to another architecture.
    """
    manifest = read_manifest(path)
    states = {name: read_component(path, name) for name in components}
    for name, component in components.items():
        _load(component, states.pop(name), f"{name} of {path}")
    return manifest


def _load(component: Any, state: Any, origin: str) -> None:
    from torch import nn

    try:
        if isinstance(component, nn.Module):
            compare_states(state, component.state_dict(), origin)
        component.load_state_dict(state)
    except CheckpointError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{origin} does not fit: {first_line(error)}") from error


def compare_states(saved: Mapping[str, Any], here: Mapping[str, Any], origin: str) -> None:
    """Compare names, shapes and kinds of tensors of two states of a module.

    TorchRL's parameter containers ignore missing and surplus entries even if told to be strict,
    and would go on with half of the weights.
    """
    from torch import Tensor

    before, now = (
        {n: f"{list(v.shape)} {v.dtype}" for n, v in state.items() if isinstance(v, Tensor)}
        for state in (saved, here)
    )
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise CheckpointError(
                f"{origin} was made by another architecture: {name} is "
                f"{before.get(name, 'absent')} there and {now.get(name, 'absent')} here"
            )


class Checkpoints:
    """The checkpoints of a run: the last two, and the one with the best evaluation.

    A checkpoint is written under a hidden name, reaches the disk with its directory, and is
    renamed when it is complete; only then others are removed. A process may be killed at any
    moment: what it leaves is hidden and ignored (``.checkpoint-*``).

    Args:
        directory: where they go; made at once, so that a place that cannot be written (OSError) is
            known before hours of training.
        config: plain settings, recorded in each.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Checkpoints(Path(folder), config={}).save(10, {"loss": nn.Linear(2, 1)})
        ...     sorted(file.name for file in path.iterdir())
        ['loss.pt', 'manifest.json']
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self.directory, self.config = directory, dict(config)
        self.latest: Path | None = None
        with self._explained():
            directory.mkdir(parents=True, exist_ok=True)

    def save(
        self,
        step: int,
        components: Mapping[str, Any],
        eval_return: float | None = None,
        **notes: Any,
    ) -> Path:
        """Write a checkpoint; it appears whole or not at all, and once for each step.

        Args:
            step: environment steps taken, part of the name.
            components: by name, each with ``state_dict``.
            eval_return: of an evaluation since the last checkpoint, if there was one; decides
                which is the best. NaN and infinity never are.
            **notes: plain values to record beside it.

        An OSError names the directory and the last good checkpoint.
        """
        path = self.directory / f"checkpoint-{step:012d}"
        if (path / _MANIFEST).exists():
            return path
        hidden = self.directory / f".{path.name}-{os.getpid()}"
        known = eval_return is not None and math.isfinite(eval_return)
        with self._explained(hidden):
            hidden.mkdir()
            manifest = {
                "format": FORMAT,
                "step": step,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "eval_return": eval_return if known else None,
                "config": self.config,
                "notes": notes,
                "files": {
                    f"{name}.pt": _write_state(hidden / f"{name}.pt", component.state_dict())
                    for name, component in components.items()
                },
            }
            manifest["sha256"] = _digest(_canonical(manifest))
            content = json.dumps(manifest, indent=1).encode()
            _write(hidden / _MANIFEST, lambda file: file.write(content))
            _sync(hidden)
            hidden.rename(path)
            _sync(self.directory)
            self.latest = path
            self._prune()
        return path

    def _prune(self) -> None:
        found = _complete(self.directory)
        kept = {*found[-_KEEP_LAST:], _best(found)}
        for path in found:
            if path not in kept:
                gone = path.with_name(f".{path.name}-removed")
                path.rename(gone)  # at once, while files are removed one by one
                shutil.rmtree(gone, ignore_errors=True)

    @contextmanager
    def _explained(self, part: Path | None = None) -> Iterator[None]:
        """Of a failed write remove the part, and say where it failed and what is left."""
        try:
            yield
        except BaseException as error:
            if part is not None:  # on a full disk it is in the way
                shutil.rmtree(part, ignore_errors=True)
            cause: BaseException | None = error
            # torch.save hides the OSError of its file behind a RuntimeError.
            while cause is not None and not isinstance(cause, OSError):
                cause = cause.__cause__ or cause.__context__
            if cause is None:
                raise
            kept = "there is none yet"
            if self.latest is not None:
                kept = f"once it can be written, go on from the last one: resume={self.latest}"
            raise OSError(
                f"cannot write a checkpoint to {self.directory}: {cause.strerror or cause}; {kept}"
            ) from error


def write_json(path: Path, content: Any) -> Path:
    """Write a JSON file that appears whole or not at all."""
    hidden = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        _write(hidden, lambda file: file.write((json.dumps(content, indent=2) + "\n").encode()))
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise
    _sync(path.parent)
    return path


def _complete(directory: Path) -> list[Path]:
    paths = directory.glob("checkpoint-*") if directory.is_dir() else ()
    return sorted(path for path in paths if (path / _MANIFEST).is_file())


def _best(paths: Collection[Path]) -> Path | None:
    known = {}
    for path in paths:
        try:
            known[path] = read_manifest(path)["eval_return"]
        except CheckpointError:  # it can be no one's best
            continue
    evaluated = [path for path, value in known.items() if value is not None]
    return max(evaluated, key=lambda path: known[path], default=None)


def _write_state(path: Path, state: Any) -> dict[str, Any]:
    import torch

    _write(path, lambda file: torch.save(state, file))
    return {"sha256": _checksum(path), "bytes": path.stat().st_size}


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(directory: Path) -> None:
    if os.name != "posix":  # elsewhere a directory cannot be opened
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _canonical(manifest: Mapping[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True).encode()


def _damaged(file: Path, why: str) -> str:
    others = [path for path in _complete(file.parent.parent) if path != file.parent]
    another = f"; another checkpoint is {others[-1]}" if others else ""
    return f"the checkpoint is damaged: {file}: {why}{another}"
