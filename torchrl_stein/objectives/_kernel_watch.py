"""Says once that a kernel tells particles nothing about each other."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

__all__ = ["KernelWatch"]

_EVERY = 50  # iterations between looks: each waits for the device
_PATIENCE = 4  # looks in a row
_FLAT = 0.01  # k is at most 1


class KernelWatch:
    """Counts looks at a Gram matrix that was nearly the identity, or nearly constant."""

    def __init__(self) -> None:
        self.iterations = 0
        self.streak = {"identity": 0, "constant": 0}
        self.warned = False

    def is_due(self) -> bool:
        """Whether this iteration shall look."""
        self.iterations += 1
        return not self.warned and self.iterations % _EVERY == 0

    def look(self, gram: Tensor) -> None:
        """Warn if the matrix, or each of several, has been flat at every one of the last looks.

        Args:
            gram: ``[..., n, n]``.
        """
        n = gram.shape[-1]
        if n < 2:
            return
        between = gram[..., ~torch.eye(n, dtype=torch.bool, device=gram.device)]
        scale = gram.diagonal(dim1=-2, dim2=-1).mean()
        low, high = (between.aminmax().min / scale).item(), (between.aminmax().max / scale).item()
        flat = {
            "identity": max(-low, high) < _FLAT,
            "constant": n > 2 and high - low < _FLAT,  # two particles have one pair, it is constant
        }
        for name, is_flat in flat.items():
            self.streak[name] = self.streak[name] + 1 if is_flat else 0
        for name, consequence in (
            ("identity", "particles do not interact"),
            ("constant", "they interact whatever the policies do"),
        ):
            if self.streak[name] >= _PATIENCE:
                self.warned = True
                warnings.warn(
                    f"SteinPolicyLoss: the kernel was nearly {'the ' * (name == 'identity')}{name} "
                    f"(k between particles in [{low:.3g}, {high:.3g}]) for "
                    f"{_PATIENCE * _EVERY} iterations: {consequence}. In thousands of dimensions "
                    "the median heuristic does this; try another bandwidth, LayerwiseKernel, "
                    "BehaviourKernel or ParticleModule(shared=...).",
                    stacklevel=3,
                )
                return
