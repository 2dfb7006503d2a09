"""boltzmann_value and mellowmax_value: by hand, by loop, by theory."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import soft_value as oracle
from torchrl_stein.functional import (
    boltzmann_value,
    expected_value,
    mellowmax_value,
    soft_value,
)


def test_by_hand(variant):
    # Q = (0, log 3), density 1, alpha = 1: weights (1, 3) / 4.
    q, log_proposal = variant.tensor([0.0, math.log(3.0)]), variant.tensor([0.0, 0.0])
    variant.close(variant(boltzmann_value, q, log_proposal, 1.0), 0.75 * math.log(3.0))
    # Density 1/2 and 1/6: weights (2, 18) / 20; V_soft = log((2 + 18) / 2), H = log(12) / 2.
    log_proposal = variant.tensor([-math.log(2.0), -math.log(6.0)])
    variant.close(variant(boltzmann_value, q, log_proposal, 1.0), 0.9 * math.log(3.0))
    want = math.log(10.0) - 0.5 * math.log(12.0)
    variant.close(variant(mellowmax_value, q, log_proposal, 1.0), want)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_against_loops(variant, temperature):
    q, log_proposal = variant.randn(4, 7), variant.randn(4, 7, seed=1)
    boltzmann, literal = [], []
    for values, densities in zip(q.tolist(), log_proposal.tolist(), strict=True):
        pairs = list(zip(values, densities, strict=True))
        weights = [math.exp(v / temperature - d) for v, d in pairs]
        total = sum(w * v for w, v in zip(weights, values, strict=True))
        boltzmann.append(total / sum(weights))
        entropy = -sum(densities) / len(densities)
        soft = oracle.soft_value(values, densities, temperature)
        literal.append(soft - temperature * entropy)
    variant.close(variant(boltzmann_value, q, log_proposal, temperature), boltzmann)
    variant.close(variant(mellowmax_value, q, log_proposal, temperature), literal)


def test_a_uniform_proposal_gives_mellowmax_between_mean_and_maximum():
    q, volume = torch.randn(50, 9), torch.tensor(-math.log(4.0))
    previous = q.mean(-1)
    for temperature in (100.0, 1.0, 0.1, 1e-3):
        value = mellowmax_value(q, volume, temperature)
        want = temperature * (torch.logsumexp(q / temperature, -1) - math.log(9))
        assert_close(value, want, rtol=1e-4, atol=1e-4)
        assert (value >= previous - 1e-4).all()
        previous = value
    assert_close(value, q.amax(-1), rtol=0, atol=0.01)


def test_soft_less_entropy_is_boltzmann_for_the_boltzmann_policy():
    """Proposition 8: V - alpha H(pi) = E_pi[Q] if the samples are those of pi ~ exp(Q / alpha).

    On a grid of equal cells the proposal is uniform and all three sums are exact.
    """
    q, alpha, cell = torch.randn(40, dtype=torch.float64), 0.7, 0.05
    log_density = torch.full((), -math.log(40 * cell), dtype=torch.float64)
    soft = soft_value(q, log_density, alpha)
    log_policy = (q - soft) / alpha
    entropy = -(log_policy.exp() * log_policy).sum() * cell
    assert_close(boltzmann_value(q, log_density, alpha), soft - alpha * entropy)


@pytest.mark.parametrize("function", [boltzmann_value, mellowmax_value])
def test_temperature_of_each_state_limits_and_gradient(function):
    q = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    alpha, log_proposal = torch.tensor([0.5, 1.0, 2.0]).double(), torch.randn(3, 5).double()
    rows = [function(q[i], log_proposal[i], alpha[i].item()) for i in range(3)]
    assert_close(function(q, log_proposal, alpha), torch.stack(rows))
    assert torch.autograd.gradcheck(lambda x: function(x, log_proposal, alpha), (q,))
    sharp = function(torch.tensor([1e4, -1e4, 0.0]), torch.zeros(()), 1e-3)
    assert_close(sharp, torch.tensor(1e4))


@pytest.mark.parametrize("function", [boltzmann_value, mellowmax_value])
def test_bad_shapes(function):
    with pytest.raises(ValueError, match=f"{function.__name__}: q must have a last dimension"):
        function(torch.tensor(1.0), torch.zeros(()), 1.0)
    with pytest.raises(
        ValueError, match=r"log_proposal must expand to \[2, 3\], the shape of q, got shape \[4\]"
    ):
        function(torch.zeros(2, 3), torch.zeros(4), 1.0)


def test_the_expected_value_needs_q_alone():
    q = torch.tensor([[1.0, 3.0], [0.0, -4.0]])
    torch.testing.assert_close(expected_value(q, None, None), torch.tensor([2.0, -2.0]))
    torch.testing.assert_close(expected_value(q, q, 0.5), torch.tensor([2.0, -2.0]))
    with pytest.raises(TypeError, match="expected_value: q must be a floating-point tensor"):
        expected_value(q.long(), None, None)
    with pytest.raises(ValueError, match=r"expected_value: q must have a last dimension"):
        expected_value(torch.zeros(3, 0), None, None)
