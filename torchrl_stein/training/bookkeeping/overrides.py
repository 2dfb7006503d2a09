"""Settings that are given on the command line and would change nothing."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_overrides"]

# Sections that take the arguments of a class: what they may hold is not in the files of settings.
_OPEN_SECTIONS = {"cost", "env_options", "kernel", "options"}


def check_overrides(overrides: Sequence[str]) -> None:
    """Refuse added settings that nothing reads.

    Hydra refuses a misspelt name and advises to put a "+" in front, which adds it: it would be
    ignored without a word.

    Args:
        overrides: of the command line, such as ``["seed=1", "+env_options.reward=sparse"]``.

    Raises:
        ValueError: if a setting is added where settings are not arguments of a class.

    Example:
        >>> check_overrides(["+loss.temprature=3"])
        Traceback (most recent call last):
        ValueError: there is no setting loss.temprature; + adds arguments of classes alone, in ...
    """
    for override in overrides:
        name = override.lstrip("+").partition("=")[0]
        if override.startswith("+") and not _OPEN_SECTIONS & set(name.split(".")[:-1]):
            sections = ", ".join(sorted(_OPEN_SECTIONS))
            raise ValueError(
                f"there is no setting {name}; + adds arguments of classes alone, in {sections}"
            )
