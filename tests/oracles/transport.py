"""Entropic transport by Sinkhorn's plain alternating iteration, one logarithm at a time."""

import math


def log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(v - top) for v in values))


def plan(cost, regularization, a, b, iterations):
    """P_ij = a_i b_j exp((f_i + g_j - c_ij) / lambda) for weights > 0, as a list of rows."""
    n, m = len(a), len(b)
    f, g = [0.0] * n, [0.0] * m
    for _ in range(iterations):
        for i in range(n):
            terms = [math.log(b[j]) + (g[j] - cost[i][j]) / regularization for j in range(m)]
            f[i] = -regularization * log_sum_exp(terms)
        for j in range(m):
            terms = [math.log(a[i]) + (f[i] - cost[i][j]) / regularization for i in range(n)]
            g[j] = -regularization * log_sum_exp(terms)
    return [
        [a[i] * b[j] * math.exp((f[i] + g[j] - cost[i][j]) / regularization) for j in range(m)]
        for i in range(n)
    ]


def value(cost, regularization, a, b, plan):
    """sum_ij P_ij (c_ij + lambda log(P_ij / (a_i b_j)))."""
    total = 0.0
    for i in range(len(a)):
        for j in range(len(b)):
            information = math.log(plan[i][j] / (a[i] * b[j]))
            total += plan[i][j] * (cost[i][j] + regularization * information)
    return total


def gaussian_value(mean, variance, regularization):
    """Janati et al. 2020 (arXiv:2006.02572), theorem 1, lambda = 2 sigma^2, in one dimension."""
    (p, q), (a, b), s = mean, variance, 0.5 * regularization
    d = math.sqrt(4.0 * a * b + s**2)
    return (p - q) ** 2 + a + b - d + s * (1.0 - math.log(2.0 * s)) + s * math.log(d + s)
