"""A pole on a cart, to balance or to swing up: pure functions of tensors, and their environments.

The tasks of rllab (Duan et al. 2016, arXiv:1604.06778), which Liu et al. 2017 (arXiv:1704.02399)
use for the Stein variational policy gradient. rllab runs them in Box2D; these worlds take the step
Box2D takes, with the joints solved exactly instead of by sweeps, and agree with it to 2e-6 over
ten steps from a consistent start, to 2e-4 from rllab's (``tests/envs``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchrl_stein._checks import check_type

from .batched import ClassicEnv
from .drawing import Canvas
from .world import keep_numbers, keep_rows

# Box2D projects up to three times; from a consistent start the second is already below 1e-6.
PROJECTIONS = 2
CART_HALF_WIDTH = 0.57735  # of rllab's model, in metres


@dataclass(frozen=True)
class _Cart:
    """The constants, the start, the motion and the picture that both tasks share."""

    state_dim: ClassVar[int] = 7
    observation_dim: ClassVar[int] = 4
    action_dim: ClassVar[int] = 1
    start_angle: ClassVar[float] = 0.0

    cart_mass: float = 1.0
    pole_mass: float = 0.1
    pole_length: float = 1.0
    pole_width: float = 0.1
    gravity: float = 10.0
    force_limit: float = 10.0
    time_step: float = 0.05
    position_limit: float = 2.4
    start_spread: Sequence[float] = (0.12, 0.2, 0.01, 0.2)
    clean_start: bool = False

    def __post_init__(self) -> None:
        positive = ("cart_mass", "pole_mass", "pole_length", "time_step", "position_limit")
        keep_numbers(self, *positive, above=0)
        keep_numbers(self, "pole_width", "force_limit", at_least=0)
        keep_numbers(self, "gravity")
        keep_rows(self, 4, "start_spread", at_least=0)
        check_type(type(self).__name__, "a bool", bool, clean_start=self.clean_start)

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start states [*shape, 7], uniform within ``start_spread``."""
        start = torch.rand((*shape, 4), generator=generator, device=device, dtype=dtype)
        columns = zip(start.unbind(-1), self.start_spread, strict=True)
        x, speed, angle, spin = ((2.0 * u - 1.0) * half for u, half in columns)
        return self.place(torch.stack((x, speed, angle + self.start_angle, spin), -1))

    def place(self, coordinates: Tensor) -> Tensor:
        """The first state [..., 7] of an episode at (x, x', theta, theta') [..., 4]."""
        x, speed, angle, spin = coordinates.unbind(-1)
        zero = torch.zeros_like(x)
        if self.clean_start:
            pole = (spin * angle.cos(), spin * angle.sin(), zero)
        else:
            # The pole's foot stays at x = 0 and its mass centre at rest, wherever the cart went.
            pole = (speed / (0.5 * self.pole_length), zero, -x)
        return torch.stack((x, speed, angle, spin, *pole), -1)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees: (x, x', theta, theta'), [..., 4], in m, m/s, rad, rad/s."""
        return state[..., :4]

    def advance(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One time step: the next state [..., 7], its x and theta, the clipped action, each [...].

        The equations are in ``CartpoleWorld``.
        """
        h, half = self.time_step, 0.5 * self.pole_length
        inertia = (self.pole_length**2 + self.pole_width**2) / (12.0 * half**2)  # of m half^2
        mass = self.cart_mass + self.pole_mass
        of_pole, of_cart = self.pole_mass / mass, self.cart_mass / mass
        kick = h * self.force_limit / mass

        x, speed, angle, spin, k_x, k_y, gap = state.unbind(-1)
        push = action.clamp(-1.0, 1.0).squeeze(-1)
        sin, cos = angle.sin(), angle.cos()

        # Velocities: the equation for theta' with the cart's eliminated.
        along = torch.add(k_x * of_cart, push, alpha=kick / half)
        drive = torch.addcmul(cos * along, sin, k_y + h * self.gravity / half)
        drive = torch.add(drive, spin, alpha=inertia)
        spin = drive / torch.rsub(cos * cos, inertia + 1.0, alpha=of_pole)
        next_k_x, next_k_y = cos * spin, sin * spin
        speed = torch.add(speed, next_k_x - k_x, alpha=of_pole * half)
        speed = torch.add(speed, push, alpha=kick)

        # Positions: a straight step, which leaves the pole's centre off the circle by
        # half (miss_x, miss_y); each projection takes that away up to second order.
        angle, x = torch.add(angle, spin, alpha=h), torch.add(x, speed, alpha=h)
        move_x, move_y = h * next_k_x, h * next_k_y
        for turn in range(PROJECTIONS):
            before_sin, before_cos = sin, cos
            sin, cos = angle.sin(), angle.cos()
            miss_x = sin - before_sin - move_x
            if turn == 0:
                miss_x = torch.add(miss_x, gap, alpha=1.0 / half)
            miss_y = before_cos - cos - move_y
            # Negative constants turn the sign without an operation of its own.
            pull = torch.addcmul(cos * miss_x * of_cart, sin, miss_y)
            shift = pull / torch.rsub(cos * cos, -inertia - 1.0, alpha=-of_pole)
            move_x, move_y = cos * shift, sin * shift
            x = torch.add(x, miss_x + move_x, alpha=of_pole * half)
            angle = angle + shift

        closed = torch.zeros_like(x)
        after = torch.stack((x, speed, angle, spin, next_k_x, next_k_y, closed), -1)
        return after, x, angle, push

    def render(self, state: Tensor) -> Tensor:
        """Draw cart, pole and track: RGB, uint8 [..., 100, 200, 3]."""
        x, angle, gap = state[..., 0], state[..., 2], state[..., 6]
        reach = self.position_limit + self.pole_length
        canvas = Canvas(x, size=(100, 200), centre=(0.0, 0.0), width=2.0 * reach)
        end, edge = self.position_limit, 0.01 * reach
        canvas.line((-end, -0.2), (end, -0.2), edge, "grey")
        for side in (-end, end):
            canvas.line((side, -0.2 - 6 * edge), (side, -0.2 + 6 * edge), edge, "grey")
        canvas.box((x, torch.full_like(x, -0.2)), 0.3 * CART_HALF_WIDTH, 0.2, "black")
        foot = (x + gap, torch.zeros_like(x))
        tip = (
            foot[0] - self.pole_length * angle.sin(),
            foot[1] + self.pole_length * angle.cos(),
        )
        canvas.line(foot, tip, max(0.5 * self.pole_width, edge), "orange")
        return canvas.image


