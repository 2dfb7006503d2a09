"""Soft Q-learning with discrete actions, whose soft value is a sum, as a TorchRL loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import dispatch
from tensordict.utils import NestedKey
from torch import Tensor

from torchrl_stein._checks import check_columns, check_finite, check_keys, check_type, may_look
from torchrl_stein.functional import soft_value
from torchrl_stein.modules import BoltzmannActor
from torchrl_stein.modules.boltzmann_actor import ActionValues

from .soft_critic import SoftCriticLoss, move_buffers
from .temperature import EntropyTarget

__all__ = ["DiscreteSoftQLoss"]


class DiscreteSoftQLoss(SoftCriticLoss):
    r"""Soft Q-learning with n actions: the soft Bellman error, and no policy to train.

    ``loss_qvalue`` = 1/2 (r + gamma V(s') - Q(s, a))^2, eq. (11), summed over the ensemble, with
    V(s') = alpha log sum_a' exp(Q_target(s', a') / alpha), eq. (10) as a sum

    The sum has no weights: it is the integral of ``soft_value`` with the counting measure, not a
    mean over uniform actions, and n equal values q give q + alpha log n. As alpha -> 0 this is
    DQN's max; the policy exp((Q - V) / alpha) tends to uniform with alpha.

    Args:
        actor_network: a :class:`~torchrl_stein.modules.BoltzmannActor`, the policy and its
            Q-networks, which are trained in place. Its ensemble is reduced before V is taken: with
            ``torch.amin`` V is of the minimum of two Q.

    Keyword Args:
        temperature: alpha > 0, in units of the return, or how it is learnt: an
            :class:`EntropyTarget` of a number between 0 and log n; then ``log_alpha`` is a
            parameter of the loss. None: the actor's. The actor follows.
        delay_qvalue: V from target parameters, for HardUpdate or SoftUpdate.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch.

    Raises:
        TypeError, ValueError: for an argument of another kind or out of its range and, at the call,
            an action of another kind or shape, or an entry that is not finite (numbers are looked
            at on the CPU only: no host sync).
        KeyError: at the call, if the batch lacks a key.

    Writes ``loss_qvalue`` and, detached, ``q_value``, ``soft_value`` (mean of V(s')), ``entropy``
    (of the policy, exact) and ``alpha``; with a learnt temperature also ``loss_alpha``.
    ``td_error`` is written to the input.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), eqs. (10), (11), with sums for integrals;
    Haarnoja et al. 2018b (arXiv:1812.05905), section 5, for ``loss_alpha``.

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torchrl.data import OneHot
        >>> qvalue = TensorDictModule(torch.nn.Linear(3, 2), ["observation"], ["action_value"])
        >>> actor = BoltzmannActor(qvalue, action_spec=OneHot(2), temperature=0.5)
        >>> loss = DiscreteSoftQLoss(actor, delay_qvalue=False)
        >>> zeros = torch.zeros(8, 1)
        >>> losses = loss(TensorDict({
        ...     "observation": torch.randn(8, 3), "action": OneHot(2).rand((8,)),
        ...     "next": {"observation": torch.randn(8, 3), "reward": zeros,
        ...              "done": zeros.bool(), "terminated": zeros.bool()}}, [8]))
        >>> losses["loss_qvalue"].backward()
    """

    actor_network: BoltzmannActor
    qvalue_network: ActionValues
    qvalue_network_params: TensorDictParams
    target_qvalue_network_params: TensorDictParams

    def __init__(
        self,
        actor_network: BoltzmannActor,
        *,
        temperature: float | EntropyTarget | None = None,
        delay_qvalue: bool = True,
        reduction: str = "mean",
    ) -> None:
        owner = "DiscreteSoftQLoss"
        check_type(owner, "a BoltzmannActor", BoltzmannActor, actor_network=actor_network)
        super().__init__(reduction)
        self.convert_to_functional(
            actor_network.qvalue_network, "qvalue_network", create_target_params=delay_qvalue
        )
        # Beside the modules, as the networks are: its parameters are those of ``qvalue_network``.
        self.__dict__["actor_network"] = actor_network
        if temperature is None:
            self._learnt = None
            self.register_buffer("temperature", actor_network.temperature)
        else:
            if not isinstance(temperature, (int, float)):
                words = "a number or an EntropyTarget"
                check_type(owner, words, EntropyTarget, temperature=temperature)
                _check_target(owner, temperature, actor_network.num_actions)
            self._set_temperature(temperature, like=actor_network.temperature)
        actor_network.share_temperature(self.temperature)
        self.out_keys = ["loss_qvalue", "q_value", "soft_value", "entropy", "alpha"]
        self.out_keys += ["loss_alpha"] * (self._learnt is not None)
        self._set_in_keys()

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Losses and diagnostics of a batch of transitions [*B]; see the class."""
        check_keys("DiscreteSoftQLoss", tensordict, self.in_keys)
        check_columns("DiscreteSoftQLoss", tensordict, self.outcome_keys)
        action = self._action(tensordict)
        check_finite("DiscreteSoftQLoss", {key: tensordict.get(key) for key in self.in_keys})
        self._follow_log_alpha()
        following = tensordict.get("next")
        with torch.no_grad():
            value = self._soft_value(following)  # eq. (10)
        q = self._qvalues(self.qvalue_network_params, tensordict)
        index = action.expand(*q.shape[:-1], 1)
        bellman_error, metrics = self._bellman_error(  # eq. (11)
            tensordict, value, q.gather(-1, index).squeeze(-1)
        )
        terms = {"loss_qvalue": bellman_error}
        entropy = self._entropy(tensordict, q.detach())
        if self._learnt is not None:
            terms["loss_alpha"] = self._learnt.loss(self.log_alpha, entropy, self.actor_network)
        metrics |= {"soft_value": self._mean(value, tensordict)}
        metrics |= {"entropy": self._mean(entropy, tensordict)}
        return self._reduced(tensordict, terms, metrics)

    def _soft_value(self, states: TensorDictBase) -> Tensor:
        """V(s) [*B] of target networks; 0 where every action is masked, as at the end it may be."""
        q = self._qvalues(self.target_qvalue_network_params, states)
        q = self.actor_network.allowed(states, self.actor_network.ensemble_reduction(q, 0))
        # All n actions are uniform samples, of which each weighs n / n.
        log_proposal = q.new_full((), -math.log(q.shape[-1]))
        value = soft_value(q, log_proposal, self.temperature)
        return torch.where(q.isneginf().all(-1), 0.0, value)

    def _entropy(self, states: TensorDictBase, q: Tensor) -> Tensor:
        """Of the policy at states [*B], by the values [N, *B, n] of its networks: [*B]."""
        logits = self.actor_network.logits(states, self.actor_network.ensemble_reduction(q, 0))
        return torch.special.entr(logits.softmax(-1)).sum(-1)

    def _qvalues(self, params: TensorDictParams, states: TensorDictBase) -> Tensor:
        """Q of every network and action, [N, *B, n]."""
        with params.to_module(self.qvalue_network, preserve_module_state=False):
            return self.qvalue_network.each(states)

    def _action(self, tensordict: TensorDictBase) -> Tensor:
        """Indices [*B, 1] of the actions of a batch."""
        key, actor, batch = self.tensor_keys.action, self.actor_network, tensordict.batch_size
        action: Tensor = tensordict.get(key)
        must = f"DiscreteSoftQLoss: {key!r} of the batch must be"
        n, looks = actor.num_actions, may_look(action)
        if actor.is_one_hot:
            if action.shape != (*batch, n):
                got = f"got shape {list(action.shape)}"
                raise ValueError(f"{must} one-hot, of shape [*B, n] = {[*batch, n]}, {got}")
            if looks and not ((action != 0).sum(-1) == 1).all():
                raise ValueError(f"{must} one-hot, one of {n}; for a box of actions take SoftQLoss")
            return action.ne(0).long().argmax(-1, keepdim=True)
        if action.is_floating_point() or action.dtype == torch.bool:
            raise TypeError(
                f"{must} integers from 0 to {n - 1}, got a tensor of {action.dtype}; for a box of "
                "actions take SoftQLoss"
            )
        if action.shape not in (batch, (*batch, 1)):
            raise ValueError(
                f"{must} integers of shape [*B] = {list(batch)}, got shape {list(action.shape)}"
            )
        if looks and action.numel() and not (0 <= int(action.min()) <= int(action.max()) < n):
            ends = f"from {int(action.min())} to {int(action.max())}"
            raise ValueError(f"{must} integers from 0 to {n - 1}, got {ends}")
        return action.reshape(*batch, 1).long()

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> DiscreteSoftQLoss:
        """Move or cast, with the buffers of the actor."""
        super()._apply(fn)
        move_buffers(self.qvalue_network, self.qvalue_network_params)
        self.actor_network.share_temperature(self.temperature)
        return self

    @property
    def state_keys(self) -> list[NestedKey]:
        """Keys that describe a state: what the networks read, and the mask."""
        masks = [] if self.actor_network.mask_key is None else [self.actor_network.mask_key]
        return list(dict.fromkeys([*self.qvalue_network.in_keys, *masks]))


def _check_target(owner: str, temperature: EntropyTarget, num_actions: int) -> None:
    most = math.log(num_actions)
    if temperature.target_entropy == "auto" or not 0 < temperature.target_entropy < most:
        raise ValueError(
            f"{owner}: temperature must have a target_entropy between 0 and that of uniform "
            f"actions, {most:.3g}, got {temperature.target_entropy}"
        )
