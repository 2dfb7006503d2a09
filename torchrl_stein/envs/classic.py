"""The four classic-control tasks of the SVPG paper as batched TorchRL environments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from torchrl_stein.envs.batched import BatchedEnv
from torchrl_stein.envs.cartpole_world import CartpoleSwingUpWorld, CartpoleWorld
from torchrl_stein.envs.double_pendulum_world import DoublePendulumWorld
from torchrl_stein.envs.mountain_car_world import MountainCarWorld
from torchrl_stein.envs.world import World

HORIZON = 500  # of rllab, for all four


class _ClassicEnv(BatchedEnv):
    make_world: ClassVar[Callable[..., World]]

    def __init__(
        self,
        batch_size: Sequence[int] = (),
        device: torch.device | str | int | None = None,
        *,
        horizon: int = HORIZON,
        seed: int | None = None,
        **world: Any,
    ) -> None:
        made = type(self).make_world(**world)
        super().__init__(made, batch_size, device, horizon=horizon, seed=seed)


class CartpoleEnv(_ClassicEnv):
    """Batched TorchRL environment: balancing a pole on a cart.

    Keys, shapes and flags are those of ``BatchedEnv``, with O = 4, S = 7, A = 1. Equations,
    constants and source: ``CartpoleWorld``.

    Args:
        batch_size: shape B of the batch of independent worlds; any, such as [n, E].
        device: where tensors live; None means the CPU, left undeclared as TorchRL does.
        horizon: number of steps after which an episode is truncated.
        seed: seed of the generator that draws the starts; None takes one from torch's global
            generator.
        **world: constants of the world, the arguments of ``CartpoleWorld``; among them
            ``reset``, by default "rllab", the start of the SVPG paper, or "clean".

    Raises:
        TypeError: if an argument is of another kind, or ``world`` has a name that
            ``CartpoleWorld`` does not know.
        ValueError: if ``CartpoleWorld`` or ``BatchedEnv`` refuses an argument.

    Example:
        >>> env = CartpoleEnv((16, 4), seed=0, pole_length=2.0)
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 4])
    """

    make_world = CartpoleWorld


class CartpoleSwingUpEnv(_ClassicEnv):
    """Batched TorchRL environment: swinging a pole up on a cart.

    Keys, shapes and flags are those of ``BatchedEnv``, with O = 4, S = 7, A = 1. Equations,
    constants and source: ``CartpoleSwingUpWorld``.

    Args:
        batch_size: shape B of the batch of independent worlds; any, such as [n, E].
        device: where tensors live; None means the CPU, left undeclared as TorchRL does.
        horizon: number of steps after which an episode is truncated.
        seed: seed of the generator that draws the starts; None takes one from torch's global
            generator.
        **world: constants of the world, the arguments of ``CartpoleSwingUpWorld``; among them
            ``reset``, by default "rllab", the start of the SVPG paper, or "clean".

    Raises:
        TypeError: if an argument is of another kind, or ``world`` has a name that
            ``CartpoleSwingUpWorld`` does not know.
        ValueError: if ``CartpoleSwingUpWorld`` or ``BatchedEnv`` refuses an argument.

    Example:
        >>> env = CartpoleSwingUpEnv((16, 4), seed=0, reward="sparse")
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 4])
    """

    make_world = CartpoleSwingUpWorld


class DoublePendulumEnv(_ClassicEnv):
    """Batched TorchRL environment: swinging two links up by the elbow.

    Keys, shapes and flags are those of ``BatchedEnv``, with O = 6, S = 10, A = 1. Equations,
    constants and source: ``DoublePendulumWorld``.

    Args:
        batch_size: shape B of the batch of independent worlds; any, such as [n, E].
        device: where tensors live; None means the CPU, left undeclared as TorchRL does.
        horizon: number of steps after which an episode is truncated.
        seed: seed of the generator that draws the starts; None takes one from torch's global
            generator.
        **world: constants of the world, the arguments of ``DoublePendulumWorld``; among them
            ``reset``, by default "rllab", the start of the SVPG paper, or "clean".

    Raises:
        TypeError: if an argument is of another kind, or ``world`` has a name that
            ``DoublePendulumWorld`` does not know.
        ValueError: if ``DoublePendulumWorld`` or ``BatchedEnv`` refuses an argument.

    Example:
        >>> env = DoublePendulumEnv((16, 4), seed=0, reset="clean")
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 6])
    """

    make_world = DoublePendulumWorld


class MountainCarEnv(_ClassicEnv):
    """Batched TorchRL environment: a car too weak for its hill.

    Keys, shapes and flags are those of ``BatchedEnv``, with O = 2, S = 5, A = 1. Equations,
    constants and source: ``MountainCarWorld``.

    Args:
        batch_size: shape B of the batch of independent worlds; any, such as [n, E].
        device: where tensors live; None means the CPU, left undeclared as TorchRL does.
        horizon: number of steps after which an episode is truncated.
        seed: seed of the generator that draws the starts; None takes one from torch's global
            generator.
        **world: constants of the world, the arguments of ``MountainCarWorld``; among them
            ``reset``, by default "rllab", the start of the SVPG paper, or "clean".

    Raises:
        TypeError: if an argument is of another kind, or ``world`` has a name that
            ``MountainCarWorld`` does not know.
        ValueError: if ``MountainCarWorld`` or ``BatchedEnv`` refuses an argument.

    Example:
        >>> env = MountainCarEnv((16, 4), seed=0, reward="sparse")
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 2])
    """

    make_world = MountainCarWorld
