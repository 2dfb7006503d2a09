"""Checks at the door of worlds and environments: messages that name the argument."""

from __future__ import annotations

import math
from collections.abc import Sequence


def check_number(
    name: str, value: float, *, above: float = -math.inf, at_least: float = -math.inf
) -> float:
    """Returns ``value`` if it is a finite number that satisfies the bounds.

    Args:
        name: what the error message shall call the value.
        value: the number to look at.
        above: bound that must be exceeded.
        at_least: bound that may be met.

    Returns:
        The value.

    Raises:
        ValueError: if it is no finite number or violates a bound.

    Example:
        >>> check_number("horizon", 20, at_least=1)
        20
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value > above and value >= at_least):
        bound = f" > {above}" if above > -math.inf else ""
        bound += f" >= {at_least}" if at_least > -math.inf else ""
        raise ValueError(f"{name}: expected a finite number{bound}, got {value!r}.")
    return value


def check_numbers(name: str, values: Sequence[float], *, length: int) -> tuple[float, ...]:
    """Returns ``values`` as a tuple if they are ``length`` finite numbers >= 0.

    Args:
        name: what the error message shall call them.
        values: the numbers to look at.
        length: how many there must be.

    Returns:
        The numbers, as floats.

    Raises:
        ValueError: if their number differs from ``length`` or one is negative or not finite.

    Example:
        >>> check_numbers("start_spread", [1, 0.5], length=2)
        (1.0, 0.5)
    """
    if not isinstance(values, (list, tuple)) or len(values) != length:
        raise ValueError(f"{name}: expected {length} numbers, got {values!r}.")
    return tuple(float(check_number(name, value, at_least=0)) for value in values)


def check_choice(name: str, value: str, choices: Sequence[str]) -> str:
    """Returns ``value`` if it is one of ``choices``.

    Args:
        name: what the error message shall call the value.
        value: the word to look at.
        choices: the words that are allowed.

    Returns:
        The value.

    Raises:
        ValueError: if it is none of them.

    Example:
        >>> check_choice("reset", "clean", ("clean", "rllab"))
        'clean'
    """
    if value not in choices:
        expected = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name}: expected {expected}, got {value!r}.")
    return value


def check_count(name: str, value: int, *, at_least: int = 1) -> int:
    """Returns ``value`` if it is an integer that is large enough.

    Args:
        name: what the error message shall call the value.
        value: the integer to look at.
        at_least: the smallest integer allowed.

    Returns:
        The value.

    Raises:
        ValueError: if it is no integer, or is too small.

    Example:
        >>> check_count("horizon", 500)
        500
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise ValueError(f"{name}: expected an integer >= {at_least}, got {value!r}.")
    return value
