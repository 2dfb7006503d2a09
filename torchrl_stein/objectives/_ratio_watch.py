"""Says once that the first batch was not made by the policies that are to learn from it."""

from __future__ import annotations

import warnings

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torchrl.objectives import LossModule, ValueEstimators

from torchrl_stein._checks import may_look
from torchrl_stein._torchrl import reduce_loss

__all__ = ["RatioWatch"]

# Rounding, and the inverse of tanh near its ends, stay below; other policies are beyond.
_TOLERANCE = 0.01
_FEW = 0.25  # of the transitions of a particle may be off


class RatioWatch:
    """Compares, for the first batch alone, the old probabilities of actions with the present ones.

    Before any step of the optimizer the policies are those that collected the data, so that all
    ratios are 1. Later they are not, which is why only the first call looks, and only at losses
    that are on-policy: those with an advantage and the log-probability of the sample. No numbers
    are drawn from the global generator that the loss would otherwise have had.
    """

    def __init__(self) -> None:
        self.is_due = True

    def look(
        self, loss_module: LossModule, tensordict: TensorDictBase, num_leading: int = 1
    ) -> None:
        """Warn if some row holds many actions that its policy would choose otherwise.

        Args:
            loss_module: the wrapped loss.
            tensordict: its batch ``[n, ...]`` or, of S seeds, ``[S, n, ...]``.
            num_leading: 1 or 2, accordingly.
        """
        if not self.is_due:
            return
        self.is_due = False
        log_ratio = _log_ratio(loss_module, tensordict)
        if log_ratio is None:
            return
        log_ratio = reduce_loss(loss_module, log_ratio, tensordict, reduction="none")
        rows = log_ratio.shape[:num_leading].numel()
        off = (log_ratio.abs() > _TOLERANCE).reshape(rows, -1).double().mean(1)
        row = int(off.argmax())
        if off[row] > _FEW:
            warnings.warn(
                "SteinPolicyLoss: the first batch has ratios pi(a | s) / pi_old(a | s) other than "
                f"1, of {off[row]:.0%} of the actions in row {row}: its policy did not choose "
                "them. Rows of other particles do this (keep the dimension [n, ...] of the data "
                "where it is when you reshape, shuffle or stack it), data that other policies "
                "collected, and dropout.",
                stacklevel=4,
            )


@torch.no_grad()
def _log_ratio(loss_module: LossModule, tensordict: TensorDictBase) -> Tensor | None:
    """``[n, ...]``, or None where there is nothing to compare."""
    actor, keys = getattr(loss_module, "actor_network", None), loss_module.tensor_keys
    if not hasattr(keys, "advantage") or not hasattr(keys, "sample_log_prob"):
        return None
    if not isinstance(actor, ProbabilisticTensorDictSequential):
        return None
    if loss_module.value_type == ValueEstimators.VTrace:  # made for data of other policies
        return None
    names = keys.action, keys.sample_log_prob
    if not all(isinstance(name, (str, tuple)) for name in names):
        return None
    action, old = (tensordict.get(name, None) for name in names)
    if not (isinstance(action, Tensor) and isinstance(old, Tensor) and may_look(action, old)):
        return None
    states = tensordict.select(*actor.in_keys, strict=False)
    if any(states.get(key, None) is None for key in actor.in_keys):  # the loss will say so
        return None
    with (
        torch.random.fork_rng([]),
        loss_module.actor_network_params.to_module(actor, preserve_module_state=False),
    ):
        now = actor.get_dist(states).log_prob(action)
    return now - old if now.shape == old.shape else None
