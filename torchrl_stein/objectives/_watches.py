"""Silent mistakes that SteinPolicyLoss says once: a flat kernel, foreign data, a still schedule."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import ProbabilisticTensorDictSequential
from torch import Tensor
from torchrl.objectives import LossModule, ValueEstimators

from torchrl_stein._checks import may_look
from torchrl_stein._torchrl import number_of_changes, reduce_loss

__all__ = ["HostCount", "KernelWatch", "RatioWatch", "ScheduleWatch", "warn_of_pooled_advantages"]

_EVERY = 50  # iterations between looks at the kernel: each waits for the device
_LOOKS_IN_A_ROW = 4
_FLAT = 0.01  # k is at most 1
# Rounding, and the inverse of tanh near its ends, stay below; other policies are beyond.
_RATIO_TOLERANCE = 0.01
_FEW = 0.25  # of the transitions of a particle may be off
# Of many epochs over one batch there may be a hundred calls before the first step.
_CALLS_WITHOUT_STEP = 250


class HostCount:
    """The value of an integer buffer, read from the device only after others wrote to it."""

    def __init__(self) -> None:
        self._seen: tuple[Tensor, int, int] | None = None  # buffer, its version, its value

    def advance(self, buffer: Tensor) -> int:
        """Add one to a buffer ``[]`` in place, and return its value.

        It waits for the device at the first call, and if the buffer was loaded, moved or assigned.
        """
        value = None
        if self._seen is not None and self._seen[0] is buffer:
            value = self._seen[2] if self._seen[1] == number_of_changes(buffer) else None
        value = (int(buffer) if value is None else value) + 1
        buffer.add_(1)
        self._seen = (buffer, number_of_changes(buffer), value)
        return value


class KernelWatch:
    """Counts looks at a Gram matrix that was nearly the identity, or nearly constant."""

    def __init__(self) -> None:
        self.iterations = 0
        self.streak = {"identity": 0, "constant": 0}
        self.warned = False

    def is_due(self) -> bool:
        """Whether this iteration looks."""
        self.iterations += 1
        return not self.warned and self.iterations % _EVERY == 0

    def look(self, gram: Tensor) -> None:
        """Warn if ``gram``, ``[..., n, n]``, has been flat at every one of the last looks."""
        n = gram.shape[-1]
        if n < 2:
            return
        between = gram[..., ~torch.eye(n, dtype=torch.bool, device=gram.device)]
        scale = gram.diagonal(dim1=-2, dim2=-1).mean()
        low, high = ((end / scale).item() for end in between.aminmax())
        flat = {
            "identity": max(-low, high) < _FLAT,
            "constant": n > 2 and high - low < _FLAT,  # two particles have one pair, it is constant
        }
        for name, is_flat in flat.items():
            self.streak[name] = self.streak[name] + 1 if is_flat else 0
        for name, consequence in (
            ("identity", "particles do not interact"),
            ("constant", "they interact whatever the policies do"),
        ):
            if self.streak[name] >= _LOOKS_IN_A_ROW:
                self.warned = True
                warnings.warn(
                    f"SteinPolicyLoss: the kernel was nearly {'the ' * (name == 'identity')}{name} "
                    f"(k between particles in [{low:.3g}, {high:.3g}]) for "
                    f"{_LOOKS_IN_A_ROW * _EVERY} iterations: {consequence}. In thousands of "
                    "dimensions the median heuristic does this; try another bandwidth, "
                    "LayerwiseKernel, BehaviourKernel or ParticleModule(shared=...).",
                    stacklevel=3,
                )
                return


class ScheduleWatch:
    """Counts calls with gradients until the first step of a temperature's schedule."""

    def __init__(self, schedule: Any) -> None:
        # A schedule that says its length is given as many calls.
        self.patience = max(_CALLS_WITHOUT_STEP, getattr(schedule, "num_steps", 0))
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


class RatioWatch:
    """Compares, for the first batch alone, the old probabilities of actions with the present ones.

    Before any step of the optimizer the policies are those that collected the data, so that all
    ratios are 1. Later they are not, so only the first call looks, and only at on-policy losses:
    those with an advantage and the log-probability of the sample. The global generator is not
    touched.
    """

    def __init__(self) -> None:
        self.is_due = True

    def look(self, loss_module: LossModule, tensordict: TensorDictBase, num_leading: int) -> None:
        """Warn if some row holds many actions that its policy would choose otherwise.

        Args:
            loss_module: the wrapped loss.
            tensordict: its batch ``[n, ...]``, or ``[S, n, ...]`` of several seeds.
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
        off = (log_ratio.abs() > _RATIO_TOLERANCE).reshape(rows, -1).double().mean(1)
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


def warn_of_pooled_advantages(loss_module: LossModule, num_leading: int) -> None:
    """Warn of a loss that standardises the advantages of all particles together."""
    excluded = getattr(loss_module, "normalize_advantage_exclude_dims", None) or ()
    own = tuple(range(num_leading))
    if getattr(loss_module, "normalize_advantage", False) and not {*own} <= {*excluded}:
        warnings.warn(
            f"SteinPolicyLoss: {type(loss_module).__name__}(normalize_advantage=True) standardises "
            "the advantages of all particles together, so that a good particle turns those of the "
            f"others negative; pass normalize_advantage_exclude_dims={own}, or "
            "normalize_advantage=False and use StandardizePerParticle",
            stacklevel=3,
        )
