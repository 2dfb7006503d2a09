"""What a kernel is: a Gram matrix and the gradient sums that SVGD needs, with algebra.

A kernel evaluates a pair of point sets once, and the evaluation answers both questions, so nothing
is computed twice and sums and products know their gradient rules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, cast

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn

from torchrl_stein._checks import check_floating, check_number, check_same_size, check_type
from torchrl_stein.functional import svgd_direction
from torchrl_stein.functional.distance import check_points


@dataclass(frozen=True)
class Evaluation:
    """A kernel evaluated on points x ``[..., n, d]`` and y ``[..., m, d]``.

    Attributes:
        gram: ``gram[..., j, i] = k(x_j, y_i)``, ``[..., n, m]``.
        weighted_repulsion: maps weights W ``[..., n, m]`` to
            ``sum_j W_ji grad_{x_j} k(x_j, y_i)``, ``[..., m, d]``; ``None`` means W = 1.
        bandwidth: h, ``[...]`` or ``[]``, a diagnostic: if and only if
            :attr:`Kernel.has_bandwidth`.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> RBFKernel(1.0).evaluate(torch.zeros(3, 2), torch.zeros(4, 2)).gram.shape
        torch.Size([3, 4])
    """

    gram: Tensor
    weighted_repulsion: Callable[[Tensor | None], Tensor]
    bandwidth: Tensor | None = None

    @property
    def repulsion(self) -> Tensor:
        """``sum_j grad_{x_j} k(x_j, y_i)``, ``[..., m, d]``; computed anew each time."""
        return self.weighted_repulsion(None)


class Kernel(nn.Module):
    """Base class of all kernels k(x, y). Symmetric and positive semi-definite.

    A new kernel defines one method. Radial ones, k = f(|x - y|^2 / h), subclass
    :class:`RadialKernel` and define ``profile``. Others define :meth:`forward` in differentiable
    torch operations, or :meth:`evaluate`: with gradients in closed form, or where something depends
    on the data and must not be differentiated. ``torchrl_stein.testing.KernelContract`` checks the
    result. Kernels add and multiply: ``0.5 * RBFKernel() + IMQKernel()``.

    Example:
        >>> class CosineKernel(Kernel):
        ...     def forward(self, x, y=None):
        ...         x = torch.nn.functional.normalize(x, dim=-1)
        ...         y = x if y is None else torch.nn.functional.normalize(y, dim=-1)
        ...         return x @ y.mT
        >>> CosineKernel()(torch.eye(2)).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Gram matrix k(x_j, y_i), ``[..., n, m]``; arguments as for :meth:`evaluate`."""
        if type(self).evaluate is Kernel.evaluate:
            raise NotImplementedError(f"{type(self).__name__} must define forward or evaluate")
        return self.evaluate(x, y).gram

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """Evaluate once, for the Gram matrix and any number of repulsions.

        Args:
            x: the particles that exert the force, floating-point, ``[..., n, d]``.
            y: the points where it acts, ``[..., m, d]``; ``None`` means y = x.
        """
        check_points(type(self).__name__, x, y)
        target = x if y is None else y
        batch = torch.broadcast_shapes(x.shape[:-2], target.shape[:-2])

        def repulsion(weights: Tensor | None) -> Tensor:
            # d/de_i sum_j W_ji k(x_j + e_i, y_i) = sum_j W_ji grad_{x_j} k: one column of the
            # Gram matrix at a time, so memory stays [..., n, d].
            def column(shift: Tensor, i: int) -> Tensor:
                k = self(x + shift, target[..., i : i + 1, :])
                return (k if weights is None else weights[..., i : i + 1] * k).sum()

            still = x.new_zeros(*batch, 1, x.shape[-1])
            gradient = torch.func.grad(column)
            return torch.cat([gradient(still, i) for i in range(target.shape[-2])], -2)

        return Evaluation(self(x, y), repulsion)

    def gram_and_repulsion(self, x: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Gram matrix and the summed gradients in the first argument.

        Returns:
            tuple: K ``[..., n, m]`` with ``K[..., j, i] = k(x_j, y_i)``, and R ``[..., m, d]``
            with ``R[..., i, :] = sum_j grad_{x_j} k(x_j, y_i)``, the arguments of
            :func:`torchrl_stein.functional.svgd_direction`. No [n, m, d] is formed.
        """
        evaluation = self.evaluate(x, y)
        return evaluation.gram, evaluation.repulsion

    @torch.no_grad()
    def svgd_direction(self, x: Tensor, scores: Tensor, *, out: Tensor | None = None) -> Tensor:
        r"""The SVGD direction of a set of particles; ascend along it.

        phi(x_i) = (1/n) sum_j [ k(x_j, x_i) s(x_j) + grad_{x_j} k(x_j, x_i) ]

        Args:
            x: ``[..., n, d]``.
            scores: s(x_j) = grad log p(x_j), as ``x``.
            out: where to write it, as ``x`` and neither of the two: for large particles a new
                tensor at each step can take longer than the arithmetic.

        Returns:
            Tensor: ``[..., n, d]``, detached: ``out`` if it was given.

        Source: Liu & Wang 2016 (arXiv:1608.04471), algorithm 1, eq. (8).
        """
        _check_direction_arguments(type(self).__name__, x, scores, out)
        return self._direction(x, scores, torch.empty_like(scores) if out is None else out)

    def _direction(self, x: Tensor, scores: Tensor, out: Tensor) -> Tensor:
        evaluation = self.evaluate(x)
        force = svgd_direction(evaluation.gram, evaluation.repulsion, scores)
        return torch.add(*force, out=out)

    @property
    def has_bandwidth(self) -> bool:
        """Whether evaluations carry a bandwidth: True for those with exactly one."""
        return False

    def observe(self, tensordict: TensorDictBase) -> None:
        """Show the kernel the batch of data ``[n, ...]`` that the next evaluation belongs to.

        Losses call it. Kernels between behaviours take their states from it; others ignore it,
        and sums and products pass it on.
        """
        for child in self.children():
            if isinstance(child, Kernel):
                child.observe(tensordict)

    def __add__(self, other: Kernel) -> SumKernel:
        return SumKernel(self, other) if isinstance(other, Kernel) else NotImplemented

    def __mul__(self, other: Any) -> ProductKernel | ScaledKernel:
        if isinstance(other, Kernel):
            return ProductKernel(self, other)
        return ScaledKernel(self, cast(float, other)) if isinstance(other, Real) else NotImplemented

    __rmul__ = __mul__


