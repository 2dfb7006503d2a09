"""In which coordinates the action particles of soft Q-learning live, and with which density.

The actor's network returns u, the action is a = low + (high - low) (tanh(u) + 1) / 2. SVGD needs
coordinates z and a log density over them; the literature has three choices.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from torchrl_stein.functional import squash_log_det, squash_to_box

__all__ = ["BoxSquash", "Squash", "TanhSquash"]


@runtime_checkable
class Squash(Protocol):
    """Coordinates z ``[..., A]`` of action particles; ``low`` and ``high`` are ``[A]``."""

    def particles(self, u: Tensor) -> Tensor:
        """z of the network's output u, ``[..., A]``."""

    def actions(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Actions at z, ``[..., A]``."""

    def log_volume(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Added to Q / alpha to give the log density of z, ``[...]``."""


class TanhSquash:
    """Particles z = u, squashed to actions: these follow exp(Q / alpha).

    log p(u) = Q / alpha + log abs det da/du.

    Example:
        >>> one = torch.ones(2)
        >>> TanhSquash().actions(torch.zeros(2), -one, one)
        tensor([0., 0.])
    """

    def particles(self, u: Tensor) -> Tensor:
        return u

    def actions(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return squash_to_box(z, low, high)

    def log_volume(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return squash_log_det(z, low, high)


class BoxSquash:
    """Particles z = tanh(u), which live in the box itself: log p(z) = Q / alpha + barrier.

    Args:
        barrier: False: none. exp(Q / alpha) does not vanish at the boundary, so Stein's identity
            fails there and repulsion piles particles up at the faces. True: that of the code which
            Haarnoja et al. 2017 released, sum log(1 - z^2 + 1e-6). It belongs to the density of u
            but is differentiated in z: actions follow exp(Q / alpha) prod(1 - z^2).

    Example:
        >>> one = torch.ones(2)
        >>> BoxSquash(barrier=False).log_volume(torch.zeros(2), -one, one)
        tensor(0.)
    """

    def __init__(self, *, barrier: bool) -> None:
        self.barrier = barrier

    def particles(self, u: Tensor) -> Tensor:
        return torch.tanh(u)

    def actions(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return low + 0.5 * (high - low) * (z + 1.0)

    def log_volume(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        if not self.barrier:
            return torch.zeros_like(z[..., 0])
        return torch.log(1.0 - z.square() + 1e-6).sum(-1)
