"""How one SVGD step changes the density of its particles (S2AC, arXiv:2405.00987, theorem 3.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchrl_stein._checks import (
    check_count,
    check_expands,
    check_floating,
    check_number,
    check_numbers,
    check_same_size,
)

from .distance import squared_distances

__all__ = ["identity_probes", "score_and_products", "svgd_log_det", "svgd_step_bound"]


def svgd_log_det(
    x: Tensor, scores: Tensor, hessian_trace: Tensor, bandwidth: Tensor | float
) -> Tensor:
    r"""Each particle's share of the log-determinant of an SVGD step, per unit of its size.

    For k(x, y) = exp(-|x - y|^2 / h), x_i <- x_i + eps phi_i and phi as in :func:`svgd_direction`,

    D_i = tr d phi_i / d x_i = (2 / (m h)) sum_{j != i} k_ij [-(x_i - x_j) . s_j + d
    - 2 |x_i - x_j|^2 / h] + (1/m) tr Hess log p(x_i)

    and log q(x_i) falls by eps D_i. The sum over i is the log-determinant of the joint map of all
    particles to first order in eps, so sum_i log q(x_i) is their joint log density. Leading
    dimensions are batch.

    Args:
        x: particles, ``[..., m, d]``.
        scores: grad log p(x_j), as ``x``.
        hessian_trace: tr Hess log p(x_j), ``[..., m]``. The theorem leaves it out, and with it most
            of the log-determinant.
        bandwidth: h > 0, ``[...]``, ``[]`` or a number: a constant, whatever it was made from.

    Returns:
        Tensor: D, ``[..., m]``.

    Raises:
        TypeError, ValueError: for tensors that are not floating-point, sizes that disagree, and h
            that is not positive (seen on a CPU only).

    Source: Messaoud et al. 2024 (arXiv:2405.00987), theorem 3.3. Differs: the trace; h is 2 sigma^2
    there, and their phi is alpha times ours.

    Example:
        >>> import torch
        >>> x, trace = torch.tensor([[0.0], [0.0]]), torch.tensor([-1.0, -1.0])
        >>> svgd_log_det(x, -x, trace, bandwidth=1.0)  # (2 / 2) 1 - 1 / 2
        tensor([0.5000, 0.5000])
    """
    weight = _check("svgd_log_det", x, scores, bandwidth)
    check_floating("svgd_log_det", hessian_trace=hessian_trace)
    check_same_size("svgd_log_det", x=(x, -2), hessian_trace=(hessian_trace, -1))
    m, d = x.shape[-2:]
    scaled = squared_distances(x) * weight  # 2 |x_i - x_j|^2 / h
    products = x @ scores.mT
    own = products.diagonal(dim1=-2, dim2=-1).unsqueeze(-2)
    pairs = (-0.5 * scaled).exp() * (own - products + d - scaled)
    # A particle stands in its own sum with d, and has no part in it.
    return (weight.squeeze(-1) * (pairs.sum(-1) - d) + hessian_trace) / m


def svgd_step_bound(
    x: Tensor, scores: Tensor, probes: Tensor, products: Tensor, bandwidth: Tensor | float
) -> Tensor:
    r"""1 / max_i |d phi_i / d x_i|_F: below it, log(1 + eps D) is near eps D, and steps are stable.

    Of the step of :func:`svgd_log_det`, with the Frobenius norm of each particle's own block of the
    Jacobian.

    Args:
        x: particles, ``[..., m, d]``.
        scores: grad log p(x_j), as ``x``.
        probes: P vectors v per particle, whose outer products add up to the identity:
            ``[P, ..., m, d]``, the unit vectors for the norm itself.
        products: Hess log p(x_j) v, as ``probes``.
        bandwidth: h, as for :func:`svgd_log_det`.

    Returns:
        Tensor: the bound, ``[...]``, infinite where nothing moves.

    Source: MET-SVGD, the successor of Messaoud et al. 2024.

    Example:
        >>> import torch
        >>> x, eye = torch.zeros(1, 2), torch.eye(2).unsqueeze(-2)
        >>> svgd_step_bound(x, -x, eye, -eye, bandwidth=1.0)  # one particle: J = -1, |J|_F = 2^.5
        tensor(0.7071)
    """
    weight = _check("svgd_step_bound", x, scores, bandwidth)
    check_floating("svgd_step_bound", probes=probes, products=products)
    check_expands("svgd_step_bound", probes.shape, "probes", x=x, products=products)
    gram = (-0.5 * weight * squared_distances(x)).exp()
    # k_ij (x_i - x_j) . v_i
    along = gram * ((x * probes).sum(-1, keepdim=True) - probes @ x.mT)
    apart = weight * (along.sum(-1, keepdim=True) * x - along @ x)
    pushed = (gram.sum(-1, keepdim=True) - 1.0) * probes - along @ scores - apart
    moved = (weight * pushed + products) / x.shape[-2]
    return moved.square().sum((0, -1)).amax(-1).rsqrt()


def identity_probes(x: Tensor, most: int) -> Tensor:
    """Vectors whose outer products add up to the identity: ``[P, *x.shape]`` for ``[..., d]``.

    The d unit vectors, if there are at most that many; otherwise ``most`` vectors of random signs
    (Hutchinson), with which the identity is an expectation.

    Example:
        >>> import torch
        >>> identity_probes(torch.zeros(7, 2), most=2)[:, 0].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    check_floating("identity_probes", x=x)
    check_count("identity_probes", most=most)
    d = x.shape[-1]
    if d <= most:
        unit = torch.eye(d, dtype=x.dtype, device=x.device)
        return unit.reshape(d, *[1] * (x.ndim - 1), d).expand(d, *x.shape)
    signs = torch.randint(0, 2, (most, *x.shape), device=x.device)
    return (2.0 * signs.to(x.dtype) - 1.0) / most**0.5


