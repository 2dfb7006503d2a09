"""Objects from settings: ``_target_`` names a class, and only of a kind that does no harm.

Settings come from files that others may have written, so a name is looked up among our own
kernels, costs, bandwidth rules and schedules, and among the environments of TorchRL. A user who
types ``--trust`` may name any class.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["build", "find_environment_class", "targets_are_trusted", "trust_all_targets"]

_OUR_FOLDERS = ("torchrl_stein.kernels", "torchrl_stein.objectives")
_trusted = False


def trust_all_targets() -> None:
    """Let settings of this process name any class: the user typed ``--trust``."""
    global _trusted
    _trusted = True


def targets_are_trusted() -> bool:
    """Whether the user typed ``--trust``."""
    return _trusted


def build(section: Mapping[str, Any], given: Mapping[type, Mapping[str, Any]] | None = None) -> Any:
    """The object that a section of settings describes, with those inside of it.

    Args:
        section: ``_target_`` and keyword arguments, of plain values or such sections.
        given: arguments of some classes that settings cannot name: the policies that a kernel
            between behaviours compares.

    Raises:
        ValueError: if ``_target_`` is none of our kernels, costs, bandwidth rules and schedules,
            or its arguments are wrong.

    Example:
        >>> build({"_target_": "torchrl_stein.kernels.RBFKernel"})
        RBFKernel(bandwidth=MedianBandwidth(denominator='log(n+1)', floor=...))
    """
    name = section["_target_"]
    make = _ours(name)
    if make is None and _trusted:
        make = _import(name)
    if make is None:
        raise ValueError(
            f"_target_ must be a kernel, bandwidth rule, cost or schedule of torchrl_stein, got "
            f"{name}; --trust builds whatever a _target_ names"
        )
    named = {key: _value(value, given) for key, value in section.items() if key != "_target_"}
    try:
        return make(**(given or {}).get(make, {}), **named)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def find_environment_class(name: str) -> Callable[..., Any]:
    """The environment class of TorchRL that ``env._target_`` names.

    Args:
        name: in full, ``torchrl.envs.PendulumEnv``.

    Raises:
        ValueError: if there is none, or it is of another package and the user did not type
            ``--trust``.
    """
    from torchrl.envs import EnvBase

    if not (_trusted or name.startswith(("torchrl.envs.", "torchrl_stein.envs."))):
        raise ValueError(
            f"env._target_ must be an environment of torchrl.envs or torchrl_stein.envs, got "
            f"{name}; --trust builds whatever it names"
        )
    found = _import(name)
    if found is None:
        raise ValueError(f"env._target_: there is no {name}")
    if _trusted:
        return found
    # Those of Unity start a program that their arguments name.
    harmless = isinstance(found, type) and issubclass(found, EnvBase) and "Unity" not in name
    if not harmless:
        raise ValueError(f"env._target_ must be an environment class, got {name}")
    return found


def _ours(name: str) -> Callable[..., Any] | None:
    folder, _, member = name.rpartition(".")
    if folder not in _OUR_FOLDERS:
        return None
    module = importlib.import_module(folder)
    found = getattr(module, member, None) if member in module.__all__ else None
    return found if isinstance(found, type) and issubclass(found, _kinds()) else None


def _kinds() -> tuple[type, ...]:
    from torchrl_stein import kernels, objectives

    rules = [getattr(kernels, name) for name in kernels.__all__ if name.endswith("Bandwidth")]
    schedules = [
        getattr(objectives, name) for name in objectives.__all__ if name.endswith("Schedule")
    ]
    return (kernels.Kernel, objectives.TransportCost, *rules, *schedules)


def _import(name: str) -> Callable[..., Any] | None:
    module, _, member = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), member)
    except (ImportError, AttributeError, ValueError):
        return None


def _value(value: Any, given: Mapping[type, Mapping[str, Any]] | None) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, given)
        return {key: _value(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item, given) for item in value]
    return value
