"""A pole on a cart, to balance or to swing up: pure functions of tensors.

The tasks of rllab (Duan et al. 2016, arXiv:1604.06778), which Liu et al. 2017 (arXiv:1704.02399)
use for the Stein variational policy gradient. rllab runs them in Box2D; these worlds take the step
Box2D takes, with the joints solved exactly instead of by sweeps, and agree with it to 2e-6 over
ten steps from a consistent start, to 2e-4 from rllab's (``tests/envs``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchrl_stein._checks import check_choice
from torchrl_stein.envs.cart import Cart
from torchrl_stein.envs.constants import keep_numbers


@dataclass(frozen=True)
class CartpoleWorld(Cart):
    """Balancing a pole on a cart, without any state of its own.

    theta is 0 upright and grows counter-clockwise; the force on the cart is u = force_limit a with
    a clipped to [-1, 1]. With l half the pole's length, I its moment of inertia about its centre
    and T the velocity of the two bodies (x', p_x', p_y', theta') per (x', theta') of the joint,

        T^T M T (x', theta')  <-  T^T M (V + h f / m),    V <- T (x', theta')

    at the old position: the velocity V of the bodies is carried from step to step, and what it
    violates of the joint by now is lost as an impulse. Then the bodies move by h V, and two Newton
    projections in the metric M close the joint. That is Box2D's step with the joint solved exactly.

        r = 10 - (1 - cos theta) - 1e-5 u^2, and 0 on the step that ends the episode,

    which is the one after which |x| > position_limit or |theta| > angle_limit. Constants and reward
    of rllab (Duan et al. 2016, arXiv:1604.06778, ``cartpole_env.py``), which runs 500 steps.

    The state [7] is (x, x', theta, theta', k_x, k_y, gap): -l (k_x, k_y) is the velocity of the
    pole's centre relative to the cart, in m/s, and gap the distance of the pole's foot from the
    cart, 0 after any step. The observation is the first four.

    ``reset="rllab"``, the faithful default and what the SVPG paper used, repeats what rllab does:
    it sets the cart's position and speed and the pole's angle and spin, but leaves the pole's foot
    at x = 0 and its centre at rest. The first step closes the joint and throws the pole about: the
    standard deviation of theta after it is 0.10 instead of 0.008. ``reset="clean"`` starts with the
    joint closed: a much easier task.

    Args:
        cart_mass: kg.
        pole_mass: kg, spread evenly over the pole.
        pole_length: m.
        pole_width: m; only the moment of inertia depends on it.
        gravity: m/s^2.
        force_limit: N, the force of action 1.
        time_step: s.
        position_limit: the cart may go this far, m.
        start_spread: half widths of the uniform start of x, x', theta, theta'.
        reset: "rllab" or "clean".
        angle_limit: the pole may lean this far, rad.
        alive_reward: paid per step for an upright pole, before costs.
        force_cost: charged per unit of squared force, 1/N^2.

    Raises:
        TypeError: naming the argument, if it is no number.
        ValueError: naming the argument, if a number is not finite, or is negative or zero where
            that has no meaning, or ``reset`` is another word.

    Example:
        >>> world = CartpoleWorld(pole_length=2.0)
        >>> state = world.sample_state((64,), generator=torch.Generator().manual_seed(0))
        >>> state, reward, terminated = world.step(state, torch.zeros(64, 1))
        >>> state.shape, reward.shape
        (torch.Size([64, 7]), torch.Size([64, 1]))
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
        """Moves every row by one step; pure, so it compiles, vmaps and differentiates.

        Args:
            state: [..., 7], floating point.
            action: [..., 1], broadcastable against ``state``; clipped to [-1, 1].

        Returns:
            The next state [..., 7], the reward [..., 1] and ``terminated`` [..., 1] (bool).

        Example:
            >>> CartpoleWorld().step(torch.zeros(7), torch.zeros(1))[1].item()
            10.0
        """
        after, x, angle, push = self.advance(state, action)
        terminated = (x.abs() > self.position_limit) | (angle.abs() > self.angle_limit)
        cost = self.force_cost * self.force_limit**2
        reward = torch.add(angle.cos(), push * push, alpha=-cost) + (self.alive_reward - 1.0)
        return after, reward.masked_fill(terminated, 0.0).unsqueeze(-1), terminated.unsqueeze(-1)


@dataclass(frozen=True)
class CartpoleSwingUpWorld(Cart):
    """Swinging a pole up from below, on the cart of ``CartpoleWorld``.

    Motion, state, observation and the two resets are those of ``CartpoleWorld``; the pole hangs
    (theta = pi) at the start. After the step,

        dense   r = cos theta, and track_penalty where |x| > position_limit
        sparse  r = 1 where cos theta > sparse_threshold, else 0; 0 where |x| > position_limit

    and leaving the track ends the episode. Dense is rllab's task (Duan et al. 2016,
    arXiv:1604.06778, ``cartpole_swingup_env.py``; at most 500 in 500 steps). Sparse is not in
    rllab; the threshold is that of Houthooft et al. 2016 (arXiv:1605.09674). After the rllab reset
    of a cart far from the centre the first projection differs from Box2D's, which solves one joint
    after the other, by up to 0.08 rad: theta has a standard deviation of 0.79 after the first step,
    where Box2D has 0.78 and ``reset="clean"`` 0.56.

    Args:
        position_limit: the cart may go this far, m.
        start_spread: half widths of the uniform start of x, x', theta - pi, theta'.
        reward: "dense" or "sparse".
        track_penalty: reward, when dense, of the step that leaves the track.
        sparse_threshold: cosine above which a sparse reward is paid.
        cart_mass, pole_mass, pole_length, pole_width, gravity, force_limit, time_step, reset: see
            ``CartpoleWorld``.

    Raises:
        TypeError: as ``CartpoleWorld``.
        ValueError: as ``CartpoleWorld``, or if ``reward`` is another word.

    Example:
        >>> world = CartpoleSwingUpWorld(reset="clean", start_spread=(0, 0, 0, 0))
        >>> world.step(world.sample_state(()), torch.zeros(1))[1].item()
        -1.0
    """

    start_angle: ClassVar[float] = math.pi

    position_limit: float = 3.0
    start_spread: Sequence[float] = (1.0, 2.0, 1.0, 3.0)
    reward: Literal["dense", "sparse"] = "dense"
    track_penalty: float = -100.0
    sparse_threshold: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(type(self).__name__, ("dense", "sparse"), reward=self.reward)
        keep_numbers(self, "track_penalty", "sparse_threshold")

    def step(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Moves every row by one step; pure, so it compiles, vmaps and differentiates.

        Args:
            state: [..., 7], floating point.
            action: [..., 1], broadcastable against ``state``; clipped to [-1, 1].

        Returns:
            The next state [..., 7], the reward [..., 1] and ``terminated`` [..., 1] (bool).

        Example:
            >>> far = torch.tensor([3.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
            >>> CartpoleSwingUpWorld().step(far, torch.zeros(1))[1:]
            (tensor([-100.]), tensor([True]))
        """
        after, x, angle, _ = self.advance(state, action)
        terminated = x.abs() > self.position_limit
        reward = angle.cos()
        if self.reward == "sparse":
            reward = ((reward > self.sparse_threshold) & ~terminated).to(reward.dtype)
        else:
            reward = reward.masked_fill(terminated, self.track_penalty)
        return after, reward.unsqueeze(-1), terminated.unsqueeze(-1)
