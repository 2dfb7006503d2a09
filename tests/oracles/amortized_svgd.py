"""The sampler's gradient (Haarnoja et al. 2017, appendix C.1), one particle pair at a time.

The sampler is u = W2 tanh(W1 [s, xi] + b1) + b2; the chain rule to its weights is by hand.
"""

import math

import numpy as np

from . import bandwidth, distance, squash, svgd


def forward(weights, state, noise):
    W1, b1, W2, b2 = weights
    x = np.concatenate([state, noise])
    hidden = np.array([math.tanh(W1[j] @ x + b1[j]) for j in range(len(b1))])
    return x, hidden, np.array([W2[c] @ hidden + b2[c] for c in range(len(b2))])


def particle(space, u):
    """z of u, and dz/du, elementwise."""
    if space == "unsquashed":
        return u, np.ones(len(u))
    z = np.array([math.tanh(v) for v in u])
    return z, np.array([1.0 - v * v for v in z])


def log_density(space, qvalue, temperature, low, high):
    """The log density of a particle z that the three options aim at, up to a constant."""

    def at(state, z):
        d = len(z)
        if space == "unsquashed":
            action = [squash.to_interval(z[c], low[c], high[c]) for c in range(d)]
            correction = squash.log_det(z, low, high)
        else:
            action = [low[c] + (high[c] - low[c]) * (z[c] + 1.0) / 2.0 for c in range(d)]
            barrier = sum(math.log(1.0 - v * v + 1e-6) for v in z)
            correction = barrier if space == "reference" else 0.0
        return qvalue(state, action) / temperature + correction

    return at


def score(function, state, z, step=1e-4):
    """Gradient in z by the central difference of fourth order."""
    out = np.zeros(len(z))
    for c in range(len(z)):
        e = np.zeros(len(z))
        e[c] = step
        near = function(state, z + e) - function(state, z - e)
        far = function(state, z + 2 * e) - function(state, z - 2 * e)
        out[c] = (8.0 * near - far) / (12.0 * step)
    return out


def sampler_gradient(weights, states, noise, num_pushing, space, density, make_kernel):
    """Gradient of -(1/B) sum_b (1/M) sum_i z_i . phi(z_i), phi held constant.

    The first ``num_pushing`` noises of a state make the particles that exert the force, the others
    those that are moved. ``make_kernel(h)`` with h the median rule over pairs of the two sets.
    """
    out = [np.zeros_like(w) for w in weights]
    for b, state in enumerate(states):
        pushing = [
            particle(space, forward(weights, state, xi)[2])[0] for xi in noise[b][:num_pushing]
        ]
        moved = []
        for xi in noise[b][num_pushing:]:
            x, hidden, u = forward(weights, state, xi)
            moved.append((x, hidden, *particle(space, u)))
        targets = [z for _, _, z, _ in moved]
        median = bandwidth.lower_median(distance.all_pairs(pushing, targets))
        kernel = make_kernel(median / bandwidth.denominator("log(n+1)", num_pushing))
        scores = [score(density, state, z) for z in pushing]
        phi = svgd.direction(kernel, pushing, targets, scores)
        for i, (x, hidden, _, dz_du) in enumerate(moved):
            delta = -phi[i] * dz_du / (len(moved) * len(states))
            upstream = (weights[2].T @ delta) * (1.0 - hidden**2)
            out[0] += np.outer(upstream, x)
            out[1] += upstream
            out[2] += np.outer(delta, hidden)
            out[3] += delta
    return out
