"""What a temperature of a population may be."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from torch import Tensor

__all__ = ["check_temperature"]


def check_temperature(temperature: Any) -> float:
    """A finite number >= 0, from a real number of any kind or a tensor of no dimension."""
    is_scalar = isinstance(temperature, Tensor) and temperature.ndim == 0
    number = temperature.item() if is_scalar else temperature
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(
            "SteinPolicyLoss: temperature must be a number or a callable step -> number, got "
            f"{temperature!r}"
        )
    alpha = float(number)
    if not 0 <= alpha < math.inf:
        raise ValueError(f"SteinPolicyLoss: temperature must be >= 0, got {temperature}")
    return alpha
