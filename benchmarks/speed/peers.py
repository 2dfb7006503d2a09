"""Which peers can run here; what cannot is left out of a row with one printed line."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch

__all__ = ["available", "fits", "free_mib", "jax_runs_on"]


@cache
def available(module: str) -> bool:
    """Whether a module is installed; says so once where it is not."""
    if find_spec(module) is not None:
        return True
    print(f"{module} is not installed: left out", flush=True)
    return False


@cache
def jax_runs_on(kind: str) -> bool:
    """Whether JAX is installed with devices of this kind, "cpu" or "cuda"."""
    if not available("jax"):
        return False
    import jax

    try:
        return bool(jax.devices(kind))
    except RuntimeError:
        print(f"JAX has no {kind} device: left out", flush=True)
        return False


def fits(name: str, mib: float, device: torch.device) -> bool:
    """Whether a program that needs so much leaves a fifth of the free memory; says so if not."""
    free = free_mib(device)
    if mib <= 0.8 * free:
        return True
    print(f"{name} would need {mib:.0f} of {free:.0f} MiB of free memory: left out", flush=True)
    return False


def free_mib(device: torch.device) -> float:
    """What a program may still take; without limit where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    info = Path("/proc/meminfo")
    if not info.exists():
        return float("inf")
    lines = info.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) / 1024
