"""The policy of discrete soft Q-learning: a categorical distribution with logits Q / alpha."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from tensordict import TensorDictBase
from tensordict.nn import (
    InteractionType,
    TensorDictModule,
    TensorDictModuleBase,
    TensorDictSequential,
)
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.data import Categorical as CategoricalSpec
from torchrl.data import Composite, OneHot, TensorSpec
from torchrl.modules import ProbabilisticActor

from torchrl_stein._checks import check_keys, check_number, check_numbers, check_type

from .one_hot import OneHotCategorical

__all__ = ["ActionValues", "BoltzmannActor"]


class BoltzmannActor(ProbabilisticActor):
    r"""Draws discrete actions from pi(a | s) = exp(Q(s, a) / alpha) / sum_b exp(Q(s, b) / alpha).

    It is a :class:`~torchrl.modules.ProbabilisticActor` whose parameters are those of the
    Q-networks. It draws where nobody says how to explore, too; TorchRL's exploration types MODE and
    DETERMINISTIC give the action of largest Q, the first of several. ``get_dist`` is the
    distribution.

    Args:
        qvalue_network: a TensorDictModule that reads states and writes one entry, the values
            ``[*B, n]`` of all actions; or a sequence of them, an ensemble.

    Keyword Args:
        action_spec: ``OneHot`` or ``Categorical`` of n actions; batch dimensions do not matter.
        temperature: alpha > 0, in units of Q, or a tensor that expands to the batch ``[*B]``, such
            as ``[S, 1]`` for S seeds. A buffer.
        ensemble_reduction: what is made of the ensemble: ``torch.amin``, the minimum, or
            ``torch.mean``.
        mask_key: of an entry ``[*B, n]``, bool, False for actions that a state does not have.
        return_log_prob: whether to write log pi(a | s), ``[*B]``, too.

    Raises:
        TypeError, ValueError: for an argument of another kind or out of its range and, at the call,
            a network of other values.
        KeyError: at the call, without the mask.

    Reads what the networks read, and the mask; writes ``action`` (one-hot ``[*B, n]`` or integers
    ``[*B]``, int64), ``action_value``, ``logits`` and, if asked, ``action_log_prob``.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), theorem 1, with sums for integrals.

    Example:
        >>> from tensordict import TensorDict
        >>> qvalue = TensorDictModule(nn.Linear(3, 4), ["observation"], ["action_value"])
        >>> actor = BoltzmannActor(qvalue, action_spec=OneHot(4), temperature=0.5)
        >>> states = TensorDict({"observation": torch.zeros(5, 3)}, [5])
        >>> actor(states)["action"].shape, actor.get_dist(states).entropy().shape
        (torch.Size([5, 4]), torch.Size([5]))
    """

    def __init__(
        self,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        *,
        action_spec: TensorSpec,
        temperature: float | Tensor = 1.0,
        ensemble_reduction: Callable[[Tensor, int], Tensor] = torch.amin,
        mask_key: NestedKey | None = None,
        return_log_prob: bool = False,
    ) -> None:
        owner = "BoltzmannActor"
        size = _num_actions(owner, action_spec)
        check = check_numbers if isinstance(temperature, Tensor) else check_number
        check(owner, above=0, temperature=temperature)
        words = "a function such as torch.amin"
        check_type(owner, words, Callable, ensemble_reduction=ensemble_reduction)
        values = ActionValues(qvalue_network, size, ensemble_reduction)
        of_network = next(values.parameters(), torch.zeros(()))
        alpha = torch.as_tensor(temperature, dtype=torch.float64).to(of_network)
        logits = _Logits(alpha.detach().clone(), mask_key)
        is_one_hot = isinstance(action_spec, OneHot)
        super().__init__(
            TensorDictSequential(values, logits),
            in_keys=["logits"],
            out_keys=["action"],
            distribution_class=OneHotCategorical if is_one_hot else Categorical,
            default_interaction_type=InteractionType.RANDOM,
            return_log_prob=return_log_prob,
        )
        self.num_actions, self.is_one_hot = size, is_one_hot
        self.mask_key, self.ensemble_reduction = mask_key, ensemble_reduction

    @property
    def qvalue_network(self) -> ActionValues:
        """The ensemble, which writes "action_value"."""
        values: ActionValues = self[0][0]
        return values

    @property
    def temperature(self) -> Tensor:
        """alpha, the buffer."""
        return self._logits.temperature

    def share_temperature(self, temperature: Tensor) -> None:
        """Follow a tensor that somebody else changes in place, such as a loss."""
        self._logits.temperature = temperature

    def logits(self, tensordict: TensorDictBase, q: Tensor) -> Tensor:
        """Those of the policy whose values are q, ``[*B, n]``."""
        return self._logits.logits(tensordict, q)

    def allowed(self, tensordict: TensorDictBase, q: Tensor) -> Tensor:
        """Values ``[*B, n]`` with -inf where the mask, if there is one, forbids an action."""
        return self._logits.allowed(tensordict, q)

    @property
    def _logits(self) -> _Logits:
        logits: _Logits = self[0][1]
        return logits


class ActionValues(TensorDictModuleBase):
    """N networks that write the values of all actions; reduced, they are "action_value"."""

    def __init__(
        self,
        networks: TensorDictModule | Sequence[TensorDictModule],
        num_actions: int,
        reduction: Callable[[Tensor, int], Tensor],
    ) -> None:
        super().__init__()
        several = networks if isinstance(networks, Sequence) else [networks]
        for network in several:
            words = 'a TensorDictModule, such as one of an MLP that writes ["action_value"]'
            check_type("BoltzmannActor", words, TensorDictModuleBase, qvalue_network=network)
            if len(network.out_keys) != 1:
                raise ValueError(
                    "BoltzmannActor: qvalue_network must write one entry, the values of all "
                    f"actions, got {list(network.out_keys)}"
                )
        if len({id(network) for network in several}) < max(len(several), 1):
            got = f"{len(several)}, of which some are one" if several else "none"
            raise ValueError(
                f"BoltzmannActor: qvalue_network must be different networks, got {got}"
            )
        self.networks = nn.ModuleList(several)
        self.num_actions, self.reduction = num_actions, reduction
        self.in_keys = list(dict.fromkeys(key for net in several for key in net.in_keys))
        self.out_keys = ["action_value"]

    def each(self, tensordict: TensorDictBase) -> Tensor:
        """The values of every network, ``[N, *B, n]``."""
        found = []
        for network in cast("Iterable[TensorDictModuleBase]", self.networks):
            states = tensordict.select(*network.in_keys)
            values = network(states).get(network.out_keys[0])
            expected = (*tensordict.batch_size, self.num_actions)
            if values.shape != expected:
                raise ValueError(
                    f"BoltzmannActor: qvalue_network must return [*B, n] = {list(expected)}, one "
                    f"value for each action, got {list(values.shape)}"
                )
            found.append(values)
        return torch.stack(found)

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write them, reduced over the ensemble, ``[*B, n]``."""
        return tensordict.set("action_value", self.reduction(self.each(tensordict), 0))


