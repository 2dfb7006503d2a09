"""Pictures of worlds, drawn with tensor operations: no window, no other library, any device."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_choice, check_number, check_pair, check_type

from .world import as_row

COLOURS = {
    "white": (255, 255, 255),
    "black": (40, 40, 40),
    "grey": (170, 170, 170),
    "orange": (213, 94, 0),
    "blue": (0, 114, 178),
    "green": (0, 158, 115),
}

Point = tuple[Tensor | float, Tensor | float]


class Canvas:
    """RGB images of a batch, painted one shape over the other.

    Coordinates are those of the world, y upwards; they are numbers or tensors of the batch's
    shape. Shapes have hard edges. Nothing is written in place, so drawing works under ``vmap``.

    ``like`` has the batch's shape [...] and device, ``size`` is (H, W) in pixels, ``centre`` the
    middle and ``width`` the extent of W pixels, in units of the world; ``image`` is the picture so
    far, uint8 [..., H, W, 3].
    """

    def __init__(
        self, like: Tensor, *, size: tuple[int, int], centre: tuple[float, float], width: float
    ) -> None:
        check_type("Canvas", "two integers", (tuple, list), size=size)
        check_pair("Canvas", size=size)
        middle = as_row("Canvas", 2, centre=centre)
        check_number("Canvas", above=0, width=width)
        rows, columns = size
        pixel = width / columns
        device = like.device
        self.x = middle[0] + pixel * (torch.arange(columns, device=device) - 0.5 * (columns - 1))
        down = torch.arange(rows, device=device) - 0.5 * (rows - 1)
        self.y = (middle[1] - pixel * down).unsqueeze(-1)
        white = torch.full((rows, columns, 3), 255, dtype=torch.uint8, device=device)
        self.image = white.expand(*like.shape, *white.shape)

    def paint(self, mask: Tensor, colour: str) -> None:
        """Give the pixels of ``mask`` [..., H, W] (bool) a colour."""
        check_choice("Canvas", COLOURS, colour=colour)
        paint = torch.tensor(COLOURS[colour], dtype=torch.uint8, device=self.image.device)
        self.image = torch.where(mask.unsqueeze(-1), paint, self.image)

    def disc(self, centre: Point, radius: float, colour: str) -> None:
        """A filled circle."""
        self.line(centre, centre, radius, colour)

    def line(self, start: Point, end: Point, radius: float, colour: str) -> None:
        """A stroke with round ends, 2 ``radius`` wide."""
        check_number("Canvas", at_least=0, radius=radius)
        (ax, ay), (bx, by) = map(self._on_pixels, start), map(self._on_pixels, end)
        dx, dy = bx - ax, by - ay
        px, py = self.x - ax, self.y - ay
        length = dx * dx + dy * dy + 1e-12  # a stroke of length 0 is a disc
        along = ((px * dx + py * dy) / length).clamp(0.0, 1.0)
        distance = (px - along * dx).square() + (py - along * dy).square()
        self.paint(distance <= radius**2, colour)

    def box(
        self,
        centre: Point,
        half_width: float,
        half_height: float,
        colour: str,
        *,
        cos: Tensor | float = 1.0,
        sin: Tensor | float = 0.0,
    ) -> None:
        """A filled rectangle, turned counter-clockwise by the angle of ``cos`` and ``sin``."""
        check_number("Canvas", at_least=0, half_width=half_width, half_height=half_height)
        cx, cy = map(self._on_pixels, centre)
        c, s = self._on_pixels(cos), self._on_pixels(sin)
        px, py = self.x - cx, self.y - cy
        across, up = c * px + s * py, c * py - s * px
        self.paint((across.abs() <= half_width) & (up.abs() <= half_height), colour)

    def _on_pixels(self, value: Tensor | float) -> Tensor:
        """[...] as [..., 1, 1], to go with the pixels."""
        return torch.as_tensor(value, device=self.x.device)[..., None, None]
