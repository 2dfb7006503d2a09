"""What ends a run early: a loss that is no number, a disk that is full, and Ctrl-C."""

from __future__ import annotations

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from tensordict import TensorDictBase

__all__ = ["StopFlag", "catch_interrupt", "check_losses", "exit_if_unwritable"]


def check_losses(losses: TensorDictBase, step: int, batch: TensorDictBase | None = None) -> None:
    """Stop if a loss is not finite.

    Reading the losses waits for the device; on an accelerator call it now and then, and before
    every checkpoint, so that what is on disk is sound.

    Args:
        losses: scalars; entries that begin with ``loss_`` are looked at.
        step: number of the update, for the message.
        batch: the transitions that were learnt from; searched for the culprit.

    Raises:
        FloatingPointError: naming the first bad term, its value, the step and, if it is in the
            batch, the bad entry.

    Example:
        >>> from tensordict import TensorDict
        >>> check_losses(TensorDict({"loss_actor": torch.tensor(float("nan"))}), step=7)
        Traceback (most recent call last):
        FloatingPointError: loss_actor is nan at update 7
    """
    # Iterating a TensorDict goes over its batch, hence keys().
    names = [name for name in losses.keys() if name.startswith("loss_")]  # noqa: SIM118
    values = torch.stack([losses.get(name).detach().mean() for name in names]).tolist()
    for name, value in zip(names, values, strict=True):
        if not math.isfinite(value):
            raise FloatingPointError(f"{name} is {value} at update {step}" + _culprits(batch))


def _culprits(batch: TensorDictBase | None) -> str:
    if batch is None:
        return ""
    bad = [
        f"{key!r} ({int((~value.isfinite()).sum())} of {value.numel()} values)"
        for key, value in batch.items(True, True)
        if value.dtype.is_floating_point and not value.isfinite().all()
    ]
    return f"; the batch is not finite in {', '.join(bad)}" if bad else "; the batch is finite"


@contextmanager
def exit_if_unwritable(program: str, directory: str | Path) -> Iterator[None]:
    """End a recipe with one line, and no traceback, if its results cannot be written.

    Args:
        program: begins the line.
        directory: where results go; named unless the error names a place.

    Example:
        >>> with exit_if_unwritable("soft_q.py", "runs/a"):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        SystemExit: soft_q.py: cannot write to runs/a: No space left on device
    """
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # one of ours
            sys.exit(f"{program}: {error}")
        sys.exit(f"{program}: cannot write to {error.filename or directory}: {error.strerror}")


class StopFlag:
    """Whether the user asked to stop.

    Example:
        >>> StopFlag().requested
        False
    """

    def __init__(self) -> None:
        self.requested = False


@contextmanager
def catch_interrupt() -> Iterator[StopFlag]:
    """Turn the first Ctrl-C into a flag that a loop can look at; the second one interrupts.

    Example:
        >>> with catch_interrupt() as stop:
        ...     stop.requested
        False
    """
    flag = StopFlag()

    def request(signum: int, frame: FrameType | None) -> None:
        flag.requested = True
        # Not `previous`: a shell starts background jobs with Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = signal.signal(signal.SIGINT, request)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)
