"""What a world is: three sizes and three pure functions of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_type


@runtime_checkable
class World(Protocol):
    """What ``BatchedEnv`` asks of a world: three sizes and three pure functions of tensors.

    A world holds constants and no state. ``S``, ``O`` and ``A`` stand for the three sizes; the
    leading dimensions of the tensors are the caller's. A world may also have
    ``render(state) -> image``, uint8 [..., H, W, 3], for ``BatchedEnv.render``.

    Example:
        >>> from torchrl_stein.envs import CartpoleWorld
        >>> isinstance(CartpoleWorld(), World)
        True
    """

    @property
    def state_dim(self) -> int:
        """S, size of the state."""
        ...

    @property
    def observation_dim(self) -> int:
        """O, size of the observation."""
        ...

    @property
    def action_dim(self) -> int:
        """A, size of the action."""
        ...

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draws start states, [*shape, S]."""
        ...

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From [..., S] and [..., A]: next state, reward [..., 1], terminated [..., 1] (bool)."""
        ...

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees of the state [..., S], [..., O]."""
        ...


def check_world(owner: str, world: World) -> None:
    """Requires a world, made, with sizes that are counts.

    Args:
        owner: who asks.
        world: the world.

    Raises:
        TypeError: if it is no ``World``, or a size is no integer.
        ValueError: if a size is below 1.
    """
    words = "a World: state_dim, observation_dim, action_dim, sample_state, step, observe"
    check_type(owner, words, World, world=world)
    if isinstance(world, type):
        raise TypeError(f"{owner}: world must be made, got the class {world.__name__}")
    for name in ("state_dim", "observation_dim", "action_dim"):
        check_count(f"{owner}: {type(world).__name__}", **{name: getattr(world, name)})