class _Logits(TensorDictModuleBase):
    """Q / alpha, and -inf for actions that a state does not have."""

    temperature: Tensor

    def __init__(self, temperature: Tensor, mask_key: NestedKey | None) -> None:
        super().__init__()
        self.register_buffer("temperature", temperature)
        self.mask_key = mask_key
        self.in_keys = ["action_value"] + ([] if mask_key is None else [mask_key])
        self.out_keys = ["logits"]

    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        return tensordict.set("logits", self.logits(tensordict, tensordict.get("action_value")))

    def logits(self, tensordict: TensorDictBase, q: Tensor) -> Tensor:
        alpha = self.temperature
        return self.allowed(tensordict, q) / (alpha.unsqueeze(-1) if alpha.ndim else alpha)

    def allowed(self, tensordict: TensorDictBase, q: Tensor) -> Tensor:
        if self.mask_key is None:
            return q
        check_keys("BoltzmannActor", tensordict, [self.mask_key])
        return q.masked_fill(~tensordict.get(self.mask_key), -torch.inf)


def _num_actions(owner: str, action_spec: TensorSpec) -> int:
    if type(action_spec) not in (OneHot, CategoricalSpec):
        hint = "; for a box of actions take SoftQLoss and AmortizedSVGDActor"
        if isinstance(action_spec, Composite):
            hint = "; take its leaf, such as env.action_spec_unbatched"
        raise TypeError(
            f"{owner}: action_spec must be OneHot or Categorical, got {type(action_spec).__name__}"
            f"{hint}"
        )
    return int(action_spec.space.n)
