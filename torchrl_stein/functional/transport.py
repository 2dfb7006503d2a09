"""Entropic optimal transport between weighted point sets, and the potential of Zhang et al. 2018.

Regularizations are called lambda below and are in units of the cost, numbers or ``[...]``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import (
    check_count,
    check_floating,
    check_number,
    check_numbers,
    check_same_size,
    may_look,
)

from .conjugate_gradient import conjugate_gradient
from .distance import squared_distances

# The regularization starts at the largest cost and falls by e to this power over all iterations: no
# kernel entry that matters ever underflows, and small regularizations start from good potentials.
# A fixed fast rate would freeze some plans, because mass crosses from one cluster to another only
# while the regularization is of the order of their distance.
_ANNEALING = -18.0
# Both potentials are updated at once, by full steps, which oscillates without momentum. This much
# takes a fifth of the iterations of averaged steps; with 0.9, small regularizations diverge.
_MOMENTUM = 0.5
# This share of the mean weight is added to the diagonals of Newton's equations: enough for single
# precision where clusters hardly exchange mass, too little to slow the others.
_RIDGE = 1e-5
# Sinkhorn's iteration is slow along one direction or so for each pair of clusters, so that few
# conjugate gradients suffice in a step of Newton's method.
_NEWTON_ITERATIONS = 10
_WEIGHT_ROUNDING = 1e-3  # by which sums of weights may differ from 1
_CHECK_INTERVAL = 10  # iterations between two looks at the error, which make the host wait


class TransportPlan(NamedTuple):
    """A coupling, whose marginals are the weights, to rounding.

    The error is the summed absolute one of both marginals before the last correction: how far from
    the optimum the iteration ended.
    """

    plan: Tensor  # the mass moved from i to j, [..., n, m]
    marginal_error: Tensor  # [...]


@torch.no_grad()
def entropic_plan(
    cost: Tensor,
    regularization: Tensor | float,
    source: Tensor | None = None,
    target: Tensor | None = None,
    *,
    tolerance: float | None = 1e-6,
    max_iterations: int = 1000,
    newton_steps: int = 0,
) -> TransportPlan:
    r"""The cheapest plan between two weighted sets, made unique and smooth by its entropy.

    P minimizes sum_ij P_ij c_ij + lambda sum_ij P_ij log(P_ij / (a_i b_j)) among the non-negative
    matrices whose marginals are a and b.

    Sinkhorn's iteration updates both dual potentials at once, with momentum, so that the plan
    between two identical sets is always symmetric. It is slow where parts of the sets hardly
    exchange mass; Newton's method is not, but has to start near the end, so steps of it may follow.
    One that makes the marginals worse is not taken. A correction of rank one then makes the
    marginals exact, wherever the iteration ended. Memory and time per iteration are of order n m.

    Args:
        cost: c, ``[..., n, m]``, finite.
        regularization: lambda > 0.
        source: weights a of the rows, ``[..., n]``, non-negative with sum 1; None is uniform.
        target: weights b of the columns, ``[..., m]``.
        tolerance: stop where the summed absolute error of both marginals is below it for every
            problem of the batch; asking makes the host wait. None runs all iterations, without
            any synchronisation.
        max_iterations: end in any case. The regularization is annealed over them: the more, the
            better the plan between far clusters of unequal mass.
        newton_steps: of Newton's method, after the iteration.

    Returns:
        TransportPlan: without gradient, see :func:`entropic_transport` for one.

    Source: Cuturi 2013 (arXiv:1306.0895); the correction: Altschuler et al. 2017
    (arXiv:1705.09634), algorithm 2, in a symmetric form; Newton's steps: Brauer, Clason, Lorenz &
    Wirth 2017 (arXiv:1710.06635), in the logarithms of the scalings. Differs: momentum and
    simultaneous updates.

    Example:
        >>> entropic_plan(torch.tensor([[0.0, 4.0], [4.0, 0.0]]), regularization=1e9).plan
        tensor([[0.2500, 0.2500],
                [0.2500, 0.2500]])
    """
    _check("entropic_plan", cost, regularization)
    _check_weights(cost, source=source, target=target)
    check_count("entropic_plan", max_iterations=max_iterations)
    check_count("entropic_plan", at_least=0, newton_steps=newton_steps)
    if tolerance is not None:
        check_number("entropic_plan", above=0, tolerance=tolerance)
    a, b = _weights(cost, source, target)
    uniform = source is None and target is None
    marginals = _means if uniform else partial(_weighted_sums, a, b)
    floor = _scale_like(cost, regularization)[..., None, None]
    top = cost.abs().amax((-2, -1), keepdim=True)
    f, g = torch.zeros_like(cost[..., :1]), torch.zeros_like(cost[..., :1, :])
    step_f, step_g = f, g
    for iteration in range(max_iterations):
        scale = torch.maximum(top * math.exp(_ANNEALING * iteration / max_iterations), floor)
        rows, columns = marginals(_kernel(cost, scale, f, g))
        if tolerance is not None and iteration % _CHECK_INTERVAL == _CHECK_INTERVAL - 1:
            error = _marginal_error(a, b, rows, columns)
            if ((error < tolerance) & (scale == floor)).all():
                break
        step_f = _MOMENTUM * step_f - scale * _finite_log(rows)
        step_g = _MOMENTUM * step_g - scale * _finite_log(columns)
        f, g = f + step_f, g + step_g
    kernel = _kernel(cost, floor, f, g)
    rows, columns = marginals(kernel)
    error = _marginal_error(a, b, rows, columns)
    for _ in range(newton_steps):
        moved = kernel * _newton_step(a, b, kernel).exp()
        new_error = _marginal_error(a, b, *marginals(moved))
        # A step that is not finite is not taken either, since it compares false.
        kernel = torch.where(new_error < error, moved, kernel)
        error = torch.where(new_error < error, new_error, error)
    rows, columns = marginals(kernel)
    # Each entry shrinks by the larger excess of its row and its column, at least 1, then what is
    # missing comes back as a product. Algorithm 2 shrinks rows first, which is not symmetric.
    plan = a * b * kernel / torch.maximum(rows, columns).clamp_min(1.0)
    left = (a - plan.sum(-1, keepdim=True)).clamp_min(0.0)
    right = (b - plan.sum(-2, keepdim=True)).clamp_min(0.0)
    missing = left.sum(-2, keepdim=True).clamp_min(torch.finfo(cost.dtype).tiny)
    return TransportPlan(plan + left * (right / missing), error[..., 0, 0])


def entropic_transport(
    cost: Tensor,
    regularization: Tensor | float,
    source: Tensor | None = None,
    target: Tensor | None = None,
    **solver: Any,
) -> Tensor:
    """The minimum that :func:`entropic_plan` finds, ``[...]``, differentiable in the cost.

    Arguments as there; ``solver`` are tolerance, max_iterations and newton_steps. By the envelope
    theorem the gradient with respect to c_ij is P_ij: the plan is a constant, and nothing is
    differentiated through the iterations. Weights and regularization are constants too.

    Example:
        >>> x, y = torch.tensor([[0.0], [1.0]], requires_grad=True), torch.tensor([[1.0], [2.0]])
        >>> entropic_transport(squared_distances(x, y), 0.01).backward()
        >>> x.grad.round(decimals=4)  # 2 (x_i - y_i) / n: each point goes to the next
        tensor([[-1.],
                [-1.]])
    """
    plan = entropic_plan(cost, regularization, source, target, **solver).plan
    a, b = _weights(cost, source, target)
    product = (a * b).detach()
    # KL(P | a b) = sum ab ((1 + e) log(1 + e) - e) with P = ab (1 + e): of second order in e, where
    # sum P log(P / ab) carries rounding of first order, which a large lambda would magnify.
    excess = (plan - product) / product.clamp_min(torch.finfo(cost.dtype).tiny)
    information = product * (torch.special.xlog1py(1.0 + excess, excess) - excess)
    scale = _scale_like(cost, regularization)
    return (plan * cost).sum((-2, -1)) + scale * information.sum((-2, -1))


def sinkhorn_divergence(
    x: Tensor, y: Tensor, regularization: Tensor | float, **solver: Any
) -> Tensor:
    r"""OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2 between uniform point sets, cost |x - y|^2.

    The entropic cost alone is smallest where x has shrunk towards its mean; the two corrections
    remove that bias. The divergence is zero, and so is its gradient, where both sets are equal;
    it tends to the squared Wasserstein distance W_2^2 for small regularization and to the squared
    distance of the means for large.

    Args:
        x: ``[..., n, d]``.
        y: ``[..., m, d]``, with the same leading dimensions.
        regularization: lambda > 0, in squared units of the points.
        solver: tolerance, max_iterations and newton_steps of :func:`entropic_plan`.

    Returns:
        Tensor: ``[...]``, differentiable in x and y; >= 0 up to the tolerance.

    Source: Feydy et al. 2019 (arXiv:1810.08278), eq. (3).

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> sinkhorn_divergence(x, x + 2.0, regularization=0.1).round(decimals=4)
        tensor(4.)
    """
    check_floating("sinkhorn_divergence", x=x, y=y)
    if x.shape[:-2] != y.shape[:-2]:
        raise ValueError(
            "sinkhorn_divergence: x and y must have the same leading dimensions, got "
            f"{list(x.shape)} and {list(y.shape)}"
        )
    if isinstance(regularization, Tensor) and regularization.ndim > x.ndim - 2:
        raise ValueError(
            "sinkhorn_divergence: regularization must be a number or of the leading shape "
            f"{list(x.shape[:-2])} of the points, got {list(regularization.shape)}"
        )
    costs = [squared_distances(x, y), squared_distances(x, x), squared_distances(y, y)]
    if x.shape == y.shape:  # one problem of three times the batch size
        values = entropic_transport(torch.stack(costs), regularization, **solver).unbind(0)
    else:
        values = tuple(entropic_transport(cost, regularization, **solver) for cost in costs)
    cross, within_x, within_y = values
    return cross - 0.5 * (within_x + within_y)


def wgf_potential(cost: Tensor, regularization: Tensor | float) -> Tensor:
    r"""Mean over i and j of c_ij exp(-c_ij / lambda), the potential behind eq. (9) of the paper.

    With c_ij = |x_i - y_j|^2, M points x_i and M points y_j, its gradient times M is

    .. math::
        \frac{1}{M} \sum_j 2 \left(1 - \frac{c_{ij}}{\lambda}\right) e^{-c_{ij}/\lambda}
        \left(x_i - y_j\right).

    The cost is ``[..., n, m]``, the result ``[...]``, differentiable in it; lambda is a constant.

    Source: Zhang et al. 2018 (arXiv:1808.03030), eq. (9). Differs: the sum over j is a mean, as
    that of (7) is; with the plain sum a weight of 0.4 exceeds the Stein force.

    Example:
        >>> x = torch.tensor([[1.0]], requires_grad=True)
        >>> wgf_potential(squared_distances(x, torch.zeros(1, 1)), 4.0).backward()
        >>> x.grad  # 2 (1 - 1/4) exp(-1/4)
        tensor([[1.1682]])
    """
    _check("wgf_potential", cost, regularization)
    scale = _scale_like(cost, regularization)[..., None, None]
    return (cost * torch.exp(-cost / scale)).mean((-2, -1))


def _scale_like(cost: Tensor, regularization: Tensor | float) -> Tensor:
    # A number is filled in on the device; as_tensor would copy it there, and wait.
    if isinstance(regularization, Tensor):
        return regularization.to(cost)
    return cost.new_full((), regularization)


def _kernel(cost: Tensor, scale: Tensor, f: Tensor, g: Tensor) -> Tensor:
    # The exponent is at most 80, so that the next update still mends a far too large marginal.
    return ((f + g - cost) / scale).clamp_(max=80.0).exp_()


def _means(kernel: Tensor) -> tuple[Tensor, Tensor]:
    # Under equal weights, means take a third of the time of the products.
    return kernel.mean(-1, keepdim=True), kernel.mean(-2, keepdim=True)


def _weighted_sums(a: Tensor, b: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    return kernel @ b.mT, a.mT @ kernel


def _finite_log(ratio: Tensor) -> Tensor:
    limits = torch.finfo(ratio.dtype)
    return ratio.clamp(limits.tiny, limits.max).log_()


def _marginal_error(a: Tensor, b: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    of_rows = (a * (rows - 1.0)).abs().sum(-2, keepdim=True)
    return of_rows + (b * (columns - 1.0)).abs().sum(-1, keepdim=True)


def _newton_step(a: Tensor, b: Tensor, kernel: Tensor) -> Tensor:
    """What to add to (f_i + g_j - c_ij) / lambda so that both marginals become right.

    To first order they change by [[diag(r), P], [P^T, diag(s)]] (df, dg), where r and s are the
    marginals of P = a b kernel; the diagonals get a ridge. In units of the roots of r and s that is
    x + S y = left, S^T x + y = right. Conjugate gradients want no factors, for which a GPU would
    have to be asked whether there are any.
    """
    plan = (a * b * kernel).float() if kernel.itemsize < 4 else a * b * kernel
    rows, columns = plan.sum(-1, keepdim=True), plan.sum(-2, keepdim=True)
    of_row = (rows + _RIDGE / a.shape[-2]).rsqrt()
    of_column = (columns + _RIDGE / b.shape[-1]).rsqrt()
    share = of_row * plan * of_column
    left, right = of_row * (a - rows), (of_column * (b - columns)).mT
    # The mean of both sides gives a symmetric problem a symmetric solution.
    if left.shape == right.shape:
        shares = torch.stack([share, share.mT])
        both = torch.stack([left, right]), torch.stack([right, left])
        x, y = _eliminate(shares, *both).unbind(0)
    else:
        x, y = _eliminate(share, left, right), _eliminate(share.mT, right, left)
    x, y = x + left - share @ y, y + right - share.mT @ x
    return 0.5 * (of_row * x + of_column * y.mT).to(kernel.dtype)


def _eliminate(share: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """x of x + S y = left, S^T x + y = right, ``[..., n, 1]``."""
    matrix = share @ share.mT
    return conjugate_gradient(
        lambda v: v - (matrix @ v.unsqueeze(-1)).squeeze(-1),
        (left - share @ right).squeeze(-1),
        iterations=_NEWTON_ITERATIONS,
    ).solution.unsqueeze(-1)


def _weights(cost: Tensor, source: Tensor | None, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """Weights as a column ``[..., n, 1]`` and a row ``[..., 1, m]``."""
    n, m = cost.shape[-2:]
    a = cost.new_full((n,), 1.0 / n) if source is None else source.to(cost.dtype)
    b = cost.new_full((m,), 1.0 / m) if target is None else target.to(cost.dtype)
    return a.unsqueeze(-1), b.unsqueeze(-2)


def _check(function: str, cost: Tensor, regularization: Tensor | float) -> None:
    check_floating(function, cost=cost)
    check_same_size(function, cost=(cost, -2))
    if 0 in cost.shape[-2:]:
        raise ValueError(f"{function}: cost must have rows and columns, got {list(cost.shape)}")
    check = check_numbers if isinstance(regularization, Tensor) else check_number
    check(function, above=0, regularization=regularization)


def _check_weights(cost: Tensor, **sides: Tensor | None) -> None:
    for dim, (name, weights) in zip((-2, -1), sides.items(), strict=True):
        if weights is not None:
            given: dict[str, Any] = {name: weights}
            check_floating("entropic_plan", **given)
            check_same_size("entropic_plan", cost=(cost, dim), **{name: (weights, -1)})
            check_numbers("entropic_plan", at_least=0, **given)
            total = weights.detach().sum(-1)
            if may_look(total) and bool(((total - 1.0).abs() > _WEIGHT_ROUNDING).any()):
                raise ValueError(
                    f"entropic_plan: {name} must sum to 1, got sums between {total.min().item()} "
                    f"and {total.max().item()}"
                )