def score_and_products(
    log_density: Callable[[Tensor], Tensor], x: Tensor, probes: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores of a density and products of its Hessian with probes, differentiable in x.

    Args:
        log_density: of ``x``, a sum over points that do not interact, ``[]``.
        x: points, ``[..., d]``.
        probes: ``[P, ..., d]``; P may be 0.

    Returns:
        tuple: scores as ``x`` and products as ``probes``; the sum of ``probes * products`` over
        the first and last dimension is the trace of the Hessian.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> probes = torch.ones(1, 1, 2)
        >>> scores, products = score_and_products(lambda x: -x.pow(4).sum() / 4, x, probes)
        >>> scores.tolist(), products.tolist()
        ([[-1.0, -8.0]], [[[-3.0, -12.0]]])
    """
    check_floating("score_and_products", x=x, probes=probes)
    score = torch.func.grad(log_density)
    if probes.shape[0] == 0:
        return score(x), torch.zeros_like(probes)
    scores, pullback = torch.func.vjp(score, x)[:2]
    # A Hessian is symmetric.
    return scores, torch.stack([pullback(probe)[0] for probe in probes.unbind(0)])


def _check(function: str, x: Tensor, scores: Tensor, bandwidth: Tensor | float) -> Tensor:
    """2 / h, ``[..., 1, 1]``, of arguments that fit."""
    check_floating(function, x=x, scores=scores)
    check_same_size(function, x=(x, -2), scores=(scores, -2))
    check_same_size(function, x=(x, -1), scores=(scores, -1))
    check = check_numbers if isinstance(bandwidth, Tensor) else check_number
    check(function, above=0, bandwidth=bandwidth)
    h = torch.as_tensor(bandwidth, dtype=x.dtype, device=x.device)
    check_expands(function, x.shape[:-2], "the sets of particles", bandwidth=h)
    return (2.0 / h)[..., None, None]
