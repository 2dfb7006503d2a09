"""What losses with soft values share: critics' loss, temperature, keys and value estimator.

Eq. (11) of soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165). Soft values, eq. (10) and
others, are in ``functional/soft_value.py``; the losses choose where V comes from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives import LossModule, ValueEstimators
from torchrl.objectives.utils import dispatch_value_estimator

from torchrl_stein._checks import check_choice, check_discounts, check_number
from torchrl_stein._torchrl import (
    buffers_of,
    estimator_arguments,
    made_value_estimator,
    priority_weight,
    reduce_loss,
    release,
)

from .temperature import LearntTemperature

__all__ = ["EnsembleReduction", "SoftCriticLoss"]

EnsembleReduction = Callable[[Tensor, int], Tensor]
"""``torch.amin`` or ``torch.mean``: of Q ``[N, ...]`` over dimension 0."""


class SoftCriticLoss(LossModule):
    """Critics that regress on r + gamma V(s'), and a temperature that is given or learnt.

    Subclasses define ``forward``, ``state_keys`` and ``qvalue_network_params``, and call
    ``_set_temperature``, and ``_set_in_keys`` once their networks are there.
    """

    @dataclass
    class _AcceptedKeys:
        """Keys that ``set_keys`` accepts, with their defaults."""

        action: NestedKey = "action"
        value: NestedKey = "state_value"
        priority: NestedKey = "td_error"
        priority_weight: NestedKey = "priority_weight"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    default_value_estimator = ValueEstimators.TD0
    SUPPORTED_VALUE_ESTIMATORS = (
        ValueEstimators.TD0,
        ValueEstimators.TD1,
        ValueEstimators.TDLambda,
    )
    _schedulable_buffers = frozenset({"temperature"})

    temperature: Tensor
    log_alpha: nn.Parameter
    _learnt: LearntTemperature | None
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams

    def __init__(self, reduction: str | None) -> None:
        super().__init__()
        # None as in TorchRL's losses; they report an unknown name only at the first call.
        self.reduction = "mean" if reduction is None else reduction
        check_choice(type(self).__name__, ("mean", "sum", "none"), reduction=self.reduction)

    # The terms

    def _bellman_error(
        self, tensordict: TensorDictBase, value: Tensor, q: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """1/2 (r + gamma V(s') - Q(s, a))^2, of V(s') [*B] and Q [N, *B]: [*B], and diagnostics.

        It is summed over the ensemble.
        """
        # target = r + gamma (1 - terminated) V(s'), by TorchRL's estimator (TD0): a truncated step
        # keeps its V(s').
        with torch.no_grad():
            following = ("next", self.tensor_keys.value)
            transitions = tensordict.copy().set(following, value.unsqueeze(-1))
            target = self.value_estimator.value_estimate(transitions).squeeze(-1)
        squared = (target - q).square()
        tensordict.set(self.tensor_keys.priority, squared.detach().amax(0))
        error = 0.5 * squared.sum(0)  # eq. (11)
        return error, {"q_value": self._mean(q.mean(0), tensordict)}

    def _mean(self, values: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Mean of a diagnostic [*B] over the transitions that no mask excludes."""
        return reduce_loss(self, values.detach(), tensordict, reduction="mean")

    def _reduced(
        self,
        tensordict: TensorDictBase,
        terms: dict[str, Tensor],
        metrics: dict[str, Tensor],
        networks: tuple[str, ...] = ("qvalue_network", "target_qvalue_network"),
    ) -> TensorDict:
        """What ``forward`` returns: terms [*B], reduced and weighted, and metrics as they are."""
        weights = priority_weight(self, tensordict, like=terms["loss_qvalue"])
        out = {
            name: reduce_loss(self, term, tensordict, weights=weights)
            for name, term in terms.items()
        }
        out |= metrics | {"alpha": self.temperature.mean()}
        losses = TensorDict({key: out[key] for key in self.out_keys if key in out}, [])
        release(self, tensordict, losses, *(f"{name}_params" for name in networks))
        return losses

    # The temperature

    def _set_temperature(self, temperature: float | LearntTemperature, like: Tensor) -> None:
        if isinstance(temperature, LearntTemperature):
            self._learnt, alpha = temperature, temperature.alpha_init
        else:
            check_number(type(self).__name__, above=0, temperature=temperature)
            self._learnt, alpha = None, torch.tensor(float(temperature), dtype=torch.float64)
        self.register_buffer("temperature", alpha.to(like))
        if self._learnt is not None:
            self.log_alpha = nn.Parameter(self.temperature.log())

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "temperature":
            if self._learnt is not None:
                raise AttributeError(
                    f"{type(self).__name__}: temperature is learnt, as "
                    f"{type(self._learnt).__name__} says; pass a number to set it by hand"
                )
            check_number(type(self).__name__, above=0, temperature=value)
            value = float(value)  # of a tensor too: the buffer keeps its own dtype and device
        super().__setattr__(name, value)

    @torch.no_grad()
    def _follow_log_alpha(self) -> None:
        """Set the temperature to what was learnt, between its bounds."""
        if self._learnt is not None:
            low, high = self._learnt.log_bounds
            if low is not None or high is not None:
                self.log_alpha.clamp_(low, high)
            self.temperature.copy_(self.log_alpha.exp())

    # Keys and the value estimator

    @property
    def state_keys(self) -> list[NestedKey]:
        """Keys that describe a state."""
        raise NotImplementedError

    @property
    def outcome_keys(self) -> list[NestedKey]:
        """Keys of reward, done and terminated."""
        keys = self.tensor_keys
        return [("next", key) for key in (keys.reward, keys.done, keys.terminated)]

    def _set_in_keys(self) -> None:
        # In __init__ already: at the first call it would make the loss compile twice.
        action, outcome = self.tensor_keys.action, self.outcome_keys
        following = [("next", key) for key in self.state_keys]
        self.in_keys = [*self.state_keys, action, *outcome, *following]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        estimator = made_value_estimator(self)
        if estimator is not None:
            estimator.set_keys(**self._estimator_keys())
        self._set_in_keys()

    def _estimator_keys(self) -> dict[str, NestedKey]:
        keys = self.tensor_keys
        return {name: getattr(keys, name) for name in ("value", "reward", "done", "terminated")}

    def make_value_estimator(
        self, value_type: ValueEstimators | None = None, **hyperparams: Any
    ) -> LossModule:
        """Choose how rewards and V(s') become targets: TD0 (the paper), TD1 or TD(lambda).

        The last two need contiguous time in the batch, [*B, T], and are biased off-policy.
        """
        check_discounts(type(self).__name__, hyperparams)
        value_type, hyperparams = estimator_arguments(self, value_type, hyperparams)
        if value_type is not None:
            dispatch_value_estimator(
                self,
                value_type,
                supported=self.SUPPORTED_VALUE_ESTIMATORS,
                tensor_keys=self._estimator_keys(),
                value_network=None,  # forward supplies V(s') itself
                **hyperparams,
            )
        return self


def move_buffers(network: nn.Module, params: TensorDictParams) -> None:
    """Give a network the buffers of a loss's parameters, which a cast or a move has replaced.

    Parameters are changed in place, so that a policy which acts follows them; buffers are replaced,
    in the loss's copy only (symptom: a policy whose bounds stay on the CPU).
    """
    for name, _ in list(network.named_buffers()):
        *path, leaf = name.split(".")
        owner = network.get_submodule(".".join(path))
        buffers_of(owner)[leaf] = params.get(tuple(name.split("."))).data
