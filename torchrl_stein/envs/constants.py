"""Constants of worlds and arenas: checked at the door, kept as plain floats.

As floats of Python they cost no copy to the device, keep the precision of the state, and leave a
world hashable, which ``torch.compile`` likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torchrl_stein._checks import check_number


def keep_numbers(
    world: object, *names: str, above: float | None = None, at_least: float | None = None
) -> None:
    """Requires finite numbers in fields of a frozen dataclass, and keeps them as floats.

    Args:
        world: the dataclass, while it is being made.
        *names: of the fields.
        above: bound that must be exceeded.
        at_least: bound that may be met.

    Raises:
        TypeError: if one is no number.
        ValueError: if one is not finite or violates a bound.
    """
    for name in names:
        value = getattr(world, name)
        check_number(type(world).__name__, above=above, at_least=at_least, **{name: value})
        object.__setattr__(world, name, float(value))


def as_row(
    owner: str,
    length: int,
    *,
    above: float | None = None,
    at_least: float | None = None,
    **value: Any,
) -> tuple[float, ...]:
    """Requires so many finite numbers, and returns them as floats.

    Args:
        owner: who asks.
        length: how many.
        above: bound that must be exceeded.
        at_least: bound that may be met.
        **value: the numbers, by the name of their argument.

    Raises:
        TypeError: if it is no sequence, or one of it no number.
        ValueError: if there are not ``length``, or one is not finite or violates a bound.

    Example:
        >>> as_row("CartpoleWorld", 2, start_spread=[1, 0.5])
        (1.0, 0.5)
    """
    [(name, row)] = value.items()
    if not isinstance(row, Sequence) or isinstance(row, str):
        raise TypeError(f"{owner}: {name} must be {length} numbers, got {row!r}")
    if len(row) != length:
        raise ValueError(f"{owner}: {name} must be {length} numbers, got {row!r}")
    for number in row:
        check_number(owner, above=above, at_least=at_least, **{name: number})
    return tuple(float(number) for number in row)
