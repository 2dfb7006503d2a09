"""The ant that runs in any direction: on open ground, and between the walls of a hallway."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv

from torchrl_stein._checks import check_number

from .arena import Arena, hallway
from .arena_env import ArenaEnv, Array

__all__ = ["AntHallwayEnv", "AntPretrainEnv", "AntTaskEnv"]

_OPEN_GROUND = Arena()


class AntTaskEnv(ArenaEnv, AntEnv):
    """Base of the ant's tasks: an arena, a reward of one's own, and an end when the ant flips over.

        reward = forward_reward_weight * task_reward + healthy_reward * [healthy]
                 - ctrl_cost_weight * |a|^2 - contact_cost_weight * |clip(contact forces, -1, 1)|^2

    All tasks have the same observation and actions, so that a policy of one can start in another.
    Observation [107] float64: x, y, z, quaternion and joints (15), velocities (14), external forces
    on the 13 bodies (78). Actions [8] float32 in [-1, 1]: torques of 150 N m at 1. One step is
    0.05 s. The ant is healthy while its height is in [0.2, 1] and it is not flipped over; otherwise
    the episode terminates.

    ``info`` has "centre_of_mass" [2] and the terms of the reward, "reward_task", "reward_survive",
    "reward_ctrl" and "reward_contact".

    Args:
        arena: the ground plan.
        flip_limit: the ant counts as flipped over when the vertical part of its torso's up-vector
            is below this, in [-1, 1): 1 is upright, 0 on its side. -1 never ends an episode.
        exclude_current_positions_from_observation: leaves x and y out of the observation.
        **ant: arguments of gymnasium's ``AntEnv`` (v5).

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``flip_limit`` is not in [-1, 1), or ``ArenaEnv`` refuses a number.

    Example:
        >>> class LazyAntEnv(AntTaskEnv):
        ...     def task_reward(self):
        ...         return -float(np.linalg.norm(self.velocity))
        >>> env = LazyAntEnv(Arena(), healthy_reward=0.0)
        >>> env.reset(seed=0)[0].shape
        (107,)
    """

    def __init__(
        self,
        arena: Arena,
        *,
        flip_limit: float = 0.2,
        exclude_current_positions_from_observation: bool = False,
        **ant: Any,
    ) -> None:
        check_number(type(self).__name__, at_least=-1, below=1, flip_limit=flip_limit)
        self.arena = arena
        self.flip_limit = flip_limit
        super().__init__(
            exclude_current_positions_from_observation=exclude_current_positions_from_observation,
            **ant,
        )

    @abstractmethod
    def task_reward(self) -> float:
        """Reward of the state that was just reached, without bonus and costs."""

    @property
    def up(self) -> float:
        """Vertical part of the torso's up-vector: 1 upright, 0 on its side, -1 on its back."""
        quaternion = self.data.qpos[3:7]
        _, x, y, _ = quaternion / np.linalg.norm(quaternion)
        return float(1 - 2 * (x * x + y * y))

    @property
    def is_healthy(self) -> bool:
        """Finite, at a height in ``healthy_z_range``, and not flipped over."""
        return bool(super().is_healthy) and self.up >= self.flip_limit

    def _get_rew(
        self, x_velocity: float, action: Array
    ) -> tuple[np.float64, dict[str, np.float64]]:
        terms = {
            "reward_task": np.float64(self._forward_reward_weight * self.task_reward()),
            "reward_survive": np.float64(self.healthy_reward),
            "reward_ctrl": np.float64(-self.control_cost(action)),
            "reward_contact": np.float64(-self.contact_cost),
        }
        return np.float64(sum(terms.values())), terms


class AntPretrainEnv(AntTaskEnv):
    """Ant that is paid for its speed, in whatever direction.

    With v the horizontal velocity of the centre of mass, mean over the step, in metres per second,

        reward = |v| + healthy_reward * [healthy] - ctrl_cost_weight * |a|^2
                 - contact_cost_weight * |clip(contact forces, -1, 1)|^2.

    Observation, actions, termination and ``info`` are those of ``AntTaskEnv``, the same in all
    tasks of the ant. Made by ``gymnasium.make("torchrl_stein/AntPretrain-v0")``, it is truncated
    after 500 steps.

    Args:
        arena: the ground plan, by default open ground.
        healthy_reward: paid in every step that ends healthy.
        ctrl_cost_weight: weight of the squared action.
        contact_cost_weight: weight of the squared contact forces, each clipped to [-1, 1].
        **ant: ``flip_limit`` and ``exclude_current_positions_from_observation`` of ``AntTaskEnv``;
            arguments of gymnasium's ``AntEnv`` (v5), such as ``frame_skip``, ``healthy_z_range``,
            ``reset_noise_scale``, ``render_mode`` or ``forward_reward_weight``, which weighs |v|.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``flip_limit`` is not in [-1, 1), or ``ArenaEnv`` refuses a number.

    Source:
        Haarnoja et al. 2017 (arXiv:1702.08165), section 5.3. Bonus and costs are those of rllab's
        ant; what counts as flipped over is not in the paper: docs/mujoco_tasks.md.

    Example:
        >>> env = AntPretrainEnv(healthy_reward=0.0)
        >>> _ = env.reset(seed=0)
        >>> info = env.step(env.action_space.sample())[4]
        >>> bool(info["reward_task"] == np.linalg.norm(env.velocity))
        True
    """

    def __init__(
        self,
        arena: Arena = _OPEN_GROUND,
        *,
        healthy_reward: float = 0.05,
        ctrl_cost_weight: float = 5e-3,
        contact_cost_weight: float = 5e-4,
        **ant: Any,
    ) -> None:
        super().__init__(
            arena,
            healthy_reward=healthy_reward,
            ctrl_cost_weight=ctrl_cost_weight,
            contact_cost_weight=contact_cost_weight,
            **ant,
        )

    def task_reward(self) -> float:
        """Horizontal speed of the centre of mass in metres per second."""
        return float(np.linalg.norm(self.velocity))


class AntHallwayEnv(AntPretrainEnv):
    """``AntPretrainEnv`` between two parallel walls: speed pays along x alone.

    The walls stand on both sides of the start and are open at their ends. Made by
    ``gymnasium.make("torchrl_stein/AntHallwayWide-v0")`` the hallway is 6 m wide, by
    ``"torchrl_stein/AntHallwayNarrow-v0"`` 3 m; both are truncated after 500 steps.

    Args:
        hallway_width: free ground between the walls in metres, at least 2. The ant spans 1.8 m.
            Not called ``width``, which is that of rendered images.
        half_length: how far the walls reach from the start, to either side.
        wall_thickness: of each wall.
        wall_height: of each wall.
        **ant: as for ``AntPretrainEnv``, but for ``arena``.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``hallway_width`` is below 2 or another length not above 0.

    Source:
        Haarnoja et al. 2017 (arXiv:1702.08165), section 5.3. Widths and length are not in the
        paper: docs/mujoco_tasks.md.

    Example:
        >>> AntHallwayEnv(hallway_width=3.0).arena.walls[1].y_max
        -1.5
    """

    def __init__(
        self,
        *,
        hallway_width: float = 6.0,
        half_length: float = 40.0,
        wall_thickness: float = 1.0,
        wall_height: float = 2.0,
        **ant: Any,
    ) -> None:
        super().__init__(hallway(hallway_width, half_length, wall_thickness, wall_height), **ant)
