"""Noise in parameters is "IP-WGF with a single particle" (Zhang et al. 2018, section 5): is it?

Not as it stands: one particle is a point, its step is a gradient step without any noise, whatever
the temperature. This holds: let the one particle be a Gaussian N(m, diag(s^2)), not a point. Then
the JKO step (13) among Gaussians is a proximal step in (m, s), and

- W_2^2 = |m - m'|^2 + |s - s'|^2, so that plain gradients of (m, s), those of noisy layers, are its
  explicit form, without the entropy: alpha = 0. With alpha log s_i they have the posterior's width.
- With s fixed and alike, what moves is m, along the gradient of E J(m + s xi): evolution strategies
  with one particle, under our trust region.
- It is the step of a point, towards the MAP, where exp(J / alpha) is Gaussian, and there only.
- It is not the natural gradient, whose metric is Fisher's, 1 / s^2: the direction is the same where
  all s_i are, another elsewhere.

J here is a quadratic and a wave, of which the mean under a Gaussian is known.
"""

import pytest
import torch
from tensordict import TensorDict, TensorDictParams
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Independent, Normal, kl_divergence
from torch.testing import assert_close
from torchrl.objectives import LossModule

from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import (
    EvolutionStrategiesLoss,
    ParameterSpace,
    SinkhornCost,
    SteinPolicyLoss,
    WassersteinTrustRegionLoss,
)

# Steps are taken from a predecessor that rests.
pytestmark = pytest.mark.filterwarnings("ignore:No target network updater")

CURVATURE = torch.tensor([1.0, 2.0, 4.0, 0.5, 1.0, 3.0, 2.0, 1.0], dtype=torch.double)
PEAK = torch.linspace(-1.0, 1.0, 8, dtype=torch.double)
FREQUENCY = torch.tensor([1.0, -1.0, 0.5, 0.0, 2.0, 0.0, 1.0, 0.5], dtype=torch.double)


def objective(theta, wave=1.0):
    """J ``[...]`` of parameters ``[..., 8]``."""
    quadratic = -0.5 * (CURVATURE * (theta - PEAK).square()).sum(-1)
    return quadratic + wave * (theta @ FREQUENCY).cos()


def expected(mean, std, wave=1.0):
    """E J(m + s xi), by hand."""
    quadratic = -0.5 * (CURVATURE * ((mean - PEAK).square() + std.square())).sum(-1)
    damping = (-0.5 * (FREQUENCY * std).square().sum(-1)).exp()
    return quadratic + wave * damping * (mean @ FREQUENCY).cos()


def gradient(function, *points):
    points = [point.detach().clone().requires_grad_() for point in points]
    found = torch.autograd.grad(function(*points), points)
    return found[0] if len(points) == 1 else found


class Objective(LossModule):
    """-J of particles, whatever the data."""

    actor_network: TensorDictModule
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams

    def __init__(self, actor, wave):
        super().__init__()
        self.convert_to_functional(actor, "actor_network")
        self.in_keys, self.out_keys, self.wave = [], ["loss_actor"], wave

    def forward(self, tensordict=None):
        theta = self.actor_network_params.get(("module", "particles"))
        return TensorDict({"loss_actor": -objective(theta, self.wave).mean()})


def one_particle(seed=0):
    torch.manual_seed(seed)
    net = ParticleModule(lambda: nn.Linear(3, 2), 1).double()
    return TensorDictModule(net, ["observation"], ["action"])


def evolution(actor, scale, num_directions, wave=1.0):
    def evaluate(policy, count):
        return objective(policy.module.particles, wave)

    return EvolutionStrategiesLoss(
        actor, evaluate, scale=scale, num_directions=num_directions, seed=0
    )


def stein_gradient(base, temperature):
    loss = SteinPolicyLoss(base, temperature=temperature)
    losses = loss(TensorDict(batch_size=[1]))
    (grad,) = torch.autograd.grad(losses["loss_actor"] + losses["loss_repulsion"], loss.particles)
    return -grad[0]


def jko_step(actor, base, temperature, h, steps=25):
    """The step of IP-WGF to its end: descend alpha (KL + W_2^2 / 2h), the predecessor at rest."""
    loss = SteinPolicyLoss(base, temperature=temperature)
    weight, space = temperature / (2 * h), ParameterSpace()
    cost = SinkhornCost(num_iterations=1)  # of one particle it is exact
    region = WassersteinTrustRegionLoss(actor, weight=weight, space=space, cost=cost)
    # The rate that is best for curvatures between those of J.
    ends = CURVATURE.min() + CURVATURE.max() + 2 * temperature / h
    optim = torch.optim.SGD(loss.parameters(), lr=2 / ends.item())
    for _ in range(steps):
        optim.zero_grad()
        losses = loss(TensorDict(batch_size=[1])).update(region(TensorDict()))
        names = ("loss_actor", "loss_repulsion", "loss_trust_region")
        sum(losses[name] for name in names).backward()
        optim.step()
    return loss.particles.detach()[0]


