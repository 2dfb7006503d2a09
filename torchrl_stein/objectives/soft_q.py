"""Soft Q-learning (Haarnoja et al. 2017, arXiv:1702.08165) as a TorchRL loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, dispatch
from torch import Tensor

from torchrl_stein._checks import (
    check_choice,
    check_columns,
    check_count,
    check_finite,
    check_keys,
    check_number,
    check_pair,
    check_type,
)
from torchrl_stein._torchrl import priority_weight, reduce_loss, release
from torchrl_stein.functional import svgd_direction
from torchrl_stein.kernels import Kernel, MedianBandwidth, RBFKernel
from torchrl_stein.modules import SamplingActor

from ._particle_space import PARTICLE_SPACES
from ._qvalue_loss import QValueLoss
from ._score import score
from ._value_proposal import VALUE_PROPOSALS, VALUE_TARGETS, ValueProposal

__all__ = ["SoftQLoss"]


class SoftQLoss(QValueLoss):
    r"""Soft Q-learning: a soft Bellman error and an amortized SVGD step for the sampler.

    ``loss_qvalue`` = 1/2 (r + gamma V(s') - Q(s, a))^2 with
    V(s') = alpha log E_{a' ~ q}[exp(Q_target(s', a') / alpha) / q(a')]     eqs. (10), (11)

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
            initialised anew by their layers' own reset. The minimum over it is used in V and phi.
        temperature: alpha > 0, in units of the return. A buffer; assign to it to anneal.
        kernel: default ``RBFKernel(MedianBandwidth(floor=1e-3))``.
        num_particles: K = M, or a pair (K, M): K particles exert the force, M are moved.
        num_value_samples: samples of a' per state for V(s').
        value_proposal: q: ``"uniform"`` on the box, ``"actor"`` (appendix C.2; for a trained
            sampler), or a callable ``(actor, states, K) -> (actions, log densities)``.
        value_target: V(s'), from the same samples: ``"soft"``, eq. (10); or those of Zhang et al.
            2018 (arXiv:1808.03030): ``"boltzmann"``, E_pi[Q] of pi ~ exp(Q/alpha), whose fixed
            point is that policy's ordinary value (their proposition 8), or ``"entropy_free"``,
            eq. (10) less alpha times the entropy of q (their formula as printed).
        squash: coordinates z of the particles: ``"unsquashed"`` (actions follow exp(Q/alpha)),
            ``"reference"`` (the released code: exp(Q/alpha) prod(1 - a^2) on [-1, 1]) or
            ``"none"`` (no correction at the box's faces).
        delay_qvalue: V from target parameters, for HardUpdate or SoftUpdate.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch.
        deactivate_vmap: loop over the ensemble instead of vmap.

    Raises:
        TypeError: if ``actor_network`` is not a SamplingActor, ``kernel`` no Kernel or a number
            none, such as a count of 2.5.
        ValueError: for counts < 1, temperature <= 0, an unknown option, a kernel that compares
            policies or, at the call, an action of another dimension, an entry that is not finite
            (looked at on the CPU only: no host sync) or a Q-network that does not return [*B, 1].
        KeyError: at the call, if the batch lacks a key.

    Writes ``loss_qvalue``, ``loss_actor`` and, detached, ``q_value``, ``soft_value`` (mean of
    V(s'), whichever it is), ``alpha``, ``kernel_offdiag`` (mean kernel between the two sets),
    ``repulsion_ratio`` (|repulsion| / |drive|) and, for kernels that have one,
    ``kernel_bandwidth``: all of them over the transitions that no mask excludes.
    ``td_error`` is written to the input.

    Differs from the paper: phi uses the score of exp(Q/alpha), so it is eq. (13) divided by
    alpha, as in its appendix C.1; the squash, see above.

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

    _schedulable_buffers = frozenset({"temperature"})
    _value_targets = VALUE_TARGETS
    actor_network: SamplingActor
    temperature: Tensor

    def __init__(
        self,
        actor_network: SamplingActor,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        *,
        num_qvalue_nets: int = 1,
        temperature: float = 1.0,
        kernel: Kernel | None = None,
        num_particles: int | tuple[int, int] = 32,
        num_value_samples: int = 50,
        value_proposal: str | ValueProposal = "uniform",
        value_target: str = "soft",
        squash: str = "unsquashed",
        delay_qvalue: bool = True,
        reduction: str = "mean",
        deactivate_vmap: bool = False,
    ) -> None:
        owner = type(self).__name__  # of a subclass too
        if not isinstance(actor_network, SamplingActor):
            raise TypeError(
                f"{owner}: actor_network must be a SamplingActor such as AmortizedSVGDActor, "
                f"got {type(actor_network).__name__}"
            )
        kernel = RBFKernel(MedianBandwidth(floor=1e-3)) if kernel is None else kernel
        check_type(owner, "a Kernel", Kernel, kernel=kernel)
        _check_kernel_of_actions(owner, kernel)
        num_particles = tuple(num_particles) if isinstance(num_particles, list) else num_particles
        check_pair(owner, num_particles=num_particles)
        check_count(owner, num_value_samples=num_value_samples, num_qvalue_nets=num_qvalue_nets)
        check_number(owner, above=0, temperature=temperature)
        check_choice(owner, PARTICLE_SPACES, squash=squash)
        if not callable(value_proposal):
            check_choice(owner, VALUE_PROPOSALS, value_proposal=value_proposal)
            value_proposal = VALUE_PROPOSALS[value_proposal]
        check_choice(owner, self._value_targets, value_target=value_target)
        super().__init__(
            actor_network,
            qvalue_network,
            num_qvalue_nets=num_qvalue_nets,
            delay_qvalue=delay_qvalue,
            reduction=reduction,
            deactivate_vmap=deactivate_vmap,
        )
        pair = num_particles if isinstance(num_particles, tuple) else (num_particles,) * 2
        self.num_fixed, self.num_moved = pair
        self.num_value_samples = num_value_samples
        self.kernel, self.space = kernel, PARTICLE_SPACES[squash]
        self.value_proposal = value_proposal
        self.value_target = self._value_targets[value_target]
        self.register_buffer("temperature", actor_network.low.new_tensor(float(temperature)))
        self.out_keys = ["loss_qvalue", "loss_actor", "q_value", "soft_value", "alpha"]
        self.out_keys += ["kernel_offdiag", "repulsion_ratio"]
        self.out_keys += ["kernel_bandwidth"] * kernel.has_bandwidth

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "temperature":
            check_number(type(self).__name__, above=0, temperature=value)
            value = float(value)  # of a tensor too: the buffer keeps its own dtype and device
        super().__setattr__(name, value)

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Losses and diagnostics of a batch of transitions [*B]; see the class."""
        self._check_batch(tensordict)
        out: dict[str, Tensor] = {}
        terms = self._terms(tensordict, out)
        weights = priority_weight(self, tensordict, like=terms["loss_qvalue"])
        for name, term in terms.items():
            out[name] = reduce_loss(self, term, tensordict, weights=weights)
        out["alpha"] = self.temperature.detach().clone()
        losses = TensorDict({key: out[key] for key in self.out_keys if key in out}, [])
        release(
            self,
            tensordict,
            losses,
            "actor_network_params",
            "qvalue_network_params",
            "target_qvalue_network_params",
        )
        return losses

    def actor_loss(self, tensordict: TensorDictBase) -> TensorDict:
        """The sampler's loss alone, which needs states and no transitions.

        Args:
            tensordict: states, batch size ``[*B]``; not written to.

        Returns:
            TensorDict: ``loss_actor`` and the kernel's diagnostics, see the class.

        Raises:
            KeyError: if the batch lacks a key of ``state_keys``.
        """
        owner = type(self).__name__
        check_keys(owner, tensordict, self.state_keys)
        check_finite(owner, {key: tensordict.get(key) for key in self.state_keys})
        out: dict[str, Tensor] = {}
        term = self._svgd_surrogate(tensordict, out)
        return TensorDict({"loss_actor": reduce_loss(self, term, tensordict), **out}, [])

    def _terms(self, tensordict: TensorDictBase, out: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of every transition, [*B] each; diagnostics go to ``out``."""
        target = self._target(tensordict, out)
        return {
            "loss_qvalue": self._bellman_error(tensordict, target, out),
            "loss_actor": self._svgd_surrogate(tensordict, out),
        }

    def _check_batch(self, tensordict: TensorDictBase) -> None:
        owner, keys = type(self).__name__, self.tensor_keys
        check_keys(owner, tensordict, self.in_keys)
        action_dim, expected = tensordict.get(keys.action).shape[-1], self.actor_network.action_dim
        if action_dim != expected:
            raise ValueError(
                f"{owner}: {keys.action!r} of the batch must have the {expected} dimensions of "
                f"the actor's action_spec, got {action_dim}"
            )
        check_columns(owner, tensordict, self.outcome_keys)
        check_finite(owner, {key: tensordict.get(key) for key in self.in_keys})

    def _mean(self, values: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Of ``[*B]``, over the transitions that no mask excludes: a diagnostic."""
        return reduce_loss(self, values.detach(), tensordict, reduction="mean")

    @torch.no_grad()
    def _target(self, tensordict: TensorDictBase, out: dict[str, Tensor]) -> Tensor:
        """r + gamma V(s'), [*B]: no V(s') where terminated, though where truncated."""
        successors = tensordict.get("next").select(*self.state_keys)
        with self.actor_network_params.to_module(self.actor_network, preserve_module_state=False):
            actions, log_proposal = self.value_proposal(
                self.actor_network, successors, self.num_value_samples
            )
        q = self._qvalues(self.target_qvalue_network_params, successors, actions).amin(0)
        value = self.value_target(q, log_proposal, self.temperature)
        out["soft_value"] = self._mean(value, tensordict)
        return self._bootstrap(tensordict, value)

    def _bootstrap(self, tensordict: TensorDictBase, value: Tensor) -> Tensor:
        """Targets [*B] from V(s') [*B] by the value estimator."""
        transitions = tensordict.copy().set(("next", self.tensor_keys.value), value.unsqueeze(-1))
        return self.value_estimator.value_estimate(transitions).squeeze(-1)

    def _bellman_error(
        self, tensordict: TensorDictBase, target: Tensor, out: dict[str, Tensor]
    ) -> Tensor:
        """1/2 (target - Q)^2 of eq. (11), summed over the ensemble, [*B]."""
        action = tensordict.get(self.tensor_keys.action)
        prediction = self._qvalues(self.qvalue_network_params, tensordict, action)
        squared = (target - prediction).square()
        out["q_value"] = self._mean(prediction.mean(0), tensordict)
        tensordict.set(self.tensor_keys.priority, squared.detach().amax(0))
        return 0.5 * squared.sum(0)

    def _svgd_surrogate(self, tensordict: TensorDictBase, out: dict[str, Tensor]) -> Tensor:
        """-(1/M) sum_i z_i . sg(phi(z_i)), [*B]: its gradient is minus eq. (14)."""
        states = tensordict.select(*self.state_keys)
        actor, space = self.actor_network, self.space
        with self.actor_network_params.to_module(actor, preserve_module_state=False):
            of_fixed, of_moved = actor.draw_noise_sets(states, [self.num_fixed, self.num_moved])
            with torch.no_grad():
                fixed = space.particles(actor.unsquashed(states, of_fixed))
            moved = space.particles(actor.unsquashed(states, of_moved))
            low, high = actor.low, actor.high

        def log_density(z: Tensor) -> Tensor:
            actions = space.actions(z, low, high)
            q = self._qvalues(self._cached_detached_qvalue_network_params, states, actions).amin(0)
            return (q / self.temperature + space.log_volume(z, low, high)).sum()

        scores = score(log_density, fixed)
        with torch.no_grad():
            evaluation = self.kernel.evaluate(fixed, moved.detach())
            force = svgd_direction(evaluation.gram, evaluation.weighted_repulsion(None), scores)
            out["kernel_offdiag"] = self._mean(evaluation.gram.mean((-2, -1)), tensordict)
            drive, repulsion = (self._mean(f.square().sum((-2, -1)), tensordict) for f in force)
            out["repulsion_ratio"] = (repulsion / drive).sqrt()
            if evaluation.bandwidth is not None:
                each = evaluation.bandwidth.expand(tensordict.batch_size)
                out["kernel_bandwidth"] = self._mean(each, tensordict)
        return -(moved * force.total).sum(-1).mean(-1)


def _check_kernel_of_actions(owner: str, kernel: Kernel) -> None:
    for part in kernel.modules():
        if isinstance(part, Kernel) and type(part).observe is not Kernel.observe:
            raise ValueError(
                f"{owner}: kernel must compare actions by themselves, got {type(part).__name__}, "
                "which observes a batch to compare policies"
            )
