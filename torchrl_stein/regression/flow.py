"""Particles that follow a Wasserstein gradient flow of the KL divergence, and SVGD as its limit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from torchrl_stein._checks import check_number, check_type
from torchrl_stein.functional import svgd_direction
from torchrl_stein.kernels import Kernel
from torchrl_stein.objectives import TransportCost

from .posterior import RegressionPosterior


class FlowDirection(NamedTuple):
    """The two forces of the flow, ``[S, M, d]``; particles ascend along their sum.

    ``stein`` is the SVGD direction, ``transport`` the force of the trust region.
    """

    stein: Tensor
    transport: Tensor

    @property
    def total(self) -> Tensor:
        """``stein + transport``, ``[S, M, d]``."""
        return self.stein + self.transport


def transport_force(
    particles: Tensor, previous: Tensor, cost: TransportCost, weight: float
) -> Tensor:
    """-weight M times the gradient of the cost of a step from the previous particles.

    M, since the cost is a mean over particles and the SVGD direction belongs to one of them. Both
    sets and the result are ``[..., M, d]``.
    """
    # torch.compile does not trace autograd.grad.
    gradient = torch.func.grad(lambda current: cost(current, previous).sum())(particles.detach())
    return -weight * particles.shape[-2] * gradient


class ParticleFlow:
    r"""Moves the particles of a posterior by SVGD, with or without a Wasserstein trust region.

    Each step ascends along

    .. math::
        \phi(x_i) - w M \nabla_{x_i} \mathrm{cost}(x, x'), \quad
        \phi(x_i) = \frac{1}{M} \sum_j k(x_j, x_i) \nabla \log p(x_j) + \nabla_{x_j} k(x_j, x_i)

    where x' are the particles before the last step (strategy i of appendix E.1). Splits do not
    feel each other. The optimizer scales the direction, as RMSprop does in the paper.

    Args:
        posterior: the particles and their density.
        kernel: k, between flat particles with their log precisions.
        optimizer: over the parameters of ``posterior``.
        cost: of the trust region. None is SVGD, the flow with weight 0, at no expense.
        weight: w >= 0, the paper's epsilon, 1 / (2 h) of the proximal step. Eq. (9) of the paper is
            a plain sum over the M previous particles and
            :class:`~torchrl_stein.objectives.WGFPotential` a mean: epsilon there is epsilon M here.

    Source: Zhang et al. 2018 (arXiv:1808.03030), section 4.1 and appendix D.2.

    Example:
        >>> from torchrl_stein.kernels import MedianBandwidth, RBFKernel
        >>> posterior = RegressionPosterior(num_features=2, num_splits=1, num_particles=5)
        >>> optimizer = torch.optim.RMSprop(posterior.parameters(), lr=1e-3, alpha=0.9, eps=1e-6)
        >>> flow = ParticleFlow(posterior, RBFKernel(MedianBandwidth("log(n)")), optimizer)
        >>> flow.step(torch.randn(1, 8, 2), torch.randn(1, 8), num_rows=80).total.shape
        torch.Size([1, 5, 202])
    """

    def __init__(
        self,
        posterior: RegressionPosterior,
        kernel: Kernel,
        optimizer: Optimizer,
        cost: TransportCost | None = None,
        weight: float = 0.4,
    ) -> None:
        owner = "ParticleFlow"
        check_type(owner, "a Kernel", Kernel, kernel=kernel)
        check_type(owner, "an Optimizer", Optimizer, optimizer=optimizer)
        if cost is not None:
            check_type(owner, "a TransportCost", TransportCost, cost=cost)
        check_number(owner, at_least=0, weight=weight)
        self.posterior, self.kernel, self.optimizer = posterior, kernel, optimizer
        self.cost, self.weight = cost, weight
        self._previous = posterior.particles.detach().clone()
        self._log_joint, self._along = posterior.log_joint, self._forces

    def compile(self, fuse: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Compile the density, with its derivative, and the forces, for the steps to come.

        ``fuse`` is such as ``torch.compile``.
        """
        self._log_joint, self._along = fuse(self.posterior.log_joint), fuse(self._forces)

    def step(self, features: Tensor, target: Tensor, num_rows: int) -> FlowDirection:
        """One update from one minibatch of every split, ``[S, B, F]`` and ``[S, B]``, standardised.

        ``num_rows`` is N, the rows of a whole training part. Returns the forces that were followed,
        before the optimizer's scaling.
        """
        direction = self.direction(features, target, num_rows)
        parameter = self.posterior.particles
        # A CUDA graph of this method remembers only what is written in place.
        self._previous.copy_(parameter.detach())
        parameter.grad = -direction.total  # optimizers descend
        self.optimizer.step()
        return direction

    def direction(self, features: Tensor, target: Tensor, num_rows: int) -> FlowDirection:
        """The forces on the present particles; arguments as :meth:`step`, which applies them."""
        log_joint = self._log_joint(features, target, num_rows)
        (scores,) = torch.autograd.grad(log_joint.sum(), self.posterior.particles)
        particles = self.posterior.particles.detach()
        return FlowDirection(*self._along(particles, self._previous, scores))

    def _forces(self, particles: Tensor, previous: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        gram, repulsion = self.kernel.gram_and_repulsion(particles)
        stein = svgd_direction(gram, repulsion, scores).total
        if self.cost is None:
            return stein, torch.zeros_like(stein)
        return stein, transport_force(particles, previous, self.cost, self.weight)
