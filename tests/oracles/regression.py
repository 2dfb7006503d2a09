"""Bayesian neural network regression, one weight, one row and one particle at a time."""

import math
from operator import mul

from scipy import stats


def network(net, row):
    """Output of one hidden layer of ReLUs, for a module with layers ``hidden`` and ``output``."""
    w1, b1 = net.hidden.weight.tolist(), net.hidden.bias.tolist()
    w2, b2 = net.output.weight.tolist()[0], net.output.bias.tolist()[0]
    cells = [max(0.0, sum(map(mul, w, row)) + b) for w, b in zip(w1, b1, strict=True)]
    return sum(map(mul, w2, cells)) + b2


def log_joint(net, rows, targets, num_rows, shape, rate, weight_precision=None):
    """Log density of (w, log lambda, log gamma) and the data, by the definition of each factor.

    With a given lambda: of (w, log gamma) and the data.
    """
    random = [math.exp(logarithm) for logarithm in net.precisions.logarithms.tolist()]
    noise = random[-1]
    weight = random[0] if weight_precision is None else weight_precision
    total = 0.0
    for row, target in zip(rows, targets, strict=True):
        normal = stats.norm(network(net, row), noise**-0.5)
        total += num_rows / len(rows) * normal.logpdf(target)
    for layer in (net.hidden, net.output):
        for parameter in layer.parameters():
            for value in parameter.flatten().tolist():
                total += stats.norm(0.0, weight**-0.5).logpdf(value)
    for precision in random:
        # p(log g) = p(g) dg / d(log g) = p(g) g
        total += stats.gamma(shape, scale=1.0 / rate).logpdf(precision) + math.log(precision)
    return total


def log_likelihood(means, precisions, targets, scale):
    """Of targets in original units: each particle predicts scale * mean, noise scale / sqrt."""
    total = 0.0
    for t, target in enumerate(targets):
        density = 0.0
        for mean, precision in zip(means, precisions, strict=True):
            density += stats.norm(scale * mean[t], scale * precision**-0.5).pdf(scale * target)
        total += math.log(density / len(means))
    return total / len(targets)
