"""The box that actions live in, read from a spec."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor
from torchrl.data import Bounded, Composite, TensorSpec

__all__ = ["action_box", "rounded_inwards"]


def action_box(owner: str, action_spec: TensorSpec) -> tuple[Tensor, Tensor]:
    """Bounds ``[A]`` of a finite box, or the error that says why it is none."""
    if not isinstance(action_spec, Bounded) or not action_spec.dtype.is_floating_point:
        hint = ""
        if isinstance(action_spec, Composite):
            hint = "; take its leaf, such as env.action_spec_unbatched"
            if any(isinstance(key, tuple) for key in action_spec.keys(True, True)):
                hint = '; of several agents that of one, env.full_action_spec_unbatched["agents", '
                hint += '"action"][0]'
        elif isinstance(action_spec, TensorSpec) and not action_spec.dtype.is_floating_point:
            hint = (
                "; for discrete actions take BoltzmannActor and DiscreteSoftQLoss, or a "
                "ProbabilisticActor and SteinPolicyLoss"
            )
        raise TypeError(
            f"{owner}: action_spec must be a floating-point Bounded spec (a box), "
            f"got {type(action_spec).__name__} of dtype {getattr(action_spec, 'dtype', None)}{hint}"
        )
    must, shape = f"{owner}: action_spec must have", list(action_spec.shape)
    if not shape or 0 in shape:
        raise ValueError(f"{must} a last dimension A >= 1 and none of size 0, got shape {shape}")
    low, high = action_spec.space.low, action_spec.space.high
    if not (low.isfinite().all() and high.isfinite().all()):
        raise ValueError(f"{must} finite bounds, got low={low.tolist()}, high={high.tolist()}")
    low, high = low.reshape(-1, low.shape[-1]), high.reshape(-1, high.shape[-1])
    if not ((low == low[0]).all() and (high == high[0]).all()):
        raise ValueError(
            f"{must} one set of bounds for the whole batch, "
            f"got bounds that differ between its {low.shape[0]} entries"
        )
    low, high = low[0], high[0]
    if not (low < high).all():
        raise ValueError(f"{must} low < high, got low={low.tolist()}, high={high.tolist()}")
    if len(shape) > 1:
        warnings.warn(
            f"{owner}: action_spec should have shape [A], got {shape}; {shape[:-1]} is taken for "
            f"the batch size of the environment, whose actions then have A = {shape[-1]}. Pass "
            "env.action_spec_unbatched to say so, and flatten an action that is a matrix.",
            stacklevel=4,
        )
    return low.clone(), high.clone()


def rounded_inwards(
    low: Tensor, high: Tensor, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Bounds in another dtype: what is inside of them is inside of the box after casts, too."""

    def up(bound: Tensor) -> Tensor:
        near, wide = bound.to(dtype), torch.promote_types(bound.dtype, dtype)
        above = torch.nextafter(near, torch.full_like(near, torch.inf))
        return torch.where(near.to(wide) < bound.to(wide), above, near).to(device)

    return up(low), -up(-high)
