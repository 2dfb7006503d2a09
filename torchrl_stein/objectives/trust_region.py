"""A Wasserstein trust region (Zhang et al. 2018, arXiv:1808.03030) as one more loss term."""

from __future__ import annotations

from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.objectives import LossModule

from torchrl_stein._checks import (
    check_choice,
    check_count,
    check_finite,
    check_keys,
    check_number,
    check_type,
)
from torchrl_stein.modules import find_population, particles_key

from ._coupled_actions import check_sampler, coupled_actions
from ._predecessor_watch import PredecessorWatch
from .transport_costs import SinkhornCost, TransportCost

__all__ = ["WassersteinTrustRegionLoss"]

_REDUCTIONS = ("none", "mean", "sum")
_SPACES = ("action", "parameter")


class WassersteinTrustRegionLoss(LossModule):
    r"""Keeps a policy near its predecessor in the Wasserstein distance.

    One step of the scheme of Jordan, Kinderlehrer and Otto minimizes KL + W_2^2 / (2 h). Any loss
    of TorchRL or of ours is the first term; this one, ``loss_trust_region`` = weight * cost, is
    the second. The step size h and ``weight`` are one number: weight = 1 / (2 h) beside
    :class:`SoftQLoss`, whose particle forces are those of the KL, and alpha / (2 h) beside
    :class:`SteinPolicyLoss`, whose gradient is alpha times that. (The paper has both h and
    epsilon, and determines neither's scale.)

    The previous policy is this loss's target parameters. TorchRL's updaters are the paper's two
    strategies (E.1): ``SoftUpdate(region, tau=...)`` is a moving average (ii). For the policy of
    the last iteration (i), ``HardUpdate(region, value_network_update_interval=0)`` with its
    ``step()`` after ``backward()`` and BEFORE the optimizer's: after it, both policies are the
    same whenever the loss is computed, and the term is zero.

    Args:
        actor_network: the policy that another loss trains; parameters are shared with it.

    Keyword Args:
        weight: >= 0, in units of that loss per squared unit of the particles. A buffer; assign to
            it to anneal.
        cost: a :class:`~torchrl_stein.objectives.TransportCost`; default ``SinkhornCost()``.
        space: ``"action"``: ``num_particles`` actions per state, in units of the action, both
            policies from the same states and noise (DP-WGF). ``"parameter"``: the particles of
            the policy's :class:`~torchrl_stein.modules.ParticleModule`, without columns outside
            of kernels (IP-WGF).
        num_particles: M, actions per state. Time and memory grow with B M^2.
        num_groups: G populations of equal size, one after the other in the ParticleModule, which
            are transported each by itself; only for ``space="parameter"``. Those of several
            seeds, ``ParticleModule(factory, (S, n))``, are so in any case.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch ``[*B]``; for
            ``space="parameter"`` over several groups.

    Raises:
        TypeError: if ``cost`` is no TransportCost, a number none or, for ``space="action"``, the
            policy has no reparameterised continuous actions.
        ValueError: if ``weight`` < 0, ``num_particles`` < 1, an option is unknown,
            ``num_groups`` does not divide the particles or, for ``space="parameter"``, the policy
            does not contain exactly one ParticleModule; at the call, if an observation on a CPU
            is not finite.
        KeyError: at the call, if the batch lacks an observation.

    Writes ``loss_trust_region`` and, detached, ``transport_cost``, the mean cost without any
    factor. For ``space="parameter"`` the loss is weight * n * cost, n particles of a group: costs
    are means over particles, while the gradient of :class:`SteinPolicyLoss` on a particle is its
    whole force (divided by G, as the mean over groups does here).
    Warns once, outside of ``torch.compile``, if the previous policy stood still for 10 000 calls
    (100 for ``space="parameter"``) while the policy moved, or moved with it and was the same at
    every look within the first 55.

    Source: Zhang et al. 2018 (arXiv:1808.03030), eqs. (13) and (15), appendix E.1.

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP
        >>> from torchrl.objectives import SoftUpdate
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> actor = AmortizedSVGDActor(
        ...     MLP(3 + 2, 2, num_cells=[64]), action_spec=Bounded(-1.0, 1.0, shape=(2,))
        ... )
        >>> region = WassersteinTrustRegionLoss(actor, weight=0.4)
        >>> previous = SoftUpdate(region, tau=0.01)
        >>> states = TensorDict({"observation": torch.randn(8, 3)}, [8])
        >>> region(states)["loss_trust_region"].item()  # no step taken yet
        0.0
    """

    _schedulable_buffers = frozenset({"weight"})
    actor_network: TensorDictModuleBase
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    weight: Tensor

    def __init__(
        self,
        actor_network: TensorDictModuleBase,
        *,
        weight: float = 0.4,
        cost: TransportCost | None = None,
        space: str = "action",
        num_particles: int = 32,
        num_groups: int = 1,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        owner = "WassersteinTrustRegionLoss"
        cost = SinkhornCost() if cost is None else cost
        check_type(owner, "a TransportCost", TransportCost, cost=cost)
        check_number(owner, at_least=0, weight=weight)
        check_count(owner, num_particles=num_particles, num_groups=num_groups)
        check_choice(owner, _REDUCTIONS, reduction=reduction)
        check_choice(owner, _SPACES, space=space)
        self.reduction, self.space = reduction, space
        in_keys: list[NestedKey] = []
        self._factor = 1
        if space == "action":
            if num_groups > 1:
                raise ValueError(
                    f'{owner}: num_groups must be 1 for space="action", got {num_groups}'
                )
            check_sampler(owner, actor_network)
            in_keys = list(actor_network.in_keys)
        else:
            name, population = find_population(owner, "actor_network", actor_network)
            self._key, self._columns = particles_key(name), population.kernel_dim
            self._factor, rest = divmod(population.num_particles, num_groups)
            if rest:
                raise ValueError(
                    f"{owner}: num_groups must divide the {population.num_particles} particles, "
                    f"got {num_groups}"
                )
            self._sets = (-1,) if num_groups == 1 else (num_groups, -1)
        self.convert_to_functional(actor_network, "actor_network", create_target_params=True)
        self.cost, self.num_particles = cost, num_particles
        first = next(actor_network.parameters())
        self.register_buffer("weight", first.new_tensor(float(weight)))
        self.in_keys, self.out_keys = in_keys, ["loss_trust_region", "transport_cost"]
        self._watch = PredecessorWatch(space)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight":
            check_number("WassersteinTrustRegionLoss", at_least=0, weight=value)
            value = float(value)  # of a tensor too: the buffer keeps dtype and device
        super().__setattr__(name, value)

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Weighted cost of the step from the previous policy to the present one.

        By keyword, ``region(observation=...)``, one state: only a tensordict says what is batch.

        Args:
            tensordict: states ``[*B]``; not written to.
        """
        if not torch.compiler.is_compiling():
            both = self.actor_network_params, self.target_actor_network_params
            self._watch.look(*both, self.weight)
        if self.space == "action":
            cost, of_batch = self._of_actions(tensordict), tensordict
        else:  # a mask of the batch says nothing of parameters
            cost, of_batch = self._of_particles(), None
        loss = self._reduce_loss(self.weight * self._factor * cost, of_batch)
        mean = self._reduce_loss(cost.detach(), of_batch, reduction="mean")
        return TensorDict({"loss_trust_region": loss, "transport_cost": mean}, [])

    def _of_actions(self, tensordict: TensorDictBase) -> Tensor:
        """Cost between the actions of both policies, one number per state, [*B]."""
        owner = "WassersteinTrustRegionLoss"
        check_keys(owner, tensordict, self.in_keys)
        check_finite(owner, {key: tensordict.get(key) for key in self.in_keys})
        current, previous = coupled_actions(
            self.actor_network,
            self.actor_network_params,
            self.target_actor_network_params,
            tensordict.select(*self.in_keys),
            self.num_particles,
        )
        return self.cost(current, previous)

    def _of_particles(self) -> Tensor:
        """Cost between both sets of flat particles, [], or of each of several groups, [G]."""
        both = (self.actor_network_params, self.target_actor_network_params)
        sets = (params.get(self._key)[..., : self._columns] for params in both)
        current, previous = (particles.unflatten(-2, self._sets) for particles in sets)
        return self.cost(current, previous)
