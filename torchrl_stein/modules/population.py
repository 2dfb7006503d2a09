"""Where in a network the population is, whose data a batch holds, and parts for processes."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeVar

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl_stein._checks import check_count, check_type, may_look

from .particle_module import ParticleModule

__all__ = ["check_rows", "find_population", "particles_key", "shard_particles"]

Network = TypeVar("Network", bound=nn.Module)


def find_population(
    owner: str, argument: str, network: nn.Module, *, several_seeds: bool = True
) -> tuple[str, ParticleModule]:
    """The one ParticleModule inside a network, and its name there.

    Args:
        owner: who asks, for the message.
        argument: what it calls the network, for the message.
        network: to search.
        several_seeds: whether the population may be that of several seeds, ``[S, n, d]``.

    Raises:
        TypeError, ValueError: if ``network`` is no module or does not hold exactly one.

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> net = ParticleModule(lambda: nn.Linear(3, 2), num_particles=4)
        >>> find_population("me", "actor", TensorDictModule(net, ["x"], ["y"]))[0]
        'module'
    """
    check_type(owner, "a module", nn.Module, **{argument: network})
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, ParticleModule)
    ]
    if len(found) != 1:
        raise ValueError(f"{owner}: {argument} must contain one ParticleModule, found {len(found)}")
    leading = found[0][1].leading
    if len(leading) > 1 and not several_seeds:
        raise ValueError(
            f"{owner}: {argument} must hold the population of one seed [n, d], got {leading[0]} "
            "seeds; seed(s) of the ParticleModule takes one out"
        )
    return found[0]


def particles_key(name: str) -> tuple[str, ...]:
    """Key of the flat particles among the functional parameters of a network.

    Args:
        name: of the ParticleModule in the network, from :func:`find_population`.

    Example:
        >>> particles_key("0.module"), particles_key("")
        (('0', 'module', 'particles'), ('particles',))
    """
    return (*name.split("."), "particles") if name else ("particles",)


def check_rows(
    owner: str, tensordict: TensorDictBase, leading: torch.Size, first: int | None = None
) -> None:
    """Require a batch of the population's shape and, where it says who made it, the right order.

    The entry "particle", integers ``[*B, 1]``, is written by ParticleEnv and EnsemblePolicy.
    Nobody else needs to; a batch without it is taken at its word.

    Args:
        owner: who asks, for the message.
        tensordict: the batch ``[n, ...]`` or ``[S, n, ...]``.
        leading: ``(n,)`` or ``(S, n)``.
        first: number of the first particle in a larger population, which the entry may count from.
    """
    if tensordict.batch_size[: len(leading)] != leading:
        words = f"dimension {leading[0]}" if len(leading) == 1 else f"dimensions {list(leading)}"
        raise ValueError(
            f"{owner}: the batch must have leading {words} (row i belongs to particle i), "
            f"got batch size {list(tensordict.batch_size)}"
        )
    entry = tensordict.get("particle", None)
    if not isinstance(entry, Tensor) or entry.shape != (*tensordict.batch_size, 1):
        return  # none, or another thing of this name
    if entry.dtype not in (torch.int64, torch.int32) or not may_look(entry):
        return
    index = torch.arange(leading[-1]).view(-1, *(1,) * (entry.ndim - len(leading)))
    wrong = entry != index
    if first and wrong.any():
        wrong = entry != index + first
    if wrong.any():
        place = tuple(wrong.flatten(len(leading)).any(-1).nonzero()[0].tolist())
        row = place[0] if len(place) == 1 else list(place)
        raise ValueError(
            f"{owner}: row i of the batch must hold data of particle i, but by its entry "
            f"'particle' row {row} holds data of {entry[place].unique().tolist()}; keep the "
            "leading dimension [n, ...] of the data where it is when you reshape, shuffle or "
            "stack it"
        )


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
        TypeError, ValueError: if ``network`` contains no population or one of several seeds, R
            does not divide n, or ``rank`` is not in 0, ..., R - 1.

    Example:
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
