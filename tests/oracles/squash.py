"""Squashing one number onto an interval."""

import math


def to_interval(u, low, high):
    return low + (high - low) * (math.tanh(u) + 1.0) / 2.0


def log_derivative(u):
    """log(1 - tanh(u)^2) = -2 log cosh(u), with the exponential taken out for large |u|."""
    a = abs(u)
    return -2.0 * (a + math.log((1.0 + math.exp(-2.0 * a)) / 2.0))


def log_det(u, low, high):
    total = 0.0
    for c in range(len(u)):
        total += log_derivative(u[c]) + math.log((high[c] - low[c]) / 2.0)
    return total
