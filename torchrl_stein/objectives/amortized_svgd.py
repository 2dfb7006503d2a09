"""The amortized SVGD step of a sampler: what moves the actor of both losses of soft Q-learning."""

from __future__ import annotations

from collections.abc import Callable

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_stein._checks import check_pair, check_type
from torchrl_stein.functional import amortized_surrogate
from torchrl_stein.functional.svgd import SVGDDirection
from torchrl_stein.kernels import Kernel, MedianBandwidth, RBFKernel
from torchrl_stein.kernels.base import Evaluation, observers

from ._squash import Squash, TanhSquash
from .action_forces import ActionForce, log_distance_force, svgd_force
from .soft_actor_critic import SoftActorCritic
from .temperature import LogDistanceTarget

__all__ = ["AmortizedSVGD"]


class AmortizedSVGD(SoftActorCritic):
    """A soft actor-critic whose sampler follows eqs. (13), (14) of soft Q-learning.

    Subclasses call ``_set_step`` behind the constructor.
    """

    def _set_step(
        self,
        kernel: Kernel | None,
        num_action_samples: int | tuple[int, int],
        force: ActionForce,
        squash: Squash | None,
    ) -> None:
        owner, pair = type(self).__name__, num_action_samples
        kernel = RBFKernel(MedianBandwidth(floor=1e-3)) if kernel is None else kernel
        check_type(owner, "a Kernel", Kernel, kernel=kernel)
        for name in observers(kernel):
            raise ValueError(
                f"{owner}: kernel must compare actions by themselves, got {name}, which observes a "
                "batch to compare policies"
            )
        check_pair(owner, num_action_samples=pair)
        check_type(owner, "a function such as svgd_force", Callable, force=force)
        squash = TanhSquash() if squash is None else squash
        check_type(owner, "a Squash such as TanhSquash()", Squash, squash=squash)
        self.kernel, self.force, self.squash = kernel, force, squash
        self.num_pushing, self.num_moved = pair if isinstance(pair, (tuple, list)) else (pair, pair)
        of_kernel = force is not log_distance_force
        self.out_keys += ["kernel_offdiag"] * of_kernel + ["repulsion_ratio"]
        self.out_keys += ["kernel_bandwidth"] * (of_kernel and kernel.has_bandwidth)
        if self._learnt is not None:
            self.out_keys += ["loss_alpha", self._learnt.measure_key]
            # Others than samplers of exp(Q / alpha) may be more spread than uniform actions.
            boltzmann = force is svgd_force and getattr(squash, "barrier", True)
            if boltzmann or not isinstance(self._learnt, LogDistanceTarget):
                self._learnt.check_target(owner, self.actor_network)

    def _actor_terms(
        self, tensordict: TensorDictBase, states: TensorDictBase
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """A surrogate [*B] whose gradient is minus eq. (14), and diagnostics of the step.

        With a learnt temperature also its loss [*B].
        """
        actor, squash = self.actor_network, self.squash
        alpha = self._alpha_of_actions
        with self._acting():
            pushing_noise, moved_noise = actor.draw_noise_sets(
                states, [self.num_pushing, self.num_moved]
            )
            with torch.no_grad():
                pushing = squash.particles(actor.unsquashed(states, pushing_noise))
            moved = squash.particles(actor.unsquashed(states, moved_noise))
            low, high = actor.low, actor.high

        params = self.qvalue_network_params.detach()

        def log_density(z: Tensor) -> Tensor:
            q = self._qvalues(params, states, squash.actions(z, low, high))
            q = self.ensemble_reduction(q, 0) / alpha
            return (q + squash.log_volume(z, low, high)).sum()

        # Eq. (13) / alpha: the score is that of exp(Q / alpha), as in appendix C.1.
        phi, evaluation = self.force(self.kernel, pushing, moved.detach(), log_density)
        terms = {"loss_actor": amortized_surrogate(moved, phi.total)}  # eq. (14)
        metrics = self._step_metrics(evaluation, phi, tensordict)
        if self._learnt is not None:
            with torch.no_grad(), self._acting():
                first, second = (squash.actions(z, low, high) for z in (pushing, moved))
                measured = self._learnt.measure(actor, states, first, second)
            terms["loss_alpha"] = self._learnt.loss(self.log_alpha, measured, actor)
            metrics[self._learnt.measure_key] = self._mean(measured, tensordict)
        return terms, metrics

    @torch.no_grad()
    def _step_metrics(
        self, evaluation: Evaluation | None, phi: SVGDDirection, tensordict: TensorDictBase
    ) -> dict[str, Tensor]:
        """Diagnostics of the step, each a number."""
        drive, repulsion = (self._mean(f.square().sum((-2, -1)), tensordict) for f in phi)
        metrics = {"repulsion_ratio": (repulsion / drive).sqrt()}
        if evaluation is None:
            return metrics
        metrics["kernel_offdiag"] = self._mean(evaluation.gram.mean((-2, -1)), tensordict)
        if evaluation.bandwidth is not None:
            each = evaluation.bandwidth.expand(tensordict.batch_size)
            metrics["kernel_bandwidth"] = self._mean(each, tensordict)
        return metrics
