"""The part of a population that one of several processes works on."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

from torch import nn

from torchrl_stein._checks import check_count, check_type

from .particle_module import ParticleModule

__all__ = ["shard_particles"]

Network = TypeVar("Network", bound=nn.Module)


def shard_particles(network: Network, rank: int, world_size: int) -> Network:
    """A copy of a network with this rank's rows of its populations.

    Build the whole population under the same seed on every rank, then keep the rows: all ranks
    together have the particles that one process would have.

    Args:
        network: a ParticleModule with n particles, or anything that contains some: an actor, a
            critic. Parameters outside of them are copied whole.
        rank: of this process; it keeps rows ``rank * n / R`` to ``(rank + 1) * n / R - 1``.
        world_size: R, number of processes.

    Raises:
        TypeError: if ``network`` is no module, or ``rank`` or ``world_size`` no integer.
        ValueError: if ``network`` contains no population, R does not divide n, or ``rank`` is not
            in 0, ..., R - 1.

    Example:
        >>> from torch import nn
        >>> whole = ParticleModule(lambda: nn.Linear(3, 2), num_particles=4)
        >>> part = shard_particles(whole, rank=1, world_size=2)
        >>> part.num_particles, bool((part.particles == whole.particles[2:]).all())
        (2, True)
    """
    check_type("shard_particles", "a module", nn.Module, network=network)
    check_count("shard_particles", world_size=world_size)
    check_count("shard_particles", at_least=0, at_most=world_size - 1, rank=rank)
    populations = [part for part in network.modules() if isinstance(part, ParticleModule)]
    if not populations:
        raise ValueError(
            f"shard_particles: network must contain a ParticleModule, got {type(network).__name__}"
        )
    parts = {}  # by the object that they stand for, as deepcopy looks them up
    for population in populations:
        if len(population.leading) > 1:
            raise ValueError(
                "shard_particles: network must hold one population [n, d], got "
                f"{population.leading[0]} seeds; give each process some seeds instead"
            )
        size, rest = divmod(population.num_particles, world_size)
        if rest:
            raise ValueError(
                "shard_particles: world_size must divide the number of particles "
                f"{population.num_particles}, got {world_size}"
            )
        parts[id(population)] = population.select(range(rank * size, (rank + 1) * size))
    return deepcopy(network, parts)
