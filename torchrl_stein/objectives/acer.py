"""Actor-critic with experience replay, ACER (Wang et al. 2017), discrete and continuous."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from tensordict import TensorDict, TensorDictBase, TensorDictParams
from tensordict.nn import (
    CompositeDistribution,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictModuleBase,
    dispatch,
)
from tensordict.utils import NestedKey
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    TransformedDistribution,
    kl_divergence,
)
from torchrl.modules import OneHotCategorical
from torchrl.objectives import LossModule

from torchrl_stein._checks import (
    check_choice,
    check_columns,
    check_count,
    check_finite,
    check_keys,
    check_number,
    check_type,
)
from torchrl_stein._torchrl import reduce_loss, release
from torchrl_stein.functional import retrace, truncated_importance, trust_region_projection
from torchrl_stein.modules import StochasticDuelingNetwork

__all__ = ["ACERLoss"]


class ACERLoss(LossModule):
    r"""Actor-critic with experience replay: Retrace, truncated importance weights, a trust region.

    With the policy pi, the policy mu that has acted, rho = pi / mu and c = ``importance_bound``,

    ``loss_qvalue`` = 1/2 (Q^ret_t - Q(s_t, a_t))^2 with Q^ret by
    :func:`~torchrl_stein.functional.retrace`, whose traces are min(1, rho^(1/A)) for A action
    dimensions

    ``loss_actor``: its gradient with respect to the statistics phi of pi(. | s_t), the entries that
    the actor writes for its distribution, is minus

    .. math::
        g = \min(c, \rho_t) (\hat Q_t - V_t) \nabla_\phi \log \pi(a_t)
            + E_{a \sim \pi}\left[ (1 - c / \rho(a))_+ (Q(s_t, a) - V_t)
            \nabla_\phi \log \pi(a) \right]

    projected by :func:`~torchrl_stein.functional.trust_region_projection` onto the half-space where
    KL(average policy || pi) grows slowly. Its value means nothing. The average policy is the
    target parameters of the actor: call TorchRL's ``SoftUpdate(loss, eps=0.99)`` after each step.

    *Discrete actions*: the critic writes Q of every action, V is their mean over pi, the
    expectation a sum, and \hat Q = Q^ret.

    *Continuous actions*: the critic is a :class:`~torchrl_stein.modules.StochasticDuelingNetwork`,
    the expectation one draw, \hat Q is Retrace with all traces 1, and there is

    ``loss_value`` = 1/2 (min(1, rho_t) (Q^ret_t - Q(s_t, a_t)) + V_t - V(s_t))^2, the first V_t
    fixed.

    Batches are ``[*B, T]`` with time last, on-policy or from a buffer. Rows may hold several
    episodes, as "done" cuts them; what is cut at the end of a row goes on with V. So rows may be
    those of a collector or slices of TorchRL's SliceSampler, reshaped. They hold the statistics of
    mu, which a ProbabilisticActor writes by itself.

    Args:
        actor_network: a ProbabilisticActor with a Categorical, a OneHotCategorical, or a continuous
            distribution whose KL is known in closed form, as of Gaussians and TanhNormal.
        critic_network: writes "action_value" ``[*B, num_actions]`` of states, or the dueling
            network.

    Keyword Args:
        gamma: discount.
        importance_bound: c > 0; the paper has 10 for discrete and 5 for continuous actions.
        kl_bound: delta > 0 of the projection.
        entropy_coeff: factor on an entropy that is added to the objective, inside of the trust
            region; None: no such term.
        num_action_samples: n of the dueling network.
        reduction: "mean", "sum" or "none".

    Raises:
        TypeError, ValueError, KeyError: for arguments of another kind or out of range, a critic
            that does not suit the actions; at the call, for missing keys, entries of other shapes
            and, on a CPU, numbers that are not finite.

    Also writes, detached, ``q_value``, ``kl`` and ``projected``, the share of states in which the
    trust region changes the gradient.

    Source: Wang et al. 2017 (arXiv:1611.01224), algorithms 2 and 3. Differs: the statistics of a
    discrete policy are its logits, of a Gaussian also its scale where that is learnt.

    Example:
        >>> from torch import nn
        >>> from torchrl.modules import ProbabilisticActor
        >>> from torchrl.objectives import SoftUpdate
        >>> actor = ProbabilisticActor(
        ...     TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        ...     in_keys=["logits"], distribution_class=OneHotCategorical,
        ... )
        >>> critic = TensorDictModule(nn.Linear(3, 2), ["observation"], ["action_value"])
        >>> loss = ACERLoss(actor, critic)
        >>> average = SoftUpdate(loss, eps=0.99)
        >>> with torch.no_grad():
        ...     data = actor(TensorDict({"observation": torch.randn(4, 10, 3)}, [4, 10]))
        >>> data["next"] = {
        ...     "observation": torch.randn(4, 10, 3), "reward": torch.randn(4, 10, 1),
        ...     "done": torch.rand(4, 10, 1) < 0.1, "terminated": torch.zeros(4, 10, 1).bool()}
        >>> losses = loss(data)
        >>> (losses["loss_actor"] + losses["loss_qvalue"]).backward()
    """

    @dataclass
    class _AcceptedKeys:
        """Keys that ``set_keys`` accepts, with their defaults."""

        action: NestedKey = "action"
        action_value: NestedKey = "action_value"
        reward: NestedKey = "reward"
        done: NestedKey = "done"
        terminated: NestedKey = "terminated"

    tensor_keys: _AcceptedKeys
    default_keys = _AcceptedKeys
    _schedulable_buffers = frozenset({"gamma", "importance_bound", "kl_bound", "entropy_coeff"})

    actor_network: ProbabilisticTensorDictSequential
    actor_network_params: TensorDictParams
    target_actor_network_params: TensorDictParams
    critic_network: TensorDictModule
    critic_network_params: TensorDictParams
    target_critic_network_params: TensorDictParams
    gamma: Tensor
    importance_bound: Tensor
    kl_bound: Tensor
    entropy_coeff: Tensor | None

    def __init__(
        self,
        actor_network: ProbabilisticTensorDictSequential,
        critic_network: TensorDictModule | StochasticDuelingNetwork,
        *,
        gamma: float = 0.99,
        importance_bound: float = 10.0,
        kl_bound: float = 1.0,
        entropy_coeff: float | None = None,
        num_action_samples: int = 5,
        reduction: str | None = None,
    ) -> None:
        super().__init__()
        self.discrete = _check_networks(actor_network, critic_network, entropy_coeff is not None)
        check_number("ACERLoss", at_least=0, at_most=1, gamma=gamma)
        check_number("ACERLoss", above=0, importance_bound=importance_bound, kl_bound=kl_bound)
        if entropy_coeff is not None:
            check_number("ACERLoss", at_least=0, entropy_coeff=entropy_coeff)
        check_count("ACERLoss", num_action_samples=num_action_samples)
        self.reduction = "mean" if reduction is None else reduction
        check_choice("ACERLoss", ("mean", "sum", "none"), reduction=self.reduction)
        self.convert_to_functional(actor_network, "actor_network", create_target_params=True)
        self.convert_to_functional(critic_network, "critic_network")
        self.num_action_samples = num_action_samples
        numbers = {"gamma": gamma, "importance_bound": importance_bound, "kl_bound": kl_bound}
        for name, value in {**numbers, "entropy_coeff": entropy_coeff}.items():
            self.register_buffer(name, None if value is None else torch.tensor(float(value)))
        losses = ["loss_actor", "loss_qvalue", *["loss_value"] * (not self.discrete)]
        self.out_keys = [*losses, "q_value", "kl", "projected"]
        self._set_in_keys()

    @dispatch
    def forward(self, tensordict: TensorDictBase) -> TensorDict:
        """Losses and diagnostics of sequences ``[*B, T]``; see the class."""
        self._check_batch(tensordict)
        action = tensordict.get(self.tensor_keys.action)
        statistics = self._statistics(tensordict, self.actor_network_params)
        policy = self._distribution(statistics.detach())
        behaviour = self._distribution(tensordict.select(*self.actor_network.dist_params_keys))
        log_ratio = policy.log_prob(action) - behaviour.log_prob(action)
        name = type(policy).__name__
        _check_shape(log_ratio, tensordict.batch_size, f"{name} must give log-probabilities")
        evaluate = self._evaluate_all if self.discrete else self._evaluate_samples
        q, value, candidates = evaluate(tensordict, policy, behaviour)
        of_q, of_v, dims = q.detach(), value.detach(), 1 if self.discrete else action.shape[-1]

        returns = partial(self._returns, tensordict, of_q, self._next_value(tensordict))
        target = returns((log_ratio / dims).clamp_max(0).exp())
        terms = {"loss_qvalue": 0.5 * (target - q).square()}
        estimate = target
        if not self.discrete:
            estimate = returns(torch.ones_like(of_q))  # Q^opc
            error = log_ratio.clamp_max(0).exp() * (target - of_q)
            terms["loss_value"] = 0.5 * (error + of_v - value).square()

        bound = self.importance_bound
        seen = truncated_importance(log_ratio, bound).truncated * (estimate - of_v)
        correction = truncated_importance(candidates.log_ratio, bound).correction
        unseen = candidates.weight * correction * (candidates.q - of_v.unsqueeze(-1))

        def objective(policy: Distribution) -> Tensor:
            gain = seen * policy.log_prob(action) + (unseen * candidates.log_prob(policy)).sum(-1)
            if self.entropy_coeff is not None:
                gain = gain + self.entropy_coeff * policy.entropy()
            return gain

        with torch.no_grad():
            average = self._distribution(
                self._statistics(tensordict, self.target_actor_network_params)
            )
        # Of the statistics that the actor computes; a scale that is fixed is none of them.
        trained = [key for key, each in statistics.items() if each.requires_grad]
        trained = trained or list(statistics.keys())
        gradient = self._gradient(objective, statistics, trained)
        kl_gradient = self._gradient(partial(_divergence, average), statistics, trained)
        projected = trust_region_projection(gradient, kl_gradient, self.kl_bound)
        flat = torch.cat([statistics.get(key) for key in trained], -1)
        terms["loss_actor"] = -(projected * flat).sum(-1)

        metrics = {"q_value": of_q, "kl": _divergence(average, policy)}
        metrics["projected"] = (projected != gradient).any(-1).to(q)
        return self._reduced(tensordict, terms, metrics)

    # The policy

    def _statistics(self, states: TensorDictBase, params: TensorDictParams) -> TensorDictBase:
        """What the actor writes for its distribution at states ``[*B, T]``."""
        actor = self.actor_network
        with params.to_module(actor, preserve_module_state=False):
            written = actor.get_dist_params(states.select(*actor.in_keys))
        return written.select(*actor.dist_params_keys)

    def _distribution(self, statistics: TensorDictBase) -> Any:
        return self.actor_network.build_dist_from_params(statistics)

    def _gradient(
        self,
        function: Callable[[Distribution], Tensor],
        statistics: TensorDictBase,
        keys: list[NestedKey],
    ) -> Tensor:
        """Of a function ``[*B, T]`` of the policy with respect to statistics, ``[*B, T, D]``."""

        def total(*values: Tensor) -> Tensor:
            moved = statistics.detach().update(dict(zip(keys, values, strict=True)))
            return function(self._distribution(moved)).sum()

        values = [statistics.get(key).detach() for key in keys]
        return torch.cat(torch.func.grad(total, tuple(range(len(keys))))(*values), -1)

    # The critic

    def _evaluate_all(
        self, tensordict: TensorDictBase, policy: Categorical, behaviour: Categorical
    ) -> tuple[Tensor, Tensor, _Candidates]:
        """Q of the action taken, V, ``[*B, T]``, and all actions."""
        q = self._action_values(tensordict, policy)
        index = tensordict.get(self.tensor_keys.action)
        index = index.argmax(-1) if isinstance(policy, OneHotCategorical) else index
        fixed, weight = q.detach(), policy.probs
        candidates = _Candidates(
            lambda policy: policy.logits, policy.logits - behaviour.logits, weight, fixed
        )
        return q.gather(-1, index.unsqueeze(-1)).squeeze(-1), (weight * fixed).sum(-1), candidates

    def _evaluate_samples(
        self, tensordict: TensorDictBase, policy: Distribution, behaviour: Distribution
    ) -> tuple[Tensor, Tensor, _Candidates]:
        """Q of the action taken, V, ``[*B, T]``, and one action of the policy."""
        with torch.no_grad():
            drawn = policy.sample((self.num_action_samples + 1,)).movedim(0, -2)
        other, sampled = drawn[..., 0, :], drawn[..., 1:, :]
        q, value = self._dueling(tensordict, tensordict.get(self.tensor_keys.action), sampled)
        with torch.no_grad():
            of_other, _ = self._dueling(tensordict, other, sampled)
        log_ratio = policy.log_prob(other) - behaviour.log_prob(other)
        of_one = (x.unsqueeze(-1) for x in (log_ratio, torch.ones_like(log_ratio), of_other))
        return q, value, _Candidates(lambda policy: policy.log_prob(other).unsqueeze(-1), *of_one)

    def _action_values(self, states: TensorDictBase, policy: Categorical) -> Tensor:
        """Q of every action ``[*B, T, num_actions]``."""
        key, critic = self.tensor_keys.action_value, self.critic_network
        with self.critic_network_params.to_module(critic, preserve_module_state=False):
            q = critic(states.select(*critic.in_keys)).get(key)
        _check_shape(q, policy.logits.shape, f"critic_network must write {key!r}, of every action,")
        return q

    def _dueling(
        self, states: TensorDictBase, action: Tensor, sampled: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Q and V, ``[*B, T]`` each."""
        critic = self.critic_network
        read = states.select(*critic.state_keys)
        read.update({critic.action_key: action, "sampled_action": sampled})
        with self.critic_network_params.to_module(critic, preserve_module_state=False):
            written = critic(read)
        q, value = (written.get(key) for key in ("state_action_value", "state_value"))
        _check_shape(q, (*states.batch_size, 1), "both networks of critic_network must return")
        return q.squeeze(-1), value.squeeze(-1)

    @torch.no_grad()
    def _next_value(self, tensordict: TensorDictBase) -> Tensor:
        """V(s_{t+1}), ``[*B, T]``."""
        states, critic = tensordict.get("next"), self.critic_network
        if self.discrete:
            policy = self._distribution(self._statistics(states, self.actor_network_params))
            return (policy.probs * self._action_values(states, policy)).sum(-1)
        with self.critic_network_params.to_module(critic, preserve_module_state=False):
            return critic.value(states).squeeze(-1)

    def _returns(
        self, tensordict: TensorDictBase, q: Tensor, next_value: Tensor, trace: Tensor
    ) -> Tensor:
        """Retrace's estimates, ``[*B, T]``."""
        q, next_value, trace = (x.unsqueeze(-1) for x in (q, next_value, trace))
        reward, done, terminated = (tensordict.get(key) for key in self._outcome_keys)
        target = retrace(q, next_value, reward, done, terminated, trace, gamma=self.gamma)
        return target.squeeze(-1)

    # Keys, checks and what is returned

    def _set_in_keys(self) -> None:
        actor, critic = self.actor_network, self.critic_network
        of_critic = critic.in_keys if self.discrete else critic.state_keys
        states = list(dict.fromkeys([*actor.in_keys, *of_critic]))
        following = [("next", key) for key in states]
        acted = [self.tensor_keys.action, *actor.dist_params_keys]
        self.in_keys = [*states, *acted, *self._outcome_keys, *following]

    @property
    def _outcome_keys(self) -> list[NestedKey]:
        keys = self.tensor_keys
        return [("next", key) for key in (keys.reward, keys.done, keys.terminated)]

    def _forward_value_estimator_keys(self, **kwargs: Any) -> None:
        self._set_in_keys()

    def _check_batch(self, tensordict: TensorDictBase) -> None:
        check_keys("ACERLoss", tensordict, self.in_keys)
        if tensordict.ndim == 0:
            raise ValueError("ACERLoss: the batch must be [*B, T] with time last, got shape []")
        check_columns("ACERLoss", tensordict, self._outcome_keys)
        check_finite("ACERLoss", {key: tensordict.get(key) for key in self.in_keys})

    def _reduced(
        self, tensordict: TensorDictBase, terms: dict[str, Tensor], metrics: dict[str, Tensor]
    ) -> TensorDict:
        out = {name: reduce_loss(self, term, tensordict) for name, term in terms.items()}
        for name, each in metrics.items():
            out[name] = reduce_loss(self, each, tensordict, reduction="mean")
        losses = TensorDict({key: out[key] for key in self.out_keys}, [])
        networks = ("actor_network", "target_actor_network", "critic_network")
        release(self, tensordict, losses, *(f"{name}_params" for name in networks))
        return losses


