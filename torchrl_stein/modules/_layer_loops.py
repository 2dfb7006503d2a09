"""A word to those who look for the layers of a population where there are none."""

from __future__ import annotations

import sys
import warnings

import torch

__all__ = ["warn_who_loops"]

_STEPS = {"modules", "named_modules", "children", "named_children"}
# They walk over modules for parameters, modes and hooks, of which a population takes care.
_LIBRARIES = {"torch", "tensordict", "torchrl", "torchrl_stein"}


def warn_who_loops() -> None:
    """Warn code outside of the libraries that walks over modules, from a method that lists them.

    The usual loop that initialises layers, ``for layer in actor.modules()``, finds none in a
    population and does nothing, without a word. Who asks is on the stack only: the same methods
    serve everything that torch does with modules.
    """
    if torch.compiler.is_compiling():
        return
    depth = 2
    while sys._getframe(depth).f_code.co_name in _STEPS:
        depth += 1
    caller = sys._getframe(depth).f_globals.get("__name__", "")
    if caller.partition(".")[0] not in _LIBRARIES:
        warnings.warn(
            "ParticleModule: a loop over modules finds no layers of particles, whose weights are "
            "one parameter; apply(fn) calls a function on every layer of every particle, "
            "reset_parameters() draws all anew",
            stacklevel=depth + 1,
        )
