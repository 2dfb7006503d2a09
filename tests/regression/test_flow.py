"""The update: against double loops, against a posterior in closed form, split by split."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.oracles import svgd as oracle
from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.objectives import SinkhornCost, WGFPotential
from torchrl_stein.regression import ParticleFlow, RegressionPosterior
from torchrl_stein.regression.flow import transport_force

S, M, F, B, N = 2, 4, 3, 6, 30


def make_posterior(num_splits=S):
    return RegressionPosterior(F, num_splits, M, num_cells=5).double()


def make_flow(posterior, cost=None, weight=0.4, lr=1e-2):
    optimizer = torch.optim.RMSprop(posterior.networks.parameters(), lr=lr, alpha=0.9, eps=1e-6)
    kernel = RBFKernel(MedianBandwidth("log(n)"))
    return ParticleFlow(posterior, kernel, optimizer, cost, weight)


def draw_batch(num_splits=S):
    features = torch.randn(num_splits, B, F, dtype=torch.float64)
    return features, torch.randn(num_splits, B, dtype=torch.float64)


def copy_of(posterior, splits=slice(None)):
    particles = posterior.particles.detach()[splits]
    made = make_posterior(len(particles))
    with torch.no_grad():
        made.particles.copy_(particles)
    return made


def test_the_direction_against_a_double_loop():
    posterior, (features, target) = make_posterior(), draw_batch()
    stein = make_flow(posterior).direction(features, target, N).stein
    posterior.log_joint(features, target, N).sum().backward()
    scores = posterior.particles.grad
    particles = posterior.particles.detach()
    for s in range(S):
        x = particles[s].numpy()
        pairs = sorted(((x[i] - x[j]) ** 2).sum() for i in range(M) for j in range(i))
        h = pairs[2] / math.log(M)  # of six pairs the lower middle one

        def k(a, b, h=h):
            return math.exp(-((a - b) ** 2).sum() / h)

        def gradient(a, b, h=h, k=k):
            return 2.0 / h * (b - a) * k(a, b)

        expected = oracle.direction((k, gradient), x, x, scores[s].numpy())
        assert_close(stein[s].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_rmsprop_ascends_along_the_sum_of_both_forces():
    posterior, batch = make_posterior(), draw_batch()
    flow = make_flow(posterior, WGFPotential(), weight=3.0, lr=1e-3)
    before = posterior.particles.detach().clone()
    direction = flow.step(*batch, N)
    assert direction.transport.abs().max() > 0
    total = direction.stein + direction.transport
    # The first step of RMSprop divides by sqrt((1 - alpha) g^2) + eps.
    expected = 1e-3 * total / (math.sqrt(0.1) * total.abs() + 1e-6)
    assert_close(posterior.particles.detach() - before, expected)


def test_weight_zero_is_svgd():
    first = make_posterior()
    posteriors = [copy_of(first) for _ in range(3)]
    flows = [
        make_flow(posteriors[0]),
        make_flow(posteriors[1], SinkhornCost(), weight=0.0),
        make_flow(posteriors[2], WGFPotential(), weight=0.4),
    ]
    for _ in range(5):
        batch = draw_batch()
        for flow in flows:
            flow.step(*batch, N)
    svgd, zero, wgf = (posterior.particles for posterior in posteriors)
    assert svgd.equal(zero)
    assert not svgd.allclose(wgf)


def test_splits_do_not_feel_each_other():
    together, batches = make_posterior(), [draw_batch() for _ in range(4)]
    alone = [copy_of(together, slice(s, s + 1)) for s in range(S)]
    flow = make_flow(together, SinkhornCost())
    for batch in batches:
        flow.step(*batch, N)
    for s in range(S):
        flow = make_flow(alone[s], SinkhornCost())
        for features, target in batches:
            flow.step(features[s : s + 1], target[s : s + 1], N)
        assert_close(together.particles[s], alone[s].particles[0], rtol=1e-8, atol=1e-8)


def test_the_trust_region_is_around_the_previous_iterate():
    posterior, (first, second) = make_posterior(), (draw_batch(), draw_batch())
    cost = SinkhornCost()
    flow = make_flow(posterior, cost)
    begin = posterior.particles.detach().clone()
    assert flow.step(*first, N).transport.abs().max() < 1e-12  # no step was taken yet
    now = posterior.particles.detach().clone()
    force = flow.step(*second, N).transport
    assert_close(force, transport_force(now, begin, cost, 0.4))
    assert (force * (now - begin)).sum() < 0.0  # back to where it came from
    later = posterior.particles.detach().clone()
    assert_close(flow.step(*first, N).transport, transport_force(later, now, cost, 0.4))


def test_the_force_of_the_paper_by_a_loop():
    # Eq. (9) with a mean over j, as a force, times the weight.
    x, previous = torch.randn(2, M, F).double(), torch.randn(2, M, F).double()
    force = transport_force(x, previous, WGFPotential(regularization=2.0), weight=0.7)
    expected = np.zeros((2, M, F))
    for s, i, j in np.ndindex(2, M, M):
        step = (x[s, i] - previous[s, j]).numpy()
        ratio = (step**2).sum() / 2.0
        expected[s, i] += 0.7 * 2.0 * (1.0 - ratio) * math.exp(-ratio) * step / M
    assert_close(force.numpy(), expected)


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_a_bad_weight(weight):
    with pytest.raises(ValueError, match=r"ParticleFlow: weight must be .*>= 0, got"):
        make_flow(make_posterior(), SinkhornCost(), weight)


class LinearPosterior(nn.Module):
    """y = w x + noise of known precision, w ~ N(0, 1): the posterior of w is a normal."""

    def __init__(self, num_splits, num_particles, precision):
        super().__init__()
        self.precision = precision
        rows = torch.randn(num_splits, num_particles, 1, dtype=torch.float64)
        self.particles = nn.Parameter(rows)

    def log_joint(self, features, target, num_rows):
        w = self.particles[..., 0]
        error = target.unsqueeze(1) - w.unsqueeze(-1) * features[..., 0].unsqueeze(1)
        scale = num_rows / target.shape[1]
        return -0.5 * (self.precision * scale * error.square().sum(-1) + w.square())

    def exact(self, features, target):
        """Mean and variance of w, [S]."""
        x = features[..., 0]
        variance = 1.0 / (1.0 + self.precision * x.square().sum(-1))
        return SimpleNamespace(
            mean=variance * self.precision * (x * target).sum(-1), variance=variance
        )


@pytest.mark.parametrize("cost", [None, SinkhornCost()], ids=["svgd", "wgf"])
def test_a_posterior_in_closed_form(cost):
    features = torch.randn(2, 12, 1, dtype=torch.float64)
    target = torch.tensor([[2.0], [-1.0]]).double() * features[..., 0]
    target = target + torch.randn(2, 12, dtype=torch.float64)
    posterior = LinearPosterior(2, 20, precision=1.0)
    optimizer = torch.optim.SGD(posterior.parameters(), lr=0.05)
    flow = ParticleFlow(posterior, RBFKernel(), optimizer, cost)
    for _ in range(200):
        flow.step(features, target, 12)
    exact, w = posterior.exact(features, target), posterior.particles[..., 0].detach()
    assert_close(w.mean(1), exact.mean, atol=2e-3, rtol=0.0)
    # 20 particles of SVGD have 92 % of the variance of a normal, as measured for other data.
    assert_close(w.var(1) / exact.variance, torch.full((2,), 0.92).double(), atol=0.03, rtol=0.0)
