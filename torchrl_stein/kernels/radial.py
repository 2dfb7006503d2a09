"""Kernels of the scaled distance, k(x, y) = f(|x - y|^2 / h)."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_number
from torchrl_stein.functional import squared_distances
from torchrl_stein.functional.distance import (
    check_points,
    distinct_pairs,
    flat_squared_distances,
    medoid,
    weighted_forces,
)

from .bandwidth import BandwidthRule, MedianBandwidth, apply_rule, check_rule
from .base import Evaluation, Kernel


class RadialKernel(Kernel):
    """Base class of k(x, y) = profile(|x - y|^2 / h).

    Subclasses define :meth:`profile`, and may define :meth:`profile_and_slope` where the
    derivative is cheaper in closed form than by autograd.

    Args:
        bandwidth: h itself, in squared units of the points, or a rule ``rule(pairs, n) -> h``
            (see :mod:`torchrl_stein.kernels.bandwidth`). Rules see each pair of different
            particles once and are not differentiated; each set of several, ``[S, n, d]``, has its
            own h. A set of one particle has no pairs: h = 1, and there is no repulsion.

    Example:
        >>> class RationalKernel(RadialKernel):
        ...     def profile(self, t):
        ...         return 1 / (1 + t)
        >>> RationalKernel(bandwidth=4.0)(torch.tensor([[0.0], [2.0]]))
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """

    def __init__(self, bandwidth: float | BandwidthRule | None = None) -> None:
        super().__init__()
        rule = MedianBandwidth() if bandwidth is None else bandwidth
        self.rule = check_rule(type(self).__name__, "bandwidth", rule)

    def profile(self, t: Tensor) -> Tensor:
        """f(t) of the scaled squared distance t = |x - y|^2 / h, elementwise.

        f and its derivative must be finite at t = 0: a bare square root is not.
        """
        raise NotImplementedError(f"{type(self).__name__} must define profile")

    def profile_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """f(t) and f'(t), elementwise."""
        value, vjp = torch.func.vjp(self.profile, t)[:2]  # typed as a pair or a triple
        return value, vjp(torch.ones_like(value))[0]

    @property
    def has_bandwidth(self) -> bool:
        """Always."""
        return True

    def extra_repr(self) -> str:
        """Shown by ``print(kernel)``."""
        return f"bandwidth={self.rule!r}"

    @torch.no_grad()
    def bandwidth(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The bandwidth h for these points, ``[...]`` (``[]`` if fixed), in squared units of x."""
        return self._bandwidth(squared_distances(x, y), same=y is None)

    @torch.no_grad()
    def _bandwidth(self, square: Tensor, *, same: bool) -> Tensor:
        if not callable(self.rule):
            return torch.full((), self.rule, dtype=square.dtype, device=square.device)
        if same and square.shape[-1] == 1:
            return torch.ones_like(square[..., 0, 0])
        pairs = distinct_pairs(square, same=same)
        return apply_rule(type(self).__name__, self.rule, pairs, square.shape[-2])

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        check_points(type(self).__name__, x, y)
        square = squared_distances(x, y)
        bandwidth = self._bandwidth(square, same=y is None)
        h = bandwidth[..., None, None]
        gram, slope = self.profile_and_slope(square / h)
        target = x if y is None else y

        def repulsion(weights: Tensor | None) -> Tensor:
            # sum_j W f'(t_ji) (2 / h) (x_j - y_i) as one matrix product. Its two halves cancel
            # when particles are close, so both are taken relative to a point in their midst.
            w = slope if weights is None else weights * slope
            origin = medoid(x, square)
            pull = w.mT @ (x - origin) - w.sum(-2).unsqueeze(-1) * (target - origin)
            return 2.0 / h * pull

        return Evaluation(gram, repulsion, bandwidth)

    def _direction(self, x: Tensor, scores: Tensor, out: Tensor) -> Tensor:
        # Shortcut for one set [n, d]. It repeats RadialKernel.evaluate, so a subclass with an
        # evaluate of its own, and several sets [S, n, d], take the general way.
        if x.ndim > 2 or type(self).evaluate is not RadialKernel.evaluate:
            return super()._direction(x, scores, out)
        n = x.shape[0]
        distances = flat_squared_distances(x)
        h = self._bandwidth(distances.square, same=True)
        gram, slope = self.profile_and_slope(distances.square / h)
        # Both matrices are symmetric.
        pull = slope * (2.0 / (n * h))
        return weighted_forces(gram / n, scores, pull, x, distances.origin, out)


class RBFKernel(RadialKernel):
    """k(x, y) = exp(-|x - y|^2 / h), grad_x k = (2/h) (y - x) k.

    Args:
        bandwidth: h or a rule, see :class:`RadialKernel`. Default :class:`MedianBandwidth`. A
            Gaussian of this width has sigma = sqrt(h / 2).

    Source: Liu & Wang 2016 (arXiv:1608.04471), section 5; Haarnoja et al. 2017
    (arXiv:1702.08165), appendix D.1.

    Example:
        >>> RBFKernel(bandwidth=1.0)(torch.tensor([[0.0], [0.0]]))
        tensor([[1., 1.],
                [1., 1.]])
    """

    def profile(self, t: Tensor) -> Tensor:
        """exp(-t)."""
        return torch.exp(-t)

    def profile_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """exp(-t) and -exp(-t)."""
        value = self.profile(t)
        return value, -value


class IMQKernel(RadialKernel):
    """Inverse multiquadric k(x, y) = (1 + |x - y|^2 / h)^(-exponent).

    Heavy tails: particles far apart still feel each other, where the RBF kernel has vanished.

    Args:
        bandwidth: h or a rule, see :class:`RadialKernel`.
        exponent: in (0, 1), default 1/2.

    Source: Gorham & Mackey 2017 (arXiv:1703.01717), theorem 8.

    Example:
        >>> IMQKernel(bandwidth=1.0)(torch.tensor([[0.0]]), torch.tensor([[3.0**0.5]])).item()
        0.5
    """

    def __init__(
        self, bandwidth: float | BandwidthRule | None = None, *, exponent: float = 0.5
    ) -> None:
        super().__init__(bandwidth)
        check_number("IMQKernel", above=0, below=1, exponent=exponent)
        self.exponent = exponent

    def profile(self, t: Tensor) -> Tensor:
        """(1 + t)^(-exponent)."""
        return (1.0 + t) ** -self.exponent

    def profile_and_slope(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(1 + t)^(-exponent) and its derivative -exponent (1 + t)^(-exponent - 1)."""
        value = self.profile(t)
        return value, -self.exponent * value / (1.0 + t)
