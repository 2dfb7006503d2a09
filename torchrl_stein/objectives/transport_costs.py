"""What a trust region costs: from two point sets to a number whose gradient is descended."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torchrl_stein._checks import check_count, check_floating, check_type
from torchrl_stein.functional import (
    entropic_transport,
    sinkhorn_divergence,
    squared_distances,
    wgf_potential,
)
from torchrl_stein.kernels import BandwidthRule, MedianBandwidth
from torchrl_stein.kernels.bandwidth import apply_rule, check_rule

__all__ = ["SinkhornCost", "TransportCost", "WGFPotential", "WGFPotentialDescent"]

_NEWTON_STEPS = 1  # after Sinkhorn's iterations, at the price of ten of them or fewer


class TransportCost(nn.Module):
    """Base class: a cost between the particles of a policy and those of its predecessor.

    Subclasses define :meth:`between`, and are final.

    Args:
        regularization: lambda, a positive number in squared units of the particles, or a rule
            ``(squared distances [..., P], M) -> lambda [...]`` over all cross distances. None is
            med^2 / log(M + 1), the paper's med^2 / log M made finite for M = 1.

    Raises:
        TypeError, ValueError: for another kind, or a number that is not positive and finite; at
            the call, for sets that are not floating-point, differ in shape or have no dimensions M
            and d, and for a rule that returns what is not positive (looked at on a CPU).

    Example:
        >>> class Means(TransportCost):
        ...     def between(self, current, previous):
        ...         return (current.mean(-2) - previous.mean(-2)).square().sum(-1)
        >>> Means()(torch.ones(5, 2), torch.zeros(5, 2))
        tensor(2.)
    """

    def __init__(self, regularization: float | BandwidthRule | None = None) -> None:
        super().__init__()
        rule = MedianBandwidth() if regularization is None else regularization
        self.regularization = check_rule(type(self).__name__, "regularization", rule)

    def forward(self, current: Tensor, previous: Tensor) -> Tensor:
        """Cost per particle, averaged over the M particles: descend its gradient times M.

        Args:
            current: ``[..., M, d]``.
            previous: ``[..., M, d]``, a constant.

        Returns:
            Tensor: ``[...]``, in squared units of the particles.
        """
        check_floating(type(self).__name__, current=current, previous=previous)
        if current.ndim < 2 or current.shape != previous.shape:
            raise ValueError(
                f"{type(self).__name__}: current and previous must be two sets of one shape "
                f"[..., M, d], got {list(current.shape)} and {list(previous.shape)}"
            )
        return self.between(current, previous.detach())

    def between(self, current: Tensor, previous: Tensor) -> Tensor:
        """The cost itself, for checked arguments."""
        raise NotImplementedError(f"{type(self).__name__} must define between")

    def extra_repr(self) -> str:
        """Shown by ``print(cost)``."""
        return f"regularization={self.regularization!r}"

    @torch.no_grad()
    def scale(self, square: Tensor) -> Tensor:
        """lambda ``[...]`` of squared cross distances ``[..., M, M]``."""
        if not callable(self.regularization):
            return square.new_full(square.shape[:-2], self.regularization)
        scale = apply_rule(
            type(self).__name__, self.regularization, square.flatten(-2), square.shape[-1]
        )
        # med^2 / log M is infinite for M = 1, and lambda has no effect far above every cost.
        highest = 1e6 * square.amax((-2, -1)).clamp_min(1e-6)
        return torch.minimum(scale, highest)


class SinkhornCost(TransportCost):
    """Debiased Sinkhorn divergence: a true trust region in the Wasserstein distance.

    The cost and its gradient vanish where the policy equals its predecessor, so the fixed points
    of an algorithm are those it has without; only the way there is damped. The gradient with
    respect to particle i is (2 / M) (x_i - its barycentre among the predecessors), less the same
    for its own set; nothing is differentiated through the iterations, and nothing synchronises
    with the host.

    Args:
        regularization: lambda, see :class:`TransportCost`; -> 0 is the squared distance W_2^2. The
            default blurs by about the particles' spacing: a shift costs all of W_2^2, jitter of
            every particle by itself costs less (a third in two dimensions).
        debiased: False is the entropic cost alone, as the paper's eq. (8) with its dual. It is
            smallest where the particles have shrunk towards their mean, so it is no trust region.
        num_iterations: of Sinkhorn's algorithm, before a step of Newton's method. With 40 the
            gradient is within about 1 % of the converged one. A particle that jumped from one far
            cluster to another needs 500: with fewer it is held in its new cluster.

    Source: Feydy et al. 2019 (arXiv:1810.08278), eq. (3), for eq. (8) of Zhang et al. 2018
    (arXiv:1808.03030).

    Example:
        >>> previous = torch.tensor([[0.0], [4.0]])
        >>> cost = SinkhornCost()
        >>> cost(previous + 1.0, previous).round(decimals=4)
        tensor(1.)
        >>> bool(cost(previous, previous).abs() < 1e-6)
        True
    """

    def __init__(
        self,
        regularization: float | BandwidthRule | None = None,
        *,
        debiased: bool = True,
        num_iterations: int = 40,
    ) -> None:
        super().__init__(regularization)
        check_count("SinkhornCost", num_iterations=num_iterations)
        check_type("SinkhornCost", "True or False", bool, debiased=debiased)
        self.debiased, self.num_iterations = debiased, num_iterations

    def extra_repr(self) -> str:
        """Shown by ``print(cost)``."""
        own = f"debiased={self.debiased}, num_iterations={self.num_iterations}"
        return f"{super().extra_repr()}, {own}"

    def between(self, current: Tensor, previous: Tensor) -> Tensor:
        """The divergence, or the entropic cost."""
        square = squared_distances(current, previous)
        scale = self.scale(square.detach())
        # No tolerance: nobody asks the device how good the marginals are.
        options: dict[str, Any] = {
            "tolerance": None,
            "max_iterations": self.num_iterations,
            "newton_steps": _NEWTON_STEPS,
        }
        if self.debiased:
            return sinkhorn_divergence(current, previous, scale, **options)
        return entropic_transport(square, scale, **options)


class WGFPotential(TransportCost):
    """Eq. (9) of the paper as the force that its text explains.

    The paper prints eq. (9) as the gradient of W_2^2, which a proximal step descends, and explains
    it as a force that pulls where c > lambda and pushes where c < lambda, which is the opposite.
    This cost follows the explanation, :class:`WGFPotentialDescent` the print: here x moves along
    (9), as it moves along (7), which the paper also prints as a gradient. Neither is a trust
    region: at the previous policy the terms j != i do not vanish.

    Args:
        regularization: lambda, see :class:`TransportCost`.

    Source: Zhang et al. 2018 (arXiv:1808.03030), eq. (9), as
    :func:`~torchrl_stein.functional.wgf_potential` has it.

    Example:
        >>> previous = torch.tensor([[0.0]])
        >>> near = torch.tensor([[1.0]], requires_grad=True)
        >>> WGFPotential(regularization=4.0)(near, previous).backward()
        >>> -near.grad  # c < lambda: pushed away
        tensor([[1.1682]])
    """

    def between(self, current: Tensor, previous: Tensor) -> Tensor:
        """Minus the potential, whose gradient is eq. (9) / M, divided by M."""
        square = squared_distances(current, previous)
        return -wgf_potential(square, self.scale(square.detach()))


class WGFPotentialDescent(TransportCost):
    """Eq. (9) of the paper as it is printed, a gradient that is descended.

    In the experiments of benchmarks/results/wgf_particles.md it collapses the particles; see
    :class:`WGFPotential` for the other reading.

    Args:
        regularization: lambda, see :class:`TransportCost`.

    Example:
        >>> previous = torch.tensor([[0.0]])
        >>> near = torch.tensor([[1.0]], requires_grad=True)
        >>> WGFPotentialDescent(regularization=4.0)(near, previous).backward()
        >>> -near.grad  # c < lambda: pulled
        tensor([[-1.1682]])
    """

    def between(self, current: Tensor, previous: Tensor) -> Tensor:
        """The potential."""
        square = squared_distances(current, previous)
        return wgf_potential(square, self.scale(square.detach()))
