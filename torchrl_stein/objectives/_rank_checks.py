"""Checks at the door of what runs on several processes.

What ranks compare with each other all of them refuse, or none does. What a rank finds wrong with
its own arguments it refuses alone, and ``torchrun`` then ends the others.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from torchrl_stein.kernels import Kernel
from torchrl_stein.modules import ParticleModule

__all__ = ["check_process_group", "check_ranks"]

_OWNER = "ShardedSteinPolicyLoss"


def check_process_group(group: dist.ProcessGroup | None) -> tuple[int, int]:
    """Rank and number of ranks, once there is a group that this process belongs to."""
    if not (dist.is_available() and dist.is_initialized()):
        raise RuntimeError(
            f"{_OWNER}: process_group must be initialised, call torch.distributed."
            "init_process_group first (torchrun sets what it reads); there is none"
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError(
            f"{_OWNER}: process_group must contain this process, global rank {dist.get_rank()}, "
            "got a group without it"
        )
    return rank, dist.get_world_size(group)


def check_ranks(
    population: ParticleModule, kernel: Kernel, temperature: float, group: dist.ProcessGroup | None
) -> None:
    """Require that ranks hold equal parts of one population, and a kernel that can span them."""
    _check_kernel(kernel)
    if population.shared is not None:
        raise ValueError(
            f"{_OWNER}: loss_module must have a ParticleModule without shared parameters, whose "
            f"copies on the ranks would drift apart; got shared of size {population.shared.numel()}"
        )
    if len(population.leading) > 1:
        raise ValueError(
            f"{_OWNER}: loss_module must hold the population of one seed [n, d] (give each seed "
            f"processes of its own, process_group=...), got {population.leading[0]} seeds"
        )
    facts = {
        "number of particles": population.num_particles,
        "number of parameters": population.num_parameters,
        "number of parameters that the kernel sees": population.kernel_dim,
        "dtype": str(population.particles.dtype),
        "temperature": temperature,
        "kernel": _describe(kernel),
    }
    # Once, and not per update: Python objects of all ranks, so that all see the same.
    found: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(found, (facts, _fingerprints(population.particles)), group=group)
    _check_facts([facts for facts, _ in found])
    _check_distinct([prints for _, prints in found])


def _check_kernel(kernel: Kernel) -> None:
    for part in kernel.modules():
        if not isinstance(part, Kernel):
            continue
        if type(part).observe is not Kernel.observe:
            raise ValueError(
                f"{_OWNER}: kernel must not observe the data, since a rank has those of its own "
                f"particles alone, got {type(part).__name__}"
            )


def _describe(kernel: Kernel) -> str:
    """Types, numbers and buffers of a kernel and its parts; functions by their name."""
    lines = []
    for name, part in kernel.named_modules():
        values = {k: v for k, v in vars(part).items() if not k.startswith("_") and k != "training"}
        words = [f"{k}={_words(v)}" for k, v in sorted(values.items())]
        lines.append(f"{name and name + ': '}{type(part).__name__}({', '.join(words)})")
    lines += [f"{k}={v.tolist()}" for k, v in kernel.state_dict().items()]
    return "; ".join(lines)


def _words(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(value.tolist())
    # The usual words of functions and objects hold an address, which differs between processes.
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _check_facts(found: list[dict[str, Any]]) -> None:
    for rank, facts in enumerate(found):
        for name, value in facts.items():
            if value != found[0][name]:
                raise ValueError(
                    f"{_OWNER}: loss_module, kernel and temperature must be alike on all ranks; "
                    f"{name} is {found[0][name]} on rank 0 and {value} on rank {rank}"
                )


def _check_distinct(found: list[list[str]]) -> None:
    seen: dict[str, tuple[int, int]] = {}
    for rank, prints in enumerate(found):
        for row, fingerprint in enumerate(prints):
            first = seen.setdefault(fingerprint, (rank, row))
            if first[0] != rank:
                raise ValueError(
                    f"{_OWNER}: loss_module must hold other particles on every rank, got particle "
                    f"{row} of rank {rank} equal to particle {first[1]} of rank {first[0]}; build "
                    "the whole population under one seed and keep this rank's rows, see "
                    "torchrl_stein.modules.shard_particles"
                )


def _fingerprints(particles: Tensor) -> list[str]:
    rows = particles.detach().cpu().contiguous().view(torch.uint8).numpy()
    return [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]
