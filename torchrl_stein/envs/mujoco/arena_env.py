"""What the MuJoCo tasks share: walls in the model, motion measured at the centre of mass."""

from __future__ import annotations

import math
from typing import Any, Self

import gymnasium.envs.mujoco as gym_mujoco  # before mujoco: it names the extra that is missing
import mujoco  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt

from torchrl_stein._checks import check_count, check_number

from .arena import Arena

Array = npt.NDArray[np.float64]

_ROBOT = 1  # the body whose subtree is the whole robot; 0 is the world
_WALL_COLOUR = (0.55, 0.55, 0.6, 1.0)
_GOAL_COLOUR = (0.23, 0.62, 0.36, 1.0)
_OBSTACLE_COLOUR = (0.25, 0.25, 0.25, 1.0)
_GOAL_HEIGHT = 0.01  # metres, to be seen on the ground


class ArenaEnv(gym_mujoco.MujocoEnv):
    """Base to put before one of gymnasium's MuJoCo robots, which then stands in an arena.

    The centre of mass, the mean of the bodies' positions weighted by mass, says where the robot is
    and how fast it moves: a joint that swings to and fro on the spot moves the frame of the torso,
    but hardly the centre of mass. A subclass sets ``arena`` before it calls the constructor of the
    robot, whose arguments ``robot`` are checked here: gymnasium takes any number.

    Attributes:
        arena: the ground plan.
        velocity: horizontal velocity [2] of the centre of mass in metres per second, mean over the
            last step; zero after a reset.
    """

    arena: Arena
    velocity: Array
    _arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments of the constructor, by which environments are pickled."""
        env = super().__new__(cls)
        env._arguments = args, kwargs
        return env

    def __init__(self, **robot: Any) -> None:
        _check_robot(type(self).__name__, robot)
        super().__init__(**robot)

    def __getstate__(self) -> dict[str, Any]:
        # Gymnasium's robots note the arguments of their own constructor, not of a subclass's.
        args, kwargs = self._arguments
        return {"_ezpickle_args": args, "_ezpickle_kwargs": kwargs}

    @property
    def centre_of_mass(self) -> Array:
        """Horizontal position [2] of the robot's centre of mass in metres."""
        return self.data.subtree_com[_ROBOT, :2].copy()

    def robot_outline(self) -> list[tuple[Array, Array, float]]:
        """The robot as it stands now, seen from above: capsules (end [2], end [2], radius)."""
        mujoco.mj_kinematics(self.model, self.data)
        outline = []
        for geom in np.flatnonzero(self.model.geom_bodyid):  # all but the world's
            radius, half_length, _ = self.model.geom_size[geom]  # a sphere has half_length 0
            middle = self.data.geom_xpos[geom, :2]
            arm = half_length * self.data.geom_xmat[geom].reshape(3, 3)[:2, 2]
            outline.append((middle - arm, middle + arm, float(radius)))
        return outline

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[Array, np.float64, bool, bool, dict[str, Any]]:
        """One step of the robot; info has the centre of mass and what the task adds."""
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated, info | self._task_info()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start an episode; a seed is an integer >= 0."""
        if seed is not None:
            check_count(type(self).__name__, at_least=0, seed=seed)
        return super().reset(seed=seed, options=options)

    def reset_model(self) -> Array:
        """Draw a new start, with ``velocity`` zero."""
        self.velocity = np.zeros(2)
        return super().reset_model()

    def do_simulation(self, ctrl: npt.NDArray[np.float32], n_frames: int) -> None:
        """Move the robot on and measure how far its centre of mass came."""
        before = self.centre_of_mass
        super().do_simulation(ctrl, n_frames)
        # MuJoCo leaves the positions of bodies at the integrator's last stage, not at its end.
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        self.velocity = (self.centre_of_mass - before) / self.dt

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """Gymnasium's model with the walls, goals and obstacles of the arena."""
        spec = mujoco.MjSpec.from_file(self.fullpath)
        arena = self.arena
        for name, boxes, height, solid, colour in (
            ("wall", arena.walls, arena.wall_height, 1, _WALL_COLOUR),
            ("goal", arena.goals, _GOAL_HEIGHT, 0, _GOAL_COLOUR),
            ("obstacle", arena.obstacles, arena.wall_height, 0, _OBSTACLE_COLOUR),
        ):
            for number, (x_min, x_max, y_min, y_max) in enumerate(boxes):
                spec.worldbody.add_geom(
                    name=f"{name}_{number}",
                    type=mujoco.mjtGeom.mjGEOM_BOX,
                    pos=[(x_min + x_max) / 2, (y_min + y_max) / 2, height / 2],
                    size=[(x_max - x_min) / 2, (y_max - y_min) / 2, height / 2],  # half lengths
                    contype=solid,
                    conaffinity=solid,  # 0 is the default of these robots: nothing would touch it
                    rgba=colour,
                )
        model = spec.compile()
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        return model, mujoco.MjData(model)

    def _get_reset_info(self) -> dict[str, Any]:
        return super()._get_reset_info() | self._task_info()

    def _task_info(self) -> dict[str, Any]:
        """What the task adds to info, in numpy's types: TorchRL reads no others."""
        return {"centre_of_mass": self.centre_of_mass}


_COUNTS = ("frame_skip", "width", "height", "max_geom")
_NUMBERS = ("forward_reward_weight", "ctrl_cost_weight", "contact_cost_weight", "healthy_reward")
_RANGES = ("healthy_z_range", "contact_force_range")


def _check_robot(owner: str, robot: dict[str, Any]) -> None:
    """Check the numbers that gymnasium's robots take without a look."""

    def given(*names: str) -> dict[str, Any]:
        return {name: robot[name] for name in names if name in robot}

    check_count(owner, **given(*_COUNTS))
    check_number(owner, **given(*_NUMBERS))
    check_number(owner, at_least=0, **given("reset_noise_scale"))
    for name, ends in given(*_RANGES).items():
        if not isinstance(ends, (tuple, list)) or len(ends) != 2:
            raise TypeError(f"{owner}: {name} must be two numbers, got {ends!r}")
        # An open range has an infinite end.
        for end in ends:
            if end not in (-math.inf, math.inf):
                check_number(owner, **{name: end})
        if not ends[0] <= ends[1]:
            raise ValueError(f"{owner}: {name} must be two numbers in order, got {ends!r}")
