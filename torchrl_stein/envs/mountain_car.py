"""A car too weak for its hill: pure functions of tensors, and their environment.

The mountain car of rllab (Duan et al. 2016, arXiv:1604.06778), which Liu et al. 2017
(arXiv:1704.02399) use for the Stein variational policy gradient. rllab lets a box slide and bounce
over a chain of 200 segments in Box2D. The chaos of contacts cannot be matched, so this is a model
with one degree of freedom: the box keeps both lower corners on the curve. Its drag is fitted to
measurements of Box2D; see ``MountainCarWorld``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_type

from .batched import ClassicEnv
from .drawing import Canvas
from .world import keep_numbers

WAVE = 0.5 * math.pi  # the track is y = 1 - cos(WAVE x)
SKIN = 0.01  # Box2D keeps polygons this far above what they rest on, in metres


class _Pose(NamedTuple):
    """Where the box is and how it moves per unit of s, each [...]."""

    x: Tensor
    y: Tensor
    cos: Tensor
    sin: Tensor
    dx: Tensor
    dy: Tensor
    turn: Tensor


@dataclass(frozen=True)
class MountainCarWorld:
    """Dynamics and reward of the mountain car, without any state of its own.

    The box stands with its two lower corners on the track y = 1 - cos(pi x / 2); s is the abscissa
    of the middle between them, (x, y) the box's centre, phi its tilt. The force u = force_limit a,
    with a clipped to [-1, 1], acts along the box. With T = d(x, y, phi)/ds, M the masses and V the
    velocity of the box,

        s'  <-  T^T M (V + h f / m) / T^T M T,    s' <- s' / (1 + h drag |s'|),    V <- T s'

    at the old position: the part of V that violates the track is lost as an impulse, as in Box2D.
    Then s moves by h s'. After the step,

        dense   r = y - 1 on every step
        sparse  r = 1 on the step that reaches x >= goal_position, else 0

    and x >= goal_position or |x| >= position_limit ends the episode. Constants and dense reward of
    rllab (``mountain_car_env.py``, 500 steps); sparse is ours, after Houthooft et al. 2016
    (arXiv:1605.09674). The model cannot bounce or catch at corners, which takes energy at speed;
    the quadratic drag stands for it. Steps and returns of three ways to push:

        push             Box2D                      here
        along velocity   76 to 112, -51 to -74      80 to 101, -53 to -68
        at random        never arrives, -414.5      never arrives, -415
        none             never arrives, -416.6      never arrives, -419 (no rattling)

    The state [5] is (x, x', s, y', phi'), the observation the first two. The default start is
    rllab's: at x = 0 with the box not turning, though it must turn in the valley, and the first
    step takes that momentum away. ``clean_start`` starts with the matching spin.

    Args:
        mass, body_width, body_height: kg and m; the corners are ``body_width`` apart.
        gravity, force_limit, time_step: m/s^2, N (the force of action 1) and s.
        drag: rate of quadratic drag, 1/m.
        friction: coefficient of dry friction between box and track.
        goal_position: where the hill is climbed, m.
        position_limit: the ends of the track, m.
        start_speed: half width of the uniform start of x', m/s.
        clean_start: whether the box turns at the start as the track does.
        sparse_reward: whether the reward is the sparse one.

    Example:
        >>> world = MountainCarWorld(force_limit=2.0)
        >>> world.step(world.sample_state((64,)), torch.zeros(64, 1))[0].shape
        torch.Size([64, 5])
    """

    state_dim: ClassVar[int] = 5
    observation_dim: ClassVar[int] = 2
    action_dim: ClassVar[int] = 1

    mass: float = 0.4
    body_width: float = 0.4
    body_height: float = 0.2
    gravity: float = 10.0
    force_limit: float = 1.0
    drag: float = 0.27
    friction: float = 0.0
    time_step: float = 0.05
    goal_position: float = 0.6
    position_limit: float = 2.0
    start_speed: float = 1.0
    clean_start: bool = False
    sparse_reward: bool = False

    def __post_init__(self) -> None:
        positive = ("mass", "body_width", "body_height", "time_step", "position_limit")
        keep_numbers(self, *positive, above=0)
        keep_numbers(self, "force_limit", "drag", "friction", "start_speed", at_least=0)
        keep_numbers(self, "gravity", "goal_position")
        owner = type(self).__name__
        check_type(owner, "a bool", bool, clean_start=self.clean_start)
        check_type(owner, "a bool", bool, sparse_reward=self.sparse_reward)

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start states [*shape, 5]: in the valley, with a uniform speed."""
        uniform = torch.rand(tuple(shape), generator=generator, device=device, dtype=dtype)
        speed = (2.0 * uniform - 1.0) * self.start_speed
        return self.place(torch.stack((torch.zeros_like(speed), speed), -1))

    def place(self, coordinates: Tensor) -> Tensor:
        """The first state [..., 5] of an episode at (x, x'), [..., 2], in m and m/s."""
        x, speed = coordinates.unbind(-1)
        s = x
        for _ in range(16):  # x - s changes by 0.27 dx at most, and 0.27^16 < 1e-9
            s = s + (x - self._pose(s).x)
        pose = self._pose(s)
        rate = speed / pose.dx
        spin = rate * pose.turn if self.clean_start else torch.zeros_like(x)
        return torch.stack((x, speed, s, rate * pose.dy, spin), -1)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees: (x, x'), [..., 2], in m and m/s."""
        return state[..., :2]

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move every row by one step; pure, so it compiles, vmaps and differentiates."""
        h = self.time_step
        inertia = (self.body_width**2 + self.body_height**2) / 12.0  # per unit of mass
        _, v_x, s, v_y, spin = state.unbind(-1)
        push = action.clamp(-1.0, 1.0).squeeze(-1) * (h * self.force_limit / self.mass)
        pose = self._pose(s)
        v_x = torch.addcmul(v_x, push, pose.cos)
        v_y = torch.addcmul(v_y, push, pose.sin) - h * self.gravity
        momentum = torch.addcmul(pose.dx * v_x, pose.dy, v_y)
        momentum = torch.addcmul(momentum, pose.turn, spin, value=inertia)
        metric = torch.addcmul(pose.dx * pose.dx, pose.dy, pose.dy)
        metric = torch.addcmul(metric, pose.turn, pose.turn, value=inertia)
        rate = momentum / metric
        if self.friction:
            grip = (h * self.gravity * self.friction) * pose.cos * metric.rsqrt()
            rate = rate - rate.clamp(-grip, grip)
        rate = rate / torch.add(1.0, rate.abs(), alpha=h * self.drag)

        s = torch.add(s, rate, alpha=h)
        x, y = self._pose(s)[:2]
        after = torch.stack((x, pose.dx * rate, s, pose.dy * rate, pose.turn * rate), -1)
        arrived = x >= self.goal_position
        terminated = arrived | (x.abs() >= self.position_limit)
        reward = arrived.to(x.dtype) if self.sparse_reward else y - 1.0
        return after, reward.unsqueeze(-1), terminated.unsqueeze(-1)

    def render(self, state: Tensor) -> Tensor:
        """Draw the hill, the goal and the car: RGB, uint8 [..., 120, 200, 3]."""
        pose = self._pose(state[..., 2])
        middle = 1.0
        canvas = Canvas(
            pose.x, size=(120, 200), centre=(0.0, middle), width=2.1 * self.position_limit
        )
        ground = canvas.y <= 1.0 - (WAVE * canvas.x).cos()
        canvas.paint(ground, "grey")
        height = 1.0 - math.cos(WAVE * self.goal_position)
        flag = (self.goal_position, height + 0.6)
        canvas.line((self.goal_position, height), flag, 0.03, "green")
        half_width, half_height = 0.5 * self.body_width, 0.5 * self.body_height
        canvas.box((pose.x, pose.y), half_width, half_height, "orange", cos=pose.cos, sin=pose.sin)
        return canvas.image

    def _pose(self, s: Tensor) -> _Pose:
        """The box with its corners on the track about s, right to 3e-5 m.

        The corners lie d = half cos(phi) to both sides, so tan(phi) d = sin(WAVE s) sin(WAVE d).
        With sinc(z) = sin(z)/z that is a fixed point of d, of which two rounds are plenty.
        """
        half, rise = 0.5 * self.body_width, 0.5 * self.body_height + SKIN
        sin_s, cos_s = (WAVE * s).sin(), (WAVE * s).cos()
        slope = WAVE * math.sin(WAVE * half) / (WAVE * half) * sin_s
        d = half * torch.addcmul(torch.ones_like(slope), slope, slope).rsqrt()
        sinc = torch.sinc(0.5 * d)  # torch's sinc has a factor pi inside; WAVE is pi / 2
        slope = WAVE * sin_s * sinc
        cos = (slope * slope + 1.0).rsqrt()
        sin = slope * cos
        cos_d = (WAVE * half * cos).cos()
        x = torch.add(s, sin, alpha=-rise)
        y = torch.add(1.0 - cos_s * cos_d, cos, alpha=rise)
        # Derivatives, with d' = -half sin(phi) phi'.
        turn = (WAVE**2) * cos * cos * cos_s * sinc
        turn = turn / torch.addcmul(torch.ones_like(sin), sin * sin, cos_d / sinc - 1.0)
        dx = torch.rsub(cos * turn, 1.0, alpha=rise)
        lift = (WAVE * half) * cos_s * (WAVE * half * cos).sin() + rise
        dy = WAVE * sin_s * cos_d - sin * turn * lift
        return _Pose(x, y, cos, sin, dx, dy, turn)


class MountainCarEnv(ClassicEnv):
    """A car too weak for its hill: ``MountainCarWorld`` as a batched TorchRL environment.

    The constants of the world are keyword arguments; the others are those of ``BatchedEnv``.

    Example:
        >>> env = MountainCarEnv((16, 4), seed=0, sparse_reward=True)
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 2])
    """

    make_world = MountainCarWorld
