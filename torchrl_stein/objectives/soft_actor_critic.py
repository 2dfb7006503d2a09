"""What soft actor-critics share: a sampler and critics, which may see through an encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from torchrl_stein._checks import check_columns, check_finite, check_keys, check_type
from torchrl_stein._torchrl import reduce_loss
from torchrl_stein.modules import SamplingActor

from ._encoder import check_encoder
from ._q_ensemble import (
    can_skip_tensordict,
    keeps_statistics,
    make_ensemble,
    population_of,
    tie,
    values_as_function,
    values_by_tensordict,
)
from .soft_critic import EnsembleReduction, SoftCriticLoss, move_buffers
from .temperature import LearntTemperature

__all__ = ["SoftActorCritic"]


class SoftActorCritic(SoftCriticLoss):
    """A sampler, an ensemble of Q-networks with target parameters and a temperature.

    Subclasses define ``forward`` and ``_actor_terms``, the losses ``[*B]`` and diagnostics of the
    sampler, and call ``_set_in_keys`` once their networks are there. Networks are asked about what
    ``_states`` and ``_next_states`` return, so that an encoder runs before there are K actions.
    """

    @dataclass
    class _AcceptedKeys(SoftCriticLoss._AcceptedKeys):
        """Keys that ``set_keys`` accepts, with their defaults."""

        state_action_value: NestedKey = "state_action_value"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    _state_readers: tuple[str, ...] = ("actor_network", "qvalue_network")

    actor_network: SamplingActor
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    qvalue_network: TensorDictModule
    encoder: TensorDictModuleBase | None
    encoder_params: TensorDictParams
    target_encoder_params: TensorDictParams

    def __init__(
        self,
        actor_network: SamplingActor,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        *,
        num_qvalue_nets: int = 1,
        temperature: float | LearntTemperature,
        ensemble_reduction: EnsembleReduction = torch.amin,
        encoder: TensorDictModuleBase | None,
        delay_qvalue: bool,
        delay_encoder: bool,
        reduction: str | None,
        deactivate_vmap: bool,
    ) -> None:
        owner = type(self).__name__
        words = (
            "a SamplingActor such as AmortizedSVGDActor (DiscreteSoftQLoss is for discrete actions)"
        )
        check_type(owner, words, SamplingActor, actor_network=actor_network)
        words = "a function such as torch.amin"
        check_type(owner, words, Callable, ensemble_reduction=ensemble_reduction)
        super().__init__(reduction)
        self.deactivate_vmap = deactivate_vmap
        nets = make_ensemble(owner, qvalue_network, num_qvalue_nets)
        self._normalizes, population = keeps_statistics(nets[0]), population_of(nets[0])
        self._num_leading = 0 if population is None else len(population.leading)
        self.encoder, self._delay_encoder = None, delay_encoder
        if encoder is not None:
            check_encoder(owner, encoder, actor_network=[actor_network], qvalue_network=nets)
            self.convert_to_functional(encoder, "encoder", create_target_params=delay_encoder)
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
            tie(self.qvalue_network_params, nets[0])
        self.ensemble_reduction = ensemble_reduction
        self._set_temperature(temperature, like=actor_network.low)
        self.out_keys = ["loss_qvalue", "loss_actor", "q_value", "soft_value", "alpha"]

    # The terms

    def _check_batch(self, tensordict: TensorDictBase) -> None:
        owner, key = type(self).__name__, self.tensor_keys.action
        check_keys(owner, tensordict, self.in_keys)
        shape, action_dim = tensordict.get(key).shape, self.actor_network.action_dim
        if shape[-1] != action_dim:
            raise ValueError(
                f"{owner}: {key!r} of the batch must have the {action_dim} dimensions of "
                f"the actor's action_spec, got {shape[-1]}"
            )
        expected = (*tensordict.batch_size, action_dim)
        if shape != expected:
            raise ValueError(
                f"{owner}: {key!r} of the batch must have shape [*B, A] = {list(expected)}, got "
                f"{list(shape)}; flatten an action that is a matrix, and hand over several agents "
                "as agent_rows(batch)"
            )
        check_columns(owner, tensordict, self.outcome_keys)
        self._follow_log_alpha()
        check_finite(owner, {key: tensordict.get(key) for key in self.in_keys})

    def _states(
        self, tensordict: TensorDictBase, params: TensorDictParams | None = None
    ) -> TensorDictBase:
        """What the networks read of states [*B]: of pixels their features, by one call.

        ``params`` are those of the encoder, None the ones that are trained.
        """
        if self.encoder is None:
            return tensordict.select(*self._read_keys, strict=False)
        check_keys(type(self).__name__, tensordict, self.encoder.in_keys)
        # Without entries of a buffer that an encoder of long ago has written.
        states = tensordict.select(*self.state_keys, strict=False)
        params = self.encoder_params if params is None else params
        with params.to_module(self.encoder, preserve_module_state=False):
            return self.encoder(states).select(*self._read_keys, strict=False)

    def _fixed(self, states: TensorDictBase) -> TensorDictBase:
        """The same states for terms that do not train the encoder."""
        return states if self.encoder is None else states.detach()

    @torch.no_grad()
    def _next_states(
        self, tensordict: TensorDictBase, *, acted_on: bool = True
    ) -> tuple[TensorDictBase, TensorDictBase]:
        """What the actor and what target networks read of s': the same without target encoder.

        With ``acted_on=False`` nobody asks the actor.
        """
        following = tensordict.get("next")
        if self.encoder is None or not self._delay_encoder:
            states = self._states(following)
            return states, states
        of_target = self._states(following, self.target_encoder_params)
        return self._states(following) if acted_on else of_target, of_target

    def _action(self, tensordict: TensorDictBase) -> Tensor:
        """The action [*B, A] of a batch; a spec's dtype need not be the network's."""
        action: Tensor = tensordict.get(self.tensor_keys.action)
        return action.to(self.actor_network.low.dtype)

    def _taken_qvalues(self, tensordict: TensorDictBase, states: TensorDictBase) -> Tensor:
        """Q(s, a) of the batch's actions, [N, *B]."""
        return self._qvalues(self.qvalue_network_params, states, self._action(tensordict))

    def _actor_terms(
        self, tensordict: TensorDictBase, states: TensorDictBase
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        raise NotImplementedError

    @property
    def _alpha_of_actions(self) -> Tensor:
        """The temperature, for Q [*B, K]: where there are several, they are those of states."""
        alpha = self.temperature
        return alpha.unsqueeze(-1) if alpha.ndim else alpha

    def _acting(self) -> Any:
        """The actor's network with the loss's parameters, while the context lasts."""
        return self.actor_network_params.to_module(self.actor_network, preserve_module_state=False)

    def actor_loss(self, tensordict: TensorDictBase) -> TensorDict:
        """The sampler's loss alone and its diagnostics, of states ``[*B]`` without transitions.

        A missing key of ``state_keys`` is a KeyError.
        """
        owner = type(self).__name__
        check_keys(owner, tensordict, self.state_keys)
        check_finite(owner, {key: tensordict.get(key) for key in self.state_keys})
        self._follow_log_alpha()
        with torch.no_grad():
            states = self._states(tensordict)
        terms, metrics = self._actor_terms(tensordict, states)
        losses = {name: reduce_loss(self, term, tensordict) for name, term in terms.items()}
        return TensorDict({**losses, **metrics}, [])

    def _reduced(
        self,
        tensordict: TensorDictBase,
        terms: dict[str, Tensor],
        metrics: dict[str, Tensor],
        networks: tuple[str, ...] = ("actor_network", "qvalue_network", "target_qvalue_network"),
    ) -> TensorDict:
        if self.encoder is not None:
            networks += ("encoder", "target_encoder")
        return super()._reduced(tensordict, terms, metrics, networks)

    # The ensemble

    def _qvalues(self, params: TensorDictParams, states: TensorDictBase, actions: Tensor) -> Tensor:
        """Q of every net at states [*B], actions [*B, A] or [*B, K, A]: [N, *B] or [N, *B, K]."""
        owner, keys, network = type(self).__name__, self.tensor_keys, self.qvalue_network
        out_key, size = keys.state_action_value, self.num_qvalue_nets
        states = states.select(*[k for k in network.in_keys if k != keys.action])
        if actions.ndim > states.batch_dims + 1:
            states = states.unsqueeze(-1).expand(actions.shape[:-1])
        rows = actions.shape[self._num_leading : -1]
        if self._normalizes and len(rows) > 1:  # batch normalization has features second, not last
            states = states.flatten(self._num_leading, actions.ndim - 2)
            actions = actions.flatten(self._num_leading, -2)
        if not self.deactivate_vmap and can_skip_tensordict(network, out_key):
            values = [actions if k == keys.action else states.get(k) for k in network.in_keys]
            q = values_as_function(network, size, params, values)
            check_type(owner, "a network of one tensor", Tensor, qvalue_network=q)
        else:
            states.set(keys.action, actions)
            q = values_by_tensordict(network, size, params, states, out_key)
        if q is None:
            raise KeyError(
                f"{owner}: qvalue_network must write {out_key!r}, it writes {network.out_keys}"
            )
        expected = (size, *actions.shape[:-1], 1)
        if q.shape != expected:
            raise ValueError(
                f"{owner}: qvalue_network must return {out_key!r} of shape "
                f"{list(expected[1:])} (one value per action, last dimension 1), "
                f"got {list(q.shape[1:])}"
            )
        return q.reshape(*q.shape[: 1 + self._num_leading], *rows)

    @torch.no_grad()
    def qvalue(self, tensordict: TensorDictBase, actions: Tensor) -> Tensor:
        """Learnt Q(s, a), reduced over the ensemble, ``[*B]`` or ``[*B, K]``: for figures.

        Args:
            tensordict: states, batch size ``[*B]``.
            actions: one per state, ``[*B, A]``, or K per state, ``[*B, K, A]``.
        """
        q = self._qvalues(self.qvalue_network_params, self._states(tensordict), actions)
        return self.ensemble_reduction(q, 0)

    def _make_vmap(self) -> None:
        """Nothing to make, though ``set_vmap_randomness`` asks: each net draws its own noise."""

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> SoftActorCritic:
        """Move or cast, with the buffers of the actor and of the encoder, which is part of it."""
        super()._apply(fn)
        move_buffers(self.actor_network, self.actor_network_params)
        if self.encoder is not None:
            move_buffers(self.encoder, self.encoder_params)
        return self

    # Keys

    @property
    def state_keys(self) -> list[NestedKey]:
        """Keys that describe a state: what encoder and networks read, without the action."""
        if self.encoder is None:
            return self._read_keys
        given = [key for key in self._read_keys if key not in self.encoder.out_keys]
        return list(dict.fromkeys([*self.encoder.in_keys, *given]))

    @property
    def _read_keys(self) -> list[NestedKey]:
        """What the networks behind the encoder read of a state."""
        keys = [key for name in self._state_readers for key in getattr(self, name).in_keys]
        return [k for k in dict.fromkeys(keys) if k != self.tensor_keys.action]
