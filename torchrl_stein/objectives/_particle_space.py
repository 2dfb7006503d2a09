"""In which coordinates the action particles live, and which density they then follow.

The actor's network returns u; the action is a = low + (high - low) (tanh(u) + 1) / 2. SVGD needs
coordinates z with a log density over them. Three choices exist in the literature.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from torchrl_stein.functional import squash_log_det, squash_to_box

__all__ = ["PARTICLE_SPACES", "ParticleSpace"]


class ParticleSpace(Protocol):
    """Coordinates z ``[..., A]`` of action particles; ``low`` and ``high`` are ``[A]``."""

    def particles(self, u: Tensor) -> Tensor:
        """z of the network's output u, ``[..., A]``."""

    def actions(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Actions at z, ``[..., A]``."""

    def log_volume(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Added to Q / alpha to give the log density of z, ``[...]``."""


class UnsquashedSpace:
    """z = u with log p(u) = Q / alpha + log abs det da/du: actions follow exp(Q / alpha)."""

    def particles(self, u: Tensor) -> Tensor:
        return u

    def actions(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return squash_to_box(z, low, high)

    def log_volume(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return squash_log_det(z, low, high)


class BoxSpace:
    """z = tanh(u) with log p(z) = Q / alpha and no correction.

    The box has a boundary where exp(Q / alpha) does not vanish, so Stein's identity fails there
    and repulsion piles particles up at the faces.
    """

    def particles(self, u: Tensor) -> Tensor:
        return torch.tanh(u)

    def actions(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return low + 0.5 * (high - low) * (z + 1.0)

    def log_volume(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return torch.zeros_like(z[..., 0])


class ReferenceSpace(BoxSpace):
    """z = tanh(u) with log p(z) = Q / alpha + sum log(1 - z^2 + 1e-6), as in the released code.

    The correction belongs to the density of u but is differentiated in z, so actions follow
    exp(Q / alpha) prod(1 - z^2). It acts as a barrier that satisfies the boundary condition.
    """

    def log_volume(self, z: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return torch.log(1.0 - z.square() + 1e-6).sum(-1)


PARTICLE_SPACES: dict[str, ParticleSpace] = {
    "unsquashed": UnsquashedSpace(),
    "reference": ReferenceSpace(),
    "none": BoxSpace(),
}
