"""Controls: what does the repulsion of a kernel contribute, beyond a push of its size?

Each takes a kernel and replaces its repulsion by another vector of the same length, or by a part
of it. A claim that particles gain from interacting should beat these. They are no true kernels:
their repulsion is not the gradient of their Gram matrix, and SVGD has no fixed point to offer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from torchrl_stein._checks import check_count, check_particles, check_type

from .base import Evaluation, Kernel
from .identity import IdentityKernel

__all__ = ["DriftControl", "RadialControl", "SharedDriftControl", "TangentialControl"]


class _Control(Kernel):
    """Has the bandwidth of the kernel it stands in for."""

    kernel: Kernel

    @property
    def has_bandwidth(self) -> bool:
        """As the kernel."""
        return self.kernel.has_bandwidth


class _PushControl(_Control, IdentityKernel):
    """Own gradients, and a push of the length of the kernel's repulsion along ``direction``."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        check_type(type(self).__name__, "a Kernel", Kernel, kernel=kernel)
        self.kernel = kernel

    def direction(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        gram = super().evaluate(x, y).gram
        inner = self.kernel.evaluate(x)
        direction = self.direction(x)

        def repulsion(weights: Tensor | None) -> Tensor:
            _refuse_weights(self, weights)
            return inner.weighted_repulsion(None).norm(dim=-1, keepdim=True) * direction

        return Evaluation(gram, repulsion, inner.bandwidth)


class DriftControl(_PushControl):
    """Control: each particle drifts along its own fixed random direction, none sees another.

    The Gram matrix is the identity, and the repulsion of particle i is ``|R_i| u_i``: R_i that of
    ``kernel``, u_i a unit vector drawn once, uniformly on the sphere. No true kernel: it has no
    weighted repulsion, hence is no factor of a product.

    Args:
        kernel: whose repulsion sets the length of the push.
        num_particles: n, or a pair (S, n): particles of several seeds drift differently, too.
        dim: d, number of columns that the kernel sees (``ParticleModule.kernel_dim``).
        seed: of the directions. The global random state is neither read nor changed.

    Attributes:
        directions: u, ``[n, d]``; part of the state_dict.

    Raises:
        TypeError: if ``kernel`` is no Kernel, or ``num_particles``, ``dim`` or ``seed`` no integer.
        ValueError: if ``num_particles`` or ``dim`` is below 1, or ``seed`` negative; in
            ``evaluate``, if a second set of points is given or x does not end in ``[n, d]``; if
            weights are given.

    Example:
        >>> import torch
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> control = DriftControl(RBFKernel(1.0), num_particles=2, dim=2)
        >>> pushes = control.gram_and_repulsion(x)[1], RBFKernel(1.0).gram_and_repulsion(x)[1]
        >>> [[round(size, 4) for size in push.norm(dim=-1).tolist()] for push in pushes]
        [[0.7358, 0.7358], [0.7358, 0.7358]]
    """

    directions: Tensor

    def __init__(
        self, kernel: Kernel, num_particles: int | tuple[int, ...], dim: int, seed: int = 0
    ) -> None:
        super().__init__(kernel)
        leading = check_particles(type(self).__name__, num_particles)
        check_count(type(self).__name__, dim=dim)
        check_count(type(self).__name__, at_least=0, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        normal = torch.randn(*leading, dim, generator=generator)
        self.register_buffer("directions", F.normalize(normal, dim=-1))

    def direction(self, x: Tensor) -> Tensor:
        """``u`` in the dtype of x."""
        if x.shape[-self.directions.ndim :] != self.directions.shape:
            raise ValueError(
                f"DriftControl: x must end in {list(self.directions.shape)} (num_particles, dim), "
                f"got shape {list(x.shape)}"
            )
        return self.directions.to(x)


class SharedDriftControl(DriftControl):
    """Control: gradients shared as by the kernel, and the drift of :class:`DriftControl`.

    The Gram matrix is that of ``kernel``, the repulsion that of ``DriftControl``: the direction of
    the push is all that differs from the kernel. No true kernel: it has no weighted repulsion,
    hence is no factor of a product.

    Args:
        kernel: shares gradients, and sets the length of the push.
        num_particles: n, or a pair (S, n).
        dim: d, number of columns that the kernel sees (``ParticleModule.kernel_dim``).
        seed: of the directions, see :class:`DriftControl`, as are the errors.

    Example:
        >>> import torch
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        >>> SharedDriftControl(RBFKernel(1.0), num_particles=2, dim=2)(x)
        tensor([[1.0000, 0.3679],
                [0.3679, 1.0000]])
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        drift = super().evaluate(x, y)
        return Evaluation(self.kernel(x), drift.weighted_repulsion, drift.bandwidth)


class RadialControl(_PushControl):
    """Control: each particle is pushed along its own parameters, away from the origin.

    The Gram matrix is the identity, and the repulsion of particle i is ``|R_i| x_i / |x_i|``: R_i
    that of ``kernel``. What remains is the growth of the norms; a particle at the origin has no
    direction and stays. No true kernel: it has no weighted repulsion, hence is no factor of a
    product.

    Args:
        kernel: whose repulsion sets the length of the push.

    Raises:
        TypeError: if ``kernel`` is no Kernel.
        ValueError: in ``evaluate``, if a second set of points is given; if weights are given.

    Example:
        >>> import torch
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> RadialControl(RBFKernel(13.0)).gram_and_repulsion(x)[1]
        tensor([[0.2041, 0.0000],
                [0.0000, 0.2041]])
    """

    def direction(self, x: Tensor) -> Tensor:
        """``x_i / |x_i|``, zero at the origin."""
        return F.normalize(x, dim=-1)


class TangentialControl(_Control):
    """Control: the repulsion of a kernel without its part along the particle's own parameters.

    The Gram matrix is that of ``kernel``, and the repulsion of particle i is
    ``R_i - (R_i . e_i) e_i`` with ``e_i = x_i / |x_i|``: to first order the norms of the particles
    do not grow. No true kernel: it has no weighted repulsion, hence is no factor of a product.

    Args:
        kernel: whose repulsion is projected.

    Raises:
        TypeError: if ``kernel`` is no Kernel.
        ValueError: if weights are given.

    Example:
        >>> import torch
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        >>> TangentialControl(RBFKernel(13.0)).gram_and_repulsion(x)[1]
        tensor([[ 0.0000, -0.1698],
                [-0.1132,  0.0000]])
    """

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        check_type(type(self).__name__, "a Kernel", Kernel, kernel=kernel)
        self.kernel = kernel

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        inner = self.kernel.evaluate(x, y)
        along = F.normalize(x if y is None else y, dim=-1)

        def repulsion(weights: Tensor | None) -> Tensor:
            _refuse_weights(self, weights)
            full = inner.weighted_repulsion(None)
            return full - (full * along).sum(-1, keepdim=True) * along

        return Evaluation(inner.gram, repulsion, inner.bandwidth)


def _refuse_weights(control: Kernel, weights: Tensor | None) -> None:
    if weights is not None:
        raise ValueError(
            f"{type(control).__name__}: weights must be None, got shape {list(weights.shape)}: a "
            "control is no factor of a product; put the product inside the control"
        )
