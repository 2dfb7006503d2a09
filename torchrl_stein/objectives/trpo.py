"""Surrogate and divergence of trust region policy optimization (Schulman et al. 2015)."""

from __future__ import annotations

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
from torch import Tensor
from torch.distributions import Distribution, kl_divergence
from torchrl.objectives import PPOLoss

from torchrl_stein._checks import (
    check_choice,
    check_columns,
    check_finite,
    check_keys,
    check_number,
    check_type,
)
from torchrl_stein.modules import ParticleModule, find_population
from torchrl_stein.modules._particle_rows import check_rows

from ._discounts import check_discounts

__all__ = ["TRPOLoss"]

_SMALLEST_DEVIATION = 1e-6  # of advantages, as PPOLoss has it


class TRPOLoss(PPOLoss):
    r"""What TRPO maximizes, the divergence it bounds, and a loss for the value network.

    ``loss_objective`` = - mean_t pi(a_t | s_t) / pi_old(a_t | s_t) A_t

    ``kl`` = mean_t KL(pi_old(. | s_t) || pi(. | s_t)), detached

    ``loss_critic`` as in TorchRL's PPOLoss, if there is a critic.

    Give it to :class:`NaturalGradientStep`, which improves the first under a bound on the second;
    an optimizer that follows the gradient of ``loss_objective`` alone is not held by anything. The
    old policy is that of the batch, as collectors store it: the log-probability of the action and
    the distribution's parameters. Keys, value estimator (default GAE) and ``loss_critic()`` are
    those of PPOLoss.

    The actor may be a population, that is contain one
    :class:`~torchrl_stein.modules.ParticleModule`. Row i of a batch ``[n, ...]`` then belongs to
    policy i, which has its own advantages, surrogate and divergence; ``loss_objective`` and ``kl``
    are means over the policies, also where masks leave some of them fewer transitions.

    Args:
        actor_network: a ProbabilisticActor with ``return_log_prob=True``. torch must know the KL
            between two of its distributions in closed form: Gaussians, categoricals, and bijections
            of them such as TanhNormal, whose KL is that of the Gaussian underneath.
        critic_network: a state value; None where advantages are always given.

    Keyword Args:
        critic_coeff: factor on ``loss_critic``, 1 by default; 0: no such loss.
        loss_critic_type: "l1", "l2" or "smooth_l1".
        normalize_advantage: to mean 0 and standard deviation 1, for each policy by itself and over
            the transitions that no mask excludes.

    Raises:
        TypeError: if ``actor_network`` is no ProbabilisticActor or ``critic_coeff`` no number; if
            torch knows no KL between the actor's distributions, composite ones among them, at the
            latest at the call.
        ValueError: if ``critic_coeff`` < 0, ``loss_critic_type`` is unknown or the policies of a
            population share parameters; at the call, if the leading dimension of the batch is
            not n, an entry "particle" says that a row belongs to another policy, an entry on a
            CPU is not finite or has not the shape of a number per transition.
        KeyError: at the call, if the batch lacks a key, such as the log-probability of the old
            policy, or has no advantage and there is no critic.

    Source: Schulman et al. 2015 (arXiv:1502.05477), eq. (14), for one action per state; advantages
    by Schulman et al. 2016 (arXiv:1506.02438).

    Example:
        >>> from tensordict.nn import NormalParamExtractor
        >>> from torch import nn
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
            # Of PPOLoss, but it would mix the policies, whose dimension is the first.
            log_explained_variance=False,
            normalize_advantage=normalize_advantage,
            normalize_advantage_exclude_dims=() if population is None else (0,),
        )
        self.num_particles = None if population is None else population.num_particles
        self.leading = None if population is None else population.leading
        self.out_keys = ["loss_objective", "kl", *["loss_critic"] * self._has_critic]

    @property
    def num_policies(self) -> int:
        """n of a population, S n of those of several seeds, else 1."""
        return 1 if self.leading is None else self.leading.numel()

    def _set_in_keys(self) -> None:
        super()._set_in_keys()
        # What PPOLoss leaves out, so that a batch may also come by keyword.
        ours = [*self.actor_network.dist_params_keys, self.tensor_keys.advantage]
        if self.critic_network is not None:
            ours.append(self.tensor_keys.value_target)
        self._in_keys = [*dict.fromkeys([*self._in_keys, *ours])]

    def make_value_estimator(self, value_type: Any = None, **hyperparams: Any) -> TRPOLoss:
        """Choose how rewards become advantages, see PPOLoss.

        Args:
            value_type: default GAE.
            **hyperparams: such as gamma and lmbda, in [0, 1].
        """
        check_discounts("TRPOLoss", hyperparams)
        super().make_value_estimator(value_type, **hyperparams)
        return self

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Mean surrogate and divergence, and the critic's loss; see the class.

        Args:
            tensordict: transitions ``[*B]``, of a population ``[n, *B]``; not written to.
        """
        batch = self.with_advantage(tensordict)
        surrogate, kl = self.surrogate_and_kl(batch)
        out = TensorDict({"loss_objective": -surrogate.mean(), "kl": kl.detach().mean()}, [])
        if self._has_critic:
            out.set("loss_critic", self._reduce_loss(self.loss_critic(batch)[0], batch))
        self._clear_weakrefs(tensordict, out, "actor_network_params", "critic_network_params")
        return out

    def with_advantage(self, tensordict: TensorDictBase) -> TensorDictBase:
        """A shallow copy of a batch with advantages: its own, or those of the value estimator.

        Args:
            tensordict: transitions ``[*B]``.
        """
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
        """The distribution of actions under the present parameters.

        Args:
            tensordict: states ``[*B]``.
        """
        states = tensordict.select(*self.actor_network.in_keys)
        with self.actor_network_params.to_module(self.actor_network, preserve_module_state=False):
            policy = self.actor_network.get_dist(states)
        if isinstance(policy, CompositeDistribution):
            raise _no_divergence("CompositeDistribution, an action of several parts")
        return policy

    def surrogate_and_kl(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """Surrogate and divergence of every policy, differentiable.

        Args:
            tensordict: transitions ``[*B]`` with advantages.

        Returns:
            tuple: mean surrogate and mean KL(old || present), each ``[n]``; ``[1]`` for one policy.
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
        advantage = self._maybe_normalize_advantage(
            tensordict.get(keys.advantage), tensordict, update_norm=False
        )
        surrogate = log_ratio.exp() * advantage.squeeze(-1)
        kl = self.divergence(old, policy)
        return self.mean_per_policy(surrogate, tensordict), self.mean_per_policy(kl, tensordict)

    @staticmethod
    def divergence(p: Distribution, q: Distribution) -> Tensor:
        """KL(p || q), ``[*B]``.

        Args:
            p: an action distribution.
            q: another of the same class.
        """
        try:
            return kl_divergence(p, q)
        except NotImplementedError as error:
            raise _no_divergence(type(q).__name__) from error

    def mean_per_policy(self, values: Tensor, tensordict: TensorDictBase) -> Tensor:
        """Mean over the transitions of each policy that no mask excludes.

        Args:
            values: ``[*B]``.
            tensordict: the batch ``[*B]`` they belong to, perhaps with a mask.

        Returns:
            Tensor: ``[n]``; ``[1]`` for one policy.
        """
        # Of TorchRL's reduction only the mask: its mean counts the transitions of all policies.
        both = torch.stack([values, torch.ones_like(values)], -1)
        kept = self._reduce_loss(both, tensordict, reduction="none")
        total, count = kept.reshape(self.num_policies, -1, 2).sum(1).unbind(-1)
        return total / count.clamp_min(1)

    def _standardize_advantage(self, advantage: Tensor, tensordict: TensorDictBase) -> Tensor:
        """To mean 0 and deviation 1 over what no mask excludes, each policy by itself."""
        # PPOLoss knows one of the masks that the mean respects. Excluded rows become 0.
        kept = self._reduce_loss(torch.ones_like(advantage), tensordict, reduction="none")
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
