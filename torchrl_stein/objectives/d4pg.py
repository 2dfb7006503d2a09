"""D4PG (Barth-Maron et al. 2018, arXiv:1804.08617) as a TorchRL loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams, unravel_key
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives import DDPGLoss, ValueEstimators

from torchrl_stein._checks import (
    check_choice,
    check_columns,
    check_count,
    check_discounts,
    check_finite,
    check_keys,
    check_number,
    check_type,
)
from torchrl_stein._torchrl import priority_weight, reduce_loss
from torchrl_stein.functional import project_to_support

__all__ = ["D4PGLoss"]


class D4PGLoss(DDPGLoss):
    r"""DDPG with a critic that knows the distribution of returns: a categorical on fixed atoms.

    ``loss_value`` = KL(Phi T Z' || Z(s, a)), with T Z' = r + gamma^m Z_target(s', pi_target(s'))
    and Phi the projection onto the atoms

    ``loss_actor`` = - E[Z(s, pi(s))]

    For returns over n steps give it data of :class:`~torchrl_stein.envs.NStepReturns`: m is
    ``steps_to_next_obs`` of the batch, and 1 without that entry.

    Args:
        actor_network: reads a state and writes the action; deterministic.
        value_network: reads state and action, writes ``state_action_value``, the logits of the
            atoms, ``[*B, N]``: ``ValueOperator(net, in_keys=["observation", "action"])`` with a
            network of N outputs. Both networks are trained in place.

    Keyword Args:
        v_min: the lowest atom, in units of the discounted return.
        v_max: the highest, > v_min. Returns beyond them count as these; ``clipped_mass`` says how
            often.
        num_atoms: N >= 2.
        delay_actor: pi_target from target parameters, for HardUpdate or SoftUpdate.
        delay_value: likewise Z_target.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch.

    Raises:
        TypeError, ValueError: for an argument of another kind or out of its range and, at the call,
            for rewards, ends, steps or logits of another shape and an entry that is not finite
            (looked at on a CPU only).
        KeyError: at the call, if the batch lacks a key.

    Writes ``loss_value``, ``loss_actor`` and, detached, ``q_value``, the mean of E[Z(s, a)], and
    ``clipped_mass``, the part of T Z' beyond the atoms. ``td_error``, the divergence of each
    transition, is written to the input: the priority of Hessel et al. 2018 (arXiv:1710.02298).
    ``priority_weight`` of a sample weighs ``loss_value`` alone, as in Algorithm 1, in a weighted
    mean. The value estimator is TD(0).

    Source: Barth-Maron et al. 2018 (arXiv:1804.08617), Algorithm 1. Differs: they have the
    cross-entropy, the divergence plus the entropy of the target, which has the same gradient but is
    not 0 where the critic is right.

    Example:
        >>> from torch import nn
        >>> from torchrl.modules import MLP, ValueOperator
        >>> actor = TensorDictModule(
        ...     nn.Sequential(nn.Linear(3, 2), nn.Tanh()), ["observation"], ["action"]
        ... )
        >>> critic = ValueOperator(MLP(5, 51, num_cells=[64]), in_keys=["observation", "action"])
        >>> loss = D4PGLoss(actor, critic, v_min=-10.0, v_max=10.0)
        >>> zeros = torch.zeros(8, 1)
        >>> losses = loss(TensorDict({
        ...     "observation": torch.randn(8, 3), "action": torch.zeros(8, 2),
        ...     "next": {"observation": torch.randn(8, 3), "reward": zeros,
        ...              "done": zeros.bool(), "terminated": zeros.bool()}}, [8]))
        >>> (losses["loss_value"] + losses["loss_actor"]).backward()
    """

    @dataclass
    class _AcceptedKeys(DDPGLoss._AcceptedKeys):
        """Keys that ``set_keys`` accepts, with their defaults."""

        steps_to_next_obs: NestedKey = "steps_to_next_obs"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    SUPPORTED_VALUE_ESTIMATORS = (ValueEstimators.TD0,)

    support: Tensor

    def __init__(
        self,
        actor_network: TensorDictModule,
        value_network: TensorDictModule,
        *,
        v_min: float,
        v_max: float,
        num_atoms: int = 51,
        delay_actor: bool = True,
        delay_value: bool = True,
        reduction: str = "mean",
    ) -> None:
        networks = {"actor_network": actor_network, "value_network": value_network}
        check_type("D4PGLoss", "a TensorDictModule", TensorDictModuleBase, **networks)
        check_number("D4PGLoss", v_min=v_min)
        check_number("D4PGLoss", above=float(v_min), v_max=v_max)
        check_count("D4PGLoss", at_least=2, num_atoms=num_atoms)
        check_choice("D4PGLoss", ("mean", "sum", "none"), reduction=reduction)
        super().__init__(
            actor_network,
            value_network,
            delay_actor=delay_actor,
            delay_value=delay_value,
            reduction=reduction,
        )
        self.out_keys = ["loss_actor", "loss_value", "q_value", "clipped_mass"]
        first = next(value_network.parameters(), None)
        device = None if first is None else first.device
        self.register_buffer("support", torch.linspace(v_min, v_max, num_atoms, device=device))

    # The terms; forward of DDPGLoss calls them.

    def loss_value(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """``loss_value`` and diagnostics of transitions ``[*B]``."""
        self._check_batch(tensordict)
        target, clipped = self._target(tensordict)
        states = tensordict.select(*self.value_network.in_keys)
        logits = self._logits(self.value_network_params, states)
        log_prob = logits.log_softmax(-1)
        divergence = (torch.xlogy(target, target) - target * log_prob).sum(-1)
        # Rounding may leave less than 0, of which a sampler could take no power.
        tensordict.set(self.tensor_keys.priority, divergence.detach().clamp_min(0))
        weights = priority_weight(self, tensordict, like=divergence)
        with torch.no_grad():
            metrics = {"q_value": self._mean(logits), "clipped_mass": clipped}
            metrics = {
                name: reduce_loss(self, value, tensordict, reduction="mean")
                for name, value in metrics.items()
            }
        return reduce_loss(self, divergence, tensordict, weights=weights), metrics

    def loss_actor(self, tensordict: TensorDictBase) -> tuple[Tensor, dict[str, Tensor]]:
        """``loss_actor`` of states ``[*B]``."""
        states = self._act(self.actor_network_params, tensordict)
        logits = self._logits(self.value_network_params.detach(), states)
        return reduce_loss(self, -self._mean(logits), tensordict), {}

    @torch.no_grad()
    def target_distribution(self, tensordict: TensorDictBase) -> Tensor:
        """Phi T Z': what Z(s, a) of transitions ``[*B]`` is to become, ``[*B, N]``."""
        self._check_batch(tensordict)
        return self._target(tensordict)[0]

    @torch.no_grad()
    def _target(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Phi T Z' [*B, N], and the mass of T Z' beyond the support [*B]."""
        following = self._act(self.target_actor_network_params, tensordict.get("next"))
        probabilities = self._logits(self.target_value_network_params, following).softmax(-1)
        atoms = self._target_atoms(tensordict)
        beyond = (atoms < self.support[0]) | (atoms > self.support[-1])
        projected = project_to_support(probabilities, atoms, self.support)
        return projected, (probabilities * beyond).sum(-1)

    def _target_atoms(self, tensordict: TensorDictBase) -> Tensor:
        """r + gamma^m (1 - terminated) z of every atom z, by TorchRL's estimator: [*B, N]."""
        shape = (*tensordict.batch_size, len(self.support))
        # Each atom is a value for itself; the estimator broadcasts nothing.
        each = TensorDict({}, tensordict.batch_size)
        for key in self._outcome_keys:
            each.set(key, tensordict.get(key).expand(shape))
        steps = tensordict.get(self.tensor_keys.steps_to_next_obs, None)
        if steps is not None:
            steps = steps.reshape(*tensordict.batch_size, 1).expand(shape)
            each.set(self.value_estimator.tensor_keys.steps_to_next_obs, steps)
        atoms: Tensor = self.value_estimator.value_estimate(
            each, next_value=self.support.expand(shape)
        )
        return atoms

    def _act(self, params: TensorDictParams, tensordict: TensorDictBase) -> TensorDictBase:
        """States with the actor's actions: what the critic reads."""
        states = tensordict.select(*self.actor_in_keys, *self.value_exclusive_keys).detach()
        with params.to_module(self.actor_network, preserve_module_state=False):
            acted: TensorDictBase = self.actor_network(states)
        return acted

    def _logits(self, params: TensorDictParams, states: TensorDictBase) -> Tensor:
        key = self.tensor_keys.state_action_value
        with params.to_module(self.value_network, preserve_module_state=False):
            logits = self.value_network(states).get(key, None)
        if logits is None:
            raise KeyError(
                f"D4PGLoss: value_network must write {key!r}, it writes "
                f"{list(self.value_network.out_keys)}"
            )
        expected = (*states.batch_size, len(self.support))
        if logits.shape != expected:
            raise ValueError(
                f"D4PGLoss: value_network must return {key!r} of shape {list(expected)}, a logit "
                f"for each of the {len(self.support)} atoms, got {list(logits.shape)}"
            )
        return logits

    def _mean(self, logits: Tensor) -> Tensor:
        """E[Z], [*B]."""
        return (logits.softmax(-1) * self.support).sum(-1)

    # Keys and the value estimator

    @property
    def _outcome_keys(self) -> list[NestedKey]:
        keys = self.tensor_keys
        ends = (keys.reward, keys.done, keys.terminated)
        return [unravel_key(("next", key)) for key in ends]

    def _check_batch(self, tensordict: TensorDictBase) -> None:
        steps = self.tensor_keys.steps_to_next_obs
        check_keys("D4PGLoss", tensordict, [key for key in self.in_keys if key != steps])
        check_columns("D4PGLoss", tensordict, self._outcome_keys)
        check_finite("D4PGLoss", {key: tensordict.get(key, None) for key in self.in_keys})
        shape = getattr(tensordict.get(steps, None), "shape", tensordict.batch_size)
        if shape not in (tensordict.batch_size, (*tensordict.batch_size, 1)):
            raise ValueError(
                f"D4PGLoss: {steps!r} must have shape [*B] = {list(tensordict.batch_size)}, got "
                f"{list(shape)}"
            )

    def _set_in_keys(self) -> None:
        states = [*self.actor_in_keys, *self.value_exclusive_keys]
        following = [unravel_key(("next", key)) for key in states]
        read = [*states, *self.value_network.in_keys, *self._outcome_keys, *following]
        self._in_keys = [*dict.fromkeys(read), self.tensor_keys.steps_to_next_obs]

    def make_value_estimator(
        self, value_type: ValueEstimators | None = None, **hyperparams: Any
    ) -> D4PGLoss:
        """Choose the discount, ``gamma``, of TD(0)."""
        check_discounts("D4PGLoss", hyperparams)
        super().make_value_estimator(value_type, **hyperparams)
        return self
