"""How far are samples from a target: kernel Stein discrepancy, MMD, coverage of modes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchrl_stein._checks import (
    check_count,
    check_floating,
    check_number,
    check_numbers,
    check_same_size,
    check_type,
)

from .distance import squared_distances

Profile = Callable[[Tensor], Tensor]
"""An elementwise function of squared distance, k(x, y) = profile(|x - y|^2)."""


def inverse_multiquadric(squared_distance: Tensor) -> Tensor:
    """(1 + |x - y|^2)^(-1/2), elementwise; its Stein discrepancy detects non-convergence.

    Source: Gorham & Mackey 2017 (arXiv:1703.01717), theorem 8.

    Example:
        >>> inverse_multiquadric(torch.tensor(3.0)).item()
        0.5
    """
    check_floating("inverse_multiquadric", squared_distance=squared_distance)
    return torch.rsqrt(1.0 + squared_distance)


def stein_kernel(x: Tensor, scores: Tensor, profile: Profile = inverse_multiquadric) -> Tensor:
    r"""Stein kernel matrix of a radial kernel k(x, y) = profile(|x - y|^2).

    u(x, y) = s(x).s(y) k + s(x).grad_y k + s(y).grad_x k + tr(grad_x grad_y k)

    With r = x - y, t = |r|^2: grad_x k = 2 k'(t) r = -grad_y k, and the trace is
    -2 d k'(t) - 4 t k''(t). Derivatives of the profile are taken by autograd.

    Samples x and their scores, grad log p, are ``[..., n, d]``; ``profile`` is elementwise and
    differentiable twice. Returns ``[..., n, n]``, symmetric.

    Source: Liu, Lee & Jordan 2016 (arXiv:1602.03253), theorem 3.6.

    Example:
        >>> x = torch.zeros(1, 2)  # at one point only the trace is left: -2 d k'(0) = 2
        >>> stein_kernel(x, -x).item()
        2.0
    """
    _check_samples("stein_kernel", x, scores, at_least=0)
    check_type("stein_kernel", "a function of squared distances", Callable, profile=profile)

    def first(t: Tensor) -> Tensor:
        return torch.func.grad(lambda v: profile(v).sum())(t)

    t = squared_distances(x)
    k, k1 = profile(t), first(t)
    k2 = torch.func.grad(lambda v: first(v).sum())(t)
    # s(x_i).(x_i - x_j) and s(x_j).(x_i - x_j), from one product, without [n, n, d].
    origin = x[..., :1, :]
    cross = scores @ (x - origin).mT  # [i, j] = s_i . x_j
    own = cross.diagonal(dim1=-2, dim2=-1)
    s_i_r = own[..., :, None] - cross
    s_j_r = cross.mT - own[..., None, :]
    drift = 2.0 * k1 * (s_j_r - s_i_r)
    trace = -2.0 * x.shape[-1] * k1 - 4.0 * t * k2
    return (scores @ scores.mT) * k + drift + trace


def ksd_v_statistic(x: Tensor, scores: Tensor, profile: Profile = inverse_multiquadric) -> Tensor:
    """Squared kernel Stein discrepancy, V-statistic: mean of the Stein kernel over all pairs.

    Never negative; biased upwards by the diagonal, of order 1/n.

    Arguments and errors as for :func:`stein_kernel`; the result is ``[...]``.

    Source: Liu, Lee & Jordan 2016 (arXiv:1602.03253), eq. (15).

    Example:
        >>> x = torch.randn(100, 1, generator=torch.Generator().manual_seed(0))
        >>> bool(ksd_v_statistic(x, -x) < ksd_v_statistic(x + 2.0, -(x + 2.0)))
        True
    """
    _check_samples("ksd_v_statistic", x, scores, at_least=1)
    return stein_kernel(x, scores, profile).mean((-2, -1))


def ksd_u_statistic(x: Tensor, scores: Tensor, profile: Profile = inverse_multiquadric) -> Tensor:
    """Squared kernel Stein discrepancy, U-statistic: mean over pairs of different samples.

    Unbiased, hence it may come out slightly negative for samples of the target.

    Arguments and errors as for :func:`stein_kernel`, with n >= 2; the result is ``[...]``.

    Source: Liu, Lee & Jordan 2016 (arXiv:1602.03253), eq. (14).

    Example:
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> bool(ksd_u_statistic(x, -x).abs() < 0.05)
        True
    """
    _check_samples("ksd_u_statistic", x, scores, at_least=2)
    return _off_diagonal_mean(stein_kernel(x, scores, profile))


def mmd_squared(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Squared maximum mean discrepancy between two samples, unbiased.

    mean_{j != i} k(x_i, x_j) + mean_{j != i} k(y_i, y_j) - 2 mean k(x_i, y_j)

    Of x ``[..., n, d]`` and y ``[..., m, d]``, n and m >= 2; ``kernel(a, b)`` gives Gram matrices,
    all three with one bandwidth. Returns ``[...]``: about zero, of either sign, if both samples
    have one distribution.

    Source: Gretton et al. 2012 (JMLR 13), lemma 6, eq. (3).

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 200, 1, generator=g)
        >>> k = lambda a, b: torch.exp(-squared_distances(a, b))
        >>> bool(mmd_squared(x, y + 3.0, k) > 20 * mmd_squared(x, y, k).abs())
        True
    """
    for name, sample in (("x", x), ("y", y)):
        _check_sample("mmd_squared", name, sample, at_least=2)
    check_same_size("mmd_squared", x=(x, -1), y=(y, -1))
    check_type("mmd_squared", "a function of two samples", Callable, kernel=kernel)
    within = _off_diagonal_mean(kernel(x, x)) + _off_diagonal_mean(kernel(y, y))
    return within - 2.0 * kernel(x, y).mean((-2, -1))


