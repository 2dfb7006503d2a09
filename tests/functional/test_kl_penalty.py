"""adapt_kl_penalty: by hand, its thresholds, and that it brings the distance to its target."""

import pytest
import torch

from torchrl_stein.functional import adapt_kl_penalty


def test_by_hand(variant):
    # d_target = 0.3: below 0.2 the coefficient 4 becomes 2, above 0.45 it becomes 8.
    kl = variant.tensor([0.0, 0.19, 0.21, 0.3, 0.44, 0.46, 9.0])
    found = variant(lambda d: adapt_kl_penalty(torch.full_like(d, 4.0), d, 0.3), kl)
    variant.close(found, [2.0, 2.0, 4.0, 4.0, 4.0, 8.0, 8.0])


def test_on_a_threshold_it_stays():
    kl = torch.tensor([1.0, 2.25], dtype=torch.float64)  # 1.5 / 1.5 and 1.5 * 1.5
    assert adapt_kl_penalty(torch.ones_like(kl), kl, 1.5).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("beta", [1e-6, 0.7, 1e6])
def test_it_finds_the_coefficient_of_a_target(beta):
    """Of max_x x - beta x^2 / 2, with KL = x^2 = 1 / beta^2, which a change makes 4 times as much.

    So the distance stays above 1.5 / 4 and below 4 / 1.5 times its target, once it is there.
    """
    beta = torch.tensor(beta, dtype=torch.float64)
    for _ in range(60):
        beta = adapt_kl_penalty(beta, beta**-2, 0.01)
    assert 0.01 * 1.5 / 4 < beta**-2 < 0.01 * 4 / 1.5
