"""The multi-goal world as a batched TorchRL environment.

``torchrl_stein.envs.multigoal_world`` has the dynamics and where they come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor
from torchrl.data import Bounded, TensorSpec

from torchrl_stein._checks import check_number
from torchrl_stein.envs.batched import BatchedEnv
from torchrl_stein.envs.multigoal_world import MultiGoalOptions, MultiGoalWorld


class MultiGoalEnv(BatchedEnv):
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
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``init_sigma`` is negative or not finite, or ``BatchedEnv`` or
            ``MultiGoalWorld`` refuses an argument.

    Example:
        >>> env = MultiGoalEnv(batch_size=(64,), horizon=20, seed=0)
        >>> data = env.rollout(20, break_when_any_done=False)
        >>> data.batch_size, data["next", "reward"].shape
        (torch.Size([64, 20]), torch.Size([64, 20, 1]))
    """

    world: MultiGoalWorld
    state_key = "observation"

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
        check_number(type(self).__name__, at_least=0, init_sigma=init_sigma)
        super().__init__(MultiGoalWorld(**world), batch_size, device, horizon=horizon, seed=seed)
        self.init_sigma = init_sigma

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

    def draw_starts(self, shape: Sequence[int]) -> Tensor:
        """Draws start states as a reset does; see ``BatchedEnv.draw_starts``.

        Args:
            shape: leading dimensions of the result; any.

        Returns:
            Start states, [*shape, 2].
        """
        return self.world.sample_state(
            shape,
            generator=self._generator,
            device=self.device,
            init_sigma=self.init_sigma,
        )

    def _make_observation_leaf(self) -> TensorSpec:
        limit, shape = self.world.position_limit, (*self.batch_size, 2)
        return Bounded(-limit, limit, shape=shape, device=self.device, dtype=torch.float32)
