"""What losses with a Q-function have in common: the ensemble, its targets, the TD error's keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.objectives import LossModule, ValueEstimators
from torchrl.objectives.utils import dispatch_value_estimator

from torchrl_stein._checks import check_choice, check_count, check_type
from torchrl_stein._torchrl import buffers_of, estimator_arguments, made_value_estimator
from torchrl_stein.modules._architecture import difference

from ._discounts import check_discounts
from ._plain_network import PlainNetwork

__all__ = ["QValueLoss"]


class QValueLoss(LossModule):
    """Base class: an ensemble of Q-networks with target parameters, inside a LossModule.

    Subclasses define ``actor_network`` and ``forward``; ``forward`` writes the value of the next
    state under ("next", ``tensor_keys.value``) of a copy of the batch and asks
    ``value_estimator`` for targets.
    """

    @dataclass
    class _AcceptedKeys:
        """Keys that ``set_keys`` accepts, with their defaults."""

        action: NestedKey = "action"
        value: NestedKey = "state_value"
        state_action_value: NestedKey = "state_action_value"
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

    actor_network: TensorDictModule
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    qvalue_network: TensorDictModule
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams

    def __init__(
        self,
        actor_network: TensorDictModule,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        *,
        num_qvalue_nets: int,
        delay_qvalue: bool,
        reduction: str | None,
        deactivate_vmap: bool,
    ) -> None:
        super().__init__()
        # None as in TorchRL's losses; they report an unknown name only at the first call.
        self.reduction = "mean" if reduction is None else reduction
        check_choice(type(self).__name__, ("mean", "sum", "none"), reduction=self.reduction)
        self.deactivate_vmap = deactivate_vmap
        nets = _ensemble(type(self).__name__, qvalue_network, num_qvalue_nets)
        self.convert_to_functional(actor_network, "actor_network")
        self.num_qvalue_nets = len(nets)
        # One network stays as it is, and its own parameters are trained. A list of several keeps
        # each one's initialisation, where TorchRL's expansion of one network would redraw all
        # weights uniformly between the smallest and the largest (and a list of one would leave it
        # without any parameters).
        self.convert_to_functional(
            nets if len(nets) > 1 else nets[0],
            "qvalue_network",
            len(nets) if len(nets) > 1 else None,
            create_target_params=delay_qvalue,
        )
        # A locked TensorDict remembers what it once computed of its entries, such as their detached
        # selves, and goes on to hand them out when a cast has given the entries other numbers.
        self.qvalue_network_params.unlock_()
        if len(nets) > 1:
            _tie(self.qvalue_network_params, nets[0])
        self._set_in_keys()  # here and not at the first call, which would make it compile twice

    def _make_vmap(self) -> None:
        """Nothing to make, though ``set_vmap_randomness`` asks: each net draws its own noise."""

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> QValueLoss:
        """Move or cast, with the buffers of the actor, which TorchRL leaves behind.

        Parameters are changed in place, so that the policy which acts follows them; buffers are
        replaced, in the loss's copy only (symptom: a policy whose bounds stay on the CPU).
        """
        super()._apply(fn)
        for name, _ in list(self.actor_network.named_buffers()):
            *path, leaf = name.split(".")
            owner = self.actor_network.get_submodule(".".join(path))
            buffers_of(owner)[leaf] = self.actor_network_params.get(tuple(name.split("."))).data
        return self

    @property
    def _cached_detached_qvalue_network_params(self) -> TensorDictBase:
        # The name is TorchRL's. What is cached would be that of before a cast or a load.
        return self.qvalue_network_params.detach()

    def _qvalues(
        self, params: TensorDictParams, tensordict: TensorDictBase, actions: Tensor
    ) -> Tensor:
        """Q of every net N at states [*B] and actions [*B, A] or [*B, K, A]: [N, *B] or [N, *B, K].

        Raises:
            KeyError: if the network does not write the state-action value.
            ValueError: if it writes another shape than [..., 1].
        """
        keys, network = self.tensor_keys, self.qvalue_network
        states = tensordict.select(*[k for k in network.in_keys if k != keys.action])
        if actions.ndim > tensordict.batch_dims + 1:
            states = states.unsqueeze(-1).expand(actions.shape[:-1])
        owner = type(self).__name__
        if not self.deactivate_vmap and PlainNetwork.suits(network, keys.state_action_value):
            values = [actions if k == keys.action else states.get(k) for k in network.in_keys]
            q = PlainNetwork(network, self.num_qvalue_nets)(params, values)
            check_type(owner, "a network of one tensor", Tensor, qvalue_network=q)
        else:
            q = self._one_by_one(params, states.set(keys.action, actions))
        if q is None:
            raise KeyError(
                f"{owner}: qvalue_network must write {keys.state_action_value!r}, "
                f"it writes {network.out_keys}"
            )
        expected = (self.num_qvalue_nets, *actions.shape[:-1], 1)
        if q.shape != expected:
            raise ValueError(
                f"{owner}: qvalue_network must return {keys.state_action_value!r} of shape "
                f"{list(expected[1:])} (one value per action, last dimension 1), "
                f"got {list(q.shape[1:])}"
            )
        return q.squeeze(-1)

    def _one_by_one(self, params: TensorDictParams, states: TensorDictBase) -> Tensor | None:
        """The entry of every net, stacked; None if there is none."""
        network, values = self.qvalue_network, []
        for own in [params] if self.num_qvalue_nets == 1 else params.unbind(0):
            with own.to_module(network, preserve_module_state=False):
                values.append(network(states.copy()).get(self.tensor_keys.state_action_value, None))
        return None if any(value is None for value in values) else torch.stack(values)

    @torch.no_grad()
    def qvalue(self, tensordict: TensorDictBase, actions: Tensor) -> Tensor:
        """Learnt Q(s, a), the minimum over the ensemble: for figures and evaluation.

        Args:
            tensordict: states, batch size ``[*B]``.
            actions: one per state, ``[*B, A]``, or K per state, ``[*B, K, A]``.

        Returns:
            Tensor: ``[*B]`` or ``[*B, K]``.
        """
        return self._qvalues(self.qvalue_network_params, tensordict, actions).amin(0)

    @property
    def state_keys(self) -> list[NestedKey]:
        """Keys that describe a state: what actor and Q-network read, without the action."""
        keys = [key for network in self._state_readers() for key in network.in_keys]
        return [k for k in dict.fromkeys(keys) if k != self.tensor_keys.action]

    def _state_readers(self) -> list[TensorDictModule]:
        return [self.actor_network, self.qvalue_network]

    @property
    def outcome_keys(self) -> list[NestedKey]:
        """Keys of reward, done and terminated."""
        keys = self.tensor_keys
        return [("next", key) for key in (keys.reward, keys.done, keys.terminated)]

    def _set_in_keys(self) -> None:
        action, outcome = self.tensor_keys.action, self.outcome_keys
        following = [("next", key) for key in self.state_keys]
        self._in_keys: list[NestedKey] = [*self.state_keys, action, *outcome, *following]

    @property
    def in_keys(self) -> list[NestedKey]:
        """Keys read from the batch."""
        return self._in_keys

    @in_keys.setter
    def in_keys(self, values: list[NestedKey]) -> None:
        self._in_keys = values

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        estimator = made_value_estimator(self)
        if estimator is not None:
            estimator.set_keys(**self._estimator_keys())
        self._set_in_keys()

    def _estimator_keys(self) -> dict[str, NestedKey]:
        return {
            name: getattr(self.tensor_keys, name)
            for name in ("value", "reward", "done", "terminated")
        }

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


def _ensemble(
    owner: str, network: TensorDictModule | Sequence[TensorDictModule], size: int
) -> list[TensorDictModule]:
    """The network and size - 1 copies with fresh weights, or the networks of a given sequence."""
    check_count(owner, num_qvalue_nets=size)
    given = list(network) if isinstance(network, Sequence) else [network]
    if not given:
        raise ValueError(f"{owner}: qvalue_network must hold at least one network, got none")
    for net in given:
        check_type(
            owner,
            'a TensorDictModule, such as ValueOperator(net, in_keys=["observation", "action"])',
            TensorDictModuleBase,
            qvalue_network=net,
        )
        _check_inputs(owner, net)
        words = difference(given[0], net)
        if words is not None:
            raise ValueError(
                f"{owner}: the networks given as qvalue_network must have one architecture, but "
                f"{words}"
            )
    if isinstance(network, Sequence):
        if size not in (1, len(given)):
            raise ValueError(
                f"{owner}: num_qvalue_nets must equal the number of networks given "
                f"({len(given)}) or be left out, got {size}"
            )
        parameters = [parameter for net in given for parameter in net.parameters()]
        if len({id(parameter) for parameter in parameters}) < len(parameters):
            raise ValueError(
                f"{owner}: the networks given as qvalue_network must not share parameters; pass "
                "different ones, or a single one with num_qvalue_nets"
            )
        return given
    copies = [deepcopy(network) for _ in range(size - 1)]
    for copy in copies:
        copy.reset_parameters_recursive()
        pairs = zip(network.parameters(), copy.parameters(), strict=True)
        if not any((a != b).any() for a, b in pairs):
            raise ValueError(
                f"{owner}: qvalue_network has no parameters that reset_parameters() draws anew, so "
                "the copies of the ensemble would be identical; pass a list of networks"
            )
    return [network, *copies]


def _tie(params: TensorDictParams, network: TensorDictModuleBase) -> None:
    """Make one again what stands at two places of a network; stacking has made two of it."""
    first: dict[int, tuple[str, ...]] = {}
    for named in (network.named_parameters, network.named_buffers):
        for name, tensor in named(remove_duplicate=False):
            key = tuple(name.split("."))
            if first.setdefault(id(tensor), key) != key:
                params.set(key, params.get(first[id(tensor)]))


def _check_inputs(owner: str, network: TensorDictModuleBase) -> None:
    """Refuse several entries into an ``nn.Sequential``, which takes one."""
    module = getattr(network, "module", None)
    if (
        isinstance(module, nn.Sequential)
        and type(module).forward is nn.Sequential.forward
        and len(network.in_keys) > 1
    ):
        raise ValueError(
            f"{owner}: qvalue_network reads {list(network.in_keys)}, but "
            f"{type(module).__name__} takes one input; use TorchRL's MLP, which concatenates"
        )
