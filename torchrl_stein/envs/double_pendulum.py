"""Two links to swing up by a torque at the elbow: pure functions of tensors, an environment.

The double pendulum of rllab (Duan et al. 2016, arXiv:1604.06778), which Liu et al. 2017
(arXiv:1704.02399) use for the Stein variational policy gradient. rllab runs it in Box2D; this world
takes the step Box2D takes, with the joints solved exactly instead of by sweeps, and agrees with it
to 0.01 over ten steps with torques up to the limit (``tests/envs``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_type

from .batched import ClassicEnv
from .drawing import Canvas
from .world import keep_numbers, keep_rows


@dataclass(frozen=True)
class DoublePendulumWorld:
    """Dynamics and reward of the double pendulum, without any state of its own.

    Link 1 hangs from the origin, link 2 from its end; a motor at the elbow turns link 2 by the
    torque u = torque_limit a, with a clipped to [-1, 1], and link 1 by -u. Both angles are absolute
    and 0 when hanging. A step is ``frame_skip`` time steps of the scheme of ``CartpoleWorld``, with
    T the velocity of the links (p_1', theta_1', p_2', theta_2') per (theta_1', theta_2').

        r = -|tip - (0, L_1 + L_2)|,    elbow = L_1 (sin theta_1, -cos theta_1)

    where tip = elbow + L_2 (sin theta_2, -cos theta_2) with ``geometric_tip``. The code of rllab
    (``double_pendulum_env.py``) has the sign of its first sine wrong, and published returns were
    measured with it: this is the default. The best state is the same. An episode never terminates;
    rllab runs 500 steps, and hanging still earns -4 on each.

    The state [10] is (theta_1, theta_1', theta_2, theta_2', k_1 [2], k_2 [2], gap [2]): (L_i / 2)
    k_i is the velocity of link i's centre relative to the joint it hangs from, in m/s, and gap the
    distance of link 2 from link 1's end, 0 after any step. The observation [6] is (sin theta_1, cos
    theta_1, theta_1', sin theta_2, cos theta_2, theta_2').

    The default start is rllab's, which the SVPG paper used: it sets angles and spins, but leaves
    link 2 where it hung and both centres at rest; the first step closes the joints.
    ``clean_start`` starts with closed joints.

    Args:
        masses, lengths: of the two links, kg and m; the mass is spread evenly over each.
        link_width: m; only the moments of inertia depend on it.
        gravity, torque_limit, time_step: m/s^2, N m (the torque of action 1) and s.
        frame_skip: time steps in one step.
        start_spread: standard deviations of the normal start of theta_1, theta_2, theta_1',
            theta_2' (in rllab's order).
        clean_start: whether the joints are closed at the start.
        geometric_tip: whether the reward looks at the true tip.

    Example:
        >>> world = DoublePendulumWorld(masses=(0.5, 1.0))
        >>> world.step(world.sample_state((64,)), torch.zeros(64, 1))[0].shape
        torch.Size([64, 10])
    """

    state_dim: ClassVar[int] = 10
    observation_dim: ClassVar[int] = 6
    action_dim: ClassVar[int] = 1

    masses: Sequence[float] = (0.5, 0.5)
    lengths: Sequence[float] = (1.0, 1.0)
    link_width: float = 0.1
    gravity: float = 10.0
    torque_limit: float = 50.0
    time_step: float = 0.01
    frame_skip: int = 2
    start_spread: Sequence[float] = (0.1, 0.1, 0.01, 0.01)
    clean_start: bool = False
    geometric_tip: bool = False

    def __post_init__(self) -> None:
        owner = type(self).__name__
        keep_rows(self, 2, "masses", "lengths", above=0)
        keep_rows(self, 4, "start_spread", at_least=0)
        keep_numbers(self, "time_step", above=0)
        keep_numbers(self, "link_width", "torque_limit", at_least=0)
        keep_numbers(self, "gravity")
        check_count(owner, frame_skip=self.frame_skip)
        check_type(owner, "a bool", bool, clean_start=self.clean_start)
        check_type(owner, "a bool", bool, geometric_tip=self.geometric_tip)

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draw start states [*shape, 10], normal with ``start_spread`` about hanging still."""
        start = torch.randn((*shape, 4), generator=generator, device=device, dtype=dtype)
        columns = zip(start.unbind(-1), self.start_spread, strict=True)
        th1, th2, w1, w2 = (u * sigma for u, sigma in columns)
        return self.place(torch.stack((th1, w1, th2, w2), -1))

    def place(self, coordinates: Tensor) -> Tensor:
        """The first state [..., 10] of an episode at (theta_1, theta_1', theta_2, theta_2')."""
        th1, w1, th2, w2 = coordinates.unbind(-1)
        zero = torch.zeros_like(th1)
        if self.clean_start:
            rest = (w1 * th1.cos(), w1 * th1.sin(), w2 * th2.cos(), w2 * th2.sin(), zero, zero)
        else:
            # Link 2 still hangs where the end of a hanging link 1 would be.
            length = self.lengths[0]
            rest = (zero, zero, zero, zero, -length * th1.sin(), length * (th1.cos() - 1.0))
        return torch.stack((th1, w1, th2, w2, *rest), -1)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees: sine, cosine and spin of theta_1 and of theta_2, [..., 6]."""
        th1, w1, th2, w2 = state[..., :4].unbind(-1)
        return torch.stack((th1.sin(), th1.cos(), w1, th2.sin(), th2.cos(), w2), -1)

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move every row by one step; pure, so it compiles, vmaps and differentiates."""
        h, (m1, m2), (length, length2) = self.time_step, self.masses, self.lengths
        half2 = 0.5 * length2
        outer = m1 * (0.5 * length) ** 2 + m2 * length**2
        # Gravity's torque is g sin theta times these first moments.
        sag1, sag2 = (0.5 * m1 + m2) * length, m2 * half2
        shape = (outer, m2 * length * half2, m2 * half2**2)
        inertia1 = m1 * (length**2 + self.link_width**2) / 12.0
        inertia2 = m2 * (length2**2 + self.link_width**2) / 12.0
        total = (inertia1 + shape[0], inertia2 + shape[2])

        th1, w1, th2, w2, *k, gap_x, gap_y = state.unbind(-1)
        twist = action.clamp(-1.0, 1.0).squeeze(-1) * (h * self.torque_limit)
        t = (th1.cos(), th1.sin(), th2.cos(), th2.sin())
        for frame in range(self.frame_skip):
            # Velocities: joint forces project the links' own, changed by gravity and torque.
            load1 = torch.add(inertia1 * w1, t[1], alpha=-h * self.gravity * sag1) - twist
            load2 = torch.add(inertia2 * w2, t[3], alpha=-h * self.gravity * sag2) + twist
            w1, w2 = _project(t, k, shape, total, load1, load2)
            k = [t[0] * w1, t[1] * w1, t[2] * w2, t[3] * w2]

            # Positions: a straight step, and projections that close the joints again. One is
            # enough at this time step, except after a start that left a gap.
            th1, th2 = torch.add(th1, w1, alpha=h), torch.add(th2, w2, alpha=h)
            move = [h * speed for speed in k]
            for turn in range(2 if frame == 0 else 1):
                was = t
                t = (th1.cos(), th1.sin(), th2.cos(), th2.sin())
                miss = (
                    was[1] + move[0] - t[1],
                    t[0] - was[0] + move[1],
                    was[3] + move[2] - t[3],
                    t[2] - was[2] + move[3],
                )
                loads: tuple[Tensor, ...] = ()
                if frame == 0 and turn == 0:
                    loads = (
                        (m2 * length) * torch.addcmul(t[0] * gap_x, t[1], gap_y),
                        sag2 * torch.addcmul(t[2] * gap_x, t[3], gap_y),
                    )
                d1, d2 = _project(t, miss, shape, total, *loads)
                move = [t[0] * d1, t[1] * d1, t[2] * d2, t[3] * d2]
                th1, th2 = th1 + d1, th2 + d2
            t = (th1.cos(), th1.sin(), th2.cos(), th2.sin())

        closed = torch.zeros_like(th1)
        after = torch.stack((th1, w1, th2, w2, *k, closed, closed), -1)
        aside = length2 if self.geometric_tip else -length2
        tip_x = torch.add(length * t[1], t[3], alpha=aside)
        short = torch.add(length * t[0], t[2], alpha=length2) + (length + length2)
        reward = -torch.hypot(tip_x, short)
        return after, reward.unsqueeze(-1), torch.zeros_like(reward, dtype=torch.bool)[..., None]

    def render(self, state: Tensor) -> Tensor:
        """Draw the two links and the goal: RGB, uint8 [..., 120, 120, 3]."""
        th1, th2, gap_x, gap_y = (state[..., i] for i in (0, 2, 8, 9))
        length, length2 = self.lengths
        reach = length + length2
        canvas = Canvas(th1, size=(120, 120), centre=(0.0, 0.0), width=2.4 * reach)
        canvas.disc((0.0, reach), 0.06 * reach, "green")
        elbow = (length * th1.sin(), -length * th1.cos())
        top = (elbow[0] + gap_x, elbow[1] + gap_y)
        tip = (top[0] + length2 * th2.sin(), top[1] - length2 * th2.cos())
        radius = max(0.5 * self.link_width, 0.02 * reach)
        canvas.line((0.0, 0.0), elbow, radius, "blue")
        canvas.line(top, tip, radius, "orange")
        canvas.disc((0.0, 0.0), radius, "black")
        return canvas.image


