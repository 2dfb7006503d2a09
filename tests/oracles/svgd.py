"""The SVGD direction (Liu & Wang 2016, eq. 8), one pair at a time."""

import numpy as np


def drive(gram, scores):
    """(1/n) sum_j k(x_j, y_i) s(x_j)."""
    n, m = gram.shape
    out = np.zeros((m, scores.shape[1]))
    for i in range(m):
        for j in range(n):
            for c in range(scores.shape[1]):
                out[i, c] += gram[j, i] * scores[j, c] / n
    return out


def direction(kernel, x, y, scores):
    """(1/n) sum_j [k(x_j, y_i) s(x_j) + grad_{x_j} k(x_j, y_i)]."""
    value, gradient = kernel
    out = np.zeros((len(y), len(y[0])))
    for i in range(len(y)):
        for j in range(len(x)):
            out[i] += value(x[j], y[i]) * np.asarray(scores[j]) + gradient(x[j], y[i])
    return out / len(x)
