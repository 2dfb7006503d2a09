"""Objects from settings: ``_target_`` names a class, and only of a kind that does no harm.

Others may have written the settings. So a name is looked up among our own kernels, costs, bandwidth
rules and schedules, or in a list of environments whose constructors, given numbers and words,
neither import a module, nor start a program, nor load code. ``--trust`` allows any class.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["build", "check_environment", "check_targets", "find_environment_class"]
__all__ += ["trust_all_targets"]

_OUR_FOLDERS = ("torchrl_stein.kernels", "torchrl_stein.objectives")
# Not GymEnv, which imports the module before a colon; not those that start programs (Unity,
# StarCraft), load files of Python (VMAS) or download (OpenML, MicroDuck, Playground).
_ENVIRONMENTS = {
    "torchrl.envs": [
        "AntEnv",
        "BraxEnv",
        "DMControlEnv",
        "HopperEnv",
        "HumanoidEnv",
        "PendulumEnv",
        "SatelliteEnv",
        "Walker2dEnv",
    ],
    "torchrl_stein.envs": [
        "CartpoleEnv",
        "CartpoleSwingUpEnv",
        "DoublePendulumEnv",
        "MountainCarEnv",
        "MultiGoalEnv",
    ],
}
_trusted = False


def trust_all_targets(trusted: bool = True) -> None:
    """Let settings of this process name any class: the user typed ``--trust``."""
    global _trusted
    _trusted = trusted


def check_targets(value: Any) -> None:
    """Refuse plain values with a ``_target_`` that cannot be one of ours; imports nothing."""
    if isinstance(value, list):
        for item in value:
            check_targets(item)
    elif isinstance(value, Mapping):
        name = value.get("_target_", f"{_OUR_FOLDERS[0]}.any")
        if not isinstance(name, str) or not (_trusted or name.rpartition(".")[0] in _OUR_FOLDERS):
            raise ValueError(
                "_target_ must be a kernel, bandwidth rule, cost or schedule of torchrl_stein, got "
                f"{name}; --trust builds whatever a _target_ names"
            )
        check_targets(list(value.values()))


def build(section: Mapping[str, Any], given: Mapping[type, Mapping[str, Any]] | None = None) -> Any:
    """The object that a section of settings describes, with those inside of it; or ValueError.

    Args:
        section: ``_target_`` and keyword arguments, of plain values or such sections.
        given: arguments of some classes that settings cannot name, such as the policies that a
            kernel between behaviours compares.
    """
    name = section["_target_"]
    check_targets({"_target_": name})
    make = _import(name)
    if make is None or not (_trusted or _is_ours(make)):
        raise ValueError(f"_target_: there is no kernel, bandwidth rule, cost or schedule {name}")
    arguments = {key: _value(value, given) for key, value in section.items() if key != "_target_"}
    try:
        return make(**(given or {}).get(make, {}), **arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def find_environment_class(name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
    """The environment class that ``env._target_`` names in full, ``torchrl.envs.PendulumEnv``.

    ValueError if there is none, or the user would have to type ``--trust``: also where an option
    is a section, as ``compile_kwargs`` of TorchRL's MujocoEnv can name a compiler to run.
    """
    check_environment(name, options)
    found = _import(name)
    if found is None:
        raise ValueError(f"env._target_: there is no {name}")
    return found


def check_environment(name: str, options: Mapping[str, Any]) -> None:
    """Refuse what :func:`find_environment_class` refuses; imports nothing."""
    if _trusted:
        return
    folder, _, member = name.rpartition(".")
    if member not in _ENVIRONMENTS.get(folder, ()):
        theirs = ", ".join(_ENVIRONMENTS["torchrl.envs"])
        raise ValueError(
            f"env._target_ must be {theirs} of torchrl.envs or a world of torchrl_stein.envs, got "
            f"{name}; --trust builds whatever it names"
        )
    sections = [key for key, value in options.items() if isinstance(value, Mapping)]
    if sections:
        raise ValueError(
            f"env.options of {name} must be numbers, words or lists, got a section "
            f"{sections[0]}; --trust passes on whatever they hold"
        )


def _is_ours(found: Any) -> bool:
    from torchrl_stein import kernels, objectives

    bases = (kernels.Kernel, objectives.TransportCost)
    names = [(kernels, n) for n in kernels.__all__ if n.endswith("Bandwidth")]
    names += [(objectives, n) for n in objectives.__all__ if n.endswith("Schedule")]
    kinds = (*bases, *(getattr(folder, name) for folder, name in names))
    return isinstance(found, type) and issubclass(found, kinds) and found not in bases


def _import(name: str) -> Any:
    module, _, member = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), member, None)
    except (ImportError, ValueError):
        return None


def _value(value: Any, given: Mapping[type, Mapping[str, Any]] | None) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, given)
        return {key: _value(item, given) for key, item in value.items()}
    if isinstance(value, list):
        return [_value(item, given) for item in value]
    return value
