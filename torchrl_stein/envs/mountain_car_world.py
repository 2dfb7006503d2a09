"""A car too weak for its hill: pure functions of tensors.

The mountain car of rllab (Duan et al. 2016, arXiv:1604.06778), which Liu et al. 2017
(arXiv:1704.02399) use for the Stein variational policy gradient. rllab lets a box slide and bounce
over a chain of 200 segments in Box2D. Exact contact chaos cannot be matched, so this is a model
with one degree of freedom: the box keeps both lower corners on the curve. Its drag is fitted to
what Box2D was measured to do; see ``MountainCarWorld``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_choice
from torchrl_stein.envs.constants import keep_numbers
from torchrl_stein.envs.drawing import Canvas

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

    at the old position: what V has come to violate of the track is lost as an impulse, as in Box2D.
    Then s moves by h s'. After the step,

        dense   r = y - 1 on every step
        sparse  r = 1 on the step that reaches x >= goal_position, else 0

    and x >= goal_position or |x| >= position_limit ends the episode. Constants and dense reward of
    rllab (``mountain_car_env.py``, 500 steps); sparse is ours, after Houthooft et al. 2016
    (arXiv:1605.09674). What the model cannot have is bouncing and catching at corners, which take
    energy at speed, hence the quadratic drag. In Box2D pushing along the velocity needs 76 to 112
    steps and returns -51 to -74, here 80 to 101 and -53 to -68; pushing at random never arrives and
    returns -414.5, here -415; no force returns -416.6, here -419 (the rattling is missing).

    The state [5] is (x, x', s, y', phi'), the observation the first two. ``reset="rllab"``, the
    default, starts at x = 0 with the box not turning, though it must in the valley: the first step
    takes that momentum away. ``reset="clean"`` starts with the matching spin.

    Args:
        mass: kg.
        body_width: m, the distance of the two corners.
        body_height: m.
        gravity: m/s^2.
        force_limit: N, the force of action 1.
        drag: rate of quadratic drag, 1/m.
        friction: coefficient of dry friction between box and track.
        time_step: s.
        goal_position: where the hill is climbed, m.
        position_limit: the ends of the track, m.
        start_speed: half width of the uniform start of x', m/s.
        reset: "rllab" or "clean".
        reward: "dense" or "sparse".

    Raises:
        TypeError: naming the argument, if it is no number.
        ValueError: naming the argument, if a number is not finite, or is negative or zero where
            that has no meaning, or ``reset`` or ``reward`` is another word.

    Example:
        >>> world = MountainCarWorld(force_limit=2.0)
        >>> state = world.sample_state((64,), generator=torch.Generator().manual_seed(0))
        >>> state, reward, terminated = world.step(state, torch.zeros(64, 1))
        >>> state.shape, reward.shape
        (torch.Size([64, 5]), torch.Size([64, 1]))
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
    reset: Literal["clean", "rllab"] = "rllab"
    reward: Literal["dense", "sparse"] = "dense"

    def __post_init__(self) -> None:
        positive = ("mass", "body_width", "body_height", "time_step", "position_limit")
        keep_numbers(self, *positive, above=0)
        keep_numbers(self, "force_limit", "drag", "friction", "start_speed", at_least=0)
        keep_numbers(self, "gravity", "goal_position")
        owner = type(self).__name__
        check_choice(owner, ("clean", "rllab"), reset=self.reset)
        check_choice(owner, ("dense", "sparse"), reward=self.reward)

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draws start states: in the valley, with a uniform speed.

        Args:
            shape: leading dimensions.
            generator: source of the randomness; None means torch's global generator.
            device: where the result shall live.
            dtype: of the result.

        Returns:
            States, [*shape, 5].

        Example:
            >>> MountainCarWorld().sample_state((16, 4)).shape
            torch.Size([16, 4, 5])
        """
        uniform = torch.rand(tuple(shape), generator=generator, device=device, dtype=dtype)
        speed = (2.0 * uniform - 1.0) * self.start_speed
        return self.place(torch.stack((torch.zeros_like(speed), speed), -1))

    def place(self, coordinates: Tensor) -> Tensor:
        """The state that ``reset`` makes of a position and a velocity: an episode's first.

        Args:
            coordinates: (x, x'), [..., 2], in m and m/s.

        Returns:
            The state, [..., 5].

        Example:
            >>> MountainCarWorld().place(torch.tensor([0.0, 1.0])).tolist()  # slides, not turning
            [0.0, 1.0, 0.0, 0.0, 0.0]
        """
        x, speed = coordinates.unbind(-1)
        s = x
        for _ in range(16):  # why 16: x - s changes by 0.27 dx at most, and 0.27^16 < 1e-9
            s = s + (x - self._pose(s).x)
        pose = self._pose(s)
        rate = speed / pose.dx
        spin = rate * pose.turn if self.reset == "clean" else torch.zeros_like(x)
        return torch.stack((x, speed, s, rate * pose.dy, spin), -1)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees.

        Args:
            state: [..., 5].

        Returns:
            (x, x'), [..., 2], in m and m/s.

        Example:
            >>> MountainCarWorld().observe(torch.arange(5.0)).tolist()
            [0.0, 1.0]
        """
        return state[..., :2]

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moves every row by one step; pure, so it compiles, vmaps and differentiates.

        Args:
            state: [..., 5], floating point.
            action: [..., 1], broadcastable against ``state``; clipped to [-1, 1].

        Returns:
            The next state [..., 5], the reward [..., 1] and ``terminated`` [..., 1] (bool).

        Example:
            >>> world = MountainCarWorld()
            >>> world.step(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0]), torch.zeros(1))[1]
            tensor([-0.8411])
        """
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
        reward = arrived.to(x.dtype) if self.reward == "sparse" else y - 1.0
        return after, reward.unsqueeze(-1), terminated.unsqueeze(-1)

    def render(self, state: Tensor) -> Tensor:
        """Draws the hill, the goal and the car.

        Args:
            state: [..., 5].

        Returns:
            RGB image, uint8 [..., 120, 200, 3].

        Example:
            >>> MountainCarWorld().render(torch.zeros(5)).shape
            torch.Size([120, 200, 3])
        """
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
