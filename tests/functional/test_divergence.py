"""Divergences: by hand, by loop, against torch.distributions, and what they promise."""

import math

import pytest
import torch
from torch.distributions import Categorical, Normal, kl_divergence
from torch.testing import assert_close

from tests.oracles import divergence as oracle
from torchrl_stein.functional import (
    categorical_jensen_shannon,
    categorical_symmetric_kl,
    gaussian_jensen_shannon_bound,
    gaussian_symmetric_kl,
)

GAUSSIAN = [
    (gaussian_symmetric_kl, oracle.gaussian_symmetric_kl),
    (gaussian_jensen_shannon_bound, oracle.gaussian_jensen_shannon_bound),
]
CATEGORICAL = [
    (categorical_symmetric_kl, oracle.categorical_symmetric_kl),
    (categorical_jensen_shannon, oracle.categorical_jensen_shannon),
]


def gaussians(variant, *shape, seed=0):
    return variant.randn(*shape, seed=seed), variant.randn(*shape, seed=seed + 10).exp()


def test_gaussian_by_hand(variant):
    # N(0, 1) and N(1, 1): KL = 1/2 either way. N(0, 1) and N(0, 2^2): log 2 + 1/8 - 1/2 and
    # -log 2 + 2 - 1/2, in sum 9/8. Mixtures: variance 1 + 1/4, and (1 + 4) / 2 over 1 * 2.
    loc_q, scale_q = variant.tensor([[1.0], [0.0]]), variant.tensor([[1.0], [2.0]])
    p = variant.tensor([[0.0], [0.0]]), variant.tensor([[1.0], [1.0]])
    variant.close(variant(gaussian_symmetric_kl, *p, loc_q, scale_q), [1.0, 9.0 / 8.0])
    bound = variant(gaussian_jensen_shannon_bound, *p, loc_q, scale_q)
    variant.close(bound, [0.5 * math.log(1.25), 0.5 * math.log(1.25)])


def test_categorical_by_hand(variant):
    # p = (3/4, 1/4), q = (1/2, 1/2), m = (5/8, 3/8).
    p, q = variant.tensor([0.75, 0.25]).log() + 2.0, variant.tensor([0.0, 0.0])
    variant.close(variant(categorical_symmetric_kl, p, q), 0.25 * math.log(3.0))
    kl_p = 0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)
    kl_q = 0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)
    variant.close(variant(categorical_jensen_shannon, p, q), 0.5 * (kl_p + kl_q))


@pytest.mark.parametrize(("function", "pair"), GAUSSIAN)
def test_gaussian_against_loop(variant, function, pair):
    p, q = gaussians(variant, 5, 3), gaussians(variant, 5, 3, seed=1)
    want = [pair(*(v[i].double().tolist() for v in (*p, *q))) for i in range(5)]
    value = variant(function, *p, *q)
    # Ratios of scales reach exp(4), and their squares the divergence.
    size = max(want)
    variant.close(value / size, torch.tensor(want, dtype=torch.float64) / size)


@pytest.mark.parametrize(("function", "pair"), CATEGORICAL)
def test_categorical_against_loop(variant, function, pair):
    p, q = variant.randn(5, 4), 2.0 * variant.randn(5, 4, seed=1)
    want = [pair(p[i].double().tolist(), q[i].double().tolist()) for i in range(5)]
    variant.close(variant(function, p, q), want)


def test_symmetric_kl_against_torch():
    loc, scale = torch.randn(2, 6, 3).double(), torch.randn(2, 6, 3).double().exp()
    p, q = Normal(loc[0], scale[0]), Normal(loc[1], scale[1])
    want = (kl_divergence(p, q) + kl_divergence(q, p)).sum(-1)
    assert_close(gaussian_symmetric_kl(loc[0], scale[0], loc[1], scale[1]), want)
    p, q = Categorical(logits=loc[0]), Categorical(logits=loc[1])
    want = kl_divergence(p, q) + kl_divergence(q, p)
    assert_close(categorical_symmetric_kl(loc[0], loc[1]), want)


