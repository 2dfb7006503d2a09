"""Points, weights and what every plan between them must be."""

import torch
from torch.testing import assert_close

CONVERGED = {"tolerance": 1e-12, "max_iterations": 5000}


def points(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64).to(dtype)


def weights(*shape, dtype=torch.float64):
    raw = torch.rand(*shape, dtype=torch.float64) + 0.1
    return (raw / raw.sum(-1, keepdim=True)).to(dtype)


def assert_coupling(plan, a, b):
    """Finite, non-negative, and with these marginals."""
    assert plan.isfinite().all()
    assert (plan >= 0).all()
    assert_close(plan.sum(-1), a.expand(plan.shape[:-1]), rtol=0.0, atol=1e-6)
    assert_close(plan.sum(-2), b.expand(*plan.shape[:-2], -1), rtol=0.0, atol=1e-6)
