"""Soft Q-learning written as public PyTorch code writes it: the peer of our loss and agent.

Modules, one optimizer per network, differences of all pairs of particles [B, K, M, A], a bandwidth
by ``torch.quantile`` and the kernel's derivative by autograd. It has the maths of ours (alpha,
unsquashed particles, order of the random numbers), so that both can be compared number by number.
"""

from __future__ import annotations

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from tensordict import TensorDictBase
from torch import Tensor, nn

__all__ = ["PlainSoftQ"]


class PlainSoftQ:
    """Networks, optimizers and one update.

    Args:
        actor: reads observation and noise, returns unsquashed actions.
        qvalue: reads observation and action. Both are copied.
        alpha: temperature.
        gamma: discount.
        particles: K = M.
        value_samples: actions per state for V(s').
        copy_interval: updates between copies to the target network.
    """

    def __init__(
        self,
        actor: nn.Module,
        qvalue: nn.Module,
        *,
        alpha: float,
        gamma: float,
        particles: int,
        value_samples: int,
        copy_interval: int = 100,
        lr: float = 3e-3,
    ) -> None:
        self.actor, self.qvalue = deepcopy(actor), deepcopy(qvalue)
        self.target = deepcopy(qvalue)
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=lr)
        self.qvalue_optimizer = torch.optim.Adam(self.qvalue.parameters(), lr=lr)
        self.alpha, self.gamma = alpha, gamma
        self.particles, self.value_samples = particles, value_samples
        self.copy_interval, self.updates = copy_interval, 0

    def update(self, batch: TensorDictBase) -> float:
        """Both networks one step; the loss of Q, which public code writes to its log."""
        loss = self.compute_gradients(batch)
        self.qvalue_optimizer.step()
        self.actor_optimizer.step()
        self.updates += 1
        if self.updates % self.copy_interval == 0:
            self.target.load_state_dict(self.qvalue.state_dict())
        return loss.item()

    def compute_gradients(self, batch: TensorDictBase) -> Tensor:
        """Write the gradients of both networks and return the loss of Q."""
        states, actions = batch["observation"], batch["action"]
        following = batch["next", "observation"]
        reward, ends = batch["next", "reward"], batch["next", "terminated"].float()
        self.qvalue_optimizer.zero_grad()
        loss = self._qvalue_loss(states, actions, following, reward, ends)
        loss.backward()
        self.actor_optimizer.zero_grad()
        self._actor_backward(states, actions.shape[-1])
        return loss

    def _qvalue_loss(
        self, states: Tensor, actions: Tensor, following: Tensor, reward: Tensor, ends: Tensor
    ) -> Tensor:
        count, action_dim = self.value_samples, actions.shape[-1]
        with torch.no_grad():
            uniform = torch.rand(len(states), count, action_dim, device=states.device) * 2 - 1
            q = self._evaluate(self.target, following, uniform)
            value = torch.logsumexp(q / self.alpha, dim=1)
            value = value - math.log(count) + action_dim * math.log(2)
            value = self.alpha * value.unsqueeze(1)
            target = reward + (1 - ends) * self.gamma * value
        prediction = self.qvalue(torch.cat([states, actions], dim=-1))
        return 0.5 * F.mse_loss(prediction, target)

    def _actor_backward(self, states: Tensor, action_dim: int) -> None:
        count = self.particles
        noise = torch.randn(len(states), 2 * count, action_dim, device=states.device)
        drawn = self._evaluate(self.actor, states, noise)
        fixed, moved = torch.split(drawn, [count, count], dim=1)
        fixed = fixed.detach().requires_grad_(True)
        squashed = torch.tanh(fixed)
        q = self._evaluate(self.qvalue, states, squashed)
        log_volume = (2 * (math.log(2) - fixed - F.softplus(-2 * fixed))).sum(dim=-1)
        score = torch.autograd.grad((q / self.alpha + log_volume).sum(), fixed)[0]
        ends_at = moved.detach().requires_grad_(True)
        kernel = self._kernel(fixed.detach(), ends_at)
        # The kernel is a function of the difference: a pull on x is a push on y.
        repulsion = -torch.autograd.grad(kernel.sum(), ends_at)[0] / count
        drive = (kernel.detach().unsqueeze(-1) * score.unsqueeze(2)).mean(dim=1)
        phi = (drive + repulsion).detach()
        torch.autograd.backward(moved, grad_tensors=-phi / (count * len(states)))

    @staticmethod
    def _kernel(x: Tensor, y: Tensor) -> Tensor:
        """k(x_j, y_i), [B, K, M]."""
        difference = x.unsqueeze(2) - y.unsqueeze(1)
        square = difference.pow(2).sum(dim=-1)
        # "lower" as torch.median has it; the median of several public codes is between both.
        half = torch.quantile(square.detach().flatten(1), 0.5, dim=1, interpolation="lower")
        bandwidth = (half / math.log(x.shape[1] + 1)).clamp_min(1e-3)
        return torch.exp(-square / bandwidth.view(-1, 1, 1))

    @staticmethod
    def _evaluate(network: nn.Module, states: Tensor, others: Tensor) -> Tensor:
        """Of every row of others [B, K, X] beside its state: [B, K, Y], or [B, K] of Q."""
        repeated = states.unsqueeze(1).repeat(1, others.shape[1], 1)
        out = network(torch.cat([repeated, others], dim=-1))
        return out.squeeze(-1) if out.shape[-1] == 1 else out
