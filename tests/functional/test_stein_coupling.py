"""Coupled particles, the surrogate of the repulsion, and the rates of birth and death."""

import math

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.functional import birth_death_rates, couple_particles, repulsion_surrogate


def numbers(*leading, n=4, d=5):
    """Particles, a Gram matrix that is not symmetric, and a gradient."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*leading, *shape, generator=generator, dtype=torch.float64)

    return draw(n, d).requires_grad_(), draw(n, n), draw(n, d)


@pytest.mark.parametrize("leading", [(), (3,)])
@pytest.mark.parametrize("width", [5, 2])
def test_the_gradient_is_averaged_by_the_kernel(leading, width):
    particles, gram, g = numbers(*leading)
    coupled = couple_particles(particles, gram, width)
    assert coupled.equal(particles)  # to the bit
    (got,) = torch.autograd.grad((coupled * g).sum(), particles)
    want = g.clone()
    for s in range(math.prod(leading)):  # the slow loop
        flat = want.view(-1, 4, 5)[s], gram.view(-1, 4, 4)[s], g.view(-1, 4, 5)[s]
        for i in range(4):
            flat[0][i, :width] = sum(flat[1][j, i] * flat[2][j, :width] for j in range(4))
    assert_close(got, want)


def test_it_is_linear_in_the_gradient():
    particles, gram, g = numbers()
    grads = [
        torch.autograd.grad((couple_particles(particles, gram, 5) * (a * g)).sum(), particles)[0]
        for a in (1.0, 3.0)
    ]
    assert_close(3 * grads[0], grads[1])


@pytest.mark.parametrize("leading", [(), (3,)])
def test_the_surrogate_is_the_sum_of_the_kernel_and_pushes(leading):
    particles, gram, repulsion = numbers(*leading)
    value = repulsion_surrogate(particles, gram, repulsion)
    assert_close(value, gram.sum())
    (got,) = torch.autograd.grad(value, particles)
    assert_close(got, -repulsion)


def test_of_a_radial_kernel_it_is_the_derivative():
    """d/dx_i sum_jk k(x_j, x_k), with the second argument held fixed."""
    x = numbers()[0].detach()

    def k(a, b):
        return torch.exp(-(a - b).square().sum(-1))

    gram = k(x[:, None], x[None])
    repulsion = torch.stack(
        [
            sum(torch.func.grad(lambda xj, i=i: k(xj, x[i]))(x[j]) for j in range(4))
            for i in range(4)
        ]
    )
    leaf = x.clone().requires_grad_()
    (got,) = torch.autograd.grad(repulsion_surrogate(leaf, gram, repulsion), leaf)
    (want,) = torch.autograd.grad(k(leaf[:, None], x[None]).sum(), leaf)
    assert_close(got, want)


def test_rates_equal_a_slow_loop():
    generator = torch.Generator().manual_seed(1)
    gram = torch.rand(2, 3, 3, generator=generator, dtype=torch.float64)
    returns = torch.tensor([[0.0, 3.0, math.nan], [5.0, -1.0, 2.0]], dtype=torch.float64)
    got = birth_death_rates(gram, returns, scale=0.7)
    for s in range(2):
        known = [r for r in returns[s].tolist() if not math.isnan(r)]
        j = [sum(known) / len(known) if math.isnan(r) else r for r in returns[s].tolist()]
        mean = sum(j) / 3
        std = math.sqrt(sum((r - mean) ** 2 for r in j) / 3)
        beta = [
            math.log(sum(gram[s, k, i].item() for k in range(3)) / 3) - (j[i] - mean) / std / 0.7
            for i in range(3)
        ]
        want = [b - sum(beta) / 3 for b in beta]
        assert_close(got[s], torch.tensor(want, dtype=torch.float64), rtol=0, atol=1e-6)
    assert_close(got.sum(-1), torch.zeros(2, dtype=torch.float64))


def test_nothing_known_and_crowds():
    """Without returns only the crowd counts: of three, two in one place die, the third is born."""
    gram = torch.tensor([[1.0, 1.0, 0.1], [1.0, 1.0, 0.1], [0.1, 0.1, 1.0]])
    rates = birth_death_rates(gram, torch.full((3,), math.nan), scale=1.0)
    assert rates[0] == rates[1] > 0 > rates[2]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: couple_particles(torch.zeros(2, 1), torch.eye(3), 1),
            ValueError,
            "particles has size 2 in dimension -2 but gram has 3",
        ),
        (
            lambda: couple_particles(torch.zeros(2, 1).long(), torch.eye(2), 1),
            TypeError,
            "particles must be a floating-point tensor",
        ),
        (
            lambda: repulsion_surrogate(torch.zeros(2, 1), torch.eye(2), torch.zeros(3, 1)),
            ValueError,
            "repulsion has size 3",
        ),
        (
            lambda: birth_death_rates(torch.ones(2, 2), torch.zeros(3), 1.0),
            ValueError,
            "returns has size 3",
        ),
        (
            lambda: birth_death_rates(torch.ones(2, 2), torch.zeros(2), 0.0),
            ValueError,
            "birth_death_rates: scale must be > 0, got 0.0",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
