"""Optimizer and learning-rate schedule of the recipes."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

__all__ = ["make_optimizer"]


def make_optimizer(
    *groups: tuple[Iterable[Tensor], float], updates: int, final_fraction: float
) -> tuple[Adam, LinearLR]:
    """One Adam over several groups of parameters, all rates decaying linearly.

    Args:
        *groups: parameters and their learning rate.
        updates: number of updates over which the rates decay.
        final_fraction: of the initial rate, reached at the end and kept.

    Example:
        >>> from torch import nn
        >>> optimizer, scheduler = make_optimizer(
        ...     (nn.Linear(2, 1).parameters(), 1e-3), updates=10, final_fraction=0.1
        ... )
        >>> optimizer.param_groups[0]["lr"]
        0.001
    """
    optimizer = Adam([{"params": list(parameters), "lr": lr} for parameters, lr in groups])
    return optimizer, LinearLR(optimizer, 1.0, final_fraction, max(1, updates))
