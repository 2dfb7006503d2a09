"""Kernels on a pair of points, with the gradient in the first argument by hand."""

import math

import numpy as np

from .distance import squared_distance


def rbf(h):
    """k = exp(-|x - y|^2 / h), grad_x k = -(2 / h) (x - y) k."""

    def value(x, y):
        return math.exp(-squared_distance(x, y) / h)

    def gradient(x, y):
        k = value(x, y)
        return np.array([-2.0 / h * (x[c] - y[c]) * k for c in range(len(x))])

    return value, gradient


def imq(h, exponent=0.5):
    """k = (1 + |x - y|^2 / h)^-b, grad_x k = -b (1 + |x - y|^2 / h)^(-b - 1) (2 / h) (x - y)."""

    def value(x, y):
        return (1.0 + squared_distance(x, y) / h) ** (-exponent)

    def gradient(x, y):
        slope = -exponent * (1.0 + squared_distance(x, y) / h) ** (-exponent - 1.0)
        return np.array([slope * 2.0 / h * (x[c] - y[c]) for c in range(len(x))])

    return value, gradient


def linear(offset):
    """k = x . y + offset, grad_x k = y."""

    def value(x, y):
        return sum(float(a) * float(b) for a, b in zip(x, y, strict=True)) + offset

    def gradient(x, y):
        return np.array(y, dtype=np.float64)

    return value, gradient


def add(first, second):
    return (
        lambda x, y: first[0](x, y) + second[0](x, y),
        lambda x, y: first[1](x, y) + second[1](x, y),
    )


def multiply(first, second):
    return (
        lambda x, y: first[0](x, y) * second[0](x, y),
        lambda x, y: first[1](x, y) * second[0](x, y) + first[0](x, y) * second[1](x, y),
    )


def gram(kernel, x, y):
    """K[j, i] = k(x_j, y_i)."""
    out = np.zeros((len(x), len(y)))
    for j in range(len(x)):
        for i in range(len(y)):
            out[j, i] = kernel[0](x[j], y[i])
    return out


def repulsion(kernel, x, y):
    """R[i] = sum_j grad_{x_j} k(x_j, y_i)."""
    out = np.zeros((len(y), len(y[0])))
    for i in range(len(y)):
        for j in range(len(x)):
            out[i] += kernel[1](x[j], y[i])
    return out