@pytest.mark.parametrize("temperature", [0.5, 10.0])
def test_the_step_of_one_particle_has_no_noise(temperature):
    actor = one_particle()
    theta = actor.module.particles.detach()[0]
    for seed in (0, 1):
        torch.manual_seed(seed)
        found = stein_gradient(Objective(actor, 1.0), temperature)
        assert_close(found, gradient(objective, theta))
    # The whole step (13), of a quadratic: (W / alpha + 1 / h) theta' = W peak / alpha + theta / h.
    pull = CURVATURE / temperature
    expected_step = (pull * PEAK + theta / 0.1) / (pull + 1 / 0.1)
    found = jko_step(actor, Objective(actor, 0.0), temperature, h=0.1)
    assert_close(found, expected_step, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_evolution_strategies_move_the_mean_of_a_gaussian(scale):
    """Of one particle, at any temperature, in expectation; within five standard errors."""
    actor, std = one_particle(), torch.full((8,), scale, dtype=torch.double)
    mean, count = actor.module.particles.detach()[0], 20_000
    found = stein_gradient(evolution(actor, scale, count), temperature=10.0)
    of_gaussian = gradient(lambda m: expected(m, std), mean)
    xi = torch.randn(count, 8, dtype=torch.double)
    slopes = (objective(mean + scale * xi) - objective(mean - scale * xi)) / (2 * scale)
    error = (slopes.unsqueeze(-1) * xi).std(0) / count**0.5
    assert ((found - of_gaussian).abs() < 5 * error).all()
    # The gradient at the point, which IP-WGF takes, is another one as soon as J is no quadratic.
    of_point = gradient(objective, mean)
    assert ((found - of_point).abs() > 10 * error).any()
    assert_close(
        gradient(lambda m: expected(m, std, 0.0), mean), gradient(lambda m: objective(m, 0.0), mean)
    )


def test_noisy_weights_have_the_gradient_of_a_gaussian():
    """Eq. (22): dJ/dm and dJ/ds of the weights m + s eps, averaged over eps."""
    torch.manual_seed(0)
    mean, std = torch.randn(8).double(), torch.rand(8).double()
    eps = torch.randn(100_000, 8).double()
    eps = torch.cat([eps, -eps])
    found = gradient(lambda m, s: objective(m + s * eps).mean(), mean, std)
    want = gradient(expected, mean, std)
    for estimate, exact in zip(found, want, strict=True):
        assert_close(estimate, exact, atol=0.04, rtol=0)


def squared_wasserstein(mean, std, other_mean, other_std):
    """Between Gaussians by the covariances, which need not commute: Bures' distance."""
    a, b = torch.diag(std.square()), torch.diag(other_std.square())
    root = torch.diag(std)
    values, vectors = torch.linalg.eigh(root @ b @ root)
    cross = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    return (mean - other_mean).square().sum() + torch.trace(a + b - 2 * cross)


def test_the_distance_of_gaussians_is_that_of_their_parameters():
    torch.manual_seed(0)
    mean, other_mean = torch.randn(2, 8).double()
    std, other_std = torch.rand(2, 8).double() + 0.1
    found = (mean - other_mean).square().sum() + (std - other_std).square().sum()
    assert_close(found, squared_wasserstein(mean, std, other_mean, other_std))
    # Our trust region sees as much for one particle and a common scale.
    actor = one_particle()
    region = WassersteinTrustRegionLoss(actor, space=ParameterSpace())
    with torch.no_grad():
        before = actor.module.particles[0].clone()
        actor.module.particles.copy_(mean)
    cost = region(TensorDict())["transport_cost"]
    assert_close(cost, squared_wasserstein(before, std, mean, std))


def test_the_step_of_a_gaussian_is_ours_with_evolution_strategies():
    """(13) for N(m, s^2), s fixed: the minimum of -E J(m + s xi) + alpha |m - m_k|^2 / 2h.

    Here of a quadratic J, at 1 % for the mean of the xi xi^T that are drawn.
    """
    actor, alpha, h = one_particle(), 2.0, 0.5
    mean = actor.module.particles.detach()[0].clone()
    found = jko_step(actor, evolution(actor, 0.3, 20_000, wave=0.0), alpha, h)
    pull = CURVATURE / alpha
    assert_close(found, (pull * PEAK + mean / h) / (pull + 1 / h), atol=0.01, rtol=0)


def test_the_natural_gradient_has_another_metric():
    """Fisher's is 1 / s^2 of the mean and 2 / s^2 of s, the flow's is 1 for both."""
    torch.manual_seed(0)
    point = torch.cat([torch.randn(8), torch.rand(8) + 0.1]).double()

    def gaussian(x):
        return Independent(Normal(x[:8], x[8:]), 1)

    def divergence(x):
        return kl_divergence(gaussian(point), gaussian(x))

    def distance(x):
        return 0.5 * ((x - point).square()).sum()  # half of W_2^2, as was shown

    std = point[8:]
    fisher = torch.autograd.functional.hessian(divergence, point)
    assert_close(fisher, torch.diag(torch.cat([std**-2, 2 * std**-2])))
    assert_close(torch.autograd.functional.hessian(distance, point), torch.eye(16).double())
    # Steps of the mean: s_i^2 times as long, parallel for one scale alone.
    ascent = gradient(lambda m: expected(m, std), point[:8])
    natural = torch.linalg.solve(fisher[:8, :8], ascent)
    assert_close(natural, std.square() * ascent)
    assert torch.cosine_similarity(natural, ascent, 0) < 0.99


def test_the_posterior_and_the_map():
    """The flow of (m, s) ends at N(MAP, alpha / curvature), without the entropy at the MAP."""
    for alpha in (2.0, 0.0):
        mean, std = torch.zeros(8).double(), torch.ones(8).double()
        for _ in range(400):
            m, s = gradient(lambda m, s: expected(m, s, 0.0), mean, std)
            mean, std = mean + 0.1 * m, std + 0.1 * (s + alpha / std)
        assert_close(mean, PEAK, atol=1e-6, rtol=0)
        assert_close(std, (alpha / CURVATURE).sqrt(), atol=1e-6, rtol=0)
