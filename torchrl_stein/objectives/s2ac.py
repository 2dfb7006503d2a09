"""Stein soft actor-critic (Messaoud et al. 2024, arXiv:2405.00987) as a TorchRL loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from torch import Tensor

from torchrl_stein._checks import check_type
from torchrl_stein.functional import entropy_regularized_value
from torchrl_stein.modules.svgd_actor import SVGDActor

from .soft_actor_critic import SoftActorCritic
from .temperature import EntropyTarget, LearntTemperature

__all__ = ["S2ACLoss"]


class S2ACLoss(SoftActorCritic):
    r"""Soft actor-critic whose policy climbs the critic by SVGD and knows its own density.

    ``loss_qvalue`` = 1/2 (r + gamma V(s') - Q(s, a))^2, summed over the ensemble, with
    V(s') = mean_i [min Q_target(s', a'_i) - alpha log pi(a'_i | s')]

    ``loss_actor`` = mean_i [alpha log pi(a_i | s) - min Q(s, a_i)]

    a_i are the interacting particles of an :class:`~torchrl_stein.modules.SVGDActor`. The gradient
    of ``loss_actor`` goes through all of their steps, with second and third derivatives of Q, to
    the Gaussian from which they start; Q itself gets none. Q-networks must be smooth (SiLU, ELU,
    tanh). With ``num_steps=0`` the loss is that of SAC.

    Args:
        actor_network: an ``SVGDActor`` over the same Q-networks. It is trained in place. Both terms
            climb the Q of ``qvalue_network_params``; at the end of a call they are copied to the
            policy, with the temperature, so that what acts is one optimizer step behind. Of S seeds
            with learnt temperatures it has one for each, as :class:`EntropyTarget` has.
        qvalue_network: reads states and action, writes ``state_action_value`` of shape [*B, 1]; a
            sequence is an ensemble.

    Keyword Args:
        temperature: alpha > 0, in units of the return; None is that of the actor. A buffer, unless
            an :class:`EntropyTarget` says how it is learnt.
        encoder: see :class:`SoftQLoss`; the actor's critic reads features, too.
        delay_qvalue: V from target parameters, for HardUpdate or SoftUpdate.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch.
        deactivate_vmap: loop over the ensemble instead of calling it at once.

    Raises:
        TypeError, ValueError, KeyError: as :class:`SoftQLoss`.

    Writes ``loss_qvalue``, ``loss_actor`` and, detached, ``q_value``, ``soft_value`` (mean of
    V(s')), ``entropy`` (mean of -log pi, a lower bound of the policy's entropy) and ``alpha``.
    ``td_error`` is written to the input.

    Source: Messaoud et al. 2024 (arXiv:2405.00987), section 3 and algorithm 1. Differs: the density
    has the trace of the Hessian, see :func:`torchrl_stein.functional.svgd_log_det`.

    Example:
        >>> from tensordict.nn import NormalParamExtractor
        >>> from torch import nn
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> qvalue = ValueOperator(
        ...     MLP(3 + 2, 1, num_cells=[8], activation_class=nn.SiLU),
        ...     in_keys=["observation", "action"],
        ... )
        >>> network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
        >>> actor = SVGDActor(
        ...     network, qvalue, action_spec=Bounded(-1.0, 1.0, shape=(2,)), temperature=0.2
        ... )
        >>> loss = S2ACLoss(actor, qvalue, delay_qvalue=False)
        >>> zeros = torch.zeros(8, 1)
        >>> losses = loss(TensorDict({
        ...     "observation": torch.randn(8, 3), "action": torch.zeros(8, 2),
        ...     "next": {"observation": torch.randn(8, 3), "reward": zeros,
        ...              "done": zeros.bool(), "terminated": zeros.bool()}}, [8]))
        >>> (losses["loss_qvalue"] + losses["loss_actor"]).backward()
    """

    actor_network: SVGDActor

    def __init__(
        self,
        actor_network: SVGDActor,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        *,
        temperature: float | EntropyTarget | None = None,
        encoder: TensorDictModuleBase | None = None,
        delay_qvalue: bool = True,
        reduction: str = "mean",
        deactivate_vmap: bool = False,
    ) -> None:
        check_type("S2ACLoss", "an SVGDActor", SVGDActor, actor_network=actor_network)
        if isinstance(temperature, LearntTemperature):  # its density is known, its distances unused
            check_type("S2ACLoss", "an EntropyTarget", EntropyTarget, temperature=temperature)
        if temperature is None and actor_network.temperature.ndim:
            raise ValueError(
                "S2ACLoss: temperature must be given for an actor with several, got None and "
                f"temperatures of shape {list(actor_network.temperature.shape)}"
            )
        super().__init__(
            actor_network,
            qvalue_network,
            temperature=float(actor_network.temperature) if temperature is None else temperature,
            encoder=encoder,
            delay_qvalue=delay_qvalue,
            delay_encoder=delay_qvalue,
            reduction=reduction,
            deactivate_vmap=deactivate_vmap,
        )
        if len(actor_network.critics) != self.num_qvalue_nets:
            raise ValueError(
                f"S2ACLoss: qvalue_network must be the {len(actor_network.critics)} network(s) of "
                f"the actor, got {self.num_qvalue_nets}"
            )
        self.out_keys = ["loss_qvalue", "loss_actor", "q_value", "soft_value", "entropy", "alpha"]
        if self._learnt is not None:
            self.out_keys += ["loss_alpha"]
            self._learnt.check_target("S2ACLoss", actor_network)
        self._set_in_keys()
        self._inform_actor()

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Losses and diagnostics of a batch of transitions [*B]; see the class."""
        self._check_batch(tensordict)
        states = self._states(tensordict)
        with torch.no_grad():
            following, of_target = self._next_states(tensordict)
            actions, log_prob = self._act(following)
            q = self._qvalues(self.target_qvalue_network_params, of_target, actions).amin(0)
            value = entropy_regularized_value(q, log_prob, self.temperature)
        q = self._taken_qvalues(tensordict, states)
        bellman_error, of_q = self._bellman_error(tensordict, value, q)
        terms, of_actor = self._actor_terms(tensordict, self._fixed(states))
        self._inform_actor()
        terms |= {"loss_qvalue": bellman_error}
        metrics = {"soft_value": self._mean(value, tensordict), **of_q, **of_actor}
        return self._reduced(tensordict, terms, metrics)

    def _actor_terms(
        self, tensordict: TensorDictBase, states: TensorDictBase
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """mean_i [alpha log pi(a_i) - min Q(a_i)], [*B], the loss of alpha, and the entropy."""
        actions, log_prob = self._act(states)
        q = self._fixed_qvalue(states, actions)
        terms = {"loss_actor": -entropy_regularized_value(q, log_prob, self.temperature)}
        entropy = -log_prob.detach().mean(-1)
        if self._learnt is not None:
            terms["loss_alpha"] = self._learnt.loss(self.log_alpha, entropy, self.actor_network)
        return terms, {"entropy": self._mean(entropy, tensordict)}

    def _act(self, states: TensorDictBase) -> tuple[Tensor, Tensor]:
        """K actions of the policy with its present parameters, and their log densities."""
        actor = self.actor_network
        with self._acting():
            return actor.sample_with_log_prob(
                states,
                actor.num_action_samples,
                target=lambda s, a: self._fixed_qvalue(s, a) / self._alpha_of_actions,
            )

    def _fixed_qvalue(self, states: TensorDictBase, actions: Tensor) -> Tensor:
        """min Q of the present parameters, which get no gradient, at states [*B]."""
        return self._qvalues(self.qvalue_network_params.detach(), states, actions).amin(0)

    def _inform_actor(self) -> None:
        self.actor_network.copy_critic(self.qvalue_network_params, temperature=self.temperature)
