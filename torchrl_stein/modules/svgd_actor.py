"""The policy of S2AC: particles of a Gaussian that climb a critic by a few steps of SVGD."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, ClassVar, cast

import torch
from tensordict import TensorDict, TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torch.distributions import Distribution
from torchrl.data import TensorSpec
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein._checks import check_count, check_number, check_numbers, check_type
from torchrl_stein.functional import svgd_direction, svgd_log_det, svgd_step_bound
from torchrl_stein.functional.squash import squash_log_det
from torchrl_stein.functional.svgd_density import identity_probes, score_and_products
from torchrl_stein.kernels import MedianBandwidth, RBFKernel

from ._by_keyword import by_keyword, refuse_keywords
from .samplers import TanhGaussianActor

__all__ = ["SVGDActor", "SVGDDistribution"]

Target = Callable[[TensorDictBase, Tensor], Tensor]
"""``target(states [*B, K], actions [*B, K, A]) -> Q / alpha [*B, K]``."""


class SVGDActor(TanhGaussianActor):
    r"""A learnt Gaussian whose particles take L steps of SVGD towards exp(Q(s, .) / alpha).

    u_i ~ N(loc(s), scale(s)^2), then L times u_i <- u_i + eps phi_i with the score of
    log p(u) = Q(s, squash(u)) / alpha + log abs det da/du, and

    log pi(a_i) = log N(u_i^0) - eps sum_l D_i^l - log abs det da/du

    with D of :func:`torchrl_stein.functional.svgd_log_det`. The K particles of a state repel each
    other: their sum of log pi is a joint log density to first order in eps, and the mean of
    -log pi is at most the entropy of one action, to which it tends with K. L = 0 is the policy of
    SAC.

    The critic that is climbed is a copy: it is in ``state_dict``, moves with the policy and gets no
    gradient. Whoever trains the critic calls :meth:`copy_critic`;
    :class:`~torchrl_stein.objectives.S2ACLoss` does. Its networks must be smooth (SiLU, ELU, tanh):
    the Hessian of a ReLU network is 0 almost everywhere, and the density is wrong by its kinks.

    Args:
        network: returns loc and scale > 0, see :class:`TanhGaussianActor`.
        qvalue_network: a module, or an ensemble whose minimum is climbed; reads entries of
            ``in_keys`` and the action, writes one value ``[*B, 1]``.

    Keyword Args:
        action_spec: a finite ``Bounded`` spec, see :class:`SamplingActor`; so are the errors.
        temperature: alpha > 0, in units of Q, or a tensor that expands to the batch ``[*B]``, such
            as ``[S, 1]`` for S seeds. A buffer, which :meth:`copy_critic` sets.
        num_action_samples: K particles of a state, when :meth:`forward` or a loss draws them.
        num_steps: L >= 0.
        step_size: eps > 0; that of the paper is alpha times as large for the same steps.
        kernel: an ``RBFKernel``; its bandwidth is a constant in the density, also where a rule
            makes it. Default: ``RBFKernel(MedianBandwidth(floor=1e-3))``.
        num_probes: the trace of the Hessian takes a backward pass for each dimension of the action,
            if there are at most so many; otherwise it is Hutchinson's estimate with that many.
        scale_bounds: to which scale is clamped, or None.
        noise_bound: largest abs(xi) of the normal noise, or None.
        bound_step: take the smaller of eps and ``svgd_step_bound``, for each state and step; it,
            too, is a constant in the density.
        in_keys, out_keys, observation_dims: see :class:`SamplingActor`.

    Raises:
        TypeError, ValueError: for an argument of another kind or out of its range, and a critic
            that reads what the policy does not.

    ``forward`` writes one of ``num_action_samples`` particles; where TorchRL's exploration type is
    not RANDOM, a single particle which starts at loc: it has nobody to avoid and climbs.

    Source: Messaoud et al. 2024 (arXiv:2405.00987), sections 3.2, 3.3. Differs: the trace of the
    Hessian, see ``svgd_log_det``; the noise is bounded exactly, where the paper draws anew; the
    test action is not the best of the particles.

    Example:
        >>> from tensordict.nn import NormalParamExtractor
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> qvalue = ValueOperator(
        ...     MLP(3 + 2, 1, num_cells=[8], activation_class=nn.SiLU),
        ...     in_keys=["observation", "action"],
        ... )
        >>> network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
        >>> actor = SVGDActor(network, qvalue, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> states = TensorDict({"observation": torch.zeros(5, 3)}, [5])
        >>> actions, log_prob = actor.sample_with_log_prob(states, 10)
        >>> actions.shape, log_prob.shape, actor(states)["action"].shape
        (torch.Size([5, 10, 2]), torch.Size([5, 10]), torch.Size([5, 2]))
    """

    temperature: Tensor
    critics: nn.ModuleList

    def __init__(
        self,
        network: nn.Module,
        qvalue_network: TensorDictModule | Sequence[TensorDictModule],
        *,
        action_spec: TensorSpec,
        temperature: float | Tensor = 1.0,
        num_action_samples: int = 10,
        num_steps: int = 3,
        step_size: float = 0.1,
        kernel: RBFKernel | None = None,
        num_probes: int = 8,
        scale_bounds: tuple[float, float] | None = (0.1, 1.0),
        noise_bound: float | None = 3.0,
        bound_step: bool = False,
        in_keys: Sequence[NestedKey] = ("observation",),
        out_keys: Sequence[NestedKey] = ("action",),
        observation_dims: int | None = None,
    ) -> None:
        owner = "SVGDActor"
        kernel = RBFKernel(MedianBandwidth(floor=1e-3)) if kernel is None else kernel
        check_type(owner, "an RBFKernel, whose density is known", RBFKernel, kernel=kernel)
        check_number(owner, above=0, step_size=step_size)
        check = check_numbers if isinstance(temperature, Tensor) else check_number
        check(owner, above=0, temperature=temperature)
        check_count(owner, num_action_samples=num_action_samples, num_probes=num_probes)
        check_count(owner, at_least=0, num_steps=num_steps)
        if noise_bound is not None:
            check_number(owner, above=0, noise_bound=noise_bound)
        if scale_bounds is not None:
            _check_bounds(owner, scale_bounds)
        super().__init__(
            network,
            action_spec=action_spec,
            in_keys=in_keys,
            out_keys=out_keys,
            observation_dims=observation_dims,
        )
        # Under these names SACLoss and its like look for action and density of a policy.
        self.dist_sample_keys = list(self.out_keys)
        self.log_prob_keys = [_log_prob_key(self.out_keys[0])]
        self.critics = nn.ModuleList(_copies(self, qvalue_network))
        alpha = torch.as_tensor(temperature, dtype=torch.float64).to(self.low)
        self.register_buffer("temperature", alpha.clone())
        self.num_action_samples, self.num_steps = num_action_samples, num_steps
        self.step_size, self.bound_step = float(step_size), bool(bound_step)
        self.kernel, self.num_probes = kernel, num_probes
        self.scale_bounds, self.noise_bound = scale_bounds, noise_bound

    @by_keyword
    def forward(self, tensordict: TensorDictBase, **others: Any) -> TensorDictBase:
        """Write one action per state, ``[*B, A]``, under ``out_keys[0]``; see the class."""
        refuse_keywords(self, others)
        if exploration_type() in (ExplorationType.RANDOM, None):
            noise = self.draw_noise(tensordict, self.num_action_samples)
        else:
            batch = self.batch_shape(tensordict)
            noise = self.fixed_noise().expand(*batch, 1, self.noise_dim)
        action = self.squash(self.unsquashed(tensordict, noise))[..., 0, :]
        return tensordict.set(self.out_keys[0], action.to(self.action_dtype))

    def draw_noise(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Normal noise within ``noise_bound``, ``[*B, K, A]``."""
        noise = super().draw_noise(tensordict, num_samples)
        if self.noise_bound is None:
            return noise
        # The distribution function of a normal, down to the bound, and back.
        mass = math.erf(self.noise_bound / 2**0.5)
        return 2**0.5 * torch.erfinv(mass * torch.erf(noise / 2**0.5))

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u of the K particles that start from xi, ``[*B, K, A]``; they interact."""
        return self._climb(tensordict, noise, None, density=False)[0]

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int, *, target: Target | None = None
    ) -> tuple[Tensor, Tensor]:
        """K interacting actions per state ``[*B, K, A]`` and their log densities ``[*B, K]``.

        They are differentiable in the policy's parameters. ``target(states, actions)`` returns
        what is climbed, Q / alpha ``[*B, K]`` of states ``[*B, K]``; None: of its own critic.
        """
        noise = self.draw_noise(tensordict, num_samples)
        u, log_prob = self._climb(tensordict, noise, target, density=True)
        return self.squash(u), log_prob - squash_log_det(u, self.low, self.high)

    def get_dist(self, tensordict: TensorDictBase) -> SVGDDistribution:
        """What ``SACLoss`` and its like ask a policy for; see :class:`SVGDDistribution`."""
        return SVGDDistribution(self, tensordict)

    @torch.no_grad()
    def copy_critic(
        self, params: TensorDictBase, *, temperature: Tensor | float | None = None
    ) -> None:
        """Climb the critic with these parameters from now on: call it after each of its updates.

        Args:
            params: ``loss.qvalue_network_params`` of ``S2ACLoss``, ``SACLoss`` and their like;
                those of an ensemble have a leading dimension.
            temperature: alpha, if it has changed.
        """
        for i, critic in enumerate(self.critics):
            for name, own in critic.named_buffers():
                value = cast(Tensor, params.get(tuple(name.split("."))))
                # An ensemble has a leading dimension.
                own.copy_(value[i] if value.ndim > own.ndim else value)
        if temperature is not None:
            self.temperature.copy_(torch.as_tensor(temperature))

    def qvalue(self, tensordict: TensorDictBase, actions: Tensor) -> Tensor:
        """Q of the own critic, the minimum of an ensemble, ``[*B]``, of actions ``[*B, A]``."""
        values = []
        for critic in self.critics:
            states = tensordict.copy().set(self.out_keys[0], actions)
            key = cast(TensorDictModuleBase, critic).out_keys[0]
            values.append(critic(states).get(key).squeeze(-1))
        return torch.stack(values).amin(0)

    def _scaled_qvalue(self, states: TensorDictBase, actions: Tensor) -> Tensor:
        alpha = self.temperature
        alpha = alpha.unsqueeze(-1) if alpha.ndim else alpha  # one for each state, not each action
        return self.qvalue(states, actions) / alpha

    def _climb(
        self, tensordict: TensorDictBase, noise: Tensor, target: Target | None, *, density: bool
    ) -> tuple[Tensor, Tensor]:
        """u after L steps [*B, K, A] and, with ``density``, its log densities [*B, K]."""
        *batch, num_samples, _ = noise.shape
        u, log_prob = self._gaussian(tensordict, noise)
        if self.noise_bound is not None:
            log_prob = log_prob - self.action_dim * math.log(math.erf(self.noise_bound / 2**0.5))
        if self.num_steps == 0:
            return u, log_prob
        states = self._states_of_particles(tensordict, batch, num_samples)
        target = self._scaled_qvalue if target is None else target

        def log_density(u: Tensor) -> Tensor:
            of_action = target(states, self.squash(u))
            return (of_action + squash_log_det(u, self.low, self.high)).sum()

        curved = density or self.bound_step  # or nobody asks for the Hessian
        for _ in range(self.num_steps):
            probes = identity_probes(u, self.num_probes) if curved else u.new_empty(0, *u.shape)
            scores, products = score_and_products(log_density, u, probes)
            evaluation = self.kernel.evaluate(u)
            h = cast(Tensor, evaluation.bandwidth)
            step = torch.full((1, 1), self.step_size, dtype=u.dtype, device=u.device)
            if self.bound_step:
                with torch.no_grad():
                    bound = svgd_step_bound(u, scores, probes, products, h)
                step = torch.minimum(step, bound[..., None, None])
            if density:
                change = svgd_log_det(u, scores, (probes * products).sum((0, -1)), h)
                log_prob = log_prob - step.squeeze(-1) * change
            u = u + step * svgd_direction(evaluation.gram, evaluation.repulsion, scores).total
        return u, log_prob

    def _loc_and_scale(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """loc and scale, [*B, 1, A]."""
        loc, scale = super()._loc_and_scale(tensordict)
        return loc, scale if self.scale_bounds is None else scale.clamp(*self.scale_bounds)

    def _states_of_particles(
        self, tensordict: TensorDictBase, batch: Sequence[int], num_samples: int
    ) -> TensorDict:
        """The observations once per particle, as views, of batch size [*B, K]."""
        dim, shape = len(batch), (*batch, num_samples)
        values = zip(self.in_keys, self.observations(tensordict, batch), strict=True)
        entries = {
            key: value.unsqueeze(dim).expand(*shape, *value.shape[dim:]) for key, value in values
        }
        return TensorDict(entries, shape)


class SVGDDistribution(Distribution):
    """One of the interacting particles of an :class:`SVGDActor` per state, as a distribution.

    It draws all of them and keeps the first. The density is known where a draw has ended up,
    along the way that it came: of its last draw alone. There is no mean, mode or entropy.

    Raises:
        ValueError: for several draws at once, and the density of anything but the last draw.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> from tensordict.nn import NormalParamExtractor
        >>> qvalue = ValueOperator(
        ...     MLP(3 + 2, 1, num_cells=[8], activation_class=nn.SiLU),
        ...     in_keys=["observation", "action"],
        ... )
        >>> network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
        >>> actor = SVGDActor(network, qvalue, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> dist = actor.get_dist(TensorDict({"observation": torch.zeros(5, 3)}, [5]))
        >>> action = dist.rsample()
        >>> action.shape, dist.log_prob(action).shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = True

    def __init__(self, actor: SVGDActor, tensordict: TensorDictBase) -> None:
        batch = actor.batch_shape(tensordict)
        super().__init__(batch, torch.Size([actor.action_dim]), validate_args=False)
        self.actor, self.tensordict = actor, tensordict
        self._last: tuple[Tensor, Tensor] | None = None

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """One action per state, ``[*B, A]``, differentiable in the policy's parameters."""
        if len(sample_shape) > 0:
            raise ValueError(
                f"SVGDDistribution: sample_shape must be (), got {tuple(sample_shape)}; call "
                "SVGDActor.sample_with_log_prob for several actions"
            )
        actions, log_prob = self.actor.sample_with_log_prob(
            self.tensordict, self.actor.num_action_samples
        )
        action = actions[..., 0, :]
        self._last = action, log_prob[..., 0]
        return action

    def rsample_and_log_prob(self, sample_shape: Sequence[int] = ()) -> tuple[Tensor, Tensor]:
        """A draw and its log density, ``[*B]``."""
        action = self.rsample(sample_shape)
        return action, self.log_prob(action)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density of the last draw, ``[*B]``, which ``value`` must be."""
        if self._last is None or (value is not self._last[0]):
            raise ValueError(
                "SVGDDistribution: value must be the tensor of the last rsample(): the density of "
                "other actions is not known"
            )
        return self._last[1]


def _log_prob_key(action: NestedKey) -> NestedKey:
    if isinstance(action, str):
        return f"{action}_log_prob"
    return (*action[:-1], f"{action[-1]}_log_prob")


def _check_bounds(owner: str, scale_bounds: Any) -> None:
    if not isinstance(scale_bounds, (tuple, list)) or len(scale_bounds) != 2:
        raise TypeError(f"{owner}: scale_bounds must be a pair or None, got {scale_bounds!r}")
    lowest, largest = scale_bounds
    check_number(owner, above=0, scale_bounds=lowest)
    check_number(owner, at_least=lowest, scale_bounds=largest)


def _copies(
    actor: SVGDActor, networks: TensorDictModule | Sequence[TensorDictModule]
) -> list[TensorDictModuleBase]:
    """Copies of critics that have buffers for parameters: nobody trains them here."""
    owner, known = type(actor).__name__, {*actor.in_keys, *actor.out_keys}
    expected = 'a TensorDictModule, such as ValueOperator(net, in_keys=["observation", "action"])'
    networks = networks if isinstance(networks, Sequence) else [networks]
    copies = []
    for network in networks:
        check_type(owner, expected, TensorDictModuleBase, qvalue_network=network)
        if actor.out_keys[0] not in network.in_keys or not known.issuperset(network.in_keys):
            raise ValueError(
                f"{owner}: qvalue_network must read {actor.out_keys[0]!r} and of the policy's "
                f"in_keys {actor.in_keys}, it reads {network.in_keys}"
            )
        copy = deepcopy(network)
        for module in copy.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach().clone())
        copies.append(copy)
    if not copies:
        raise ValueError(f"{owner}: qvalue_network must hold at least one network, got none")
    return copies