def _off_diagonal_mean(gram: Tensor) -> Tensor:
    n = gram.shape[-1]
    return (gram.sum((-2, -1)) - gram.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))


def mode_frequencies(x: Tensor, modes: Tensor, radius: float) -> Tensor:
    """Fraction of samples that lie within ``radius`` of each mode (and nearest to it).

    Args:
        x: samples, ``[..., n, d]``.
        modes: ``[g, d]``.
        radius: in units of x, > 0. Samples farther from every mode count for none, so the
            fractions sum to at most 1.

    Returns:
        Tensor: ``[..., g]``. A mode is covered if its fraction is above what you call coverage.

    Example:
        >>> x = torch.tensor([[0.1], [5.2], [5.0], [9.0]])
        >>> mode_frequencies(x, torch.tensor([[0.0], [5.0]]), radius=1.0)
        tensor([0.2500, 0.5000])
    """
    _check_sample("mode_frequencies", "x", x, at_least=1)
    _check_sample("mode_frequencies", "modes", modes, at_least=1)
    check_same_size("mode_frequencies", x=(x, -1), modes=(modes, -1))
    check_number("mode_frequencies", above=0, radius=radius)
    if modes.ndim != 2:
        raise ValueError(f"mode_frequencies: modes must be [g, d], got shape {list(modes.shape)}")
    distance, nearest = squared_distances(x, modes).min(-1)
    hit = torch.nn.functional.one_hot(nearest, modes.shape[0]) * (distance <= radius**2)[..., None]
    return hit.to(x.dtype).mean(-2)


def normalized_entropy(frequencies: Tensor) -> Tensor:
    """Entropy of a histogram divided by that of the uniform one: 1 = even, 0 = one mode.

    Of non-negative ``frequencies`` ``[..., g]``, g >= 2, which need not sum to 1; all zero has
    entropy 0. Returns ``[...]``, in [0, 1].

    Example:
        >>> normalized_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([1., 0.])
    """
    check_floating("normalized_entropy", frequencies=frequencies)
    check_same_size("normalized_entropy", frequencies=(frequencies, -1))
    g = frequencies.shape[-1]
    check_count("normalized_entropy", at_least=2, **{"the number of modes": g})
    check_numbers("normalized_entropy", at_least=0, frequencies=frequencies)
    total = frequencies.sum(-1, keepdim=True)
    p = frequencies / total.where(total > 0, 1.0)
    return torch.special.entr(p).sum(-1) / math.log(g)


def _check_sample(function: str, name: str, x: Tensor, *, at_least: int) -> None:
    check_floating(function, **{name: x})
    check_same_size(function, **{name: (x, -2)})
    check_count(function, at_least=at_least, **{f"the number of rows of {name}": x.shape[-2]})


def _check_samples(function: str, x: Tensor, scores: Tensor, *, at_least: int) -> None:
    _check_sample(function, "x", x, at_least=at_least)
    check_floating(function, scores=scores)
    if x.shape != scores.shape:
        raise ValueError(
            f"{function}: scores must have the shape of x, got scores {list(scores.shape)} "
            f"and x {list(x.shape)}"
        )
