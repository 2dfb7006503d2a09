"""Variants that switch one ingredient off, to see what it was good for."""

from torch import Tensor

from torchrl_stein.kernels import Evaluation, RBFKernel


class DriveOnlyKernel(RBFKernel):
    """The RBF kernel without its gradient: particles share scores but do not repel."""

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        full = super().evaluate(x, y)
        return Evaluation(
            full.gram,
            lambda weights: full.weighted_repulsion(weights).zero_(),
            full.bandwidth,
        )
