"""Whether a loss took the batch dimensions of an environment for dimensions of the action."""

from __future__ import annotations

import torch
from tensordict.nn import ProbabilisticTensorDictSequential
from torchrl.data import Composite, TensorSpec
from torchrl.objectives import LossModule

from torchrl_stein._torchrl import automatic_target_entropy, buffers_of, given_action_spec

__all__ = ["check_action_spec"]


def check_action_spec(owner: str, loss_module: LossModule, num_particles: int) -> None:
    """Refuse a loss over a population that was given ``env.action_spec``, batch and all.

    TorchRL's automatic target entropy is then n * E times that of one action, and the bounds of
    TD3 have the batch's shape, which no minibatch fits.

    Args:
        owner: who asks, for the message.
        loss_module: a TorchRL loss of any kind.
        num_particles: n.

    Raises:
        ValueError: naming ``env.action_spec_unbatched``.
    """
    bounds = buffers_of(loss_module).get("max_action")
    # One particle divides everything; a matrix may then be an action.
    dims = 1 if num_particles > 1 else 2
    if bounds is not None and _is_batched(bounds.shape, dims, num_particles):
        raise _batched(owner, loss_module, bounds.shape, "cannot clip the actions of a minibatch")
    shape = _shape_of_action(loss_module)
    if shape is None or not _is_batched(shape, _event_dims(loss_module), num_particles):
        return
    if _has_automatic_target(loss_module, -shape.numel()):
        raise _batched(owner, loss_module, shape, f"aims at an entropy of {-shape.numel()}")


def _batched(owner: str, loss: LossModule, shape: torch.Size, so: str) -> ValueError:
    return ValueError(
        f"{owner}: action_spec of {type(loss).__name__} must be that of one action, got shape "
        f"{list(shape)}, with which it {so}; pass env.action_spec_unbatched, to the actor and to "
        "the loss"
    )


def _is_batched(shape: torch.Size, event_dims: int, num_particles: int) -> bool:
    # Divisible: a flat vector of simulators has n * E rows.
    return len(shape) > event_dims and shape[0] % num_particles == 0


def _shape_of_action(loss: LossModule) -> torch.Size | None:
    """Which shape the loss takes an action to have, by the rules of TorchRL's SACLoss."""
    keys, spec = loss.tensor_keys, given_action_spec(loss)
    key = getattr(keys, "action", getattr(keys, "action_pred", None))
    if not isinstance(spec, TensorSpec) or not isinstance(key, (str, tuple)):
        return None
    if not isinstance(spec, Composite):
        return spec.shape
    leaf = spec.get(key, None)
    if leaf is None or isinstance(leaf, Composite):
        return None
    container = spec[key[:-1]] if isinstance(key, tuple) and len(key) > 1 else spec
    return leaf.shape[len(container.shape) :]


def _event_dims(loss: LossModule) -> int:
    """Dimensions of one action, as the actor's distribution was told."""
    actor = loss.actor_network
    last = actor[-1] if isinstance(actor, ProbabilisticTensorDictSequential) else actor
    options = getattr(last, "distribution_kwargs", {})
    return int(options.get("event_dims", options.get("event_dim", 1)))


def _has_automatic_target(loss: LossModule, expected: int) -> bool:
    """Whether the target entropy is, or will be, the one that the shape of the action gives."""
    target = automatic_target_entropy(loss)
    return target is not None and (target == "auto" or float(target) == expected)
