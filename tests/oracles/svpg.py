"""Eq. (9) of Liu et al. 2017 (arXiv:1704.02399) times the temperature, one pair at a time."""

import numpy as np


def loss_gradient(kernel, x, g, temperature, *, prior_score=None, kernel_dim=None):
    """Gradient of the summed losses with respect to the particles x, [n, d].

    -(1/n) sum_j [k(x_j, x_i) (g_j + alpha s_j) + alpha grad_{x_j} k(x_j, x_i)] in the columns that
    the kernel sees, -(1/n) (g_i + alpha s_i) in the others.

    ``kernel`` is a pair (value, gradient in the first argument); g_j is the gradient of J_j, which
    the loss maximizes, and s_j the prior's score.
    """
    n, d = x.shape
    seen = d if kernel_dim is None else kernel_dim
    value, gradient = kernel
    out = np.zeros((n, d))
    for i in range(n):
        for j in range(n):
            drive = np.array(g[j], dtype=np.float64)
            if prior_score is not None:
                drive = drive + temperature * np.asarray(prior_score[j])
            push = temperature * gradient(x[j, :seen], x[i, :seen])
            out[i, :seen] -= (value(x[j, :seen], x[i, :seen]) * drive[:seen] + push) / n
            if i == j:
                out[i, seen:] -= drive[seen:] / n
    return out
