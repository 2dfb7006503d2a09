"""Schedules: functions of a step that anneal a temperature."""

from __future__ import annotations

from dataclasses import dataclass

from torchrl_stein._checks import check_count, check_number

__all__ = ["LinearSchedule", "LogLinearSchedule"]


@dataclass(frozen=True)
class LinearSchedule:
    """From ``start`` to ``end`` in equal steps, then ``end``.

    Args:
        start: value at step 0, >= 0.
        end: value from step ``num_steps`` on, >= 0.
        num_steps: over how many steps, >= 1.

    Raises:
        TypeError, ValueError: if an argument is no number or out of range.

    Example:
        >>> schedule = LinearSchedule(10.0, 0.0, num_steps=10)
        >>> schedule(0), schedule(5), schedule(99)
        (10.0, 5.0, 0.0)
    """

    start: float
    end: float
    num_steps: int

    def __post_init__(self) -> None:
        check_number("LinearSchedule", at_least=0, start=self.start, end=self.end)
        check_count("LinearSchedule", num_steps=self.num_steps)

    def __call__(self, step: int) -> float:
        """Value at a step."""
        fraction = min(step / self.num_steps, 1.0)
        return self.start + fraction * (self.end - self.start)


@dataclass(frozen=True)
class LogLinearSchedule:
    """From ``start`` to ``end`` by equal factors, then ``end``.

    Args:
        start: value at step 0, > 0.
        end: value from step ``num_steps`` on, > 0.
        num_steps: over how many steps, >= 1.

    Raises:
        TypeError, ValueError: if an argument is no number or out of range.

    Example:
        >>> schedule = LogLinearSchedule(100.0, 1.0, num_steps=10)
        >>> [round(schedule(step), 6) for step in (0, 5, 99)]
        [100.0, 10.0, 1.0]
    """

    start: float
    end: float
    num_steps: int

    def __post_init__(self) -> None:
        check_number("LogLinearSchedule", above=0, start=self.start, end=self.end)
        check_count("LogLinearSchedule", num_steps=self.num_steps)

    def __call__(self, step: int) -> float:
        """Value at a step."""
        fraction = min(step / self.num_steps, 1.0)
        return self.start * (self.end / self.start) ** fraction
