"""Checks at the door of the losses: each names the culprit, what was expected and what came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor

__all__ = [
    "check_choice",
    "check_columns",
    "check_finite_on_cpu",
    "check_keys",
    "check_pair",
    "check_positive",
]

T = TypeVar("T")


def check_positive(owner: str, **values: float) -> None:
    """Require that every named number is positive; counts are integers and so at least 1."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            expected = ">= 1" if isinstance(value, int) and name.startswith("num_") else "> 0"
            raise ValueError(f"{owner}: {name} must be {expected}, got {value}")


def check_pair(owner: str, name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """A pair of integers; one integer stands for two equal ones."""
    pair = (value, value) if isinstance(value, int) else value
    if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
        raise ValueError(f"{owner}: {name} must be an integer or a pair of them, got {value!r}")
    if not all(isinstance(number, int) for number in pair):
        raise ValueError(f"{owner}: {name} must hold integers, got {value!r}")
    return pair[0], pair[1]


def check_choice(owner: str, name: str, value: str, table: Mapping[str, T]) -> T:
    """The entry of ``table`` that ``value`` names."""
    if value not in table:
        raise ValueError(f"{owner}: {name} must be one of {sorted(table)}, got {value!r}")
    return table[value]


def check_keys(owner: str, tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Require that the batch holds every key."""
    for key in keys:
        if tensordict.get(key, None) is None:
            raise KeyError(
                f"{owner}: the batch lacks key {key!r}, "
                f"it holds {', '.join(sorted(map(str, tensordict.keys(True, True))))}"
            )


def check_columns(owner: str, tensordict: TensorDictBase, keys: Iterable[NestedKey]) -> None:
    """Require that entries have the shape [*B, 1] of a scalar per row."""
    expected = (*tensordict.batch_size, 1)
    for key in keys:
        shape = tensordict.get(key).shape
        if shape != expected:
            raise ValueError(
                f"{owner}: {key!r} must have shape [*B, 1] = {list(expected)}, got {list(shape)}"
            )


def check_finite_on_cpu(owner: str, name: NestedKey, value: Tensor) -> None:
    """Require finite numbers, where looking costs nothing.

    On an accelerator the question would stall the queue at every update; there the training loop
    asks, see :func:`torchrl_stein.training.check_losses`.
    """
    if value.device.type != "cpu" or torch.compiler.is_compiling():
        return
    bad = ~value.isfinite()
    if bad.any():
        raise ValueError(
            f"{owner}: {name!r} must be finite, got {int(bad.sum())} non-finite of "
            f"{value.numel()} values, the first {value[bad][0].item()}"
        )