@pytest.mark.parametrize("function", [f for f, _ in GAUSSIAN + CATEGORICAL])
def test_symmetric_and_zero_only_if_equal(function):
    count = 2 if function in dict(GAUSSIAN) else 1
    p = [torch.rand(50, 3).double() + 0.1 for _ in range(count)]
    q = [torch.rand(50, 3).double() + 0.1 for _ in range(count)]
    assert_close(function(*p, *q), function(*q, *p))
    assert (function(*p, *q) > 0).all()
    assert_close(function(*p, *p), torch.zeros(50).double(), rtol=0.0, atol=1e-14)
    # Broadcast: all pairs.
    rows, columns = [v[:, None] for v in p], [v[None] for v in q]
    assert_close(function(*rows, *columns).diagonal(), function(*p, *q))


@pytest.mark.parametrize("function", [f for f, _ in GAUSSIAN])
def test_close_gaussians_lose_no_digits(function):
    # Both are quadratic at zero: 1e-4 apart they are 1e-8 and 1e-8 / 8, beyond 1 + x in float32.
    loc = torch.tensor([[0.3], [0.3001]])
    one = torch.full((1,), 0.7)
    exact = function(loc[0].double(), one.double(), loc[1].double(), one.double())
    assert_close(function(loc[0], one, loc[1], one).double(), exact, rtol=1e-4, atol=0.0)


def test_bound_is_above_the_divergence_and_near_it():
    # Jensen-Shannon by sampling both halves of the mixture; 4e5 samples: an error of about 1e-3.
    generator = torch.Generator().manual_seed(0)
    for loc_q, scale_q, slack in ((0.5, 1.0, 0.002), (1.0, 1.5, 0.02), (0.0, 3.0, 0.1)):
        p, q = Normal(0.0, 1.0), Normal(loc_q, scale_q)
        noise = torch.randn(400_000, generator=generator)
        halves = []
        for own, sample in ((p, noise), (q, loc_q + scale_q * noise)):
            mixture = torch.logaddexp(p.log_prob(sample), q.log_prob(sample)) - math.log(2.0)
            halves.append((own.log_prob(sample) - mixture).mean())
        exact = 0.5 * (halves[0] + halves[1])
        one = torch.ones(1)
        bound = gaussian_jensen_shannon_bound(0.0 * one, one, loc_q * one, scale_q * one)
        assert exact - 0.002 < bound < exact + slack


def test_bound_exceeds_log_two_far_away():
    one = torch.ones(1)
    for distance in (10.0, 1e3, 1e6):
        bound = gaussian_jensen_shannon_bound(0.0 * one, one, distance * one, one)
        assert_close(bound, torch.tensor(0.5 * math.log1p(distance**2 / 4.0)))
        assert bound > math.log(2.0)
    p, q = torch.tensor([1e3, 0.0]), torch.tensor([0.0, 1e3])
    assert_close(categorical_jensen_shannon(p, q), torch.tensor(math.log(2.0)))


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_jensen_shannon_kernels_are_positive_semi_definite(temperature):
    # Scales over four orders of magnitude, logits from flat to nearly one-hot.
    for seed in range(5):
        torch.manual_seed(seed)
        loc, scale = 2.0 * torch.randn(12, 2).double(), (2.0 * torch.randn(12, 2).double()).exp()
        logits = 4.0 * torch.randn(12, 3).double()
        for divergence in (
            gaussian_jensen_shannon_bound(loc[:, None], scale[:, None], loc, scale),
            categorical_jensen_shannon(logits[:, None], logits),
        ):
            eigenvalues = torch.linalg.eigvalsh(torch.exp(-divergence / temperature))
            assert eigenvalues.min() > -1e-12 * eigenvalues.max()


def test_symmetric_kl_kernels_need_not_be():
    # Why the default is the other: categoricals for which exp(-J / T) has a negative eigenvalue.
    torch.manual_seed(0)
    lowest = []
    for _ in range(20):
        logits = 4.0 * torch.randn(12, 3).double()
        gram = torch.exp(-categorical_symmetric_kl(logits[:, None], logits) / 20.0)
        lowest.append(torch.linalg.eigvalsh(gram).min())
    assert min(lowest) < -1e-3


@pytest.mark.parametrize("function", [f for f, _ in GAUSSIAN + CATEGORICAL])
def test_gradients_are_exact(function):
    count = 4 if function in dict(GAUSSIAN) else 2
    values = [(torch.rand(3, 2).double() + 0.2).requires_grad_() for _ in range(count)]
    assert torch.autograd.gradcheck(function, values)
