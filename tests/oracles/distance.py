"""Squared distances and the median of them."""

import numpy as np


def squared_distance(a, b):
    total = 0.0
    for c in range(len(a)):
        total += (float(a[c]) - float(b[c])) ** 2
    return total


def squared_distances(x, y):
    out = np.zeros((len(x), len(y)))
    for j in range(len(x)):
        for i in range(len(y)):
            out[j, i] = squared_distance(x[j], y[i])
    return out


def distinct_pairs(x):
    """Squared distances of the pairs j < i."""
    return [squared_distance(x[j], x[i]) for j in range(len(x)) for i in range(j + 1, len(x))]


def all_pairs(x, y):
    return [squared_distance(a, b) for a in x for b in y]


def medoid(x, y):
    """Index of the point of x with the smallest sum of distances to y."""
    sums = [sum(squared_distance(a, b) ** 0.5 for b in y) for a in x]
    return sums.index(min(sums))
