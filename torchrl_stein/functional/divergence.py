"""Divergences between action distributions: diagonal Gaussians and categoricals, closed forms.

All are symmetric, zero for equal distributions and else positive, in nats, and map arguments
``[..., A]`` to ``[...]``. Scales are standard deviations; logits are finite and need no
normalisation. A bijection of the action, such as tanh, changes none of the exact ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchrl_stein._checks import check_floating, check_numbers, check_same_size


def gaussian_symmetric_kl(loc_p: Tensor, scale_p: Tensor, loc_q: Tensor, scale_q: Tensor) -> Tensor:
    r"""KL(p, q) + KL(q, p) of diagonal Gaussians, ``[..., A]`` -> ``[...]`` (Jeffreys 1946).

    .. math::
        \frac12 \sum_a \left[ \Big(\frac{\sigma_p}{\sigma_q} - \frac{\sigma_q}{\sigma_p}\Big)^2
            + \frac{(\mu_p - \mu_q)^2}{\sigma_p^2} + \frac{(\mu_p - \mu_q)^2}{\sigma_q^2} \right]

    Example:
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
    r"""Upper bound of the Jensen-Shannon divergence of diagonal Gaussians, ``[...]`` in nats.

    It is KL(p, g) / 2 + KL(q, g) / 2 with g the Gaussian that has the means and variances of the
    mixture (p + q) / 2, the best choice of g; with the mixture itself it would be the divergence,
    which has no closed form:

    .. math::
        \frac12 \sum_a \log \frac{(\sigma_p^2 + \sigma_q^2) / 2 + (\mu_p - \mu_q)^2 / 4}
            {\sigma_p \sigma_q}.

    The bound exceeds log 2 and grows like the logarithm of the distance, so distributions far apart
    still feel each other. ``exp(-bound / T)`` is a positive semi-definite kernel for every T > 0:
    up to factors of p or q alone it is a power -1 / (2T) of ``s_p + s_q + c (mu_p - mu_q)^2``, a
    mixture over t of products ``exp(-t s_p) exp(-t s_q) exp(-t c (mu_p - mu_q)^2)``.

    Source: the divergence: Lin 1991 (IEEE Trans. Inf. Theory 37); replacing a mixture by the
    Gaussian of its moments: Hershey & Olsen 2007 (ICASSP).

    Example:
        >>> zero, one = torch.zeros(1), torch.ones(1)  # log(1 + 4 / 4) / 2
        >>> round(gaussian_jensen_shannon_bound(zero, one, 2 * one, one).item(), 4)
        0.3466
    """
    _check_gaussians("gaussian_jensen_shannon_bound", loc_p, scale_p, loc_q, scale_q)
    # The quotient less one, so that nothing cancels where p and q are close.
    excess = (loc_p - loc_q).square() + 2.0 * (scale_p - scale_q).square()
    return 0.5 * torch.log1p(excess / (4.0 * scale_p * scale_q)).sum(-1)


def categorical_symmetric_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """KL(p, q) + KL(q, p) = sum_a (p_a - q_a) log(p_a / q_a) of categoricals (Jeffreys 1946).

    Example:
        >>> p, q = torch.tensor([0.75, 0.25]).log(), torch.tensor([0.5, 0.5]).log()
        >>> round(categorical_symmetric_kl(p, q).item(), 4)  # log(3) / 4
        0.2747
    """
    _check_last("categorical_symmetric_kl", logits_p=logits_p, logits_q=logits_q)
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


def categorical_jensen_shannon(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Jensen-Shannon divergence KL(p, m) / 2 + KL(q, m) / 2, m = (p + q) / 2, of categoricals.

    It is at most log 2, and the square of a metric that embeds in a Hilbert space, so
    ``exp(-JS / T)`` is a positive semi-definite kernel for every T > 0.

    Source: Lin 1991 (IEEE Trans. Inf. Theory 37); the embedding: Fuglede & Topsoe 2004 (ISIT).

    Example:
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
