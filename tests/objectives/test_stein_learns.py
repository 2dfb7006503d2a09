"""SteinPolicyLoss as a sampler: particles settle on exp(J / alpha) q_0."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictParams
from torch import nn
from torchrl.objectives import LossModule

from torchrl_stein.kernels import IdentityKernel
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import GaussianPrior, SteinPolicyLoss

N = 60
CENTRE, CURVATURE = torch.tensor([1.0, -2.0]), torch.tensor([1.0, 4.0])


class Bandit(LossModule):
    """J(theta) = -1/2 sum_c w_c (theta_c - m_c)^2 of the two parameters of a policy, known."""

    actor_network: TensorDictModule
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams

    def __init__(self, actor):
        super().__init__()
        self.convert_to_functional(actor, "actor_network")

    def forward(self, tensordict):
        theta = self.actor_network_params.get(("module", "particles"))
        returns = -0.5 * (CURVATURE * (theta - CENTRE).square()).sum(-1)
        return TensorDict({"loss_actor": -returns.mean()}, [])


def settle(iterations=600, **options):
    """Mean and variance of the particles in each of the two parameters."""
    torch.manual_seed(0)
    net = ParticleModule(lambda: nn.Linear(1, 1), N)
    loss = SteinPolicyLoss(Bandit(TensorDictModule(net, ["observation"], ["action"])), **options)
    optim = torch.optim.Adam(loss.parameters(), lr=0.1)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optim, iterations)
    data = TensorDict(batch_size=[N])
    for _ in range(iterations):
        losses = loss(data)
        sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
        optim.step()
        optim.zero_grad()
        decay.step()
    return net.particles.detach().mean(0), net.particles.detach().var(0)


@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_particles_settle_on_the_boltzmann_distribution(temperature):
    # exp(J / alpha) is normal with variance alpha / w; 60 particles show 0.90 of it.
    mean, variance = settle(temperature=temperature)
    torch.testing.assert_close(mean, CENTRE, rtol=0, atol=0.02 * temperature**0.5)
    torch.testing.assert_close(variance, temperature / CURVATURE, rtol=0.15, atol=0)


def test_a_prior_multiplies_it():
    # Precisions add: w / alpha + 1 / s^2 = (1/2 + 1, 2 + 1); the prior is centred at 0.
    mean, variance = settle(temperature=2.0, prior=GaussianPrior(1.0))
    precision = CURVATURE / 2.0 + 1.0
    torch.testing.assert_close(mean, CENTRE * CURVATURE / 2.0 / precision, rtol=0, atol=0.02)
    torch.testing.assert_close(variance, 1.0 / precision, rtol=0.15, atol=0)


def test_without_repulsion_all_find_the_optimum():
    mean, variance = settle(temperature=0.3, kernel=IdentityKernel())
    torch.testing.assert_close(mean, CENTRE, rtol=0, atol=1e-2)
    assert (variance < 1e-4).all()
