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

from torchrl_stein._checks import check_choice, check_count, check_number, check_type
from torchrl_stein.modules import ParticleModule, find_population

__all__ = ["EvolutionStrategiesLoss"]


class EvolutionStrategiesLoss(LossModule):
    r"""Finite differences of the return along random directions, for every particle.

    It needs no differentiable policy, no critic and no data but the returns of perturbed policies:

    .. math::
        g_i = \frac{1}{2 h K} \sum_{k=1}^K \left[
            J(\theta_i + h \xi_{ik}) - J(\theta_i - h \xi_{ik}) \right] \xi_{ik},
        \qquad \xi_{ik} \sim N(0, I_d)

    ``loss_actor`` has the value of minus the mean return of the perturbed policies and the gradient
    -(1/n) g_i at particle i, so that any optimizer may descend it. Wrap it in
    :class:`SteinPolicyLoss` for SVPG and call that with ``TensorDict(batch_size=[n])``.

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
        num_directions: K >= 1, drawn anew at every call.
        scale: h > 0, in units of the parameters.
        shaping: what replaces the 2K returns of a particle in g, and so decides the scale of J
            against which ``SteinPolicyLoss`` weighs its temperature. ``None``: nothing; the
            temperature is in units of the return. ``"rank"``: their ranks, spread evenly over
            [-1/2, 1/2], equal returns sharing one. ``"zscore"``: minus their mean, over their
            standard deviation; the temperature is in units of that. With the last two, scaling
            or shifting rewards changes nothing, and g is of the order 1/h however flat J is:
            choose the temperature anew when h changes.
        seed: of the directions; None takes one from torch's global generator.

    Raises:
        TypeError: if ``actor_network`` is no TensorDictModule, ``evaluate`` is not callable or
            returns no tensor, ``num_directions`` or ``seed`` is no integer or ``scale`` no number.
        ValueError: if ``num_directions`` < 1, ``scale`` <= 0, ``shaping`` is unknown, or
            ``actor_network`` does not contain one ParticleModule or has other parameters (shared
            parts have no perturbation of their own); in ``forward``, if ``evaluate`` returns
            another shape than ``[N]`` or numbers that are not finite.

    Writes ``loss_actor`` and, detached, ``return_mean`` and ``particle_return`` ``[n]``, the mean
    over the 2K policies around a particle, unshaped.

    Source: Liu et al. 2017 (arXiv:1704.02399), eq. (1). Differs: antithetic pairs, without which
    its variance is of the order J^2 / h^2. Ranks: Salimans et al. 2017 (arXiv:1703.03864).

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from torchrl_stein.envs import MultiGoalEnv
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
        shaping: str | None = None,
        seed: int | None = None,
    ) -> None:
        owner = "EvolutionStrategiesLoss"
        check_type(owner, "a TensorDictModule", TensorDictModuleBase, actor_network=actor_network)
        if not callable(evaluate):
            raise TypeError(f"{owner}: evaluate must be callable, got {evaluate!r}")
        check_count(owner, num_directions=num_directions)
        check_number(owner, above=0, scale=scale)
        if shaping is not None:
            check_choice(owner, _SHAPINGS, shaping=shaping)
        if seed is not None:
            check_count(owner, at_least=0, seed=seed)
        name, population = find_population(
            owner, "actor_network", actor_network, several_seeds=False
        )
        _check_sole_parameter(actor_network, population)
        super().__init__()
        self.evaluate = evaluate
        self.num_directions, self.scale = num_directions, scale
        self._shaping = None if shaping is None else _SHAPINGS[shaping]
        self.in_keys: list[NestedKey] = []
        self.out_keys = ["loss_actor", "return_mean", "particle_return"]
        self._population_key = tuple(name.split("."))
        # Not a submodule: its weights are no parameters of the loss.
        self.__dict__["_perturbed"] = deepcopy(actor_network)
        rows = torch.arange(population.num_particles).repeat_interleave(2 * num_directions)
        self._perturbed.set_submodule(name, population.select(rows).requires_grad_(False))
        seed = int(torch.randint(2**62, ()).item()) if seed is None else seed
        # On the CPU, so that directions do not depend on the device.
        self._generator = torch.Generator().manual_seed(int(seed))
        self.convert_to_functional(actor_network, "actor_network")

    def forward(self, tensordict: TensorDictBase | None = None) -> TensorDict:
        """Evaluate perturbed policies and estimate the gradient; see the class.

        Args:
            tensordict: not read; wrappers of losses hand one on.
        """
        particles = self.actor_network_params.get((*self._population_key, "particles"))
        n, d = particles.shape
        K = self.num_directions
        directions = torch.randn((n, K, d), generator=self._generator, dtype=particles.dtype)
        directions = directions.to(particles.device)
        self._perturb(self.scale * directions)
        returns = self._returns(2 * n * K).to(particles).view(n, 2, K)
        shaped = returns
        if self._shaping is not None:
            shaped = self._shaping(returns.flatten(1)).view(n, 2, K)
        slopes = (shaped[:, 0] - shaped[:, 1]) / (2 * self.scale)
        gradient = torch.einsum("nk,nkd->nd", slopes, directions) / K
        # The value of the objective with the gradient of the estimate.
        step = ((particles - particles.detach()) * gradient).sum() / n
        return TensorDict(
            {
                "loss_actor": -returns.mean() - step,
                "return_mean": returns.mean(),
                "particle_return": returns.mean((1, 2)),
            },
            [],
        )

    @torch.no_grad()
    def _perturb(self, steps: Tensor) -> None:
        """Fill the perturbed policies, in place, from the actor as it is now."""

        def rows(key: tuple[str, ...], leaf: Tensor) -> Tensor:
            if key == (*self._population_key, "particles"):
                leaf = leaf.unsqueeze(1)
                return torch.stack([leaf + steps, leaf - steps], 1).flatten(0, 2)
            if key[:-1] == self._population_key:  # a buffer, one row per particle
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


def _check_sole_parameter(actor: TensorDictModuleBase, population: ParticleModule) -> None:
    others = [name for name, p in actor.named_parameters() if p is not population.particles]
    if others:
        raise ValueError(
            "EvolutionStrategiesLoss: actor_network must have no parameters but the particles, "
            f"since only these are perturbed; got also {others}"
        )


def _centred_ranks(values: Tensor) -> Tensor:
    """Ranks along the last dimension, ``[n, m]``, spread evenly over [-1/2, 1/2].

    Equal values share the mean of their ranks: a return that never changes has no gradient.
    """
    ordered = values.sort(-1).values
    below, not_above = (torch.searchsorted(ordered, values, right=right) for right in (False, True))
    m = values.shape[-1]
    return ((below + not_above - m) / (2 * (m - 1))).to(values)


def _z_scores(values: Tensor) -> Tensor:
    """(value - mean) / standard deviation along the last dimension, ``[n, m]``; 0 if all agree."""
    centred = values - values.mean(-1, keepdim=True)
    std = centred.square().mean(-1, keepdim=True).sqrt()
    return centred / std.clamp_min(torch.finfo(values.dtype).tiny)  # 0 / tiny, not 0 / 0


_SHAPINGS = {"rank": _centred_ranks, "zscore": _z_scores}
