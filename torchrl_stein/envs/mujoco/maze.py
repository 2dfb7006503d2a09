"""The ant that has to find the way to a target: a maze with two passages, and a U-shaped one."""

from __future__ import annotations

from typing import Any

import numpy as np

from torchrl_stein._checks import check_number, check_type

from .ant import AntTaskEnv
from .arena import Arena, two_passages, u_maze
from .arena_env import Array

__all__ = ["AntMazeEnv", "AntTargetEnv", "AntUMazeEnv"]


class AntTargetEnv(AntTaskEnv):
    """Ant that is paid for being near a target.

    With p the centre of mass at the end of the step, in metres,

        reward = exp(-|p - target|^2 / (2 sigma^2)) + healthy_reward * [healthy]
                 - ctrl_cost_weight * |a|^2 - contact_cost_weight * |clip(contact forces, -1, 1)|^2

    where bonus and costs have weight 0 unless given. Observation, actions and termination are those
    of ``AntTaskEnv``. Its ``info`` gains "distance_to_target" and "min_distance_to_target", the
    smallest distance of the episode so far.

    Args:
        arena: the ground plan, with a target.
        sigma: width of the reward's bump in metres.
        healthy_reward: paid in every step that ends healthy.
        ctrl_cost_weight: weight of the squared action.
        contact_cost_weight: weight of the squared contact forces, each clipped to [-1, 1].
        **ant: as for ``AntPretrainEnv``; ``forward_reward_weight`` weighs the bump.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if ``arena`` has no target or ``sigma`` is not above 0.

    Source:
        Haarnoja et al. 2017 (arXiv:1702.08165), section 5.2: "a Gaussian centered at the target".

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
        """Draws a new start and forgets how near the last episode came."""
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
    start, but a barrier closes the upper one, so the ant has to try both. Made by
    ``gymnasium.make("torchrl_stein/AntMaze-v0")``, it is truncated after 500 steps.

    Args:
        x_range: left and right end of the room in metres. The ant starts at (0, 0).
        block: left and right end of the block.
        barrier: x of the middle of the barrier, which is ``wall_thickness`` thick.
        corridor_width: of each passage and of the block, at least 2; the room is three times as
            wide.
        wall_thickness: of the walls around the room and of the barrier.
        wall_height: of all walls.
        target: (x, y) of the target.
        **ant: as for ``AntTargetEnv``, but for ``arena``.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if a length is not positive, the parts are not in order along x, or the target
            does not stand on free ground of the room.

    Source:
        Haarnoja et al. 2017 (arXiv:1702.08165), section 5.2. The geometry and sigma are not in the
        paper: docs/mujoco_tasks.md.

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
        """Distance to the target below which no way through the upper passage leads, in metres.

        It is that of the passage's nearest point in front of the barrier.
        """
        assert self.arena.threshold is not None
        return self.arena.threshold


class AntUMazeEnv(AntTargetEnv):
    """``AntTargetEnv`` in a U-shaped maze: along one arm, around the bend and back to the target.

    The arms lie along x, one above the other; the bend is at the right. Made by
    ``gymnasium.make("torchrl_stein/AntUMaze-v0")``, it is truncated after 500 steps.

    Args:
        corridor_width: of both arms and of the bend in metres, at least 2.
        arm_length: from the start, at the lower arm's closed end, to the middle of the bend.
        divider: thickness of the wall between the arms.
        wall_thickness: of the walls around the maze.
        wall_height: of all walls.
        target: (x, y) of the target, by default above the start, at the upper arm's closed end.
        **ant: as for ``AntTargetEnv``, but for ``arena``.

    Raises:
        TypeError: naming the argument, if it is of another kind.
        ValueError: if a length is not positive, or the target does not stand on free ground of the
            maze.

    Source:
        Haarnoja et al. 2017 (arXiv:1702.08165), section 5.3. The geometry and sigma are not in the
        paper; the plan is that of rllab's ant maze: docs/mujoco_tasks.md.

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
