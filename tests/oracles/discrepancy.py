"""Discrepancies between samples and targets, one pair at a time."""

import math

import numpy as np

from .distance import squared_distance


def stein_kernel_imq(x, y, s_x, s_y):
    """Stein kernel of k = (1 + |x - y|^2)^(-1/2) for one pair.

    With r = x - y and q = 1 + |r|^2, by hand:
    grad_x k = -r q^(-3/2), grad_y k = +r q^(-3/2),
    tr grad_x grad_y k = d q^(-3/2) - 3 |r|^2 q^(-5/2).
    """
    d, r2 = len(x), squared_distance(x, y)
    q = 1.0 + r2
    total = d * q**-1.5 - 3.0 * r2 * q**-2.5
    for c in range(d):
        r = x[c] - y[c]
        total += s_x[c] * s_y[c] * q**-0.5
        total += s_x[c] * r * q**-1.5
        total -= s_y[c] * r * q**-1.5
    return total


def stein_kernel(x, scores):
    n = len(x)
    out = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            out[i, j] = stein_kernel_imq(x[i], x[j], scores[i], scores[j])
    return out


def ksd_v(x, scores):
    n = len(x)
    total = 0.0
    for i in range(n):
        for j in range(n):
            total += stein_kernel_imq(x[i], x[j], scores[i], scores[j])
    return total / n**2


def ksd_u(x, scores):
    n = len(x)
    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                total += stein_kernel_imq(x[i], x[j], scores[i], scores[j])
    return total / (n * (n - 1))


def mmd_squared(x, y, k):
    """Gretton et al. 2012, lemma 6, eq. (3)."""
    n, m = len(x), len(y)
    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    return xx + yy - 2.0 * xy


def mode_frequencies(x, modes, radius):
    counts = [0] * len(modes)
    for point in x:
        distances = [math.sqrt(squared_distance(point, mode)) for mode in modes]
        nearest = distances.index(min(distances))
        if distances[nearest] <= radius:
            counts[nearest] += 1
    return [count / len(x) for count in counts]


def normalized_entropy(frequencies):
    total = sum(frequencies)
    entropy = 0.0
    for f in frequencies:
        if f > 0:
            entropy -= f / total * math.log(f / total)
    return entropy / math.log(len(frequencies))
