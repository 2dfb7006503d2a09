"""Divergences between two distributions, by the textbook formula, one number at a time."""

import math


def gaussian_kl(mu_p, sigma_p, mu_q, sigma_q):
    """KL(p, q) of diagonal Gaussians given as lists."""
    total = 0.0
    for a, s, b, t in zip(mu_p, sigma_p, mu_q, sigma_q, strict=True):
        total += math.log(t / s) + (s**2 + (a - b) ** 2) / (2.0 * t**2) - 0.5
    return total


def gaussian_symmetric_kl(mu_p, sigma_p, mu_q, sigma_q):
    return gaussian_kl(mu_p, sigma_p, mu_q, sigma_q) + gaussian_kl(mu_q, sigma_q, mu_p, sigma_p)


def gaussian_jensen_shannon_bound(mu_p, sigma_p, mu_q, sigma_q):
    """Mean KL to the Gaussian with the moments of the mixture."""
    mean, std = [], []
    for a, s, b, t in zip(mu_p, sigma_p, mu_q, sigma_q, strict=True):
        mean.append(0.5 * (a + b))
        second = 0.5 * (s**2 + a**2 + t**2 + b**2)
        std.append(math.sqrt(second - mean[-1] ** 2))
    return 0.5 * (gaussian_kl(mu_p, sigma_p, mean, std) + gaussian_kl(mu_q, sigma_q, mean, std))


def softmax(logits):
    top = max(logits)
    weights = [math.exp(v - top) for v in logits]
    return [w / sum(weights) for w in weights]


def categorical_kl(p, q):
    """KL(p, q) of lists of probabilities."""
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def categorical_symmetric_kl(logits_p, logits_q):
    p, q = softmax(logits_p), softmax(logits_q)
    return categorical_kl(p, q) + categorical_kl(q, p)


def categorical_jensen_shannon(logits_p, logits_q):
    p, q = softmax(logits_p), softmax(logits_q)
    m = [0.5 * (a + b) for a, b in zip(p, q, strict=True)]
    return 0.5 * (categorical_kl(p, m) + categorical_kl(q, m))
