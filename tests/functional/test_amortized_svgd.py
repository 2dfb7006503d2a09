"""amortized_surrogate: by hand, by loop, and the chain rule through a sampler."""

import torch
from torch.testing import assert_close

from torchrl_stein.functional import amortized_surrogate


def test_by_hand(variant):
    # -(1/2) ((1 * 3 + 2 * (-1)) + (0 * 5 + (-1) * 4)) = -(1 - 4) / 2.
    points = variant.tensor([[1.0, 2.0], [0.0, -1.0]])
    direction = variant.tensor([[3.0, -1.0], [5.0, 4.0]])
    variant.close(variant(amortized_surrogate, points, direction), 1.5)


def test_against_loop(variant):
    points, direction = variant.randn(3, 5, 2), variant.randn(3, 5, 2, seed=1)
    want = [
        -sum(float(z @ phi) for z, phi in zip(of_z, of_phi, strict=True)) / 5
        for of_z, of_phi in zip(points, direction, strict=True)
    ]
    variant.close(variant(amortized_surrogate, points, direction), want)


def test_the_gradient_is_minus_the_direction_over_the_number_of_points():
    points = torch.randn(3, 5, 2, requires_grad=True)
    direction = torch.randn(3, 5, 2, requires_grad=True)
    amortized_surrogate(points, direction).sum().backward()
    assert_close(points.grad, -direction.detach() / 5)
    assert direction.grad is None


def test_a_sampler_gets_eq_14():
    # z_i = w xi_i + b: the mean over i of phi_i xi_i moves w, and that of phi_i moves b.
    w, b = torch.tensor(0.5, requires_grad=True), torch.tensor(0.1, requires_grad=True)
    noise, phi = torch.randn(4, 1), torch.randn(4, 1)
    amortized_surrogate(w * noise + b, phi).backward()
    assert_close(w.grad, -(phi * noise).mean())
    assert_close(b.grad, -phi.mean())
