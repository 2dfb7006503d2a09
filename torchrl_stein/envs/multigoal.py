"""The multi-goal world as a batched TorchRL environment.

``torchrl_stein.envs.multigoal_world`` has the dynamics and where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from tensordict import TensorDict, TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Bounded, Composite, Unbounded
from torchrl.envs import EnvBase

from torchrl_stein.envs.multigoal_world import MultiGoalOptions, MultiGoalWorld, check_number


class MultiGoalEnv(EnvBase):
    """Batched TorchRL environment of the multi-goal world.

    Reads "action" [*B, 2] and writes "observation" [*B, 2] (the position), "reward" [*B, 1],
    and "terminated", "truncated", "done" [*B, 1] (bool). Reaching a goal terminates; the
    horizon only truncates. The environment object holds no state of the episodes: the steps taken
    so far travel in the tensordict as "elapsed_steps" [*B, 1] (int64), a name of its own so that
    TorchRL's ``StepCounter`` keeps "step_count". Equation, constants, source: ``MultiGoalWorld``.

    Args:
        batch_size: shape B of the batch of independent worlds; any, ``()`` included.
        device: where tensors live; None means the CPU, left undeclared as TorchRL does.
        horizon: number of steps after which an episode is truncated.
        init_sigma: standard deviation of the start, N(0, init_sigma^2 I), clipped to the square.
        seed: seed of the generator that draws the starts; None takes one from torch's global
            generator, so that ``torch.manual_seed`` governs it.
        **world: constants of the world, the arguments of ``MultiGoalWorld``.

    Raises:
        ValueError: if ``horizon`` is not an integer >= 1, ``init_sigma`` is negative or not finite,
            ``batch_size`` is not a sequence of integers >= 0, or ``MultiGoalWorld`` refuses
            ``world``.

    Example:
        >>> env = MultiGoalEnv(batch_size=(64,), horizon=20, seed=0)
        >>> data = env.rollout(20, break_when_any_done=False)
        >>> data.batch_size, data["next", "reward"].shape
        (torch.Size([64, 20]), torch.Size([64, 20, 1]))
    """

    def __init__(
        self,
        batch_size: Sequence[int] = (),
        device: torch.device | str | int | None = None,
        *,
        horizon: int = 20,
        init_sigma: float = 0.1,
        seed: int | None = None,
        **world: Unpack[MultiGoalOptions],
    ) -> None:
        super().__init__(device=device, batch_size=_as_batch_size(batch_size))
        self.world = MultiGoalWorld(**world)
        self.horizon = _as_horizon(horizon)
        self.init_sigma = check_number("init_sigma", init_sigma, at_least=0)
        self._make_specs()
        self.set_seed(seed)

    def goal_reached(self, observation: Tensor) -> Tensor:
        """Tells which goal each position has reached; see ``MultiGoalWorld.goal_reached``.

        Args:
            observation: positions, [..., 2].

        Returns:
            Index of the goal or -1, [...], int64.

        Example:
            >>> MultiGoalEnv().goal_reached(torch.tensor([5.0, 0.5])).item()
            0
        """
        return self.world.goal_reached(observation)

    def to(self, device: torch.device | str | int) -> MultiGoalEnv:
        """Moves the environment; its generator starts again from the last seed.

        Args:
            device: where tensors shall live.

        Returns:
            The environment itself.

        Example:
            >>> MultiGoalEnv().to("cpu").device
            device(type='cpu')
        """
        super().to(device)
        self._set_seed(self._seed)  # why: a torch.Generator cannot change device
        return self

    def _make_specs(self) -> None:
        batch, device = self.batch_size, self.device
        limit = self.world.position_limit
        position = Bounded(-limit, limit, shape=(*batch, 2), device=device, dtype=torch.float32)
        elapsed = Bounded(0, self.horizon, shape=(*batch, 1), device=device, dtype=torch.int64)
        self.observation_spec = Composite(
            observation=position, elapsed_steps=elapsed, shape=batch, device=device
        )
        # why: a step reads back what the last one wrote, which TorchRL must know of to carry it
        self.state_spec = self.observation_spec.clone()
        self.action_spec = Bounded(-1.0, 1.0, shape=(*batch, 2), device=device, dtype=torch.float32)
        self.reward_spec = Unbounded(shape=(*batch, 1), device=device, dtype=torch.float32)
        flag = Binary(1, shape=(*batch, 1), device=device, dtype=torch.bool)
        self.done_spec = Composite(
            done=flag, terminated=flag.clone(), truncated=flag.clone(), shape=batch, device=device
        )

    def _reset(self, tensordict: TensorDictBase | None = None, **kwargs: Any) -> TensorDictBase:
        # why all rows: EnvBase keeps only those that the "_reset" mask of a partial reset names
        shape = self.batch_size
        start = torch.randn((*shape, 2), generator=self._generator, device=self.device)
        limit = self.world.position_limit
        never = torch.zeros((*shape, 1), dtype=torch.bool, device=self.device)
        return TensorDict(
            {
                "observation": (self.init_sigma * start).clamp(-limit, limit),
                "elapsed_steps": torch.zeros_like(never, dtype=torch.int64),
                "done": never,
                "terminated": never.clone(),
                "truncated": never.clone(),
            },
            batch_size=shape,
            device=self.device,
        )

    def _step(self, tensordict: TensorDictBase) -> TensorDictBase:
        position, reward, terminated = self.world.step(
            tensordict.get("observation"), tensordict.get("action")
        )
        elapsed = tensordict.get("elapsed_steps") + 1
        truncated = elapsed >= self.horizon
        return TensorDict(
            {
                "observation": position,
                "elapsed_steps": elapsed,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "done": terminated | truncated,
            },
            batch_size=tensordict.batch_size,
            device=self.device,
        )

    def _set_seed(self, seed: int | None) -> None:
        if seed is None:
            seed = int(torch.randint(2**62, ()).item())
        self._seed = seed
        self._generator = torch.Generator(device=self.device or "cpu").manual_seed(seed)


def _as_horizon(horizon: int) -> int:
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
        raise ValueError(f"horizon: expected an integer >= 1, got {horizon!r}.")
    return horizon


def _as_batch_size(batch_size: Sequence[int]) -> torch.Size:
    try:
        size = torch.Size(batch_size)
    except TypeError as error:
        raise ValueError(
            f"batch_size: expected a sequence of integers >= 0, got {batch_size!r}."
        ) from error
    if any(n < 0 for n in size):
        raise ValueError(f"batch_size: expected integers >= 0, got {list(size)}.")
    return size
