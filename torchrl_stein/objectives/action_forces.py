"""What moves the action particles of soft Q-learning: three strategies, one equation each.

All are functions ``(kernel, pushing [*B, K, A], moved [*B, M, A], log_density)``: the force on the
moved set, as drive and repulsion, and the kernel's evaluation, None where there is no kernel.
``log_density`` gives the sum of log p over points; p is exp(Q / alpha), up to a factor, in the
coordinates of the particles.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchrl_stein._torchrl import in_transform
from torchrl_stein.functional import log_distance_gradient, svgd_direction
from torchrl_stein.functional.svgd import SVGDDirection
from torchrl_stein.kernels import Kernel
from torchrl_stein.kernels.base import Evaluation

__all__ = ["ActionForce", "log_distance_force", "repulsion_force", "score", "svgd_force"]

LogDensity = Callable[[Tensor], Tensor]
ActionForce = Callable[
    [Kernel, Tensor, Tensor, LogDensity], tuple[SVGDDirection, Evaluation | None]
]


def svgd_force(
    kernel: Kernel, pushing: Tensor, moved: Tensor, log_density: LogDensity
) -> tuple[SVGDDirection, Evaluation | None]:
    r"""phi(z) = (1/K) sum_j [k(x_j, z) grad log p(x_j) + grad_{x_j} k(x_j, z)]: samples p.

    Every particle is driven by the gradients of all others nearby. The force vanishes exactly
    where the particles follow p (of a characteristic kernel, in the limit of many).

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), eq. (13), appendix C.1.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.randn(8, 1)
        >>> force, _ = svgd_force(RBFKernel(1.0), x, x, lambda z: -0.5 * z.square().sum())
        >>> force.total.shape
        torch.Size([8, 1])
    """
    scores = score(log_density, pushing)
    with torch.no_grad():
        evaluation = kernel.evaluate(pushing, moved)
        return svgd_direction(evaluation.gram, evaluation.repulsion, scores), evaluation


def repulsion_force(
    kernel: Kernel, pushing: Tensor, moved: Tensor, log_density: LogDensity
) -> tuple[SVGDDirection, Evaluation | None]:
    r"""phi(z) = grad log p(z) + (1/K) sum_j grad_{x_j} k(x_j, z): does NOT sample p.

    Each particle follows its own gradient. The force is that of the energy
    E_q[log p] - 1/2 E_{x, y ~ q} k(x, y), which is largest where (k * q)(z) = log p(z) + c on the
    support of q: for a narrow kernel of integral w, q = max(log p + c, 0) / w.

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.randn(8, 1)
        >>> force, _ = repulsion_force(RBFKernel(1.0), x, x, lambda z: -0.5 * z.square().sum())
        >>> bool((force.drive == -x).all())
        True
    """
    drive = score(log_density, moved)
    with torch.no_grad():
        evaluation = kernel.evaluate(pushing, moved)
        return SVGDDirection(drive, evaluation.repulsion / pushing.shape[-2]), evaluation


def log_distance_force(
    kernel: Kernel, pushing: Tensor, moved: Tensor, log_density: LogDensity
) -> tuple[SVGDDirection, Evaluation | None]:
    r"""phi(z) = grad log p(z) + (2/K) sum_j (z - x_j) / abs(z - x_j)^2: does NOT sample p.

    That of E_q[log p] + E_{x, y ~ q} log abs(x - y), the actor of DrAC: repulsion without a
    bandwidth. For p = N(0, 1) the particles follow Wigner's semicircle of radius 2; for N(0, I) in
    any dimension E abs(z)^2 = 1. DrAC itself measures distances of actions:
    ``squash=BoxSquash(barrier=False)``. The kernel is not used.

    Source: Wang et al. 2025 (DrAC, arXiv:2511.01374).

    Example:
        >>> from torchrl_stein.kernels import RBFKernel
        >>> x = torch.randn(8, 1)
        >>> force, _ = log_distance_force(RBFKernel(), x, x, lambda z: -0.5 * z.square().sum())
        >>> bool((force.drive == -x).all())
        True
    """
    drive = score(log_density, moved)
    with torch.no_grad():
        return SVGDDirection(drive, log_distance_gradient(pushing, moved)), None


def score(log_density: LogDensity, points: Tensor) -> Tensor:
    """grad log p at every point, detached; of a function that returns the sum over points."""
    if torch.compiler.is_compiling() or torch.is_inference_mode_enabled() or in_transform():
        return torch.func.grad(log_density)(points)  # here no leaf can be made
    # A fifth faster than torch.func.grad, which wraps the result of every operation.
    with torch.enable_grad():
        leaf = points.detach().requires_grad_()
        return torch.autograd.grad(log_density(leaf), leaf)[0]
