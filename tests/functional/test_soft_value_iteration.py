"""The soft optimum of finite problems."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles.soft_value_iteration import soft_optimum
from torchrl_stein.functional import soft_value_iteration


def problem(states=5, actions=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rewards = torch.randn(states, actions, generator=generator, dtype=torch.float64)
    following = torch.randint(states, (states, actions), generator=generator)
    ends = torch.rand(states, actions, generator=generator) < 0.2
    return rewards, following, 0.8 * ~ends


def test_by_hand():
    # State 0: stop for 1, or go on to state 1 for 0, where both actions stop, for 2 and for 2.
    # alpha = 1: V(1) = 2 + log 2, Q(0, .) = (1, 0.5 (2 + log 2)).
    rewards = torch.tensor([[1.0, 0.0], [2.0, 2.0]], dtype=torch.float64)
    discounts = torch.tensor([[0.0, 0.5], [0.0, 0.0]], dtype=torch.float64)
    following = torch.tensor([[0, 1], [0, 0]])
    q = soft_value_iteration(rewards, following, discounts, 1.0)
    expected = [[1.0, 1 + 0.5 * math.log(2)], [2.0, 2.0]]
    assert_close(q, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_as_in_plain_python(temperature):
    rewards, following, discounts = problem()
    discounts = discounts.double()
    q = soft_value_iteration(rewards, following, discounts, temperature)
    tables = (rewards.tolist(), following.tolist(), discounts.tolist())
    expected = torch.tensor(soft_optimum(*tables, temperature, 150), dtype=torch.float64)
    assert_close(q, expected, rtol=0, atol=1e-7)


def test_the_limit_of_a_low_temperature_is_value_iteration():
    rewards, following, discounts = problem()
    q, values = soft_value_iteration(rewards, following, discounts.double(), 1e-6), torch.zeros(5)
    for _ in range(150):
        values = (rewards + discounts * values[following]).amax(-1)
    assert_close(q.amax(-1), values, rtol=0, atol=1e-4)


X, N = torch.zeros(2, 2), torch.zeros(2, 2, dtype=torch.int64)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"rewards": torch.zeros(2)}, ValueError, r"rewards must have shape \[S, n\], got \[2\]"),
        ({"rewards": N}, TypeError, "rewards must be a floating-point tensor"),
        ({"following": N[:1]}, ValueError, r"following must have the shape of rewards"),
        ({"following": X}, TypeError, "following must be an int64 tensor, got one of torch.float"),
        ({"following": N + 2}, ValueError, "following must hold indices of the 2 states, got 2 to"),
        ({"discounts": X + 1.5}, ValueError, "discounts must be >= 0 and <= 1, got 1.5"),
        ({"temperature": 0.0}, ValueError, "temperature must be > 0, got 0.0"),
        ({"max_sweeps": 1}, RuntimeError, "values still moved by .* after max_sweeps=1"),
    ],
)
def test_what_it_refuses(changed, error, message):
    right = {"rewards": X + 1.0, "following": N, "discounts": X + 0.5, "temperature": 1.0}
    with pytest.raises(error, match=f"soft_value_iteration: {message}"):
        soft_value_iteration(**{**right, **changed})
