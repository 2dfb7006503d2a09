"""A world that holds each action for several steps: frame skipping for worlds without state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchrl_stein._checks import check_count

from .world import World, check_world


@dataclass(frozen=True)
class ActionRepeatWorld:
    """Repeat every action on another world and add the rewards up.

    A row that terminates on the way stays where it is and earns nothing more. The horizon of a
    ``BatchedEnv`` counts the long steps. TorchRL's ``FrameSkipTransform`` is for simulators that
    remember where they are: a world whose state travels in the batch would take the first step
    again and again.

    Args:
        world: whose steps are taken.
        repeats: how many of them make one step.

    Example:
        >>> from torchrl_stein.envs import BatchedEnv, CartpoleWorld
        >>> world = ActionRepeatWorld(CartpoleWorld(clean_start=True), 4)
        >>> BatchedEnv(world, (16,), horizon=125).rollout(3)["next", "reward"].max().round().item()
        40.0
    """

    world: World
    repeats: int

    def __post_init__(self) -> None:
        check_world(type(self).__name__, self.world)
        check_count(type(self).__name__, repeats=self.repeats)

    @property
    def state_dim(self) -> int:
        """That of the world."""
        return self.world.state_dim

    @property
    def observation_dim(self) -> int:
        """That of the world."""
        return self.world.observation_dim

    @property
    def action_dim(self) -> int:
        """That of the world."""
        return self.world.action_dim

    @property
    def render(self) -> Callable[[Tensor], Tensor] | None:
        """How the world draws itself; None if it cannot."""
        return getattr(self.world, "render", None)

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start states of the world, [*shape, S]."""
        return self.world.sample_state(shape, generator=generator, device=device, dtype=dtype)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees of the state [..., S], [..., O]."""
        return self.world.observe(state)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take ``repeats`` steps with one action: next state, sum of rewards, terminated."""
        state, reward, terminated = self.world.step(state, action)
        for _ in range(self.repeats - 1):
            following, more, ended = self.world.step(state, action)
            state = torch.where(terminated, state, following)
            reward = reward + torch.where(terminated, 0.0, more)
            terminated = terminated | ended
        return state, reward, terminated
