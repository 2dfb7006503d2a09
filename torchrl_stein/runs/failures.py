"""What ends a run early, in one line: a loss that is no number, a full disk, a refused setting."""

from __future__ import annotations

import math
import signal
import threading
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tensordict import TensorDictBase

__all__ = ["Signals", "check_losses", "explain_failure"]

_RUNS = str(Path(__file__).parent)
_OURS = str(Path(__file__).parents[1])
_REFUSALS = (FileExistsError, FileNotFoundError, ImportError, KeyError, TypeError, ValueError)


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
        """From now on, in the main thread of a process, as others hear no signals."""
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
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    if not frames:
        return None
    if isinstance(error, FloatingPointError):
        return str(error)
    # Only on the way through this folder: a file that an edited recipe does not find is its own.
    if (
        isinstance(error, OSError)
        and directory is not None
        and any(frame.filename.startswith(_RUNS) for frame in frames)
    ):
        if error.strerror is None:  # one of ours
            return str(error)
        return f"cannot write to {error.filename or directory}: {error.strerror}"
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if memory or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        return f"there is not enough memory: {str(error).splitlines()[0] if str(error) else error}"
    # A refusal by the library, before anything was learnt, is about a setting. An error that the
    # library did not mean to raise needs its traceback, and so does one of an edited recipe.
    last = frames[-1]
    meant = (last.line or "").startswith(("raise ", "import ", "from "))
    if isinstance(error, _REFUSALS) and updates == 0 and meant and last.filename.startswith(_OURS):
        return str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return None


def check_losses(losses: TensorDictBase, step: int, batch: TensorDictBase | None = None) -> None:
    """Stop if a loss, an entry that begins with ``loss_``, is not finite.

    Raises:
        FloatingPointError: naming the first bad term, its value, the step and, if it is in the
            batch, the bad entry.

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
