"""Policy gradients from returns alone (Salimans et al. 2017), for a population."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.objectives import LossModule

from torchrl_stein._checks import check_count, check_number, check_type
from torchrl_stein.functional import evolution_gradient
from torchrl_stein.modules.population import find_population, particles_key

__all__ = ["EvolutionStrategiesLoss"]

Shaping = Callable[[Tensor], Tensor]  # returns [n, 2K] -> what replaces them in g


class EvolutionStrategiesLoss(LossModule):
    """Finite differences of the return along random directions, for every particle.

    It needs no differentiable policy, no critic and no data but the returns of perturbed policies.
    ``loss_actor`` has the value of minus their mean return and the gradient -(1/n) g_i at particle
    i, so that any optimizer may descend it; g_i is
    :func:`~torchrl_stein.functional.evolution_gradient` along K directions xi_ik from N(0, I). Wrap
    it in :class:`SteinPolicyLoss` for SVPG and call that with ``TensorDict(batch_size=[n])``.

    Args:
        actor_network: a TensorDictModule or ProbabilisticActor that contains one
            :class:`~torchrl_stein.modules.ParticleModule` of n particles and no other parameters.
        evaluate: called as ``evaluate(policy, N)``, N = 2 n K, returns a return for each policy,
            ``[N]``. ``policy`` is an actor like ``actor_network``, the same object at every call,
            with N particles that see data of batch size ``[N, ...]``, say an environment of batch
            size ``[N, E]``. Row ``(2 i + s) K + k`` is particle i moved by ``+h xi_ik`` (s = 0) or
            ``-h xi_ik`` (s = 1). It runs without gradients and under exploration type RANDOM,
            since J is the return of the policy as it acts.

    Keyword Args:
        num_directions: K >= 1, drawn at every call.
        scale: h > 0, in units of the parameters.
        shaping: a function of the returns ``[n, 2K]`` that replaces them in g, and so decides the
            scale of J against which ``SteinPolicyLoss`` weighs its temperature. None keeps the
            return. With :func:`~torchrl_stein.functional.centred_ranks` and
            :func:`~torchrl_stein.functional.z_scores`, scaling or shifting rewards changes
            nothing, and g is of the order 1/h however flat J is: choose the temperature again when
            h changes.
        seed: of the directions; None takes one from torch's global generator.

    Writes ``loss_actor`` and, detached, ``return_mean`` and ``particle_return`` ``[n]``, the mean
    over the 2K policies around a particle, unshaped.

    Raises:
        TypeError: if an argument is of another kind, or ``evaluate`` returns no tensor.
        ValueError: if a number is out of its range, ``actor_network`` does not contain one
            ParticleModule or has other parameters, which have no perturbation of their own; at the
            call, if ``evaluate`` returns another shape than ``[N]`` or no finite numbers.

    Source: Liu et al. 2017 (arXiv:1704.02399), eq. (1).

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> from torchrl_stein.modules import ParticleModule
        >>> net = ParticleModule(lambda: nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 3)
        >>> actor = TensorDictModule(net, ["observation"], ["action"])
        >>> env = MultiGoalEnv(batch_size=(2 * 3 * 8, 4), seed=0)  # four episodes per policy
        >>> def evaluate(policy, num_policies):
        ...     data = env.rollout(20, policy, break_when_any_done=False)
        ...     return data["next", "reward"].mean((1, 2, 3))
        >>> loss = EvolutionStrategiesLoss(actor, evaluate, num_directions=8, seed=0)
        >>> loss()["loss_actor"].backward()
        >>> net.particles.grad.shape
        torch.Size([3, 6])
    """

    actor_network: TensorDictModuleBase
    actor_network_params: TensorDictBase
    target_actor_network_params: TensorDictBase

    def __init__(
        self,
        actor_network: TensorDictModuleBase,
        evaluate: Callable[[TensorDictModuleBase, int], Tensor],
        *,
        num_directions: int = 16,
        scale: float = 0.05,
        shaping: Shaping | None = None,
        seed: int | None = None,
    ) -> None:
        owner = "EvolutionStrategiesLoss"
        check_type(owner, "a TensorDictModule", TensorDictModuleBase, actor_network=actor_network)
        check_type(owner, "a function of a policy and N", Callable, evaluate=evaluate)
        check_count(owner, num_directions=num_directions)
        check_number(owner, above=0, scale=scale)
        if shaping is not None:
            check_type(owner, "a function of returns", Callable, shaping=shaping)
        if seed is not None:
            check_count(owner, at_least=0, seed=seed)
        name, population = find_population(
            owner, "actor_network", actor_network, several_seeds=False
        )
        others = [n for n, p in actor_network.named_parameters() if p is not population.particles]
        if others:
            raise ValueError(
                f"{owner}: actor_network must have no parameters but the particles, since only "
                f"these are perturbed; got also {others}"
            )
        super().__init__()
        self.evaluate, self.shaping = evaluate, shaping
        self.num_directions, self.scale = num_directions, scale
        self.in_keys: list[NestedKey] = []
        self.out_keys = ["loss_actor", "return_mean", "particle_return"]
        self._particles_key = particles_key(name)
        # It is not a submodule, since its weights are not parameters of the loss.
        self.__dict__["_perturbed"] = deepcopy(actor_network)
        rows = torch.arange(population.num_particles).repeat_interleave(2 * num_directions)
        self._perturbed.set_submodule(name, population.select(rows).requires_grad_(False))
        seed = int(torch.randint(2**62, ()).item()) if seed is None else seed
        # The generator is on the CPU, so that directions do not depend on the device.
        self._generator = torch.Generator().manual_seed(int(seed))
        self.convert_to_functional(actor_network, "actor_network")

    def forward(self, tensordict: TensorDictBase | None = None) -> TensorDict:
        """Evaluate perturbed policies and estimate the gradient; see the class.

        Args:
            tensordict: not read; wrappers of losses hand one on.
        """
        particles = self.actor_network_params.get(self._particles_key)
        n, d = particles.shape
        K = self.num_directions
        directions = torch.randn((n, K, d), generator=self._generator, dtype=particles.dtype)
        directions = directions.to(particles.device)
        self._perturb(self.scale * directions)
        returns = self._returns(2 * n * K).to(particles).view(n, 2, K)
        shaped = returns
        if self.shaping is not None:
            shaped = self.shaping(returns.flatten(1)).view(n, 2, K)
        gradient = evolution_gradient(shaped, directions, self.scale)
        # The value of the objective with the gradient of the estimate.
        step = ((particles - particles.detach()) * gradient).sum() / n
        mean = returns.mean()
        out = {"loss_actor": -mean - step, "return_mean": mean}
        return TensorDict({**out, "particle_return": returns.mean((1, 2))}, [])

    @torch.no_grad()
    def _perturb(self, steps: Tensor) -> None:
        """Fill the perturbed policies, in place, from the actor as it is now."""

        def rows(key: tuple[str, ...], leaf: Tensor) -> Tensor:
            if key == self._particles_key:
                leaf = leaf.unsqueeze(1)
                return torch.stack([leaf + steps, leaf - steps], 1).flatten(0, 2)
            if key[:-1] == self._particles_key[:-1]:  # a buffer, one row per particle
                return leaf.repeat_interleave(2 * self.num_directions, 0)
            return leaf

        source = self.actor_network_params.data.named_apply(rows, nested_keys=True)
        TensorDict.from_module(self._perturbed).data.update_(source)

    @torch.no_grad()
    def _returns(self, num_policies: int) -> Tensor:
        # TorchRL runs losses under the deterministic exploration type.
        with set_exploration_type(ExplorationType.RANDOM):
            returns = self.evaluate(self._perturbed, num_policies)
        if not isinstance(returns, Tensor):
            raise TypeError(
                "EvolutionStrategiesLoss: evaluate must return a tensor, "
                f"got {type(returns).__name__}"
            )
        if returns.shape != (num_policies,):
            raise ValueError(
                "EvolutionStrategiesLoss: evaluate must return one number per policy, shape "
                f"[{num_policies}], got {list(returns.shape)}"
            )
        # Looking costs a wait on an accelerator, but rollouts cost far more.
        bad = int((~returns.isfinite()).sum())
        if bad:
            raise ValueError(
                "EvolutionStrategiesLoss: evaluate must return finite numbers, "
                f"got {bad} non-finite of {num_policies}"
            )
        return returns

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> EvolutionStrategiesLoss:
        self._perturbed._apply(fn)
        return super()._apply(fn)

    def get_extra_state(self) -> Tensor:
        """State of the generator of directions, so that a resumed run draws what it would have."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Take the generator of directions up where it was."""
        self._generator.set_state(state.cpu())