class _Candidates(NamedTuple):
    """K actions over which the correction is summed: all there are, or one that was drawn."""

    log_prob: Callable[[Any], Tensor]  # under a policy, [*B, T, K]
    log_ratio: Tensor  # of the policy and the behaviour, [*B, T, K]
    weight: Tensor  # probability under the policy of each; 1 of one that was drawn
    q: Tensor


def _divergence(average: Any, policy: Any) -> Tensor:
    """KL(average || policy), ``[*B, T]``."""
    if isinstance(policy, Categorical):
        # torch's own writes through masks, for which an accelerator waits.
        return (average.probs * (average.logits - policy.logits)).sum(-1)
    shape = policy.batch_shape
    if isinstance(policy, TransformedDistribution):
        # A bijection changes no divergence. torch asks whether both have the same one, and the
        # answer comes from the device; those of one actor have.
        average, policy = average.base_dist, policy.base_dist
    try:
        return kl_divergence(average, policy).reshape(*shape, -1).sum(-1)
    except NotImplementedError as error:
        raise TypeError(
            "ACERLoss: actor_network must have a distribution whose KL torch knows, such as "
            f"OneHotCategorical or IndependentNormal, got {type(policy).__name__}"
        ) from error


def _check_shape(values: Tensor | None, expected: Sequence[int], words: str) -> None:
    if values is None or values.shape != torch.Size(expected):
        got = "none" if values is None else list(values.shape)
        raise ValueError(f"ACERLoss: {words} of shape {list(expected)}, got {got}")