@dataclass(frozen=True)
class CartpoleWorld(_Cart):
    """Balancing a pole on a cart, without any state of its own.

    theta is 0 upright and grows counter-clockwise; the force on the cart is u = force_limit a with
    a clipped to [-1, 1]. With l half the pole's length, I its moment of inertia about its centre
    and T the velocity of the two bodies (x', p_x', p_y', theta') per (x', theta') of the joint,

        T^T M T (x', theta')  <-  T^T M (V + h f / m),    V <- T (x', theta')

    at the old position: the velocity V of the bodies is carried from step to step, and the part
    of it that by now violates the joint is lost as an impulse. Then the bodies move by h V, and two
    Newton projections in the metric M close the joint. That is Box2D's step with the joint solved
    exactly.

        r = 10 - (1 - cos theta) - 1e-5 u^2, and 0 on the step that ends the episode,

    which is the one after which |x| > position_limit or |theta| > angle_limit. Constants and reward
    of rllab (Duan et al. 2016, arXiv:1604.06778, ``cartpole_env.py``), which runs 500 steps.

    The state [7] is (x, x', theta, theta', k_x, k_y, gap): -l (k_x, k_y) is the velocity of the
    pole's centre relative to the cart, in m/s, and gap the distance of the pole's foot from the
    cart, 0 after any step. The observation is the first four.

    The default start is rllab's, which the SVPG paper used: it sets the cart's position and speed
    and the pole's angle and spin, but leaves the pole's foot at x = 0 and its centre at rest. The
    first step closes the joint and throws the pole about: the standard deviation of theta after it
    is 0.10 instead of 0.008. ``clean_start`` starts with the joint closed: a much easier task.

    Args:
        cart_mass, pole_mass: kg; the pole's is spread evenly.
        pole_length, pole_width: m; only the moment of inertia depends on the width.
        gravity, force_limit, time_step: m/s^2, N (the force of action 1) and s.
        position_limit: the cart may go this far, m.
        start_spread: half widths of the uniform start of x, x', theta, theta'.
        clean_start: whether the pole stands on the cart at the start.
        angle_limit: the pole may lean this far, rad.
        alive_reward: paid per step for an upright pole, before costs.
        force_cost: charged per unit of squared force, 1/N^2.

    Example:
        >>> world = CartpoleWorld(pole_length=2.0)
        >>> world.step(world.sample_state((64,)), torch.zeros(64, 1))[1].shape
        torch.Size([64, 1])
    """

    angle_limit: float = 0.2
    alive_reward: float = 10.0
    force_cost: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        keep_numbers(self, "angle_limit", above=0)
        keep_numbers(self, "alive_reward")
        keep_numbers(self, "force_cost", at_least=0)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move every row by one step; pure, so it compiles, vmaps and differentiates."""
        after, x, angle, push = self.advance(state, action)
        terminated = (x.abs() > self.position_limit) | (angle.abs() > self.angle_limit)
        cost = self.force_cost * self.force_limit**2
        reward = torch.add(angle.cos(), push * push, alpha=-cost) + (self.alive_reward - 1.0)
        return after, reward.masked_fill(terminated, 0.0).unsqueeze(-1), terminated.unsqueeze(-1)


@dataclass(frozen=True)
class CartpoleSwingUpWorld(_Cart):
    """Swinging a pole up from below, on the cart of ``CartpoleWorld``.

    Motion, state, observation and the two starts are those of ``CartpoleWorld``; the pole hangs
    (theta = pi) at the start. After the step,

        dense   r = cos theta, and track_penalty where |x| > position_limit
        sparse  r = 1 where cos theta > sparse_threshold, else 0; 0 where |x| > position_limit

    and leaving the track ends the episode. Dense is rllab's task (Duan et al. 2016,
    arXiv:1604.06778, ``cartpole_swingup_env.py``; at most 500 in 500 steps). Sparse is not in
    rllab; the threshold is that of Houthooft et al. 2016 (arXiv:1605.09674). After rllab's start
    with a cart far from the centre the first projection differs from Box2D's, which solves one
    joint after the other, by up to 0.08 rad: theta has a standard deviation of 0.79 after the first
    step, where Box2D has 0.78 and ``clean_start`` 0.56.

    Args:
        start_spread: half widths of the uniform start of x, x', theta - pi, theta'.
        sparse_reward: whether the reward is the sparse one.
        track_penalty: reward, when dense, of the step that leaves the track.
        sparse_threshold: cosine above which a sparse reward is paid.
        others: see ``CartpoleWorld``.

    Example:
        >>> world = CartpoleSwingUpWorld(clean_start=True, start_spread=(0, 0, 0, 0))
        >>> world.step(world.sample_state(()), torch.zeros(1))[1].item()
        -1.0
    """

    start_angle: ClassVar[float] = math.pi

    position_limit: float = 3.0
    start_spread: Sequence[float] = (1.0, 2.0, 1.0, 3.0)
    sparse_reward: bool = False
    track_penalty: float = -100.0
    sparse_threshold: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type(type(self).__name__, "a bool", bool, sparse_reward=self.sparse_reward)
        keep_numbers(self, "track_penalty", "sparse_threshold")

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move every row by one step; pure, so it compiles, vmaps and differentiates."""
        after, x, angle, _ = self.advance(state, action)
        terminated = x.abs() > self.position_limit
        reward = angle.cos()
        if self.sparse_reward:
            reward = ((reward > self.sparse_threshold) & ~terminated).to(reward.dtype)
        else:
            reward = reward.masked_fill(terminated, self.track_penalty)
        return after, reward.unsqueeze(-1), terminated.unsqueeze(-1)


class CartpoleEnv(ClassicEnv):
    """Balancing a pole on a cart: ``CartpoleWorld`` as a batched TorchRL environment.

    The constants of the world are keyword arguments; the others are those of ``BatchedEnv``.

    Example:
        >>> env = CartpoleEnv((16, 4), seed=0, pole_length=2.0)
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 4])
    """

    make_world = CartpoleWorld


class CartpoleSwingUpEnv(ClassicEnv):
    """Swinging a pole up on a cart: ``CartpoleSwingUpWorld`` as a batched TorchRL environment.

    The constants of the world are keyword arguments; the others are those of ``BatchedEnv``.

    Example:
        >>> env = CartpoleSwingUpEnv((16, 4), seed=0, sparse_reward=True)
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 4])
    """

    make_world = CartpoleSwingUpWorld
