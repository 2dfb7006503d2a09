"""Start, motion and picture of a pole on a cart: what the two cart-pole worlds share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchrl_stein._checks import check_choice
from torchrl_stein.envs.constants import as_row, keep_numbers
from torchrl_stein.envs.drawing import Canvas

# Box2D projects up to three times; from a consistent start the second is already below 1e-6.
PROJECTIONS = 2
CART_HALF_WIDTH, CART_HALF_HEIGHT = 0.57735, 0.4330  # of rllab's model, in metres


@dataclass(frozen=True)
class Cart:
    """The constants, the start, the motion and the picture of ``CartpoleWorld``, whose base it is.

    Example:
        >>> from torchrl_stein.envs import CartpoleWorld
        >>> isinstance(CartpoleWorld(), Cart)
        True
    """

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
    reset: Literal["clean", "rllab"] = "rllab"

    def __post_init__(self) -> None:
        owner = type(self).__name__
        positive = ("cart_mass", "pole_mass", "pole_length", "time_step", "position_limit")
        keep_numbers(self, *positive, above=0)
        keep_numbers(self, "pole_width", "force_limit", at_least=0)
        keep_numbers(self, "gravity")
        spread = as_row(owner, 4, at_least=0, start_spread=self.start_spread)
        object.__setattr__(self, "start_spread", spread)
        check_choice(owner, ("clean", "rllab"), reset=self.reset)

    def sample_state(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Draws start states, uniform within ``start_spread``.

        Args:
            shape: leading dimensions.
            generator: source of the randomness; None means torch's global generator.
            device: where the result shall live.
            dtype: of the result.

        Returns:
            States, [*shape, 7].

        Example:
            >>> Cart().sample_state((16, 4)).shape
            torch.Size([16, 4, 7])
        """
        start = torch.rand((*shape, 4), generator=generator, device=device, dtype=dtype)
        columns = zip(start.unbind(-1), self.start_spread, strict=True)
        x, speed, angle, spin = ((2.0 * u - 1.0) * half for u, half in columns)
        return self.place(torch.stack((x, speed, angle + self.start_angle, spin), -1))

    def place(self, coordinates: Tensor) -> Tensor:
        """The state that ``reset`` makes of a position and a velocity: an episode's first.

        Args:
            coordinates: (x, x', theta, theta'), [..., 4], in m, m/s, rad, rad/s.

        Returns:
            The state, [..., 7].

        Example:
            >>> Cart().place(torch.tensor([0.5, 0.0, 0.0, 0.0])).tolist()  # the pole stays behind
            [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5]
        """
        x, speed, angle, spin = coordinates.unbind(-1)
        zero = torch.zeros_like(x)
        if self.reset == "clean":
            pole = (spin * angle.cos(), spin * angle.sin(), zero)
        else:
            # The pole's foot stays at x = 0 and its mass centre at rest, wherever the cart went.
            pole = (speed / (0.5 * self.pole_length), zero, -x)
        return torch.stack((x, speed, angle, spin, *pole), -1)

    def observe(self, state: Tensor) -> Tensor:
        """What an agent sees.

        Args:
            state: [..., 7].

        Returns:
            (x, x', theta, theta'), [..., 4], in m, m/s, rad, rad/s.

        Example:
            >>> Cart().observe(torch.arange(7.0)).tolist()
            [0.0, 1.0, 2.0, 3.0]
        """
        return state[..., :4]

    def advance(self, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Moves cart and pole by one time step; the equations are in ``CartpoleWorld``.

        Args:
            state: [..., 7].
            action: [..., 1], clipped to [-1, 1].

        Returns:
            The next state [..., 7] and its parts x, theta, and the clipped action, each [...].

        Example:
            >>> Cart().advance(torch.zeros(7), torch.ones(1))[0][1].item()  # > h F / 1.1
            0.48...
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
            # why negative constants: they turn the sign without an operation of its own
            pull = torch.addcmul(cos * miss_x * of_cart, sin, miss_y)
            shift = pull / torch.rsub(cos * cos, -inertia - 1.0, alpha=-of_pole)
            move_x, move_y = cos * shift, sin * shift
            x = torch.add(x, miss_x + move_x, alpha=of_pole * half)
            angle = angle + shift

        closed = torch.zeros_like(x)
        after = torch.stack((x, speed, angle, spin, next_k_x, next_k_y, closed), -1)
        return after, x, angle, push

    def render(self, state: Tensor) -> Tensor:
        """Draws cart, pole and track.

        Args:
            state: [..., 7].

        Returns:
            RGB image, uint8 [..., 100, 200, 3].

        Example:
            >>> Cart().render(torch.zeros(7)).shape
            torch.Size([100, 200, 3])
        """
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
