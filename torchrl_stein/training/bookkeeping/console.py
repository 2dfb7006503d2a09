"""What a run says on the terminal: how far it is, and what came out."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .run import Run

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["print_above", "print_summary", "progress_bar"]


def progress_bar(total: int, done: int = 0, unit: str = "it") -> tqdm:
    """A bar with rate and remaining time; nothing where there is no terminal, as in a log file.

    ``bar.update(k)`` counts, :func:`print_above` prints above it, ``bar.set_postfix(...)`` shows
    figures beside it; use it in a ``with`` block.

    Args:
        total: where it ends.
        done: where a resumed run begins.
        unit: what is counted.

    Example:
        >>> with progress_bar(total=100, done=40, unit="steps") as bar:
        ...     _ = bar.update(10)
    """
    from tqdm import tqdm  # an extra: only recipes need it

    return tqdm(
        total=total,
        initial=done,
        unit=f" {unit}",
        unit_scale=True,
        mininterval=0.5,
        dynamic_ncols=True,
        disable=None,
    )


def print_above(bar: tqdm, line: str) -> None:
    """Print a line above a bar, at once: tqdm alone leaves it in the buffer of a log file.

    Example:
        >>> with progress_bar(total=100) as bar:
        ...     print_above(bar, "half of it")
        half of it
    """
    bar.write(line)
    sys.stdout.flush()


def print_summary(run: Run, metrics: Mapping[str, float]) -> None:
    """Say how long a run took, what it reached and where it is.

    Args:
        run: that is complete.
        metrics: of the final evaluation.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(Path(folder) / "run", config={})
        ...     print_summary(run, {"return": 12.5, "goals_reached": 4.0})
        Finished after 0 min 0... s
          return               12.5
          goals_reached           4
        Results: ...run
    """
    started = datetime.fromisoformat(run.provenance["started"])
    minutes, seconds = divmod(int((datetime.now(UTC) - started).total_seconds()), 60)
    width = max((len(name) for name in metrics), default=0) + 2
    lines = [f"Finished after {minutes} min {seconds:02} s"]
    lines += [f"  {name:<{width}}{value:>10.4g}" for name, value in metrics.items()]
    lines += [f"Results: {run.directory}"]
    print("\n".join(lines), flush=True)  # noqa: T201
