"""How a run uses the processor and the memory beside it."""

from __future__ import annotations

import ctypes
import sys

import torch

__all__ = ["prepare_cpu"]

# Of mallopt, from malloc.h of the GNU C library.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def prepare_cpu(threads: int) -> None:
    """Set the number of threads, and keep memory that tensors give back for the next ones.

    By default the GNU C library returns large blocks to the system at once and asks for them anew,
    page by page, some thousand times per update: a third of the time of soft Q-learning. From
    here on the process keeps what it once had. Elsewhere only the threads are set.

    Args:
        threads: of torch, >= 1.

    Raises:
        ValueError: if ``threads`` < 1.

    Example:
        >>> prepare_cpu(torch.get_num_threads())
    """
    if threads < 1:
        raise ValueError(f"threads must be >= 1, got {threads}")
    torch.set_num_threads(threads)
    if sys.platform.startswith("linux"):
        # None on systems with another C library.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
