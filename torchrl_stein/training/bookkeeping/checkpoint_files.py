"""How a checkpoint gets onto the disk: one file per component, and clear words if it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torchrl.checkpoint import StateDictCheckpointAdapter

__all__ = ["OneFileAdapter", "explain_write_errors"]


class OneFileAdapter(StateDictCheckpointAdapter):
    """Writes the state of a component as one file, which is on the disk before it has a name.

    TorchRL's default maps a file per tensor into memory. Where the disk is full, the process then
    dies of SIGBUS ("Bus error") and nobody learns why; here it is an OSError.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     OneFileAdapter().save(nn.Linear(2, 1), Path(folder), args=(), kwargs={})
        ...     [path.name for path in Path(folder).iterdir()]
        ['state.pt']
    """

    def save(
        self, component: Any, path: Path, *, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """Write ``component.state_dict()`` below ``path``; TorchRL's load knows such files."""
        path.mkdir(parents=True, exist_ok=True)
        with (path / self.state_torch).open("wb") as file:
            torch.save(component.state_dict(*args, **kwargs), file)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def explain_write_errors(directory: Path, latest: Path | None) -> Iterator[None]:
    """Say which directory cannot be written, and what is left.

    Args:
        directory: of the checkpoints.
        latest: the newest one that is complete, or None.

    Raises:
        OSError: in place of any within.

    Example:
        >>> with explain_write_errors(Path("full"), latest=None):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        OSError: cannot write a checkpoint to full: No space left on device; there is none yet
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause = _os_error(error)
        if cause is None:
            raise
        kept = "there is none yet"
        if latest is not None:
            kept = f"once it can be written, go on from the last one: resume={latest}"
        raise OSError(
            f"cannot write a checkpoint to {directory}: {cause.strerror or cause}"
            f"{_free_space(directory)}; {kept}"
        ) from error


def _os_error(error: BaseException | None) -> OSError | None:
    # torch.save hides the OSError of its file behind a RuntimeError, "unexpected pos".
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _free_space(directory: Path) -> str:
    try:
        return f" ({shutil.disk_usage(directory).free / 2**20:.0f} MiB free)"
    except OSError:  # no such directory
        return ""
