"""The derivative of a log density at many points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchrl_stein._torchrl import in_transform

__all__ = ["score"]


def score(log_density: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """grad log p at every point, detached.

    Args:
        log_density: from points to the sum of their log densities, ``[]``.
        points: any shape, detached.

    Returns:
        Tensor: as ``points``.
    """
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or in_transform():
        # Where a leaf can not be made.
        return torch.func.grad(log_density)(points)
    # A fifth faster than torch.func.grad, which wraps the result of every operation.
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        return torch.autograd.grad(log_density(leaf), leaf)[0]
