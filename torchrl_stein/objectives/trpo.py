"""Trust region policy optimization (Schulman et al. 2015): the loss and its natural step.

:class:`TRPOLoss` is what TRPO maximizes and bounds. :class:`NaturalGradientStep` moves the
policies, alone or as a Stein population: conjugate gradients, then a line search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import (
    CompositeDistribution,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    dispatch,
)
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from torch.optim import Optimizer
from torchrl.objectives import PPOLoss

from torchrl_stein._checks import (
    check_choice,
    check_columns,
    check_count,
    check_discounts,
    check_finite,
    check_keys,
    check_number,
    check_type,
    may_look,
)
from torchrl_stein._torchrl import advantage_as_ppo_has_it, has_critic, reduce_loss, release
from torchrl_stein.functional import conjugate_gradient
from torchrl_stein.modules import ParticleModule
from torchrl_stein.modules.population import check_rows, find_population

from .sharded_stein import ShardedSteinPolicyLoss
from .stein_policy import SteinPolicyLoss

__all__ = ["NaturalGradientStep", "TRPOLoss"]

_SMALLEST_DEVIATION = 1e-6  # of advantages, as PPOLoss has it
# A quadratic divergence ends up at max_kl to rounding, which must not cost a backtrack.
_SLACK = 1.001


class TRPOLoss(PPOLoss):
    """What TRPO maximizes, the divergence it bounds, and a loss for the value network.

    ``loss_objective`` = - mean_t pi(a_t | s_t) / pi_old(a_t | s_t) A_t

    ``kl`` = mean_t KL(pi_old(. | s_t) || pi(. | s_t)), detached

    ``loss_critic`` as in TorchRL's PPOLoss, if there is a critic.

    Give it to :class:`NaturalGradientStep`, which improves the first under a bound on the second;
    nothing bounds an optimizer of ``loss_objective`` alone. The old policy is that of the batch, as
    collectors store it: the log-probability of the action and the distribution's parameters. Keys,
    value estimator (default GAE) and ``loss_critic()`` are those of PPOLoss.

    The actor may contain one :class:`~torchrl_stein.modules.ParticleModule`. Row i of a batch
    ``[n, ...]`` then belongs to policy i, which has its own advantages, surrogate and divergence;
    ``loss_objective`` and ``kl`` are means over the policies, whatever masks leave of each.

    Args:
        actor_network: a ProbabilisticActor with ``return_log_prob=True`` whose distributions have a
            KL in closed form: Gaussians, categoricals, and bijections such as TanhNormal.
        critic_network: a state value; None where advantages are always given.

    Keyword Args:
        critic_coeff: factor on ``loss_critic``, 1 by default; 0: no such loss.
        loss_critic_type: "l1", "l2" or "smooth_l1".
        normalize_advantage: to mean 0 and standard deviation 1, for each policy by itself and over
            the transitions that no mask excludes.

    Raises:
        TypeError: if an argument is of another kind, or torch knows no KL between the actor's
            distributions, at the latest at the call.
        ValueError: if an argument is out of its range or policies share parameters; at the call,
            for rows of other policies ("particle"), and entries that on a CPU are not finite or are
            not one number per transition.
        KeyError: at the call, if the batch lacks a key, or advantages where there is no critic.

    Source: Schulman et al. 2015 (arXiv:1502.05477), eq. (14), for one action per state; advantages
    by Schulman et al. 2016 (arXiv:1506.02438).

    Example:
        >>> from tensordict.nn import NormalParamExtractor
        >>> from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
        >>> network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
        >>> actor = ProbabilisticActor(
        ...     TensorDictModule(network, ["observation"], ["loc", "scale"]),
        ...     in_keys=["loc", "scale"], distribution_class=IndependentNormal,
        ...     return_log_prob=True,
        ... )
        >>> loss = TRPOLoss(actor, ValueOperator(nn.Linear(3, 1)))
        >>> with torch.no_grad():
        ...     data = actor(TensorDict({"observation": torch.randn(10, 3)}, [10]))
        >>> data["advantage"], data["value_target"] = torch.randn(2, 10, 1)
        >>> loss(data)["kl"].item()  # no step taken yet
        0.0
    """

    _in_keys: list[NestedKey]

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        critic_network: TensorDictModule | None = None,
        *,
        critic_coeff: float | None = None,
        loss_critic_type: str = "smooth_l1",
        normalize_advantage: bool = True,
    ) -> None:
        check_type(
            "TRPOLoss",
            "a ProbabilisticActor",
            ProbabilisticTensorDictSequential,
            actor_network=actor_network,
        )
        kind = getattr(actor_network[-1], "distribution_class", None)
        if kind is CompositeDistribution or len(actor_network.dist_sample_keys) > 1:
            raise _no_divergence("CompositeDistribution, an action of several parts")
        if critic_coeff is not None:
            check_number("TRPOLoss", at_least=0, critic_coeff=critic_coeff)
        check_choice("TRPOLoss", ("l1", "l2", "smooth_l1"), loss_critic_type=loss_critic_type)
        population = _find_policies(actor_network)
        super().__init__(
            actor_network,
            critic_network,
            entropy_bonus=False,
            critic_coeff=critic_coeff,
            loss_critic_type=loss_critic_type,
            # PPOLoss would mix the policies, whose dimension is the first.
            log_explained_variance=False,
            normalize_advantage=normalize_advantage,
            normalize_advantage_exclude_dims=(
                () if population is None else tuple(range(len(population.leading)))
            ),
        )
        self.leading = None if population is None else population.leading
        self.out_keys = ["loss_objective", "kl", *["loss_critic"] * has_critic(self)]

    @property
    def num_policies(self) -> int:
        """n of a population, S n of those of several seeds, else 1."""
        return 1 if self.leading is None else self.leading.numel()

    def _set_in_keys(self) -> None:
        super()._set_in_keys()
        # PPOLoss leaves these out; with them a batch may also come by keyword.
        ours = [*self.actor_network.dist_params_keys, self.tensor_keys.advantage]
        if self.critic_network is not None:
            ours.append(self.tensor_keys.value_target)
        self._in_keys = [*dict.fromkeys([*self._in_keys, *ours])]

    def make_value_estimator(self, value_type: Any = None, **hyperparams: Any) -> TRPOLoss:
        """Choose how rewards become advantages, by default GAE with PPOLoss's gamma and lmbda."""
        check_discounts("TRPOLoss", hyperparams)
        super().make_value_estimator(value_type, **hyperparams)
        return self

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Mean surrogate and divergence, and the critic's loss, of transitions ``[*B]``."""
        batch = self.with_advantage(tensordict)
        surrogate, kl = self.surrogate_and_kl(batch)
        out = TensorDict({"loss_objective": -surrogate.mean(), "kl": kl.detach().mean()}, [])
        if has_critic(self):
            out.set("loss_critic", reduce_loss(self, self.loss_critic(batch)[0], batch))
        release(self, tensordict, out, "actor_network_params", "critic_network_params")
        return out

    def with_advantage(self, tensordict: TensorDictBase) -> TensorDictBase:
        """A shallow copy of a batch with advantages: its own, or those of the value estimator."""
        keys, batch = self.tensor_keys, tensordict.clone(False)
        if batch.get(keys.advantage, None) is None:
            if self.critic_network is None:
                check_keys("TRPOLoss", batch, [keys.advantage])
            self.value_estimator(
                batch,
                params=self.critic_network_params.detach(),
                target_params=self.target_critic_network_params,
            )
        return batch

    def policy(self, tensordict: TensorDictBase) -> Distribution:
        """The distribution of actions under the present parameters, for states ``[*B]``."""
        states = tensordict.select(*self.actor_network.in_keys)
        with self.actor_network_params.to_module(self.actor_network, preserve_module_state=False):
            policy = self.actor_network.get_dist(states)
        if isinstance(policy, CompositeDistribution):
            raise _no_divergence("CompositeDistribution, an action of several parts")
        return policy

    def surrogate_and_kl(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Mean surrogate and mean KL(old || present) of every policy, ``[n]``; ``[1]`` for one.

        Differentiable; the batch ``[*B]`` must have advantages.
        """
        keys, actor = self.tensor_keys, self.actor_network
        self._check(tensordict)
        policy = self.policy(tensordict)
        old = actor.build_dist_from_params(tensordict.select(*actor.dist_params_keys).detach())
        log_ratio = policy.log_prob(tensordict.get(keys.action))
        log_ratio = log_ratio - tensordict.get(keys.sample_log_prob).detach()
        if log_ratio.shape != tensordict.batch_size:
            raise ValueError(
                f"TRPOLoss: {type(policy).__name__} and {keys.sample_log_prob!r} must give one "
                f"log-probability per transition, shape {list(tensordict.batch_size)}, got "
                f"{list(log_ratio.shape)}"
            )
        advantage = advantage_as_ppo_has_it(self, tensordict.get(keys.advantage), tensordict)
        surrogate = log_ratio.exp() * advantage.squeeze(-1)
        kl = self.divergence(old, policy)
        return self.mean_per_policy(surrogate, tensordict), self.mean_per_policy(kl, tensordict)

    @staticmethod
    def divergence(p: Distribution, q: Distribution) -> Tensor:
        """KL(p || q) of two action distributions of one class, ``[*B]``."""
        try:
            return kl_divergence(p, q)
        except NotImplementedError as error:
            raise _no_divergence(type(q).__name__) from error

    def mean_per_policy(self, values: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Mean of ``[*B]`` over the transitions of each policy that no mask excludes, ``[n]``."""
        # TorchRL's reduction gives the mask only: its mean counts the transitions of all policies.
        both = torch.stack([values, torch.ones_like(values)], -1)
        kept = reduce_loss(self, both, tensordict, reduction="none")
        total, count = kept.reshape(self.num_policies, -1, 2).sum(1).unbind(-1)
        return total / count.clamp_min(1)

    def _standardize_advantage(self, advantage: Tensor, tensordict: TensorDictBase) -> Tensor:
        """To mean 0 and deviation 1 over what no mask excludes, each policy by itself."""
        # The mean respects more masks than PPOLoss does. Excluded rows become 0.
        kept = reduce_loss(self, torch.ones_like(advantage), tensordict, reduction="none")
        rows, kept = (x.reshape(self.num_policies, -1) for x in (advantage, kept.bool()))
        count = kept.sum(-1, keepdim=True)
        mean = torch.where(kept, rows, 0.0).sum(-1, keepdim=True) / count.clamp_min(1)
        centred = torch.where(kept, rows - mean, 0.0)
        variance = centred.square().sum(-1, keepdim=True) / (count - 1).clamp_min(1)
        return (centred / variance.sqrt().clamp_min(_SMALLEST_DEVIATION)).view_as(advantage)

    def _check(self, tensordict: TensorDictBase) -> None:
        keys, actor = self.tensor_keys, self.actor_network
        numbers = [keys.action, keys.sample_log_prob, keys.advantage]
        read = [*actor.in_keys, *actor.dist_params_keys, *numbers]
        check_keys("TRPOLoss", tensordict, read)
        check_columns("TRPOLoss", tensordict, [keys.advantage])
        if self.leading is not None:
            check_rows("TRPOLoss", tensordict, self.leading)
        check_finite("TRPOLoss", {key: tensordict.get(key) for key in read})


class NaturalGradientStep(Optimizer):
    r"""Moves policies along their natural gradients, as far as their divergence may go.

    With g the gradient of a policy's surrogate and F its Fisher matrix, the mean over the batch
    of that of its action distributions,

    .. math::
        (F + \lambda I)\, x = g, \qquad
        \theta \leftarrow \theta + c \sqrt{\frac{2\, \delta}{x^\top (F + \lambda I)\, x}}\; x .

    x comes from conjugate gradients, products with F from differentiating the gradient of
    KL(present || .) once more, whose Hessian at the present policy is F. The line search takes for
    c the first of 1, b, b^2, ... at which the surrogate has grown and KL(old || new) on the batch
    is at most delta (to a thousandth of it); without one the policy stays.

    An optimizer of the actor's parameters, without a state, whose ``step`` takes the batch in the
    place of gradients, once: the old policy is the one that collected it. The critic is not
    touched. Policies of a population step each for itself, all at once.

    The loss may be a :class:`SteinPolicyLoss` around a TRPOLoss. Then g_i is alpha n phi_i, phi_i
    the SVGD direction with repulsion and prior, and the line search asks for growth of the
    surrogate plus what the rest of g_i gains to first order. Such a population rests where SVGD
    rests, at exp(J / alpha) q_0, which it would not with natural gradients as scores inside phi;
    see the page on TRPO.

    Args:
        loss: a TRPOLoss, or a SteinPolicyLoss around one.

    Keyword Args:
        max_kl: delta > 0, in nats. An attribute; assign to it to anneal.
        damping: lambda >= 0, in nats per squared unit of the parameters. It shortens steps along
            parameters on which actions hardly depend, where the gradients of other particles point:
            in a Stein population, little damping leaves nothing but these.
        iterations: of conjugate gradients, >= 1. Each costs about two backward passes.
        shrinkage: b in (0, 1).
        num_candidates: values of c that are tried, >= 1. Each costs a forward pass; on a CPU the
            search ends when all policies have one, elsewhere looking would make the host wait.
        fisher_stride: F is the mean over every how manyth entry along the last dimension of the
            batch, >= 1: products with F are most of the work. 10 in the paper.

    Raises:
        TypeError: if ``loss`` is neither, or a number is of another kind.
        ValueError: if a number is out of its range, or a SteinPolicyLoss couples another network
            than the actor; in ``step``, if gradients on a CPU are not finite.

    Source: Schulman et al. 2015 (arXiv:1502.05477), section 6 and appendix C; the population is
    what the last sentence of Liu et al. 2017 (arXiv:1704.02399) asks for. Differs: damping, which
    counts in the length of the step, too.

    Example:
        >>> from torchrl.envs import ExplorationType, set_exploration_type
        >>> from torchrl.modules import OneHotCategorical, ProbabilisticActor
        >>> actor = ProbabilisticActor(
        ...     TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        ...     in_keys=["logits"], distribution_class=OneHotCategorical, return_log_prob=True,
        ... )
        >>> natural = NaturalGradientStep(TRPOLoss(actor), max_kl=0.01)
        >>> with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        ...     data = actor(TensorDict({"observation": torch.randn(100, 3)}, [100]))
        >>> data["advantage"] = data["action"][..., :1].float()  # the first action is better
        >>> metrics = natural.step(data)
        >>> bool(0.004 < metrics["kl"] < 0.0101), bool(metrics["improvement"] > 0)
        (True, True)
    """

    def __init__(
        self,
        loss: TRPOLoss | SteinPolicyLoss,
        *,
        max_kl: float = 0.01,
        damping: float = 0.1,
        iterations: int = 10,
        shrinkage: float = 0.8,
        num_candidates: int = 15,
        fisher_stride: int = 1,
    ) -> None:
        policy_loss = loss.loss_module if isinstance(loss, SteinPolicyLoss) else loss
        if not isinstance(policy_loss, TRPOLoss):
            raise TypeError(
                "NaturalGradientStep: loss must be a TRPOLoss or a SteinPolicyLoss around one, got "
                f"{type(policy_loss).__name__}"
            )
        if isinstance(loss, ShardedSteinPolicyLoss):
            raise TypeError(
                "NaturalGradientStep: loss must have all particles in this process, got a "
                "ShardedSteinPolicyLoss"
            )
        if isinstance(loss, SteinPolicyLoss) and loss.coupled != "actor_network_params":
            raise ValueError(
                "NaturalGradientStep: loss must couple 'actor_network_params', got "
                f"{loss.coupled!r}"
            )
        owner = "NaturalGradientStep"
        check_number(owner, above=0, max_kl=max_kl)
        check_number(owner, at_least=0, damping=damping)
        check_number(owner, above=0, below=1, shrinkage=shrinkage)
        check_count(owner, iterations=iterations, num_candidates=num_candidates)
        check_count(owner, fisher_stride=fisher_stride)
        self.loss, self._trpo = loss, policy_loss
        self.max_kl, self.damping, self.iterations = max_kl, damping, iterations
        self.shrinkage, self.num_candidates = shrinkage, num_candidates
        self.fisher_stride = fisher_stride
        super().__init__(self._leaves, {})

    @torch.enable_grad()
    def step(self, tensordict: TensorDictBase) -> TensorDict:  # type: ignore[override]
        """Take one step from transitions ``[*B]``; the actor's parameters change in place.

        Returns:
            TensorDict: of each policy, ``[n]``, or ``[]`` if there is one: "kl", KL(old || new);
            "improvement", by which the surrogate (and for a Stein population the rest of its
            direction) has grown; "step_fraction", c, 0 if the policy stayed; "cg_residual".
        """
        check_number("NaturalGradientStep", above=0, max_kl=self.max_kl)  # it may be annealed
        batch = self._trpo.with_advantage(tensordict)
        surrogate, kl = self._trpo.surrogate_and_kl(batch)
        gradient = self._gradient(surrogate.sum())
        ascent = gradient if self.loss is self._trpo else self._coupled_gradient(batch)
        check_finite("NaturalGradientStep", {"gradient": ascent})
        fisher = self._fisher(batch)
        x, residual = conjugate_gradient(
            fisher, ascent, iterations=self.iterations, damping=self.damping
        )
        square = (x * (fisher(x) + self.damping * x)).sum(-1, keepdim=True)
        step = torch.where(square > 0, (2.0 * self.max_kl / square).sqrt() * x, 0.0)
        rest = ((ascent - gradient) * step).sum(-1)
        metrics = self._line_search(batch, step, surrogate.detach(), kl.detach(), rest)
        metrics["cg_residual"] = residual
        # One number where there is one policy; else those of the population's shape.
        leading = self._trpo.leading or ()
        return TensorDict({name: value.reshape(leading) for name, value in metrics.items()}, [])

    @property
    def _leaves(self) -> list[nn.Parameter]:
        return [p for p in self._trpo.actor_network_params.parameters() if p.requires_grad]

    def _rows(self, tensors: Sequence[Tensor]) -> Tensor:
        """Parameters, or what has their shapes, as one row per policy, [n, d]."""
        n = self._trpo.num_policies
        return torch.cat([tensor.reshape(n, -1) for tensor in tensors], -1)

    def _write(self, rows: Tensor) -> None:
        leaves = self._leaves
        columns = rows.split([leaf.numel() // rows.shape[0] for leaf in leaves], -1)
        for leaf, part in zip(leaves, columns, strict=True):
            leaf.copy_(part.view_as(leaf))

    def _gradient(self, value: Tensor, **graph: Any) -> Tensor:
        """Of a sum over policies: row i belongs to what depends on policy i alone, [n, d]."""
        # Materialized, since nothing may depend on some of the parameters.
        gradients = torch.autograd.grad(value, self._leaves, materialize_grads=True, **graph)
        return self._rows(gradients)

    def _coupled_gradient(self, batch: TensorDictBase) -> Tensor:
        """alpha n phi_i, [n, d]: what SteinPolicyLoss would have an optimizer ascend, times n."""
        losses = self.loss(batch)
        total = sum(value for key, value in losses.items() if key.startswith("loss_"))
        return -self._trpo.num_policies * self._gradient(total)

    def _fisher(self, batch: TensorDictBase) -> Callable[[Tensor], Tensor]:
        """v -> F v for each policy, [n, d] -> [n, d]."""
        batch = batch[..., :: self.fisher_stride]
        with torch.no_grad():
            present = self._trpo.policy(batch)
        kl = self._trpo.divergence(present, self._trpo.policy(batch))
        slope = self._gradient(self._trpo.mean_per_policy(kl, batch).sum(), create_graph=True)

        def product(v: Tensor) -> Tensor:
            return self._gradient((slope * v).sum(), retain_graph=True)

        return product

    @torch.no_grad()
    def _line_search(
        self, batch: TensorDictBase, step: Tensor, surrogate: Tensor, kl: Tensor, rest: Tensor
    ) -> dict[str, Tensor]:
        """Write the longest of the shortened steps that each policy accepts."""
        start = self._rows(self._leaves).clone()
        fraction, improvement = torch.zeros_like(kl), torch.zeros_like(kl)
        try:
            for trial in range(self.num_candidates):
                c = self.shrinkage**trial
                self._write(start + c * step)
                reached, divergence = self._trpo.surrogate_and_kl(batch)
                gain = reached - surrogate + c * rest
                accepted = (fraction == 0) & (gain > 0) & (divergence <= _SLACK * self.max_kl)
                fraction = torch.where(accepted, c, fraction)
                improvement = torch.where(accepted, gain, improvement)
                kl = torch.where(accepted, divergence, kl)
                if may_look(fraction) and (fraction > 0).all():
                    break
        except BaseException:
            self._write(start)
            raise
        moved = (fraction > 0).unsqueeze(-1)
        self._write(torch.where(moved, start + fraction.unsqueeze(-1) * step, start))
        return {"kl": kl, "improvement": improvement, "step_fraction": fraction}


def _no_divergence(name: str) -> TypeError:
    return TypeError(
        "TRPOLoss: torch.distributions must know the KL of the actor's distribution, as of "
        f"IndependentNormal, TanhNormal or OneHotCategorical; got {name}"
    )


def _find_policies(actor: ProbabilisticTensorDictSequential) -> ParticleModule | None:
    """The population of an actor, if it has one: then its particles must be all parameters."""
    if not any(isinstance(module, ParticleModule) for module in actor.modules()):
        return None
    population = find_population("TRPOLoss", "actor_network", actor)[1]
    shared = [
        name
        for name, p in actor.named_parameters()
        if p.requires_grad and p is not population.particles
    ]
    if shared:
        raise ValueError(
            "TRPOLoss: policies of a population must have no parameters but the particles, since "
            f"each has a trust region of its own; got also {shared}"
        )
    return population
