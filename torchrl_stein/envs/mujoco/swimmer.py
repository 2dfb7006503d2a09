"""The swimmer that is paid for speed either way, and more beyond a line it has to discover."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.envs.mujoco.swimmer_v5 import SwimmerEnv

from torchrl_stein._checks import check_number

from .arena import Arena
from .arena_env import ArenaEnv, Array


class SwimmerFinishLineEnv(ArenaEnv, SwimmerEnv):
    """Swimmer that may swim either way along x; a bonus waits on one side, beyond a finish line.

    The task of Haarnoja et al. 2017 (arXiv:1702.08165), section 5.2, which gives no numbers. With x
    the centre of mass and v its mean velocity over the step, in metres and seconds,

        reward = |v_x| + finish_bonus * [x > finish_line] - ctrl_cost_weight * |a|^2.

    Nothing terminates. Observation [10] float64: positions of torso and joints (5), velocities (5).
    Actions [2] float32 in [-1, 1]: torques of 150 N m at 1. One step is 0.04 s. Made by
    ``gymnasium.make("torchrl_stein/SwimmerFinishLine-v0")``, it is truncated after 500 steps.

    ``info`` has "max_forward_distance", the largest x of the episode so far, "centre_of_mass" [2]
    and the terms of the reward, "reward_task", "reward_finish" and "reward_ctrl".

    Args:
        finish_line: x of the line in metres.
        finish_bonus: paid in every step that ends beyond the line.
        ctrl_cost_weight: weight of the squared action.
        exclude_current_positions_from_observation: leaves x and y out. The bonus depends on x, so
            they are in by default.
        **swimmer: arguments of gymnasium's ``SwimmerEnv`` (v5), such as ``frame_skip``,
            ``reset_noise_scale``, ``render_mode`` or ``forward_reward_weight``, which weighs |v_x|.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range.

    Example:
        >>> env = SwimmerFinishLineEnv(finish_line=-100.0, finish_bonus=5.0)
        >>> _ = env.reset(seed=0)
        >>> float(env.step(env.action_space.sample())[4]["reward_finish"])
        5.0
    """

    def __init__(
        self,
        *,
        finish_line: float = 3.0,
        finish_bonus: float = 1.0,
        ctrl_cost_weight: float = 5e-3,
        exclude_current_positions_from_observation: bool = False,
        **swimmer: Any,
    ) -> None:
        check_number(type(self).__name__, finish_line=finish_line, finish_bonus=finish_bonus)
        self.finish_line = finish_line
        self.finish_bonus = finish_bonus
        self.arena = Arena(finish_line=finish_line)
        super().__init__(
            ctrl_cost_weight=ctrl_cost_weight,
            exclude_current_positions_from_observation=exclude_current_positions_from_observation,
            **swimmer,
        )

    def reset_model(self) -> Array:
        """Draw a new start and forget how far the last episode came."""
        observation = super().reset_model()
        self._furthest = np.float64(-np.inf)
        return observation

    def _get_rew(
        self, x_velocity: float, action: Array
    ) -> tuple[np.float64, dict[str, np.float64]]:
        beyond = self.centre_of_mass[0] > self.finish_line
        terms = {
            "reward_task": np.float64(self._forward_reward_weight * abs(self.velocity[0])),
            "reward_finish": np.float64(self.finish_bonus * beyond),
            "reward_ctrl": np.float64(-self.control_cost(action)),
        }
        return np.float64(sum(terms.values())), terms

    def _task_info(self) -> dict[str, Any]:
        self._furthest = max(self._furthest, self.centre_of_mass[0])
        return super()._task_info() | {"max_forward_distance": self._furthest}
