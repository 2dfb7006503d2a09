"""The tasks of the ant: running on open ground or in a hallway, and finding a way in two mazes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from gymnasium.envs.mujoco.ant_v5 import AntEnv

from torchrl_stein._checks import check_number, check_type

from .arena import Arena, hallway, two_passages, u_maze
from .arena_env import ArenaEnv, Array

_OPEN_GROUND = Arena()


class AntTaskEnv(ArenaEnv, AntEnv):
    """Base of the ant's tasks: an arena, a reward, and an end when the ant flips over.

        reward = forward_reward_weight * task_reward + healthy_reward * [healthy]
                 - ctrl_cost_weight * |a|^2 - contact_cost_weight * |clip(contact forces, -1, 1)|^2

    Observation, actions and ``info`` are those of ``AntPretrainEnv``. The arguments beside
    ``flip_limit`` are those of gymnasium's ``AntEnv`` (v5).
    """

    def __init__(
        self,
        arena: Arena,
        *,
        flip_limit: float = 0.2,
        **ant: Any,
    ) -> None:
        check_number(type(self).__name__, at_least=-1, below=1, flip_limit=flip_limit)
        self.arena = arena
        self.flip_limit = flip_limit
        # Rewards depend on x and y, which gymnasium leaves out.
        ant.setdefault("exclude_current_positions_from_observation", False)
        super().__init__(**ant)

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

    The task of Haarnoja et al. 2017 (arXiv:1702.08165), section 5.3, with bonus and costs of
    rllab's ant. With v the horizontal velocity of the centre of mass, mean over the step, in m/s,

        reward = |v| + healthy_reward * [healthy] - ctrl_cost_weight * |a|^2
                 - contact_cost_weight * |clip(contact forces, -1, 1)|^2.

    All tasks of the ant have the same observation and actions, so that a policy of one can start in
    another. Observation [107] float64: x, y, z, quaternion and joints (15), velocities (14),
    external forces on the 13 bodies (78). Actions [8] float32 in [-1, 1]: torques of 150 N m at 1.
    One step is 0.05 s. The ant is healthy while its height is in [0.2, 1] and it is not flipped
    over; otherwise the episode terminates. Made by
    ``gymnasium.make("torchrl_stein/AntPretrain-v0")``, it is truncated after 500 steps.

    ``info`` has "centre_of_mass" [2] and the terms of the reward, "reward_task", "reward_survive",
    "reward_ctrl" and "reward_contact".

    Args:
        arena: the ground plan, by default open ground.
        healthy_reward: paid in every step that ends healthy.
        ctrl_cost_weight: weight of the squared action.
        contact_cost_weight: weight of the squared contact forces, each clipped to [-1, 1].
        **ant: ``flip_limit`` (default 0.2): the ant counts as flipped over when the vertical part
            of its torso's up-vector is below this, in [-1, 1); 1 is upright, 0 on its side, and -1
            never ends an episode. ``exclude_current_positions_from_observation`` (default False)
            leaves out x and y. Arguments of gymnasium's ``AntEnv`` (v5), such as ``frame_skip``,
            ``render_mode`` or ``forward_reward_weight``, which weighs |v|.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range.

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

    The walls stand on both sides of the start and are open at their ends (Haarnoja et al. 2017,
    arXiv:1702.08165, section 5.3, which gives no lengths). Made by
    ``gymnasium.make("torchrl_stein/AntHallwayWide-v0")`` the hallway is 6 m wide, by
    ``"torchrl_stein/AntHallwayNarrow-v0"`` 3 m; both are truncated after 500 steps.

    Args:
        hallway_width: free ground between the walls in metres, at least 2. The ant spans 1.8 m.
        half_length: how far the walls reach from the start, to either side.
        wall_thickness, wall_height: of each wall.
        **ant: as for ``AntPretrainEnv``, but for ``arena``.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range.

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


class AntTargetEnv(AntTaskEnv):
    """Ant that is paid for being near a target.

    The reward of Haarnoja et al. 2017 (arXiv:1702.08165), section 5.2. With p the centre of mass at
    the end of the step, in metres,

        reward = exp(-|p - target|^2 / (2 sigma^2)) + healthy_reward * [healthy]
                 - ctrl_cost_weight * |a|^2 - contact_cost_weight * |clip(contact forces, -1, 1)|^2

    where bonus and costs have weight 0 unless given. Observation, actions and termination are those
    of ``AntPretrainEnv``. Its ``info`` gains "distance_to_target" and "min_distance_to_target", the
    smallest distance of the episode so far.

    Args:
        arena: the ground plan, with a target.
        sigma: width of the reward's bump in metres.
        others: as for ``AntPretrainEnv``; ``forward_reward_weight`` weighs the bump.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range, or if
            ``arena`` has no target.

    Example:
        >>> env = AntTargetEnv(Arena(target=(3.0, 4.0)))
        >>> round(env.reset(seed=0)[1]["distance_to_target"])
        5
    """

    def __init__(
        self,
        arena: Arena,
        *,
        sigma: float = 4.0,
        healthy_reward: float = 0.0,
        ctrl_cost_weight: float = 0.0,
        contact_cost_weight: float = 0.0,
        **ant: Any,
    ) -> None:
        owner = type(self).__name__
        check_type(owner, "an Arena", Arena, arena=arena)
        if arena.target is None:
            raise ValueError(f"{owner}: arena must have a target, got {arena}")
        check_number(owner, above=0, sigma=sigma)
        self.target = np.array(arena.target)
        self.sigma = sigma
        super().__init__(
            arena,
            healthy_reward=healthy_reward,
            ctrl_cost_weight=ctrl_cost_weight,
            contact_cost_weight=contact_cost_weight,
            **ant,
        )

    @property
    def distance(self) -> np.float64:
        """Metres from the centre of mass to the target."""
        return np.float64(np.linalg.norm(self.centre_of_mass - self.target))

    def task_reward(self) -> float:
        """Gaussian bump at the target, 1 at its top."""
        return float(np.exp(-(self.distance**2) / (2 * self.sigma**2)))

    def reset_model(self) -> Array:
        """Draw a new start and forget how near the last episode came."""
        observation = super().reset_model()
        self._nearest = np.float64(np.inf)
        return observation

    def _task_info(self) -> dict[str, Any]:
        self._nearest = min(self._nearest, self.distance)
        return super()._task_info() | {
            "distance_to_target": self.distance,
            "min_distance_to_target": self._nearest,
        }


class AntMazeEnv(AntTargetEnv):
    """``AntTargetEnv`` in a room with two passages to the target, of which the upper one is barred.

    A block stands in the middle of the room. The passages above and below it look alike from the
    start, but a barrier closes the upper one, so the ant has to try both (Haarnoja et al. 2017,
    arXiv:1702.08165, section 5.2, which gives no lengths). Made by
    ``gymnasium.make("torchrl_stein/AntMaze-v0")``, it is truncated after 500 steps.

    Args:
        x_range: left and right end of the room in metres. The ant starts at (0, 0).
        block: left and right end of the block.
        barrier: x of the middle of the barrier, which is ``wall_thickness`` thick.
        corridor_width: of each passage and of the block, at least 2; the room is three times as
            wide.
        wall_thickness, wall_height: of all walls and of the barrier.
        target: (x, y) of the target.
        **ant: as for ``AntTargetEnv``, but for ``arena``.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range, if the
            parts are not in order along x, or the target does not stand on free ground.

    Example:
        >>> env = AntMazeEnv()
        >>> bool(env.reset(seed=0)[1]["min_distance_to_target"] < env.threshold)
        False
    """

    def __init__(
        self,
        *,
        x_range: tuple[float, float] = (-3.0, 15.0),
        block: tuple[float, float] = (3.0, 9.0),
        barrier: float = 8.0,
        corridor_width: float = 4.0,
        wall_thickness: float = 1.0,
        wall_height: float = 2.0,
        target: tuple[float, float] = (12.0, 0.0),
        **ant: Any,
    ) -> None:
        arena = two_passages(
            x_range, block, barrier, corridor_width, wall_thickness, wall_height, target
        )
        super().__init__(arena, **ant)

    @property
    def threshold(self) -> float:
        """Metres to the target from the nearest point of the upper passage before the barrier."""
        assert self.arena.threshold is not None
        return self.arena.threshold


class AntUMazeEnv(AntTargetEnv):
    """``AntTargetEnv`` in a U-shaped maze: along one arm, around the bend and back to the target.

    The arms lie along x, one above the other; the bend is at the right (Haarnoja et al. 2017,
    arXiv:1702.08165, section 5.3; the plan is that of rllab's ant maze). Made by
    ``gymnasium.make("torchrl_stein/AntUMaze-v0")``, it is truncated after 500 steps.

    Args:
        corridor_width: of both arms and of the bend in metres, at least 2.
        arm_length: from the start, at the lower arm's closed end, to the middle of the bend.
        divider: thickness of the wall between the arms.
        wall_thickness, wall_height: of the walls around the maze.
        target: (x, y) of the target, by default above the start, at the upper arm's closed end.
        **ant: as for ``AntTargetEnv``, but for ``arena``.

    Raises:
        TypeError, ValueError: naming the argument that is of another kind or out of range, or if
            the target does not stand on free ground.

    Example:
        >>> AntUMazeEnv().arena.target
        (0.0, 8.0)
    """

    def __init__(
        self,
        *,
        corridor_width: float = 4.0,
        arm_length: float = 8.0,
        divider: float = 4.0,
        wall_thickness: float = 1.0,
        wall_height: float = 2.0,
        target: tuple[float, float] = (0.0, 8.0),
        **ant: Any,
    ) -> None:
        arena = u_maze(corridor_width, arm_length, divider, wall_thickness, wall_height, target)
        super().__init__(arena, **ant)
