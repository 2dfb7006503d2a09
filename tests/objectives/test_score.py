"""Scores, also inside of transforms of other people."""

import torch
from torch.testing import assert_close

from torchrl_stein.objectives._soft_q_base import score


def log_density(x):
    return -0.5 * x.square().sum()


def test_of_a_gaussian():
    x = torch.randn(3, 2)
    found = score(log_density, x)
    assert_close(found, -x)
    assert not found.requires_grad
    with torch.no_grad():
        assert_close(score(log_density, x), -x)


def test_in_inference_mode():
    with torch.inference_mode():
        x = torch.randn(3, 2)
        assert_close(score(log_density, x), -x)


def test_inside_of_transforms():
    x = torch.randn(4, 3, 2)
    assert_close(torch.vmap(lambda rows: score(log_density, rows))(x), -x)
    slope = torch.func.grad(lambda rows: (score(log_density, rows) * rows).sum())(x)
    assert_close(slope, -2.0 * x)
