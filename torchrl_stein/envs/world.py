"""What a world is: three sizes, three pure functions of tensors, and constants kept as floats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_number, check_type


@runtime_checkable
class World(Protocol):
    """What ``BatchedEnv`` asks of a world: three sizes and three pure functions of tensors.

    A world holds constants and no state. ``S``, ``O`` and ``A`` stand for the three sizes; the
    leading dimensions of the tensors are the caller's. A world may also have
    ``render(state) -> image``, uint8 [..., H, W, 3], for ``BatchedEnv.render``.

    A world of n agents that act together says so by ``num_agents``. Its observations are
    [..., n, O], its actions [..., n, A]; the reward is one for all.

    Example:
        >>> from torchrl_stein.envs import CartpoleWorld
        >>> isinstance(CartpoleWorld(), World)
        True
    """

    @property
    def state_dim(self) -> int:
        """S, size of the state."""

    @property
    def observation_dim(self) -> int:
        """O, size of the observation."""

    @property
    def action_dim(self) -> int:
        """A, size of the action."""

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start states, [*shape, S]; None is torch's global generator."""

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move by one step: next state [..., S], reward [..., 1], terminated [..., 1] (bool)."""

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees of the state [..., S], [..., O]."""


def check_world(owner: str, world: World) -> None:
    """Require a world, made, with sizes that are counts."""
    words = "a World: state_dim, observation_dim, action_dim, sample_state, step, observe"
    check_type(owner, words, World, world=world)
    if isinstance(world, type):
        raise TypeError(f"{owner}: world must be made, got the class {world.__name__}")
    names = ["num_agents"] if getattr(world, "num_agents", None) is not None else []
    for name in (*names, "state_dim", "observation_dim", "action_dim"):
        check_count(f"{owner}: {type(world).__name__}", **{name: getattr(world, name)})


def keep_numbers(
    world: object,
    *names: str,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Require finite numbers in fields of a frozen dataclass, and keep them as floats.

    Floats of Python cost no copy to the device, keep the precision of the state, and leave a world
    hashable, which ``torch.compile`` likes.
    """
    for name in names:
        value = getattr(world, name)
        bounds = {"above": above, "at_least": at_least, "at_most": at_most}
        check_number(type(world).__name__, **bounds, **{name: value})
        object.__setattr__(world, name, float(value))


def keep_rows(world: object, length: int, *names: str, **bounds: float) -> None:
    """Require so many finite numbers in fields of a frozen dataclass, and keep them as floats."""
    for name in names:
        row = as_row(type(world).__name__, length, **bounds, **{name: getattr(world, name)})
        object.__setattr__(world, name, row)


def as_row(
    owner: str,
    length: int,
    *,
    above: float | None = None,
    at_least: float | None = None,
    **value: Any,
) -> tuple[float, ...]:
    """Require so many finite numbers, and return them as floats."""
    [(name, row)] = value.items()
    is_row = isinstance(row, Sequence) and not isinstance(row, str)
    if not is_row or len(row) != length:
        error = ValueError if is_row else TypeError
        raise error(f"{owner}: {name} must be {length} numbers, got {row!r}")
    for number in row:
        check_number(owner, above=above, at_least=at_least, **{name: number})
    return tuple(float(number) for number in row)