def _check_networks(actor: Any, critic: Any, entropy: bool) -> bool:
    """Whether actions are discrete."""
    check_type(
        "ACERLoss", "a ProbabilisticActor", ProbabilisticTensorDictSequential, actor_network=actor
    )
    expected = "a TensorDictModule or a StochasticDuelingNetwork"
    check_type("ACERLoss", expected, TensorDictModuleBase, critic_network=critic)
    kind: Any = getattr(actor[-1], "distribution_class", None)
    name, known = getattr(kind, "__name__", str(kind)), isinstance(kind, type)
    discrete = kind is Categorical or (known and issubclass(kind, OneHotCategorical))
    others = (Categorical, CompositeDistribution)  # such as categoricals with a mask
    if not discrete and (not isinstance(kind, type) or issubclass(kind, others)):
        raise TypeError(
            "ACERLoss: actor_network must have a Categorical, a OneHotCategorical or a continuous "
            f"distribution, got {name}"
        )
    dueling = isinstance(critic, StochasticDuelingNetwork)
    if discrete == dueling:
        expected = "a TensorDictModule of action values" if discrete else "StochasticDuelingNetwork"
        raise TypeError(
            f"ACERLoss: critic_network must be {expected} for a {name}, got {type(critic).__name__}"
        )
    if entropy and kind.entropy is Distribution.entropy:
        raise TypeError(
            f"ACERLoss: entropy_coeff must be None for a {name}, whose entropy has no formula"
        )
    return discrete
