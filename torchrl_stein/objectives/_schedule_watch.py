"""Says once that nobody advances the schedule of a temperature."""

from __future__ import annotations

import warnings
from typing import Any

import torch

__all__ = ["ScheduleWatch"]

_PATIENCE = 250  # calls; of many epochs over one batch there may be a hundred before the first step


class ScheduleWatch:
    """Counts calls with gradients until the first step.

    Args:
        schedule: ``step -> number``; one that says its ``num_steps`` is given as many calls.
    """

    def __init__(self, schedule: Any) -> None:
        self.patience = max(_PATIENCE, getattr(schedule, "num_steps", 0))
        self.calls = 0
        self.is_due = schedule is not None

    def count(self) -> None:
        """Count one call; warn if there were many and no step."""
        if torch.compiler.is_compiling() or not self.is_due or not torch.is_grad_enabled():
            return
        self.calls += 1
        if self.calls == self.patience:
            self.is_due = False
            warnings.warn(
                f"SteinPolicyLoss: step() was not called during {self.calls} calls of the loss, so "
                "the schedule of the temperature is where it began; call loss.step() once per "
                "iteration, after the optimizer's step",
                stacklevel=4,
            )
