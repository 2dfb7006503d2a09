"""Checks at the door of kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["check_direction_arguments"]


def check_direction_arguments(owner: str, x: Tensor, scores: Tensor, out: Tensor | None) -> None:
    """Require tensors alike, and a result that overwrites nothing that is still needed.

    Args:
        owner: kernel, for the message.
        x: ``[..., n, d]``.
        scores: as ``x``.
        out: as ``x``, or None.
    """
    if x.ndim < 2:
        raise ValueError(f"{owner}: x must be [..., n, d], got shape {list(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"{owner}: x must not be empty, got shape {list(x.shape)}")
    for name, tensor in (("scores", scores), ("out", out)):
        if tensor is not None and _kind(tensor) != _kind(x):
            raise ValueError(f"{owner}: {name} must be {_words(x)} as x, got {_words(tensor)}")
    if out is None or torch.compiler.is_compiling():  # addresses cannot be traced
        return
    if _storage(out) and _storage(out) in (_storage(x), _storage(scores)):  # 0 on "meta"
        raise ValueError(f"{owner}: out must have memory of its own, got that of x or scores")


def _kind(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.dtype, tensor.device


def _words(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
