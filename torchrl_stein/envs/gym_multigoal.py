"""The multi-goal world for gymnasium users, on the same dynamics as ``MultiGoalEnv``."""

from __future__ import annotations

from typing import Any, Unpack

import gymnasium
import numpy as np
import numpy.typing as npt
import torch

from torchrl_stein._checks import check_count, check_number
from torchrl_stein.envs.multigoal_world import MultiGoalOptions, MultiGoalWorld

ENV_ID = "torchrl_stein/MultiGoal-v0"
HORIZON = 20

Array = npt.NDArray[np.float32]


class MultiGoalGymEnv(gymnasium.Env[Array, Array]):
    """Gymnasium environment of one multi-goal world.

    Observations are positions [2] and actions displacements [2], both float32. Reaching a goal
    terminates. Made by ``gymnasium.make("torchrl_stein/MultiGoal-v0")``, it is truncated after 20
    steps by gymnasium's ``TimeLimit``; the class alone never truncates. Equation, constants and
    source (Haarnoja et al. 2017, arXiv:1702.08165): ``MultiGoalWorld``.

    Args:
        init_sigma: standard deviation of the start, N(0, init_sigma^2 I), clipped to the square.
        **world: constants of the world, the arguments of ``MultiGoalWorld``.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``init_sigma`` is negative or not finite, or ``MultiGoalWorld`` refuses
            ``world``.

    Example:
        >>> env = gymnasium.make("torchrl_stein/MultiGoal-v0")
        >>> observation, info = env.reset(seed=0)
        >>> observation.shape, info["goal"]
        ((2,), -1)
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - gymnasium's own attribute

    def __init__(self, *, init_sigma: float = 0.1, **world: Unpack[MultiGoalOptions]) -> None:
        check_number(type(self).__name__, at_least=0, init_sigma=init_sigma)
        self.world = MultiGoalWorld(**world)
        self.init_sigma = init_sigma
        limit = self.world.position_limit
        self.observation_space = gymnasium.spaces.Box(-limit, limit, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self._position = torch.zeros(2)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Draws a new start.

        Args:
            seed: seed of the environment's own generator; None goes on with the present one.
            options: unused, part of gymnasium's interface.

        Returns:
            The position [2], float32, and {"goal": index of the goal reached, or -1}.

        Raises:
            TypeError: if ``seed`` is no integer.
            ValueError: if it is negative.

        Example:
            >>> env = MultiGoalGymEnv()
            >>> bool((env.reset(seed=1)[0] == env.reset(seed=1)[0]).all())
            True
        """
        if seed is not None:
            check_count(type(self).__name__, at_least=0, seed=seed)
        super().reset(seed=seed, options=options)
        limit = self.world.position_limit
        start = self.np_random.normal(0.0, self.init_sigma, size=2).clip(-limit, limit)
        self._position = torch.as_tensor(start, dtype=torch.float32)
        return self._observe()

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Moves the point mass by one step.

        Args:
            action: displacement [2]; clipped to [-1, 1].

        Returns:
            Position [2] (float32), reward, terminated, truncated (always False: the time limit is
            the wrapper's), and {"goal": index of the goal reached, or -1}.

        Example:
            >>> env = MultiGoalGymEnv(init_sigma=0.0)
            >>> _ = env.reset(seed=0)
            >>> env.step(np.array([1.0, 0.0], dtype=np.float32))[1]
            -46.0
        """
        displacement = torch.as_tensor(action, dtype=torch.float32)
        self._position, reward, terminated = self.world.step(self._position, displacement)
        position, info = self._observe()
        return position, float(reward), bool(terminated), False, info

    def _observe(self) -> tuple[Array, dict[str, Any]]:
        goal = int(self.world.goal_reached(self._position))
        return self._position.numpy().copy(), {"goal": goal}


def register_multigoal() -> None:
    """Registers ``torchrl_stein/MultiGoal-v0`` with gymnasium, once however often it is called.

    Example:
        >>> register_multigoal()
        >>> gymnasium.spec("torchrl_stein/MultiGoal-v0").max_episode_steps
        20
    """
    if ENV_ID not in gymnasium.registry:
        gymnasium.register(
            id=ENV_ID,
            entry_point="torchrl_stein.envs.gym_multigoal:MultiGoalGymEnv",
            max_episode_steps=HORIZON,
        )
