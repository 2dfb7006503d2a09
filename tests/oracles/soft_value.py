"""The soft value (Haarnoja et al. 2017, eq. 10), written literally, without any shift."""

import math


def soft_value(q, log_proposal, temperature):
    """alpha log (1/K) sum_k exp(Q_k / alpha) / proposal_k, for one state."""
    total = 0.0
    for value, log_density in zip(q, log_proposal, strict=True):
        total += math.exp(value / temperature) / math.exp(log_density)
    return temperature * math.log(total / len(q))
