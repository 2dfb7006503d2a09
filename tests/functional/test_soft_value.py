"""soft_value: by hand, by loop, by theory."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import soft_value as oracle
from torchrl_stein.functional import soft_value


def test_by_hand(variant):
    # Q = (0, log 3), density 1, alpha = 1: V = log((1 + 3) / 2) = log 2.
    q, log_proposal = variant.tensor([0.0, math.log(3.0)]), variant.tensor([0.0, 0.0])
    variant.close(variant(soft_value, q, log_proposal, 1.0), 0.69314718)
    # Q = (0, 2 log 3), density 1/2, alpha = 2: V = 2 log((2 + 6) / 2) = 2 log 4.
    q, log_proposal = variant.tensor([0.0, 2.0 * math.log(3.0)]), variant.tensor([-math.log(2)] * 2)
    variant.close(variant(soft_value, q, log_proposal, 2.0), 2.77258872)


def test_against_loop(variant):
    q, log_proposal = variant.randn(4, 7), variant.randn(4, 7, seed=1)
    for temperature in (0.3, 1.0, 5.0):
        want = [
            oracle.soft_value(a, b, temperature)
            for a, b in zip(q.tolist(), log_proposal.tolist(), strict=True)
        ]
        variant.close(variant(soft_value, q, log_proposal, temperature), want)


def test_temperature_for_each_state(variant):
    q, log_proposal = variant.randn(3, 5), variant.randn(3, 5, seed=1)
    temperature = variant.tensor([0.5, 1.0, 2.0])
    want = [
        oracle.soft_value(q[i].tolist(), log_proposal[i].tolist(), float(temperature[i]))
        for i in range(3)
    ]
    variant.close(variant(soft_value, q, log_proposal, temperature), want)
    variant.close(
        variant(soft_value, q, log_proposal, temperature[1]),
        [
            oracle.soft_value(a, b, 1.0)
            for a, b in zip(q.tolist(), log_proposal.tolist(), strict=True)
        ],
    )


@pytest.mark.parametrize("shape", [(), (5,), (3, 1)])
def test_log_proposal_broadcasts(variant, shape):
    q, log_proposal = variant.randn(3, 5), variant.randn(*shape, seed=1)
    full = log_proposal.expand(3, 5)
    assert_close(variant(soft_value, q, log_proposal, 0.7), soft_value(q, full, 0.7))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_quadratic_q_has_the_closed_form(variant, temperature):
    # Q(a) = -c a^2 / 2 on [-1, 1], proposal uniform (log density -log 2):
    # V = alpha log int_{-1}^{1} exp(-c a^2 / (2 alpha)) da
    #   = alpha log( sqrt(2 pi alpha / c) erf(sqrt(c / (2 alpha))) ).
    # Midpoints of 4096 equal cells in place of samples: an integration error below 1e-6.
    c, cells = 3.0, 4096
    action = variant.tensor((torch.arange(cells, dtype=torch.float64) + 0.5) / cells * 2.0 - 1.0)
    value = variant(soft_value, -0.5 * c * action**2, variant.tensor(-math.log(2.0)), temperature)
    root = math.sqrt(c / (2.0 * temperature))
    want = temperature * math.log(math.sqrt(math.pi) / root * math.erf(root))
    torch.testing.assert_close(value.item(), want, rtol=2e-5, atol=1e-6)


def test_importance_weights_correct_for_the_proposal():
    # Q = -a^2 / 2 on the whole line, alpha = 1: V = log sqrt(2 pi), from samples of N(0.3, 1.5^2).
    # The weights have a relative standard deviation below 1; five of them over sqrt(K).
    proposal = torch.distributions.Normal(torch.tensor(0.3), torch.tensor(1.5))
    action = proposal.sample((100_000,))
    value = soft_value(-0.5 * action**2, proposal.log_prob(action), 1.0).item()
    assert abs(value - 0.5 * math.log(2.0 * math.pi)) < 5.0 / math.sqrt(100_000)


def test_zero_temperature_is_the_maximum(variant):
    # |V - max Q| <= alpha (log K + max |log proposal|), far below rounding at alpha = 1e-8.
    q, log_proposal = 100.0 * variant.randn(4, 50), variant.randn(4, 50, seed=1)
    value = variant(soft_value, q, log_proposal, 1e-8)
    assert value.isfinite().all()
    variant.close(value, q.double().amax(-1))


def test_infinite_temperature_is_the_volume():
    # V / alpha -> log E[1 / proposal], the log-volume of the box.
    value = soft_value(torch.randn(20), torch.tensor(-math.log(4.0)), 1e8)
    assert_close(value / 1e8, torch.tensor(math.log(4.0)))


def test_scaling_identity(variant):
    # V_alpha(Q) = alpha V_1(Q / alpha): temperature alpha is reward divided by alpha.
    q, log_proposal, alpha = variant.randn(3, 9), variant.randn(3, 9, seed=1), 2.5
    scaled = alpha * variant(soft_value, q / alpha, log_proposal, 1.0)
    variant.close(variant(soft_value, q, log_proposal, alpha), scaled.double())


def test_shift_identity(variant):
    # V(Q + c) = V(Q) + c; c = 64 is exact in binary.
    q, log_proposal = variant.randn(3, 9), variant.randn(3, 9, seed=1)
    shifted = variant(soft_value, q + 64.0, log_proposal, 0.5)
    variant.close(shifted, variant(soft_value, q, log_proposal, 0.5).double() + 64.0)


def test_large_values_do_not_overflow():
    q = torch.tensor([1e4, 1e4 - 1.0, -1e4])
    value = soft_value(q, torch.tensor(0.0), 1.0)
    # log((1 + exp(-1)) / 3) = -0.785351
    assert_close(value, torch.tensor(1e4 - 0.785351))


def test_maximum_comes_out_before_the_division():
    # Half precision ends at 65 504, and 100 / 1e-4 is a million.
    q = torch.tensor([1.0, 2.0, 100.0], dtype=torch.float16)
    assert soft_value(q, torch.tensor(0.0), 1e-4).item() == 100.0
    # In float32 the weights of large values would be wrong by percents: 8192 / 0.013 is 630 154,
    # where neighbouring floats are 1/16 apart, but differences of Q are exact.
    q = 8192.0 + torch.tensor([0.0, 1.0, 2.0, 3.0]) / 64.0
    weights = torch.func.grad(lambda v: soft_value(v, torch.tensor(0.0), 0.013))(q)
    assert_close(weights.double(), torch.softmax(q.double() / 0.013, -1), rtol=1e-5, atol=0.0)


def test_gradient_is_the_boltzmann_weight(variant):
    # dV/dQ_k = softmax(Q / alpha - log proposal)_k: positive, sums to one.
    q, log_proposal = variant.randn(3, 6), variant.randn(3, 6, seed=1)

    def gradient(q, log_proposal):
        return torch.func.grad(lambda v: soft_value(v, log_proposal, 0.4).sum())(q)

    want = torch.softmax(q.double() / 0.4 - log_proposal.double(), -1)
    variant.close(variant(gradient, q, log_proposal), want)


def test_errors():
    with pytest.raises(ValueError, match=r"soft_value: q must have a last dimension of samples"):
        soft_value(torch.tensor(1.0), torch.tensor(0.0), 1.0)
    with pytest.raises(
        ValueError, match=r"soft_value: log_proposal must expand to \[2, 5\].* got shape \[2, 3\]"
    ):
        soft_value(torch.zeros(2, 5), torch.zeros(2, 3), 1.0)
