"""Divergences between action distributions: diagonal Gaussians and categoricals, closed forms.

All are symmetric, zero for equal distributions and else positive, and broadcast over leading
dimensions. A bijection of the action, such as tanh, changes none of the exact ones. All raise a
TypeError for what is no floating-point tensor, and a ValueError where the last sizes A differ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_numbers, check_same_size

__all__ = [
    "categorical_jensen_shannon",
    "categorical_symmetric_kl",
    "gaussian_jensen_shannon_bound",
    "gaussian_symmetric_kl",
]


def gaussian_symmetric_kl(loc_p: Tensor, scale_p: Tensor, loc_q: Tensor, scale_q: Tensor) -> Tensor:
    r"""KL(p, q) + KL(q, p) of diagonal Gaussians.

    .. math::
        \frac12 \sum_a \left[ \Big(\frac{\sigma_p}{\sigma_q} - \frac{\sigma_q}{\sigma_p}\Big)^2
            + \frac{(\mu_p - \mu_q)^2}{\sigma_p^2} + \frac{(\mu_p - \mu_q)^2}{\sigma_q^2} \right]

    Args:
        loc_p: means of p, ``[..., A]``.
        scale_p: standard deviations of p, > 0, ``[..., A]``.
        loc_q: means of q, ``[..., A]``.
        scale_q: standard deviations of q, > 0, ``[..., A]``.

    Returns:
        Tensor: ``[...]``, in nats.

    Raises:
        ValueError: also if a scale is not positive or not finite, which is looked at on a CPU.

    Source: Jeffreys 1946, the invariant J.

    Example:
        >>> import torch
        >>> zero, one = torch.zeros(1), torch.ones(1)  # KL = 1/2 either way
        >>> gaussian_symmetric_kl(zero, one, one, one).item()
        1.0
    """
    _check_gaussians("gaussian_symmetric_kl", loc_p, scale_p, loc_q, scale_q)
    shift = loc_p - loc_q
    ratio = scale_p / scale_q
    terms = (ratio - 1.0 / ratio).square() + (shift / scale_p).square() + (shift / scale_q).square()
    return 0.5 * terms.sum(-1)


def gaussian_jensen_shannon_bound(
    loc_p: Tensor, scale_p: Tensor, loc_q: Tensor, scale_q: Tensor
) -> Tensor:
    r"""Upper bound of the Jensen-Shannon divergence of diagonal Gaussians.

    With g the diagonal Gaussian that has the means and variances of the mixture (p + q) / 2, it is
    KL(p, g) / 2 + KL(q, g) / 2:

    .. math::
        \frac12 \sum_a \log \frac{(\sigma_p^2 + \sigma_q^2) / 2 + (\mu_p - \mu_q)^2 / 4}
            {\sigma_p \sigma_q}.

    The divergence itself has no closed form. It is the same expression with the mixture in place
    of g, and no other g makes it smaller. Unlike it, the bound exceeds log 2: it grows like the
    logarithm of the distance, so distributions far apart still feel each other. And
    ``exp(-bound / T)`` is a positive semi-definite kernel for every T > 0: up to factors of p or
    of q alone it is a power -1 / (2T) of ``s_p + s_q + c (mu_p - mu_q)^2``, which is a mixture of
    products ``exp(-t s_p) exp(-t s_q) exp(-t c (mu_p - mu_q)^2)`` over t > 0.

    Args:
        loc_p: means of p, ``[..., A]``.
        scale_p: standard deviations of p, > 0, ``[..., A]``.
        loc_q: means of q, ``[..., A]``.
        scale_q: standard deviations of q, > 0, ``[..., A]``.

    Returns:
        Tensor: ``[...]``, in nats.

    Raises:
        ValueError: also if a scale is not positive or not finite, which is looked at on a CPU.

    Source: the divergence of Lin 1991 (IEEE Trans. Inf. Theory 37), with the mixture replaced by
    the Gaussian of its moments, an approximation reviewed by Hershey & Olsen 2007 (ICASSP).

    Example:
        >>> import torch
        >>> zero, one = torch.zeros(1), torch.ones(1)  # log(1 + 4 / 4) / 2
        >>> round(gaussian_jensen_shannon_bound(zero, one, 2 * one, one).item(), 4)
        0.3466
    """
    _check_gaussians("gaussian_jensen_shannon_bound", loc_p, scale_p, loc_q, scale_q)
    # The quotient less one, so that nothing cancels where p and q are close.
    excess = (loc_p - loc_q).square() + 2.0 * (scale_p - scale_q).square()
    return 0.5 * torch.log1p(excess / (4.0 * scale_p * scale_q)).sum(-1)


def categorical_symmetric_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) of categorical distributions: sum_a (p_a - q_a) log(p_a / q_a).

    Args:
        logits_p: finite, ``[..., A]``; need not be normalised.
        logits_q: finite, ``[..., A]``.

    Returns:
        Tensor: ``[...]``, in nats.

    Source: Jeffreys 1946, the invariant J.

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()
        >>> round(categorical_symmetric_kl(p, q).item(), 4)  # log(3) / 4
        0.2747
    """
    _check_last("categorical_symmetric_kl", logits_p=logits_p, logits_q=logits_q)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def categorical_jensen_shannon(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence KL(p, m) / 2 + KL(q, m) / 2, m = (p + q) / 2, of categoricals.

    At most log 2. It is the square of a metric that embeds in a Hilbert space, hence
    ``exp(-JS / T)`` is a positive semi-definite kernel for every T > 0.

    Args:
        logits_p: finite, ``[..., A]``; need not be normalised.
        logits_q: finite, ``[..., A]``.

    Returns:
        Tensor: ``[...]``, in nats.

    Source: Lin 1991 (IEEE Trans. Inf. Theory 37); the embedding: Fuglede & Topsoe 2004
    (ISIT).

    Example:
        >>> import torch
        >>> p, q = torch.tensor([0.0, 50.0]), torch.tensor([50.0, 0.0])  # disjoint: log 2
        >>> round(categorical_jensen_shannon(p, q).item(), 4)
        0.6931
    """
    _check_last("categorical_jensen_shannon", logits_p=logits_p, logits_q=logits_q)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2.0)
    return 0.5 * (log_p.exp() * (log_p - log_m) + log_q.exp() * (log_q - log_m)).sum(-1)


def _check_gaussians(
    function: str, loc_p: Tensor, scale_p: Tensor, loc_q: Tensor, scale_q: Tensor
) -> None:
    _check_last(function, loc_p=loc_p, scale_p=scale_p, loc_q=loc_q, scale_q=scale_q)
    check_numbers(function, above=0, scale_p=scale_p, scale_q=scale_q)


def _check_last(function: str, **tensors: Tensor) -> None:
    check_floating(function, **tensors)
    check_same_size(function, **{name: (tensor, -1) for name, tensor in tensors.items()})
