"""Where in a network the population is."""

from __future__ import annotations

from torch import nn

from torchrl_stein._checks import check_type

from .particle_module import ParticleModule

__all__ = ["find_population", "particles_key"]


def find_population(
    owner: str, argument: str, network: nn.Module, *, several_seeds: bool = True
) -> tuple[str, ParticleModule]:
    """The one ParticleModule inside a network, and its name there.

    Args:
        owner: who asks, for the message.
        argument: what it calls the network, for the message.
        network: to search.
        several_seeds: whether the population may be one of several seeds, ``[S, n, d]``.

    Raises:
        TypeError: if ``network`` is no module.
        ValueError: if there is none or more than one.

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
