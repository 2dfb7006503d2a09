"""Placebos: what does the repulsion of a kernel contribute, beyond a push of its size?

Each takes a kernel and replaces its repulsion by another vector of the same length, or by a part
of it. A claim that particles gain from interacting should beat these. They are not true kernels:
their repulsion is not the gradient of their Gram matrix, so that they have no weighted repulsion
and cannot be factors of a product, and SVGD has no fixed point to offer.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from torchrl_stein._checks import check_count, check_particles, check_type

from .base import Evaluation, Kernel, check_one_set
from .linear import identity_gram


class _Placebo(Kernel):
    """Holds the kernel that it stands in for, and has its bandwidth."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        check_type(type(self).__name__, "a Kernel", Kernel, kernel=kernel)
        self.kernel = kernel

    @property
    def has_bandwidth(self) -> bool:
        """As the kernel."""
        return self.kernel.has_bandwidth


class _Drift(_Placebo):
    """Pushes every particle along a direction of its own, which never changes."""

    directions: Tensor  # [n, d] or [S, n, d], part of the state_dict

    def __init__(
        self, kernel: Kernel, num_particles: int | tuple[int, ...], dim: int, seed: int = 0
    ) -> None:
        super().__init__(kernel)
        leading = check_particles(type(self).__name__, num_particles)
        check_count(type(self).__name__, dim=dim)
        check_count(type(self).__name__, at_least=0, seed=seed)
        # Not from the seed itself: weights drawn after torch.manual_seed(seed) would be these.
        own = int(np.random.SeedSequence(seed).generate_state(1)[0])
        drawn = torch.randn(*leading, dim, generator=torch.Generator().manual_seed(own))
        self.register_buffer("directions", F.normalize(drawn, dim=-1))

    def _along(self, x: Tensor) -> Tensor:
        """Directions in the dtype of x."""
        if x.shape[-self.directions.ndim :] != self.directions.shape:
            raise ValueError(
                f"{type(self).__name__}: x must end in {list(self.directions.shape)} "
                f"(num_particles, dim), got shape {list(x.shape)}"
            )
        return self.directions.to(x)


class DriftControl(_Drift):
    """Each particle drifts along its own fixed random direction, and none sees another.

    The Gram matrix is the identity, and the repulsion of particle i is ``|R_i| u_i``: R_i that of
    ``kernel``, u_i a unit vector drawn once, uniformly on the sphere.

    Args:
        kernel: whose repulsion sets the length of the push.
        num_particles: n, or a pair (S, n): particles of several seeds drift differently, too.
        dim: d, number of columns that the kernel sees (``ParticleModule.kernel_dim``).
        seed: of the directions. The global random state is neither read nor changed.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> push = DriftControl(RBFKernel(1.0), num_particles=2, dim=2).gram_and_repulsion(x)[1]
        >>> [round(size, 4) for size in push.norm(dim=-1).tolist()]
        [0.7358, 0.7358]
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        check_one_set(type(self).__name__, x, y)
        return _pushed(self, identity_gram(x), self.kernel.evaluate(x), self._along(x))


class SharedDriftControl(_Drift):
    """Gradients shared as by the kernel, and the drift of :class:`DriftControl`.

    The direction of the push is all that differs from the kernel. Arguments are those of
    :class:`DriftControl`.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> SharedDriftControl(RBFKernel(1.0), num_particles=2, dim=2)(x)
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        check_one_set(type(self).__name__, x, y)
        inner = self.kernel.evaluate(x)
        return _pushed(self, inner.gram, inner, self._along(x))


class RadialControl(_Placebo):
    """Each particle is pushed along its own parameters, away from the origin.

    The Gram matrix is the identity, and the repulsion of particle i is ``|R_i| x_i / |x_i|``: R_i
    that of ``kernel``. Only the growth of the norms remains; a particle at the origin has no
    direction and stays.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> RadialControl(RBFKernel(13.0)).gram_and_repulsion(x)[1]
        tensor([[0.2041, 0.0000],
                [0.0000, 0.2041]])
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        check_one_set(type(self).__name__, x, y)
        return _pushed(self, identity_gram(x), self.kernel.evaluate(x), F.normalize(x, dim=-1))


class TangentialControl(_Placebo):
    """The repulsion of a kernel without its part along the particle's own parameters.

    The Gram matrix is that of ``kernel``, and the repulsion of particle i is
    ``R_i - (R_i . e_i) e_i`` with ``e_i = x_i / |x_i|``: to first order the norms of the particles
    do not grow. It takes a second set of points, too.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> TangentialControl(RBFKernel(13.0)).gram_and_repulsion(x)[1]
        tensor([[ 0.0000, -0.1698],
                [-0.1132,  0.0000]])
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        inner = self.kernel.evaluate(x, y)
        along = F.normalize(x if y is None else y, dim=-1)

        def tangential(full: Tensor) -> Tensor:
            return full - (full * along).sum(-1, keepdim=True) * along

        return _changed(self, inner.gram, inner, tangential)


def _pushed(placebo: Kernel, gram: Tensor, inner: Evaluation, direction: Tensor) -> Evaluation:
    """A push of the length of the kernel's repulsion along ``direction``."""
    return _changed(placebo, gram, inner, lambda full: full.norm(dim=-1, keepdim=True) * direction)


def _changed(
    placebo: Kernel, gram: Tensor, inner: Evaluation, change: Callable[[Tensor], Tensor]
) -> Evaluation:
    """An evaluation with a changed repulsion, which only makes sense as a whole."""

    def repulsion(weights: Tensor | None) -> Tensor:
        if weights is not None:
            raise ValueError(
                f"{type(placebo).__name__}: weights must be None, got shape "
                f"{list(weights.shape)}: a control is no factor of a product; put the product "
                "inside the control"
            )
        return change(inner.repulsion)

    return Evaluation(gram, repulsion, inner.bandwidth)