class DoublePendulumEnv(ClassicEnv):
    """Swinging two links up: ``DoublePendulumWorld`` as a batched TorchRL environment.

    The constants of the world are keyword arguments; the others are those of ``BatchedEnv``.

    Example:
        >>> env = DoublePendulumEnv((16, 4), seed=0, clean_start=True)
        >>> env.rollout(5, break_when_any_done=False)["next", "observation"].shape
        torch.Size([16, 4, 5, 6])
    """

    make_world = DoublePendulumWorld


def _project(
    t: Sequence[Tensor],
    k: Sequence[Tensor],
    shape: tuple[float, float, float],
    total: tuple[float, float],
    *loads: Tensor,
) -> tuple[Tensor, Tensor]:
    """The motion (theta_1, theta_2) of closed joints nearest to one of the links, mass-weighted.

    ``t`` are the directions (cos, sin) of both links' motion, ``k`` that of their ends per unit of
    length, ``shape`` = (a, b, c) the mass moments, ``total`` a and c with the links' inertia.
    """
    a, b, c = shape
    q1_x, q1_y = (torch.add(b / a * k[i + 2], k[i]) for i in (0, 1))
    q2_x, q2_y = (torch.add(k[i], k[i + 2], alpha=c / b) for i in (0, 1))
    r1 = torch.addcmul(t[0] * q1_x, t[1], q1_y)
    r2 = torch.addcmul(t[2] * q2_x, t[3], q2_y)
    if loads:
        r1, r2 = torch.add(loads[0], r1, alpha=a), torch.add(loads[1], r2, alpha=b)
    else:
        r1, r2 = a * r1, b * r2
    mixed = b * torch.addcmul(t[0] * t[2], t[1], t[3])
    inverse = torch.rsub(mixed * mixed, total[0] * total[1]).reciprocal()
    d1 = torch.addcmul(total[1] * r1, mixed, r2, value=-1.0) * inverse
    d2 = torch.addcmul(total[0] * r2, mixed, r1, value=-1.0) * inverse
    return d1, d2
