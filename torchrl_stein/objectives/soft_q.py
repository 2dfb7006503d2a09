"""Soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165) as a TorchRL loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase, dispatch
from torch import Tensor

from torchrl_stein._checks import check_count, check_type
from torchrl_stein.functional import (
    boltzmann_value,
    entropy_regularized_value,
    expected_value,
    log_distance,
    mellowmax_value,
    soft_value,
)
from torchrl_stein.kernels import Kernel
from torchrl_stein.modules import SamplingActor

from ._q_ensemble import population_of
from ._squash import Squash
from .action_forces import ActionForce, svgd_force
from .amortized_svgd import AmortizedSVGD
from .soft_critic import EnsembleReduction
from .temperature import LearntTemperature

__all__ = ["SoftQLoss", "actor_proposal", "actor_samples", "log_distance_proposal"]
__all__ += ["uniform_proposal"]

ValueTarget = Callable[[Tensor, Any, Tensor], Tensor]
"""``target(Q [*B, K], log densities of the K actions [*B, K], alpha) -> V [*B]``.

``expected_value`` takes None for the densities."""

ValueProposal = Callable[[SamplingActor, TensorDictBase, int], tuple[Tensor, Tensor | None]]
"""``proposal(actor, states, K) -> (actions [*B, K, A], log densities [*B, K] or None)``."""


def uniform_proposal(
    actor: SamplingActor, states: TensorDictBase, num_samples: int
) -> tuple[Tensor, Tensor]:
    """K actions per state ``[*B]``, uniform on the actor's box, and their log densities.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> box = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = AmortizedSVGDActor(torch.nn.Linear(5, 2), action_spec=box)
        >>> actions, log_density = uniform_proposal(actor, TensorDict({}, [7]), 10)
        >>> actions.shape, bool((log_density.exp() == 1 / 4).all())
        (torch.Size([7, 10, 2]), True)
    """
    check_count("uniform_proposal", num_samples=num_samples)
    shape = (*states.batch_size, num_samples, actor.action_dim)
    width = actor.high - actor.low
    unit = torch.rand(shape, device=width.device, dtype=width.dtype)
    return actor.low + width * unit, -width.log().sum().expand(shape[:-1])


def actor_proposal(
    actor: SamplingActor, states: TensorDictBase, num_samples: int
) -> tuple[Tensor, Tensor]:
    """K actions per state of the actor and their log densities, appendix C.2: once it is trained.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> box = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = AmortizedSVGDActor(torch.nn.Linear(5, 2), action_spec=box)
        >>> states = TensorDict({"observation": torch.zeros(7, 3)}, [7])
        >>> [part.shape for part in actor_proposal(actor, states, 10)]
        [torch.Size([7, 10, 2]), torch.Size([7, 10])]
    """
    return actor.sample_with_log_prob(states, num_samples)


def actor_samples(
    actor: SamplingActor, states: TensorDictBase, num_samples: int
) -> tuple[Tensor, None]:
    """K actions per state of the actor, without densities: for ``expected_value``.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> box = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = AmortizedSVGDActor(torch.nn.Linear(5, 2), action_spec=box)
        >>> states = TensorDict({"observation": torch.zeros(7, 3)}, [7])
        >>> actor_samples(actor, states, 10)[0].shape
        torch.Size([7, 10, 2])
    """
    return actor.sample(states, num_samples), None


def log_distance_proposal(
    actor: SamplingActor, states: TensorDictBase, num_samples: int
) -> tuple[Tensor, Tensor]:
    """K actions per state of the actor and, in the place of log densities, minus their diversity.

    That is R(s), the mean log-distance to K other actions in units of half the box, so that
    ``entropy_regularized_value`` is V(s) = mean of Q + alpha R(s), the target of DrAC (Wang et al.
    2025, arXiv:2511.01374); :class:`LogDistanceTarget` holds R at a value. No density is computed.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> box = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = AmortizedSVGDActor(torch.nn.Linear(5, 2), action_spec=box)
        >>> states = TensorDict({"observation": torch.zeros(7, 3)}, [7])
        >>> [part.shape for part in log_distance_proposal(actor, states, 10)]
        [torch.Size([7, 10, 2]), torch.Size([7, 10])]
    """
    check_count("log_distance_proposal", num_samples=num_samples)
    actions, others = actor.sample(states, 2 * num_samples).chunk(2, -2)
    half = 0.5 * (actor.high - actor.low)
    diversity = log_distance(actions / half, others / half)
    return actions, -diversity.unsqueeze(-1).expand(actions.shape[:-1])


# Expectations under the policy are of its own actions.
_PROPOSALS: dict[Any, ValueProposal] = {
    expected_value: actor_samples,
    entropy_regularized_value: actor_proposal,
}
# To which a diversity in the place of a density means nothing.
_OTHER_TARGETS = (expected_value, soft_value, boltzmann_value, mellowmax_value)


class SoftQLoss(AmortizedSVGD):
    r"""Soft Q-learning: a soft Bellman error and an amortized SVGD step for the sampler.

    ``loss_qvalue`` = 1/2 (r + gamma V(s') - Q(s, a))^2, eq. (11), with
    V(s') = alpha log E_{a' ~ q}[exp(Q_target(s', a') / alpha) / q(a')], eq. (10), for
    ``value_target=soft_value``; by default V(s') is the mean of Q_target(s', a') over the sampler's
    own actions, which needs few of them

    ``loss_actor`` = -(1/M) sum_i z_i . sg(phi(z_i)), phi the SVGD direction  eqs. (13), (14), C.1

    The value of ``loss_actor`` means nothing; its gradient moves the sampler's particles z_i along
    phi, which is estimated from a second, independent set of K particles.

    Args:
        actor_network: the sampler, an :class:`~torchrl_stein.modules.AmortizedSVGDActor` or
            another :class:`~torchrl_stein.modules.SamplingActor`.
        qvalue_network: reads states and action, writes ``state_action_value`` of shape [*B, 1].
            A sequence gives an ensemble with these initial weights. Actor and a single Q-network
            are trained in place; an ensemble lives in ``qvalue_network_params``.

    Keyword Args:
        num_qvalue_nets: size of the ensemble made from one network: the network itself and copies
            initialised anew by their layers' own reset.
        temperature: alpha > 0, in units of the return. A buffer; assign to it to anneal. Or how it
            is learnt: :class:`EntropyTarget` or :class:`LogDistanceTarget`; then ``log_alpha`` is a
            parameter of the loss.
        kernel: default ``RBFKernel(MedianBandwidth(floor=1e-3))``.
        num_action_samples: K = M actions per state of the SVGD step, or a pair (K, M): K exert the
            force, M are moved.
        num_value_samples: actions per state for V(s'). None: one for expectations under the
            sampler, 16 for the others, whose integral over the box has more variance.
        value_target: ``(Q, log densities, alpha) -> V``. Expectations over the sampler's own
            actions cost least and suit robots: ``expected_value``, the default, the ordinary value
            of the sampler, or ``entropy_regularized_value``. ``soft_value`` is eq. (10), for where
            the soft optimum is the point: several goals, composition, pretraining. Those of Zhang
            et al. 2018 (arXiv:1808.03030) are ``boltzmann_value``, whose fixed point is the
            ordinary value of the policy exp(Q / alpha), and ``mellowmax_value``.
        value_proposal: ``(actor, states, K) -> (actions, log densities)``, q. None is uniform on
            the box, and for the two expectations :func:`actor_samples` and :func:`actor_proposal`;
            :func:`log_distance_proposal` puts a diversity in the place of the entropy.
        force: what moves the particles: :func:`svgd_force`, :func:`repulsion_force` or
            :func:`log_distance_force`. Only the first samples exp(Q / alpha).
        ensemble_reduction: what is made of the ensemble in V and phi: ``torch.amin``, the minimum,
            or ``torch.mean``.
        squash: coordinates z of the particles: ``TanhSquash()``, the default (actions follow
            exp(Q/alpha)), ``BoxSquash(barrier=True)`` (the released code: exp(Q/alpha)
            prod(1 - a^2) on [-1, 1]) or ``BoxSquash(barrier=False)``.
        encoder: of large observations, such as pixels: a TensorDictModule that reads them and
            writes what the networks read. It is called once for a batch of states, not once for
            each of their actions. ``loss_qvalue`` trains it, nothing else does: the actor sees its
            features as they are. With ``delay_qvalue`` V(s') comes from a target encoder, which
            HardUpdate or SoftUpdate moves with the target Q-network; the actor draws a' by the
            present one. It is trained in place and stands once in ``loss.parameters()``, as
            ``encoder_params`` beside ``qvalue_network_params``. What acts on pixels is
            ``TensorDictSequential(encoder, actor, selected_out_keys=["action"])``.
        delay_qvalue: V from target parameters, for HardUpdate or SoftUpdate.
        joint_pass: CrossQ, for Q-networks with batch normalization: Q(s, a) and Q(s', a') in one
            pass in training mode, with the gradient of Q(s, a). Needs ``delay_qvalue=False`` and
            one action a' of the policy: others would see running statistics, and values then
            diverged (HalfCheetah). The actor's step sees them, and leaves them as they are. Without
            it Q-networks are called in the mode that they are in, and those in training mode change
            their statistics at every call. Rows that a mask excludes enter statistics.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch.
        deactivate_vmap: loop over the ensemble instead of vmap.

    Raises:
        TypeError, ValueError: for an argument of another kind or out of its range, a kernel that
            compares policies, an encoder of which Q-networks read nothing or that shares parameters
            with a network and, at the call, an action of another shape, an entry that is not finite
            (looked at on the CPU only: no host sync) or a Q-network of another shape.
        KeyError: at the call, if the batch lacks a key.

    Writes ``loss_qvalue``, ``loss_actor`` and, detached, ``q_value``, ``soft_value`` (mean of
    V(s'), whichever it is), ``alpha``, ``kernel_offdiag`` (mean kernel between the two sets),
    ``repulsion_ratio`` (|repulsion| / |drive|) and, for kernels that have one,
    ``kernel_bandwidth``: all of them over the transitions that no mask excludes. With a learnt
    temperature also ``loss_alpha`` and ``entropy`` or ``log_distance``. ``td_error`` is written to
    the input.

    Differs from the paper: phi uses the score of exp(Q/alpha), so it is eq. (13) divided by
    alpha, as in its appendix C.1; the squash, see above.

    Source of ``joint_pass``: Bhatt et al. 2024 (arXiv:1902.05605).

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> actor = AmortizedSVGDActor(
        ...     MLP(3 + 2, 2, num_cells=[64, 64]), action_spec=Bounded(-1.0, 1.0, shape=(2,))
        ... )
        >>> qvalue = ValueOperator(
        ...     MLP(3 + 2, 1, num_cells=[64, 64]), in_keys=["observation", "action"]
        ... )
        >>> loss = SoftQLoss(actor, qvalue, temperature=0.5, delay_qvalue=False)
        >>> zeros = torch.zeros(8, 1)
        >>> losses = loss(TensorDict({
        ...     "observation": torch.randn(8, 3), "action": torch.zeros(8, 2),
        ...     "next": {"observation": torch.randn(8, 3), "reward": zeros,
        ...              "done": zeros.bool(), "terminated": zeros.bool()}}, [8]))
        >>> (losses["loss_qvalue"] + losses["loss_actor"]).backward()
    """

    def __init__(
        self,
        actor_network: SamplingActor,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        *,
        num_qvalue_nets: int = 1,
        temperature: float | LearntTemperature = 1.0,
        kernel: Kernel | None = None,
        num_action_samples: int | tuple[int, int] = 4,
        num_value_samples: int | None = None,
        value_target: ValueTarget = expected_value,
        value_proposal: ValueProposal | None = None,
        force: ActionForce = svgd_force,
        ensemble_reduction: EnsembleReduction = torch.amin,
        squash: Squash | None = None,
        encoder: TensorDictModuleBase | None = None,
        delay_qvalue: bool = True,
        joint_pass: bool = False,
        reduction: str = "mean",
        deactivate_vmap: bool = False,
    ) -> None:
        expected = "a function such as soft_value"
        check_type("SoftQLoss", expected, Callable, value_target=value_target)
        if num_value_samples is None:
            num_value_samples = 1 if value_target in _PROPOSALS else 16
        check_count("SoftQLoss", num_value_samples=num_value_samples)
        if value_proposal is None:
            value_proposal = _PROPOSALS.get(value_target, uniform_proposal)
        expected = "a function such as uniform_proposal"
        check_type("SoftQLoss", expected, Callable, value_proposal=value_proposal)
        super().__init__(
            actor_network,
            qvalue_network,
            num_qvalue_nets=num_qvalue_nets,
            temperature=temperature,
            ensemble_reduction=ensemble_reduction,
            encoder=encoder,
            delay_qvalue=delay_qvalue,
            delay_encoder=delay_qvalue,
            reduction=reduction,
            deactivate_vmap=deactivate_vmap,
        )
        self._set_step(kernel, num_action_samples, force, squash)
        if value_target in _PROPOSALS and value_proposal is uniform_proposal:
            raise ValueError(
                f"SoftQLoss: value_target={value_target.__name__} must go with the sampler's own "
                f"actions, value_proposal={_PROPOSALS[value_target].__name__}; got uniform_proposal"
            )
        if value_proposal is log_distance_proposal and value_target in _OTHER_TARGETS:
            raise ValueError(
                "SoftQLoss: value_proposal=log_distance_proposal must go with "
                f"value_target=entropy_regularized_value, got {value_target.__name__}"
            )
        if joint_pass and delay_qvalue:
            raise ValueError(
                "SoftQLoss: delay_qvalue must be False with joint_pass=True, in which V comes from "
                "the same pass as Q, got True"
            )
        if joint_pass and value_proposal is uniform_proposal:
            raise ValueError(
                "SoftQLoss: value_proposal must draw actions of the policy with joint_pass=True, "
                "whose statistics the actor's step uses, such as actor_proposal; got "
                "uniform_proposal"
            )
        if joint_pass and num_value_samples > 1:
            raise ValueError(
                "SoftQLoss: num_value_samples must be 1 with joint_pass=True, one a' for each a, "
                f"got {num_value_samples}"
            )
        population = population_of(self.qvalue_network)
        if joint_pass and population is not None and population.layout == "flat":
            raise ValueError(
                'SoftQLoss: qvalue_network must have layout="leading" with joint_pass=True, which '
                'sets rows side by side; got a ParticleModule with layout="flat"'
            )
        self.value_target, self.num_value_samples = value_target, num_value_samples
        self.value_proposal, self.joint_pass = value_proposal, joint_pass
        if joint_pass:
            self.qvalue_network.eval()  # but for the joint pass
        self._set_in_keys()

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Losses and diagnostics of a batch of transitions [*B]; see the class."""
        self._check_batch(tensordict)
        states = self._states(tensordict)
        bellman_error, of_q = self._soft_bellman_error(tensordict, states)
        terms, of_step = self._actor_terms(tensordict, self._fixed(states))  # eqs. (13), (14)
        terms |= {"loss_qvalue": bellman_error}
        return self._reduced(tensordict, terms, {**of_q, **of_step})

    def qvalue_loss(self, tensordict: TensorDictBase) -> TensorDict:
        """``loss_qvalue`` alone, and its diagnostics: for updates in which the actor waits."""
        self._check_batch(tensordict)
        bellman_error, of_q = self._soft_bellman_error(tensordict, self._states(tensordict))
        return self._reduced(tensordict, {"loss_qvalue": bellman_error}, of_q)

    def _soft_bellman_error(
        self, tensordict: TensorDictBase, states: TensorDictBase
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Eqs. (10) and (11): an error [*B], and diagnostics."""
        drawn = self.value_proposal is not uniform_proposal
        following, of_target = self._next_states(tensordict, acted_on=drawn)
        with torch.no_grad(), self._acting():
            actions, log_density = self.value_proposal(
                self.actor_network, following, self.num_value_samples
            )
        if self.joint_pass:
            taken = self._action(tensordict)
            q, of_actions = self._joint_values(states, taken, following, actions)
        else:
            q = None
            with torch.no_grad():
                of_actions = self._qvalues(self.target_qvalue_network_params, of_target, actions)
        with torch.no_grad():
            of_actions = self.ensemble_reduction(of_actions, 0)
            value = self.value_target(of_actions, log_density, self.temperature)  # eq. (10)
        if q is None:
            q = self._taken_qvalues(tensordict, states)
        bellman_error, of_q = self._bellman_error(tensordict, value, q)  # eq. (11)
        return bellman_error, {"soft_value": self._mean(value, tensordict), **of_q}

    def _joint_values(
        self, states: TensorDictBase, taken: Tensor, following: TensorDictBase, actions: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Q(s, a) [N, *B] and, without gradient, Q(s', a') of one action [N, *B, 1]."""
        last = states.batch_dims - 1  # the dimensions before may be those of a population
        both = torch.cat([states, following], last)
        pair = torch.cat([taken, actions.squeeze(-2)], -2)
        self.qvalue_network.train(self.training)
        try:
            q, of_next = self._qvalues(self.qvalue_network_params, both, pair).chunk(2, -1)
        finally:
            self.qvalue_network.eval()
        return q, of_next.detach().unsqueeze(-1)
