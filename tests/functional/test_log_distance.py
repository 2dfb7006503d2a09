"""Log-distances of samples: by hand, by a loop, and their gradient by autograd."""

import math

import pytest
import torch

from torchrl_stein.functional import log_distance, log_distance_gradient


def test_by_hand():
    x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    expected = (math.log(5.0 + 1e-5) + math.log(1.0 + 1e-5)) / 2
    assert log_distance(x, y).item() == pytest.approx(expected, rel=1e-6)
    # 2 (y - x) / |y - x|^2
    expected = torch.tensor([[6 / 25, 8 / 25], [0.0, 2.0]])
    torch.testing.assert_close(log_distance_gradient(x, y), expected)


def test_against_a_loop():
    x, y = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 6, 4)
    for b in range(2):
        for c in range(3):
            pairs = [(u - v).norm() for u in x[b, c] for v in y[b, c]]
            expected = torch.stack(pairs).add(1e-5).log().mean()
            torch.testing.assert_close(log_distance(x, y)[b, c], expected)


def test_the_gradient_is_that_of_both_samples():
    x, y = torch.randn(5, 3).double(), torch.randn(7, 3).double().requires_grad_()
    (of_one,) = torch.autograd.grad(7 * log_distance(x, y), y)
    torch.testing.assert_close(
        log_distance_gradient(x, y.detach()), 2 * of_one, rtol=1e-3, atol=1e-4
    )


def test_points_that_coincide_push_nobody():
    x = torch.zeros(4, 2)
    assert log_distance_gradient(x, x).eq(0).all()
    assert log_distance(x, x).item() == pytest.approx(math.log(1e-5))


@pytest.mark.parametrize("function", [log_distance, log_distance_gradient])
def test_refuses(function):
    with pytest.raises(ValueError, match=f"{function.__name__}: y has size 1 .* x has 2"):
        function(torch.zeros(3, 2), torch.zeros(3, 1))
    with pytest.raises(TypeError, match=f"{function.__name__}: x must be"):
        function(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 2))
