"""Shape checks at the door. They read metadata only: no kernel launch, no host sync."""

from __future__ import annotations

from torch import Tensor

__all__ = ["require_same_size"]


def require_same_size(function: str, **sizes: tuple[Tensor, int]) -> None:
    """Require that the named dimensions of the named tensors agree.

    Args:
        function: name of the calling function, for the message.
        **sizes: ``argument=(tensor, dim)``, one entry per dimension to compare.

    Raises:
        ValueError: naming both arguments, both sizes and both shapes, if two of them differ, or
            naming the argument whose tensor has too few dimensions.

    Example:
        >>> import torch
        >>> require_same_size("f", x=(torch.zeros(4, 2), -1), y=(torch.zeros(7, 2), -1))
    """
    first: tuple[str, int, Tensor] | None = None
    for name, (tensor, dim) in sizes.items():
        needed = -dim if dim < 0 else dim + 1
        if tensor.ndim < needed:
            raise ValueError(
                f"{function}: {name} must have at least {needed} dimension(s), "
                f"got shape {list(tensor.shape)}"
            )
        if first is None:
            first = (name, tensor.shape[dim], tensor)
        elif tensor.shape[dim] != first[1]:
            raise ValueError(
                f"{function}: {name} has size {tensor.shape[dim]} in dimension {dim} but "
                f"{first[0]} has {first[1]} ({name} {list(tensor.shape)}, "
                f"{first[0]} {list(first[2].shape)})"
            )
