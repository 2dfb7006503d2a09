"""OneHotCategorical: its mode is one action; the rest is TorchRL's."""

import pytest
import torch
import torchrl.modules
from torch.distributions import kl_divergence
from torch.testing import assert_close
from torchrl.modules.distributions import has_analytic_entropy, has_analytic_kl

from torchrl_stein.modules import OneHotCategorical


@pytest.mark.parametrize("logits", [[0.0, 0.0], [1.0, 2.0, 2.0], [3.0, -torch.inf, 3.0]])
def test_of_equal_values_the_first_is_the_mode(logits):
    found = OneHotCategorical(logits=torch.tensor([logits, logits])).deterministic_sample
    assert found.sum(-1).tolist() == [1, 1]
    assert found.argmax(-1).tolist() == [logits.index(max(logits))] * 2
    theirs = torchrl.modules.OneHotCategorical(logits=torch.tensor(logits)).mode
    assert theirs.sum() == 2  # or this class can go


def test_the_rest_is_that_of_torchrl():
    p, q = torch.randn(2, 5, 3)
    ours, theirs = OneHotCategorical(logits=p), torchrl.modules.OneHotCategorical(logits=p)
    action = ours.sample()
    assert action.sum(-1).tolist() == [1] * 5
    assert_close(ours.log_prob(action), theirs.log_prob(action))
    assert_close(ours.mode, theirs.mode)
    other = OneHotCategorical(logits=q)
    assert has_analytic_entropy(ours)
    assert has_analytic_kl(ours, other)
    assert_close(kl_divergence(ours, other), (p.softmax(-1) * (ours.logits - other.logits)).sum(-1))