class _Pair(Kernel):
    def __init__(self, first: Kernel, second: Kernel) -> None:
        super().__init__()
        check_type(type(self).__name__, "a Kernel", Kernel, first=first, second=second)
        self.first, self.second = first, second


class SumKernel(_Pair):
    """k(x, y) = k1(x, y) + k2(x, y), written ``k1 + k2``.

    Example:
        >>> from torchrl_stein.kernels import LinearKernel
        >>> (LinearKernel() + LinearKernel())(torch.ones(1, 1)).item()
        4.0
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        a, b = self.first.evaluate(x, y), self.second.evaluate(x, y)
        return Evaluation(
            a.gram + b.gram, lambda w: a.weighted_repulsion(w) + b.weighted_repulsion(w)
        )


class ProductKernel(_Pair):
    """k(x, y) = k1(x, y) k2(x, y), written ``k1 * k2``.

    Example:
        >>> from torchrl_stein.kernels import LinearKernel
        >>> (LinearKernel() * LinearKernel())(torch.ones(1, 2)).item()
        9.0
    """

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        a, b = self.first.evaluate(x, y), self.second.evaluate(x, y)

        def repulsion(weights: Tensor | None) -> Tensor:
            w = 1.0 if weights is None else weights
            return a.weighted_repulsion(w * b.gram) + b.weighted_repulsion(w * a.gram)

        return Evaluation(a.gram * b.gram, repulsion)


class ScaledKernel(Kernel):
    """k(x, y) = scale * k1(x, y), scale >= 0, written ``0.5 * k1``.

    Example:
        >>> from torchrl_stein.kernels import LinearKernel
        >>> (0.5 * LinearKernel())(torch.ones(1, 1)).item()
        1.0
    """

    def __init__(self, kernel: Kernel, scale: float) -> None:
        super().__init__()
        check_type("ScaledKernel", "a Kernel", Kernel, kernel=kernel)
        check_number("ScaledKernel", at_least=0, scale=scale)
        self.kernel = kernel
        self.scale = float(scale)

    @property
    def has_bandwidth(self) -> bool:
        """As the kernel that is scaled."""
        return self.kernel.has_bandwidth

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        """See :meth:`Kernel.evaluate`."""
        inner = self.kernel.evaluate(x, y)
        return Evaluation(
            self.scale * inner.gram,
            lambda w: self.scale * inner.weighted_repulsion(w),
            inner.bandwidth,
        )


def observers(kernel: Kernel) -> list[str]:
    """Names of the parts of a kernel that look at the data."""
    parts = (part for part in kernel.modules() if isinstance(part, Kernel))
    return [type(part).__name__ for part in parts if type(part).observe is not Kernel.observe]


def check_one_set(owner: str, x: Tensor, y: Tensor | None) -> None:
    """Require one set of points."""
    if y is not None:
        raise ValueError(
            f"{owner}: y must be None (particles are told apart by their index in one set), got a "
            f"second set of shape {list(y.shape)}"
        )
    check_points(owner, x, None)


def _check_direction_arguments(owner: str, x: Tensor, scores: Tensor, out: Tensor | None) -> None:
    """Require tensors alike, and a result that overwrites nothing that is still needed."""
    check_floating(owner, x=x, scores=scores)
    check_same_size(owner, x=(x, -2))
    if 0 in x.shape:
        raise ValueError(f"{owner}: x must not be empty, got shape {list(x.shape)}")
    want, *others = (
        None if tensor is None else f"{list(tensor.shape)} {tensor.dtype} on {tensor.device}"
        for tensor in (x, scores, out)
    )
    for name, got in zip(("scores", "out"), others, strict=True):
        if got not in (None, want):
            raise ValueError(f"{owner}: {name} must be {want} as x, got {got}")
    if out is None or torch.compiler.is_compiling():  # addresses cannot be traced
        return
    of_out, *memory = (tensor.untyped_storage().data_ptr() for tensor in (out, x, scores))
    if of_out and of_out in memory:  # 0 on "meta"
        raise ValueError(f"{owner}: out must have memory of its own, got that of x or scores")
