"""A population, a return with a known gradient and a loss for the tests of evolution strategies."""

import numpy as np
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import EvolutionStrategiesLoss

N, K, H = 3, 4, 0.1


def make_actor(n=N, *, dtype=torch.float64, **options):
    """Three inputs, two actions, d = 8."""
    net = ParticleModule(lambda: nn.Linear(3, 2), n, **options)
    return TensorDictModule(net.to(dtype), ["observation"], ["action"])


class Quadratic:
    """J(theta) = c - 1/2 sum_c w_c (theta_c - 1)^2, and a record of what it was asked."""

    def __init__(self, weights=None, offset=0.0):
        weights = np.arange(1.0, 9.0) if weights is None else weights
        self.weights, self.offset = torch.as_tensor(weights), offset

    def __call__(self, policy, num_policies):
        theta = policy.module.particles
        assert not torch.is_grad_enabled()
        assert exploration_type() is ExplorationType.RANDOM
        assert theta.shape == (num_policies, 8)
        self.theta = theta.detach().clone().double()
        self.returns = self.offset - 0.5 * (self.weights * (self.theta - 1).square()).sum(-1)
        return self.returns.to(theta)

    def gradient(self, theta):
        return -self.weights * (theta - 1)


def make_loss(evaluate=None, actor=None, **options):
    options = {"num_directions": K, "scale": H, "seed": 0, **options}
    return EvolutionStrategiesLoss(actor or make_actor(), evaluate or Quadratic(), **options)


def particles_of(loss):
    return loss.actor_network.module.particles


def estimate(loss):
    """g ``[n, d]``: the ascent direction that the gradient of the loss stands for."""
    (grad,) = torch.autograd.grad(loss()["loss_actor"], particles_of(loss))
    return -grad * len(grad)
