"""Soft value iteration in plain Python, state after state."""

import math


def soft_optimum(rewards, following, discounts, temperature, sweeps):
    """Lists of lists: Q after so many sweeps."""
    values = [0.0] * len(rewards)
    for _ in range(sweeps):
        q = [
            [r + g * values[s] for r, g, s in zip(*rows, strict=True)]
            for rows in zip(rewards, discounts, following, strict=True)
        ]
        values = [temperature * math.log(sum(math.exp(x / temperature) for x in row)) for row in q]
    return q
