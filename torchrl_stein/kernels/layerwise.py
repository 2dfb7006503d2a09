"""One kernel per layer of a network, each with its own bandwidth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchrl_stein._checks import check_count, check_floating

from .base import Evaluation, Kernel
from .radial import RBFKernel


class LayerwiseKernel(Kernel):
    """The mean over layers l of k_l(x[l], y[l]), on the columns of each layer.

    One bandwidth for thousands of parameters is set by the largest layers, and then hardly differs
    between pairs. Here each layer has its own.

    Args:
        layer_slices: the columns of each layer: ``ParticleModule.layer_slices``, or the slices
            alone. Together they must cover 0..d, without gaps or overlap.
        kernel_factory: returns the kernel of one layer; called once per layer.

    Source: Liu et al. 2017 (arXiv:1704.02399), section 6, where it is future work.

    Example:
        >>> kernel = LayerwiseKernel([slice(0, 2), slice(2, 3)], lambda: RBFKernel(1.0))
        >>> x = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 9.0]])  # they share the first layer
        >>> kernel(x)
        tensor([[1.0000, 0.5000],
                [0.5000, 1.0000]])
    """

    def __init__(
        self,
        layer_slices: Mapping[str, slice] | Iterable[slice],
        kernel_factory: Callable[[], Kernel] = RBFKernel,
    ) -> None:
        super().__init__()
        self.slices = _in_order(_slices(layer_slices))
        factory = (
            "LayerwiseKernel: kernel_factory must be a callable that returns a Kernel, such as "
            "RBFKernel itself, got"
        )
        # A module can be called, but is nothing that returns a Kernel.
        if isinstance(kernel_factory, nn.Module) or not callable(kernel_factory):
            raise TypeError(f"{factory} the object {type(kernel_factory).__name__}(...)")
        for index in range(len(self.slices)):
            kernel = kernel_factory()
            if not isinstance(kernel, Kernel):
                raise TypeError(f"{factory} one that returns {type(kernel).__name__}")
            # A direct child: the base class shows it the data.
            self.add_module(f"layer_{index}", kernel)

    @property
    def kernels(self) -> list[Kernel]:
        """Kernels of the layers, in the order of their columns."""
        return [kernel for kernel in self.children() if isinstance(kernel, Kernel)]

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        d = self.slices[-1].stop
        for name, points in (("x", x), ("y", y)):
            if points is None:
                continue
            check_floating("LayerwiseKernel", **{name: points})
            if points.ndim < 2 or points.shape[-1] != d:
                raise ValueError(
                    f"LayerwiseKernel: {name} must have the {d} columns of layer_slices, got "
                    f"shape {list(points.shape)}"
                )
        layers = [
            kernel.evaluate(x[..., columns], None if y is None else y[..., columns])
            for kernel, columns in zip(self.kernels, self.slices, strict=True)
        ]
        gram = torch.stack([layer.gram for layer in layers]).mean(0)

        def repulsion(weights: Tensor | None) -> Tensor:
            return torch.cat([e.weighted_repulsion(weights) for e in layers], -1) / len(layers)

        return Evaluation(gram, repulsion)


def _slices(layer_slices: Mapping[str, slice] | Iterable[slice]) -> list[slice]:
    values: Any = layer_slices.values() if isinstance(layer_slices, Mapping) else layer_slices
    if isinstance(values, Iterable):
        found = list(values)
        if all(isinstance(columns, slice) for columns in found):
            return found
    raise TypeError(
        "LayerwiseKernel: layer_slices must be slices, such as policies.layer_slices of a "
        f"ParticleModule, got {type(layer_slices).__name__}"
    )


def _in_order(slices: list[slice]) -> list[slice]:
    if not slices:
        raise ValueError("LayerwiseKernel: layer_slices must hold at least one slice, got none")
    for columns in slices:
        if columns.start is None or columns.stop is None or columns.step not in (None, 1):
            raise ValueError(
                f"LayerwiseKernel: layer_slices must be slices start:stop, got {columns}"
            )
    ordered = sorted(slices, key=lambda columns: columns.start)
    end = 0
    for columns in ordered:
        if columns.start != end or columns.stop <= columns.start:
            raise ValueError(
                "LayerwiseKernel: layer_slices must cover the columns from 0 without gaps, overlap "
                f"or empty layers; after column {end} comes {columns}"
            )
        ends: dict[str, Any] = {"start of a layer": columns.start, "stop of a layer": columns.stop}
        check_count("LayerwiseKernel", at_least=0, **ends)
        end = columns.stop
    return ordered
