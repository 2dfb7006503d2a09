"""truncated_importance: by hand, that nothing is lost, and ratios larger than any number."""

import math

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.functional import truncated_importance


def test_by_hand(variant):
    # c = 2: ratios 1/2 and 2 stay, of 8 the bound keeps 2 and takes away (8 - 2) / 8.
    log_ratio = variant.tensor([0.5, 2.0, 8.0]).log()
    weights = variant(lambda x: truncated_importance(x, 2.0), log_ratio)
    variant.close(weights.truncated, [0.5, 2.0, 2.0])
    variant.close(weights.correction, [0.0, 0.0, 0.75])


@pytest.mark.parametrize("bound", [0.3, 1.0, 4.0, 1e6])
def test_nothing_is_lost(bound):
    """E_pi[f] = E_mu[min(c, rho) f] + E_pi[(1 - c / rho)_+ f], summed over all actions."""
    log_pi, log_mu = (3 * torch.randn(2, 5, 7, dtype=torch.float64)).log_softmax(-1)
    f = torch.randn(5, 7, dtype=torch.float64)
    pi, mu = log_pi.exp(), log_mu.exp()
    weights = truncated_importance(log_pi - log_mu, bound)
    total = (mu * weights.truncated * f + pi * weights.correction * f).sum(-1)
    assert_close(total, (pi * f).sum(-1))
    assert (weights.truncated <= bound).all()
    assert ((weights.correction >= 0) & (weights.correction < 1)).all()
    if bound < 1e6:
        assert (weights.correction > 0).any()  # the bound acts


def test_ratios_larger_than_any_number():
    weights = truncated_importance(torch.tensor([-1e4, 1e4]), 10.0)
    assert weights.truncated.tolist() == pytest.approx([0.0, 10.0])
    assert weights.correction.tolist() == [0.0, 1.0]
    log_ratio = torch.tensor([-1.0, 1.0], requires_grad=True)
    truncated_importance(log_ratio, 2.0).truncated.sum().backward()
    assert_close(log_ratio.grad, torch.tensor([math.exp(-1.0), 0.0]))
