"""Several populations side by side in one, none of which feels another."""

from __future__ import annotations

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_same_size, check_type

from .base import Evaluation, Kernel, check_points

__all__ = ["GroupedKernel", "count_groups", "diagonal_blocks"]


class GroupedKernel(Kernel):
    """k between particles of one group, and 0 between groups: independent populations in one.

    Rows g * n to (g + 1) * n - 1 of x are group g. The kernel sees the groups as a batch of sets
    of n points, so bandwidths are those of each group, and the reported one is the mean over the
    groups. Particles are told apart by their index, so it has no value between two sets of points.

    Sums, products and :class:`LayerwiseKernel` go inside. A :class:`DriftControl` goes outside and
    has a direction for each particle of all groups; inside, groups would drift alike.

    Args:
        kernel: of each group, one that takes leading batch dimensions. It must not observe the
            data (:class:`BehaviourKernel`): the data are those of all groups.
        num_groups: G, number of groups of equal size.

    Raises:
        TypeError: if ``kernel`` is no Kernel, or ``num_groups`` no integer.
        ValueError: if ``kernel`` observes the data or ``num_groups`` < 1; in ``evaluate``, if the
            number of particles is no multiple of G, or a second set of points is given.

    Example:
        >>> import torch
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.tensor([[0.0], [1.0], [0.0], [2.0]])
        >>> GroupedKernel(RBFKernel(1.0), num_groups=2)(x)
        tensor([[1.0000, 0.3679, 0.0000, 0.0000],
                [0.3679, 1.0000, 0.0000, 0.0000],
                [0.0000, 0.0000, 1.0000, 0.0183],
                [0.0000, 0.0000, 0.0183, 1.0000]])
    """

    def __init__(self, kernel: Kernel, num_groups: int) -> None:
        super().__init__()
        check_type("GroupedKernel", "a Kernel", Kernel, kernel=kernel)
        for part in kernel.modules():
            if isinstance(part, Kernel) and type(part).observe is not Kernel.observe:
                raise ValueError(
                    "GroupedKernel: kernel must not observe the data, since they are those of all "
                    f"groups, got {type(part).__name__}"
                )
        check_count("GroupedKernel", num_groups=num_groups)
        self.kernel = kernel
        self.num_groups = num_groups

    @property
    def has_bandwidth(self) -> bool:
        """As the kernel of the groups."""
        return self.kernel.has_bandwidth

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        if y is not None:
            raise ValueError(
                "GroupedKernel: y must be None (particles are told apart by their index in one "
                f"set), got a second set of shape {list(y.shape)}"
            )
        check_points("GroupedKernel", x, None)
        if x.shape[-2] % self.num_groups:
            raise ValueError(
                f"GroupedKernel: x must have a multiple of num_groups={self.num_groups} rows, got "
                f"shape {list(x.shape)}"
            )
        inner = self.kernel.evaluate(x.unflatten(-2, (self.num_groups, -1)))
        blocks = torch.diag_embed(inner.gram.movedim(-3, -1), dim1=-4, dim2=-2)
        gram = blocks.flatten(-4, -3).flatten(-2, -1)

        def repulsion(weights: Tensor | None) -> Tensor:
            own = None if weights is None else diagonal_blocks(weights, self.num_groups)
            return inner.weighted_repulsion(own).flatten(-3, -2)

        bandwidth = None if inner.bandwidth is None else inner.bandwidth.mean(-1)
        return Evaluation(gram, repulsion, bandwidth)


def diagonal_blocks(matrix: Tensor, num_groups: int) -> Tensor:
    """The parts of a matrix between particles of one group.

    Args:
        matrix: ``[..., G n, G n]``.
        num_groups: G.

    Returns:
        Tensor: ``[..., G, n, n]``, a view.

    Raises:
        TypeError: if ``num_groups`` is no integer.
        ValueError: if it is < 1, or ``matrix`` is not square of a multiple of it.

    Example:
        >>> import torch
        >>> diagonal_blocks(torch.arange(16).view(4, 4), 2)[1]
        tensor([[10, 11],
                [14, 15]])
    """
    check_count("diagonal_blocks", num_groups=num_groups)
    check_same_size("diagonal_blocks", columns=(matrix, -1), rows=(matrix, -2))
    if matrix.shape[-1] % num_groups:
        raise ValueError(
            f"diagonal_blocks: matrix must have a multiple of num_groups={num_groups} rows, got "
            f"shape {list(matrix.shape)}"
        )
    blocks = matrix.unflatten(-2, (num_groups, -1)).unflatten(-1, (num_groups, -1))
    return blocks.diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def count_groups(kernel: Kernel) -> int:
    """Number of groups of a :class:`GroupedKernel`, also inside of other kernels; else 1.

    Args:
        kernel: any kernel.

    Raises:
        TypeError: if it is none.

    Example:
        >>> from torchrl_stein.kernels import RadialControl, RBFKernel
        >>> count_groups(RadialControl(GroupedKernel(RBFKernel(), 5))), count_groups(RBFKernel())
        (5, 1)
    """
    check_type("count_groups", "a Kernel", Kernel, kernel=kernel)
    grouped = (part for part in kernel.modules() if isinstance(part, GroupedKernel))
    return next((part.num_groups for part in grouped), 1)
