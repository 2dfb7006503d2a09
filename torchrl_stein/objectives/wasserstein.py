"""A Wasserstein trust region (Zhang et al. 2018, arXiv:1808.03030) as one more loss term."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModuleBase,
    dispatch,
)
from tensordict.utils import NestedKey
from torch import Tensor
from torch import distributions as D
from torchrl.objectives import LossModule

from torchrl_stein._checks import (
    check_choice,
    check_count,
    check_finite,
    check_keys,
    check_number,
    check_type,
)
from torchrl_stein._torchrl import reduce_loss
from torchrl_stein.modules import SamplingActor
from torchrl_stein.modules.population import find_population, particles_key

from .transport_costs import SinkhornCost, TransportCost

__all__ = ["ActionSpace", "ParameterSpace", "WassersteinTrustRegionLoss"]

_OWNER = "WassersteinTrustRegionLoss"
_REDUCTIONS = ("none", "mean", "sum")
# The previous policy may stand still for this many calls before a warning. Off-policy, HardUpdate
# may wait for 1000 of them; whole runs of populations have fewer.
_ACTION_PATIENCE, _PARAMETER_PATIENCE = 10_000, 100
# At these calls both policies are compared. They are few, since each look waits for the device, and
# at uneven distances, so that no updater that copies at every kth call can meet all of them.
_LOOKS = (8, 13, 21, 34, 55)


class _Points(NamedTuple):
    """What is transported of one policy: ``draw`` gives both point sets, ``[..., M, d]``."""

    in_keys: list[NestedKey]
    draw: Callable[..., tuple[Tensor, Tensor]]  # of actor, both parameters and the batch
    of_batch: bool  # whether the leading dimensions are those of the batch
    patience: int


class ActionSpace:
    """Transport actions: of both policies from the same states and the same noise (DP-WGF).

    Args:
        num_action_samples: M >= 1, actions per state. Time and memory grow with B M^2.

    Example:
        >>> ActionSpace(num_action_samples=16).num_action_samples
        16
    """

    def __init__(self, num_action_samples: int = 32) -> None:
        check_count("ActionSpace", num_action_samples=num_action_samples)
        self.num_action_samples = num_action_samples

    def bind(self, actor: TensorDictModuleBase) -> _Points:
        """What the loss asks of a policy; a TypeError if it has no reparameterised actions."""
        _check_sampler(actor)
        draw = partial(_coupled_actions, num_samples=self.num_action_samples)
        return _Points(list(actor.in_keys), draw, True, _ACTION_PATIENCE)


class ParameterSpace:
    """Transport the particles of a population, without columns outside of kernels (IP-WGF).

    Those of several seeds, ``[S, n, d]``, are transported seed by seed.

    Example:
        >>> from tensordict.nn import TensorDictModule
        >>> from torch import nn
        >>> from torchrl_stein.modules import ParticleModule
        >>> net = ParticleModule(lambda: nn.Linear(3, 2), 4)
        >>> actor = TensorDictModule(net, ["observation"], ["action"])
        >>> region = WassersteinTrustRegionLoss(actor, space=ParameterSpace())
        >>> region(TensorDict())["loss_trust_region"].abs().item() < 1e-5  # no step taken yet
        True
    """

    def bind(self, actor: TensorDictModuleBase) -> _Points:
        """What the loss asks of a policy; a ValueError if it is not one population."""
        name, population = find_population(_OWNER, "actor_network", actor)
        draw = partial(_both_particles, key=particles_key(name), columns=population.kernel_dim)
        return _Points([], draw, False, _PARAMETER_PATIENCE)


class WassersteinTrustRegionLoss(LossModule):
    r"""Keeps a policy near its predecessor in the Wasserstein distance.

    One step of the scheme of Jordan, Kinderlehrer and Otto minimizes KL + W_2^2 / (2 h). Any loss
    of TorchRL or of ours is the first term; this one, ``loss_trust_region`` = weight * cost, is
    the second. The weight is 1 / (2 h) beside :class:`SoftQLoss`, whose particle forces are those
    of the KL, and alpha / (2 h) beside :class:`SteinPolicyLoss`, whose gradient is alpha times
    that.

    The previous policy is this loss's target parameters. TorchRL's updaters are the paper's two
    strategies (E.1): ``SoftUpdate(region, tau=...)`` is a moving average (ii), and
    ``HardUpdate(region, value_network_update_interval=0)`` keeps the policy of the last iteration
    (i). Call their ``step()`` after ``backward()`` and BEFORE the optimizer's: after it, both
    policies are the same whenever the loss is computed, and the term is zero.

    Args:
        actor_network: the policy that another loss trains; parameters are shared with it.

    Keyword Args:
        weight: >= 0, in units of that loss per squared unit of what is transported. A buffer;
            assign to it to anneal.
        cost: a :class:`~torchrl_stein.objectives.TransportCost`; default ``SinkhornCost()``.
        space: what is transported; default ``ActionSpace()``, or ``ParameterSpace()``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the batch ``[*B]``; over seeds ``[S]``
            for a ``ParameterSpace``.

    Writes ``loss_trust_region`` and, detached, ``transport_cost``, the mean cost without any
    factor. For a ``ParameterSpace`` the loss is weight * n * cost, n particles of a population:
    costs are means over particles, while the gradient of :class:`SteinPolicyLoss` on a particle is
    its whole force. Warns once, outside of ``torch.compile``, if the previous policy stood still
    for 10 000 calls (100 for a ``ParameterSpace``), or was the present one at every look within the
    first 55.

    Raises:
        TypeError, ValueError: for arguments of another kind or out of range, and for a policy
            without reparameterised continuous actions (``ActionSpace``) or exactly one
            ParticleModule (``ParameterSpace``); at the call, for an observation on a CPU that is
            not finite.
        KeyError: at the call, if the batch lacks an observation.

    Source: Zhang et al. 2018 (arXiv:1808.03030), eqs. (13) and (15), appendix E.1.

    Example:
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
        space: ActionSpace | ParameterSpace | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        cost = SinkhornCost() if cost is None else cost
        space = ActionSpace() if space is None else space
        spaces = (ActionSpace, ParameterSpace)
        check_type(_OWNER, "a TransportCost", TransportCost, cost=cost)
        check_type(_OWNER, "an ActionSpace or a ParameterSpace", spaces, space=space)
        check_number(_OWNER, at_least=0, weight=weight)
        check_choice(_OWNER, _REDUCTIONS, reduction=reduction)
        self._points = space.bind(actor_network)
        self.convert_to_functional(actor_network, "actor_network", create_target_params=True)
        self.cost, self.reduction = cost, reduction
        first = next(actor_network.parameters())
        self.register_buffer("weight", first.new_tensor(float(weight)))
        self.in_keys = self._points.in_keys
        self.out_keys = ["loss_trust_region", "transport_cost"]
        self._watch = _PredecessorWatch(self._points.patience)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "weight":
            check_number(_OWNER, at_least=0, weight=value)
            value = float(value)  # of a tensor too: the buffer keeps dtype and device
        super().__setattr__(name, value)

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Weighted cost of the step from the previous policy to the present one, states ``[*B]``.

        By keyword, ``region(observation=...)``, one state: only a tensordict says what is batch.
        """
        both = self.actor_network_params, self.target_actor_network_params
        if not torch.compiler.is_compiling():
            self._watch.look(*both, self.weight)
        check_keys(_OWNER, tensordict, self.in_keys)
        check_finite(_OWNER, {key: tensordict.get(key) for key in self.in_keys})
        current, previous = self._points.draw(self.actor_network, *both, tensordict)
        cost = self.cost(current, previous)
        if self._points.of_batch:
            factor, batch = 1, tensordict
        else:  # a mask of the batch says nothing of parameters
            factor, batch = current.shape[-2], None
        loss = reduce_loss(self, self.weight * factor * cost, batch)
        mean = reduce_loss(self, cost.detach(), batch, reduction="mean")
        return TensorDict({"loss_trust_region": loss, "transport_cost": mean}, [])


# What is transported


def _both_particles(
    actor: TensorDictModuleBase,
    current: TensorDictParams,
    previous: TensorDictParams,
    batch: TensorDictBase,
    *,
    key: NestedKey,
    columns: int,
) -> tuple[Tensor, Tensor]:
    """The flat particles of both, ``[n, d]`` or ``[S, n, d]``."""
    return current.get(key)[..., :columns], previous.get(key)[..., :columns]


def _coupled_actions(
    actor: Any,
    current: TensorDictParams,
    previous: TensorDictParams,
    batch: TensorDictBase,
    *,
    num_samples: int,
) -> tuple[Tensor, Tensor]:
    """M actions per state of both, ``[*B, M, A]``, action i from the same noise."""
    states = batch.select(*actor.in_keys)
    if isinstance(actor, SamplingActor):
        with current.to_module(actor, preserve_module_state=False):
            noise = actor.draw_noise(states, num_samples)
            actions = actor.squash(actor.unsquashed(states, noise))
        with torch.no_grad(), previous.to_module(actor, preserve_module_state=False):
            return actions, actor.squash(actor.unsquashed(states, noise))
    with current.to_module(actor, preserve_module_state=False):
        now = actor.get_dist(states)
    if not now.has_rsample or _is_discrete(now):
        raise _no_rsample(type(now).__name__)
    with torch.no_grad(), previous.to_module(actor, preserve_module_state=False):
        before = actor.get_dist(states)
    shape = torch.Size([num_samples])
    normal = _base_normal(now)
    if normal is None:
        device = next(leaf.device for leaf in current.values(True, True))
        devices = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            actions = now.rsample(shape)
        earlier = before.rsample(shape)  # the generator is where it was: the same noise again
    else:
        noise = torch.randn_like(normal.loc.expand(num_samples, *normal.loc.shape))
        actions, earlier = _push(now, noise), _push(before, noise)
    return actions.movedim(0, -2), earlier.detach().movedim(0, -2)


def _check_sampler(actor: TensorDictModuleBase) -> None:
    """Require a policy whose actions are differentiable functions of noise."""
    if isinstance(actor, SamplingActor):
        return
    if not isinstance(actor, (ProbabilisticTensorDictSequential, ProbabilisticTensorDictModule)):
        raise TypeError(
            f"{_OWNER}: ActionSpace needs a SamplingActor or a ProbabilisticActor with "
            "reparameterised, continuous actions as actor_network, got "
            f"{type(actor).__name__}"
        )
    last = actor[-1] if isinstance(actor, ProbabilisticTensorDictSequential) else actor
    kind = last.distribution_class
    # Wrappers such as Independent know it of an instance only, which there is at the first call.
    if getattr(kind, "has_rsample", True) is False:
        raise _no_rsample(getattr(kind, "__name__", repr(kind)))


def _no_rsample(name: str) -> TypeError:
    return TypeError(
        f"{_OWNER}: ActionSpace needs reparameterised, continuous actions, got {name}, which is "
        "discrete or has no rsample; ParameterSpace takes a population of any policies"
    )


def _is_discrete(distribution: D.Distribution) -> bool:
    """Whether it is one of the straight-through distributions, which have rsample."""
    # The support does not tell: TorchRL's TanhNormal raises when it is asked for one.
    while isinstance(distribution, D.Independent):
        distribution = distribution.base_dist
    return isinstance(distribution, (D.Categorical, D.OneHotCategorical))


def _base_normal(distribution: D.Distribution) -> D.Normal | None:
    """The Normal under transforms and Independent, if there is one."""
    while isinstance(distribution, (D.TransformedDistribution, D.Independent)):
        distribution = distribution.base_dist
    return distribution if isinstance(distribution, D.Normal) else None


def _push(distribution: D.Distribution, noise: Tensor) -> Tensor:
    """Standard normal noise through what rsample does with it."""
    if isinstance(distribution, D.Normal):
        return distribution.loc + distribution.scale * noise
    assert isinstance(distribution, (D.TransformedDistribution, D.Independent))  # _base_normal
    value = _push(distribution.base_dist, noise)
    for transform in getattr(distribution, "transforms", ()):
        value = transform(value)
    return value


# Whether the previous policy is what it should be


class _PredecessorWatch:
    """Counts calls; says once that the previous policy never moves, or is the present one."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.calls = 0
        self.always_equal = True
        self.first: tuple[Tensor, Tensor] | None = None  # present and previous at the first call

    def look(self, present: TensorDictBase, previous: TensorDictBase, weight: Tensor) -> None:
        """Count one call; warn if the last look shows that the updater is missing or misplaced."""
        self.calls += 1
        if self.calls not in (1, *_LOOKS, self.patience):
            return
        if weight.is_cuda and torch.cuda.is_current_stream_capturing():  # nobody can look then
            self.always_equal = False
            return
        now, before = _fingerprint(present), _fingerprint(previous)
        if self.first is None:
            self.first = now, before
            return
        first_now, first_before = (seen.to(now.device) for seen in self.first)
        if self.calls in _LOOKS:
            # At weight 0 it does not matter where the predecessor is.
            self.always_equal = self.always_equal and now.equal(before) and bool(weight > 0)
            has_moved = not now.equal(first_now)
            if self.always_equal and has_moved and self.calls == _LOOKS[-1]:
                warnings.warn(
                    f"{_OWNER}: the previous policy was equal to the present one at each of "
                    f"{len(_LOOKS)} looks during {self.calls} calls, so the cost is 0 and nothing "
                    "is held; call step() of the SoftUpdate or HardUpdate between backward() and "
                    "the optimizer's step, not after it",
                    stacklevel=4,
                )
        elif before.equal(first_before) and not before.equal(now):
            warnings.warn(
                f"{_OWNER}: the previous policy stood still for {self.calls} calls, so the policy "
                "is held near where it began; call step() of a SoftUpdate or HardUpdate made for "
                "this loss",
                stacklevel=4,
            )


@torch.no_grad()
def _fingerprint(params: TensorDictBase) -> Tensor:
    leaves = params.values(True, True)
    return torch.stack([leaf.double().sum() for leaf in leaves if leaf.is_floating_point()])
