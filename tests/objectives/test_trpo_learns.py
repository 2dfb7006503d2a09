"""Policies that learn by natural gradient steps, and a Stein population that samples."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import AddStateIndependentNormalScale
from torch import nn
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.modules import MLP, ValueOperator

from tests.objectives.trpo_builders import actor_of
from torchrl_stein.envs import CartpoleEnv
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import NaturalGradientStep, SteinPolicyLoss, TRPOLoss


def learn_to_balance(n=None, iterations=15, **stein):
    """Mean length of episodes in the first and the last batch, and the largest KL of a step."""
    torch.manual_seed(0)
    batch = (8,) if n is None else (n, 8)
    env = CartpoleEnv(batch, horizon=100, seed=0)

    def make_policy():
        mean = MLP(in_features=4, out_features=1, num_cells=[16], activation_class=nn.Tanh)
        return nn.Sequential(mean, AddStateIndependentNormalScale(1))

    def make_value():
        return MLP(in_features=4, out_features=1, num_cells=[16], activation_class=nn.Tanh)

    many = n is not None
    actor = actor_of(ParticleModule(make_policy, n) if many else make_policy())
    critic = ValueOperator(ParticleModule(make_value, n) if many else make_value())
    base = TRPOLoss(actor, critic)
    base.make_value_estimator(gamma=0.99, lmbda=0.95)
    loss = SteinPolicyLoss(base, **stein) if stein else base
    natural = NaturalGradientStep(loss, max_kl=0.02)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-2)
    lengths, divergences = [], []
    frames = env.batch_size.numel() * 100
    for data in Collector(env, actor, frames_per_batch=frames, total_frames=frames * iterations):
        with torch.no_grad():
            base.value_estimator(data)
        divergences.append(natural.step(data)["kl"].max().item())
        for _ in range(10):
            optimizer.zero_grad()
            base.loss_critic(data)[0].mean().backward()
            optimizer.step()
        lengths.append(data.numel() / data["next", "done"].sum().item())
    return lengths[0], lengths[-1], max(divergences)


@pytest.mark.parametrize(
    "options",
    [{}, {"n": 3}, {"n": 3, "temperature": 0.1}],
    ids=["one policy", "population", "stein"],
)
def test_a_pole_is_balanced(options):
    first, last, divergence = learn_to_balance(**options)
    assert first < 15
    assert last > 40
    assert divergence <= 0.0201


CENTRE, CURVATURE = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 4.0])
SCALE = torch.tensor([0.5, 0.25])


class Bandit(nn.Module):
    """One state; the mean action is sinh(theta), so that the Fisher matrix depends on theta."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.randn(2))

    def forward(self, observation):
        loc = self.theta.sinh().expand(*observation.shape[:-1], 2)
        return loc, SCALE.expand_as(loc)


def test_a_stein_population_settles_on_the_boltzmann_distribution():
    """Of SVGD without a metric, since F_i^-1 phi_i vanishes where phi_i does.

    With r = -1/2 sum w (a - m)^2 it is exp(J / alpha), J = -1/2 sum w (sinh(theta) - m)^2 + const,
    whose moments come from a sum on a grid.
    """
    grid = torch.linspace(-4, 4, 4001).unsqueeze(-1)
    alpha = 0.3
    weight = (-0.5 * CURVATURE * (grid.sinh() - CENTRE).square() / alpha).softmax(0)
    mean = (weight * grid).sum(0)
    variance = (weight * (grid - mean).square()).sum(0)
    # The variance of one population of thirty wanders by a tenth.
    theta = torch.stack([settled_population(alpha, seed) for seed in range(3)])
    assert_close(theta.mean((0, 1)), mean, rtol=0, atol=0.05)
    assert_close(theta.var(1).mean(0), variance, rtol=0.15, atol=0)


def settled_population(alpha, seed):
    n, m, iterations = 30, 100, 150
    torch.manual_seed(seed)
    population = ParticleModule(Bandit, n)
    actor = actor_of(population)
    loss = SteinPolicyLoss(TRPOLoss(actor, normalize_advantage=False), temperature=alpha)
    natural = NaturalGradientStep(loss, damping=0.0, iterations=2)
    noise = torch.randn(n, m // 2, 2)
    noise = torch.cat([noise, -noise], 1)  # the mean of the samples is that of the policy
    for i in range(iterations):
        natural.max_kl = 0.3 * (1 - i / iterations) ** 2
        data = TensorDict({"observation": torch.zeros(n, m, 1)}, [n, m])
        with torch.no_grad():
            policy = actor.get_dist(data)
        action = policy.mean + SCALE * noise
        reward = -0.5 * (CURVATURE * (action - CENTRE).square()).sum(-1, keepdim=True)
        data.update(
            {
                "action": action,
                "action_log_prob": policy.log_prob(action),
                "loc": policy.mean,
                "scale": SCALE.expand_as(action),
                "advantage": reward - reward.mean(1, keepdim=True),
            }
        )
        natural.step(data)
    return population.particles.detach()
