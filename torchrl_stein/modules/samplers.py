"""Policies that turn noise into actions of a box: one draw per state, or many."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import TensorSpec
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein._checks import check_count, check_keys, check_type
from torchrl_stein.functional import squash_log_det, squash_to_box

from ._action_box import action_box, rounded_inwards
from ._by_keyword import by_keyword, refuse_keywords
from ._network_inputs import image_dims, reads_vectors, takes_one_input, where_it_computes
from .particle_module import ParticleModule

__all__ = [
    "AmortizedSVGDActor",
    "SamplingActor",
    "TanhGaussianActor",
    "TanhGaussianMixtureActor",
]


class SamplingActor(TensorDictModuleBase):
    r"""Base class of policies a = squash(u(s, xi)): one draw per state, or many.

    Subclasses define :meth:`unsquashed` and, if they have a density,
    :meth:`sample_with_log_prob`. Losses work in the unsquashed space u; actions are
    ``low + (high - low) (tanh(u) + 1) / 2``.

    Args:
        action_spec: a finite ``Bounded`` spec of shape ``[A]``: ``env.action_spec_unbatched``. A
            longer shape is taken for that of a batched environment with one set of bounds, with a
            warning: an action that is a matrix looks the same.
        noise_dim: dimension of xi; None is A.
        in_keys: observation keys.
        out_keys: one key, the action's.

    Keyword Args:
        network: what :meth:`ask` calls. Noise, bounds and samples have its dtype and device; those
            of the spec, if there is none. :meth:`forward` writes actions of the spec's dtype.
        inputs: names of further inputs of the network, behind the observations.
        observation_dims: dimensions of one observation, of the one with the fewest, where data
            has no batch size, as in a call by keyword: 1 for vectors, 3 for images. Default: 1, or
            what convolutions of the network read if all observations are of one rank.

    Raises:
        TypeError, ValueError: for a spec that is no finite box of one set of bounds, keys or
            numbers that are none, a network of other inputs; at the call, for other shapes.

    ``forward`` honours TorchRL's exploration type: RANDOM draws noise, every other type (MODE,
    DETERMINISTIC, ...) uses :meth:`fixed_noise`. It also takes observations by keyword, which is
    how ``torch.export`` calls it.

    Example:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> class Uniform(SamplingActor):
        ...     def unsquashed(self, tensordict, noise):
        ...         return noise
        >>> spec = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = Uniform(spec, None, ["observation"], ["action"])
        >>> actor.sample(TensorDict({"observation": torch.zeros(5, 3)}, [5]), 10).shape
        torch.Size([5, 10, 2])
        >>> actor(observation=torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    low: Tensor
    high: Tensor
    network: nn.Module

    def __init__(
        self,
        action_spec: TensorSpec,
        noise_dim: int | None,
        in_keys: Sequence[NestedKey],
        out_keys: Sequence[NestedKey],
        *,
        network: nn.Module | None = None,
        inputs: Sequence[str] = (),
        observation_dims: int | None = None,
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        _check_names(owner, in_keys=in_keys, out_keys=out_keys)
        if len(out_keys) != 1:
            raise ValueError(
                f"{owner}: out_keys must hold the one action key, got {list(out_keys)}"
            )
        self.in_keys, self.out_keys = list(in_keys), list(out_keys)
        low, high = action_box(owner, action_spec)
        self.action_dim, self.action_dtype = low.shape[-1], low.dtype
        self._spec_shape = action_spec.shape
        self.noise_dim = self.action_dim if noise_dim is None else noise_dim
        check_count(owner, noise_dim=self.noise_dim)
        if observation_dims is not None:
            check_count(owner, observation_dims=observation_dims)
        self._observation_dims = observation_dims
        self._image_dims, self._joins, self._reads_vectors = None, False, False
        if network is not None:
            names = [*map(repr, self.in_keys), *inputs]
            self._joins = takes_one_input(owner, network, names)
            self._reads_vectors = len(names) > 1 and (self._joins or reads_vectors(network))
            self._image_dims = image_dims(network)
            self.network = network
            of_network = where_it_computes(network, low)
            low, high = rounded_inwards(low, high, of_network.device, of_network.dtype)
            if not (low < high).all():
                raise ValueError(
                    f"{owner}: action_spec must have low < high in {low.dtype}, the network's "
                    f"dtype, got low={low.tolist()}, high={high.tolist()}"
                )
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @by_keyword
    def forward(self, tensordict: TensorDictBase, **others: Any) -> TensorDictBase:
        """Write one action per state, ``[*B, A]``, under ``out_keys[0]``.

        By keyword, ``actor(observation=x)``, the return value is the action. What is batch says
        the tensordict; without a batch size, all dimensions but those of one observation are.
        """
        refuse_keywords(self, others)
        batch = self.batch_shape(tensordict)
        if exploration_type() in (ExplorationType.RANDOM, None):
            noise = self.draw_noise(tensordict, 1)
        else:
            noise = self.fixed_noise().expand(*batch, 1, self.noise_dim)
        action = self.squash(self.unsquashed(tensordict, noise)).squeeze(-2)
        if len(batch) < len(self._spec_shape) - 1:
            raise ValueError(
                f"{type(self).__name__}: action_spec must have shape [A] for states of batch size "
                f"{list(batch)}, got {list(self._spec_shape)}; pass env.action_spec_unbatched, and "
                "flatten an action that is a matrix"
            )
        return tensordict.set(self.out_keys[0], action.to(self.action_dtype))

    def batch_shape(self, tensordict: TensorDictBase) -> torch.Size:
        """The batch size of states, or what else is batch in them; see ``observation_dims``."""
        if tensordict.batch_dims or not self.in_keys:
            return tensordict.batch_size
        values = self._read(tensordict)
        shortest = min(values, key=lambda value: value.ndim)
        dims = self._observation_dims
        if dims is None:
            alike = all(value.ndim == shortest.ndim for value in values)
            dims = (alike and self._image_dims) or 1
        return shortest.shape[: max(shortest.ndim - dims, 0)]

    def fixed_noise(self) -> Tensor:
        """The sample that stands for all when nothing is to be drawn: xi = 0, ``[noise_dim]``."""
        return self.low.new_zeros(self.noise_dim)

    def draw_noise(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Noise xi ~ N(0, I) for K >= 1 samples per state ``[*B]``: ``[*B, K, noise_dim]``."""
        check_count(type(self).__name__, num_samples=num_samples)
        shape = (*self.batch_shape(tensordict), num_samples, self.noise_dim)
        return torch.randn(shape, device=self.low.device, dtype=self.low.dtype)

    def draw_noise_sets(self, tensordict: TensorDictBase, sizes: Sequence[int]) -> list[Tensor]:
        """Independent sets of noise, ``[*B, K, noise_dim]`` for each K of ``sizes``.

        Samples within one set may be coupled: a mixture stratifies.
        """
        return list(self.draw_noise(tensordict, sum(sizes)).split(list(sizes), -2))

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u(s, xi), before squashing, ``[*B, K, A]``, of noise ``[*B, K, noise_dim]``."""
        raise NotImplementedError(f"{type(self).__name__} must define unsquashed")

    def squash(self, u: Tensor) -> Tensor:
        """Actions of u, ``[..., A]``, inside the box of ``action_spec``."""
        return squash_to_box(u, self.low, self.high)

    def sample(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Draw K >= 1 actions per state, ``[*B, K, A]``, whatever the exploration type.

        They are differentiable in the policy's parameters; the states are not written to.
        """
        return self.squash(self.unsquashed(tensordict, self.draw_noise(tensordict, num_samples)))

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """K actions per state ``[*B, K, A]`` and their log densities ``[*B, K]``."""
        raise NotImplementedError(f"{type(self).__name__} has no density")

    def observations(
        self, tensordict: TensorDictBase, batch: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The entries of ``in_keys``, each of which begins with ``*B``: :meth:`batch_shape`.

        A missing one is a KeyError; another shape, or no vector for a network that concatenates, a
        ValueError.
        """
        values = self._read(tensordict)
        batch = self.batch_shape(tensordict) if batch is None else batch
        count = len(batch)
        for key, value in zip(self.in_keys, values, strict=True):
            if value.shape[:count] != torch.Size(batch) or (
                self._reads_vectors and value.ndim != count + 1
            ):
                form = "[*B, F]" if self._reads_vectors else "[*B, ...]"
                hint = ""
                if value.ndim == count + 2 and isinstance(key, tuple):
                    hint = "; of several agents take agent_rows(data), and AgentsActor to act"
                raise ValueError(
                    f"{type(self).__name__}: observation {key!r} must have shape {form} for batch "
                    f"size B = {list(batch)}, got {list(value.shape)}{hint}"
                )
        return values

    def ask(self, values: Sequence[Tensor]) -> Any:
        """The network's answer to observations and further inputs; concatenated if it takes one."""
        try:
            inputs = [torch.cat(list(values), -1)] if self._joins else values
            return self.network(*inputs)
        except RuntimeError as error:
            if type(error) is not RuntimeError:  # memory, or a question of the compiler
                raise
            given = ", ".join(f"{list(v.shape)} of {v.dtype}" for v in values)
            raise ValueError(
                f"{type(self).__name__}: network must take inputs {given}, got {error}"
            ) from error

    def _read(self, tensordict: TensorDictBase) -> list[Tensor]:
        check_keys(type(self).__name__, tensordict, self.in_keys)
        return [tensordict.get(key) for key in self.in_keys]

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SamplingActor:
        low, high = self.low, self.high
        super()._apply(fn, recurse)
        if self.low.dtype != low.dtype:  # rounded to nearest, which may be outside
            self.low, self.high = rounded_inwards(low, high, self.low.device, self.low.dtype)
        return self


class AmortizedSVGDActor(SamplingActor):
    r"""Sampling network a = f(xi; s), xi ~ N(0, I): one draw per state, or many.

    The network works in the unsquashed space, u = network(s, xi).
    :class:`torchrl_stein.objectives.SoftQLoss` trains it so that its samples follow exp(Q / alpha).

    Args:
        network: called as ``network(*observations, noise)``; all inputs share their leading
            dimensions ``[*B, K]`` and the result is u, ``[*B, K, A]``. A network that takes one
            input, such as ``nn.Sequential``, gets their concatenation. Observations arrive
            expanded to K samples (a view). An encoder of pixels inside would run for each sample;
            let the network read features, and give the encoder to the loss.

    Keyword Args:
        action_spec: a finite ``Bounded`` spec, see :class:`SamplingActor`; so are the errors.
        noise_dim: dimension of xi. Default: A, which :meth:`log_prob` needs.
        noise_set_size: with it, xi is one of that many values, drawn once from N(0, I) and kept in
            the state; :meth:`limit_noise` lowers their number. None: xi ~ N(0, I).
        in_keys: observation keys, passed to the network in this order.
        out_keys: one key, the action's.
        observation_dims: for data without a batch size, see :class:`SamplingActor`.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), section 3.3 and appendix C; appendix D.1 for
    the finite set of noise.

    Example:
        >>> from tensordict import TensorDict
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP
        >>> spec = Bounded(low=-2.0, high=2.0, shape=(3,))
        >>> actor = AmortizedSVGDActor(MLP(in_features=4 + 3, out_features=3), action_spec=spec)
        >>> data = TensorDict({"observation": torch.zeros(5, 4)}, [5])
        >>> actor(data)["action"].shape, actor.sample(data, 10).shape
        (torch.Size([5, 3]), torch.Size([5, 10, 3]))
    """

    noise_set: Tensor | None
    num_noise: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        action_spec: TensorSpec,
        noise_dim: int | None = None,
        noise_set_size: int | None = None,
        in_keys: Sequence[NestedKey] = ("observation",),
        out_keys: Sequence[NestedKey] = ("action",),
        observation_dims: int | None = None,
    ) -> None:
        check_type("AmortizedSVGDActor", "a torch.nn.Module", nn.Module, network=network)
        super().__init__(
            action_spec,
            noise_dim,
            in_keys,
            out_keys,
            network=network,
            inputs=["noise"],
            observation_dims=observation_dims,
        )
        if noise_set_size is None:
            self.noise_set = self.num_noise = None
            return
        check_count("AmortizedSVGDActor", noise_set_size=noise_set_size)
        values = torch.randn(noise_set_size, self.noise_dim).to(self.low)
        self.register_buffer("noise_set", values)
        self.register_buffer("num_noise", torch.tensor(noise_set_size, device=self.low.device))

    def limit_noise(self, count: int) -> None:
        """Draw xi from the first ``count`` of the noise set; with one, actions are certain."""
        if self.noise_set is None or self.num_noise is None:
            raise ValueError("AmortizedSVGDActor: limit_noise needs a noise_set_size, got None")
        check_count("AmortizedSVGDActor", at_most=len(self.noise_set), count=count)
        self.num_noise.fill_(count)

    def fixed_noise(self) -> Tensor:
        """xi = 0, or the first value of the noise set, ``[noise_dim]``."""
        return super().fixed_noise() if self.noise_set is None else self.noise_set[0]

    def draw_noise(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Noise for K samples per state, ``[*B, K, noise_dim]``: normal, or from the noise set."""
        noise = super().draw_noise(tensordict, num_samples)
        if self.noise_set is None or self.num_noise is None:
            return noise
        # The product stays below num_noise, as rand() does not reach 1. No wait for the device.
        unit = torch.rand(noise.shape[:-1], device=noise.device)
        return self.noise_set[(unit * self.num_noise).long()]

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u = network(s, xi), before squashing, ``[*B, K, A]``."""
        *batch, num_samples, _ = noise.shape
        dim = len(batch)
        inputs = []
        for value in self.observations(tensordict, batch):
            event = value.shape[dim:]
            inputs.append(value.unsqueeze(dim).expand(*batch, num_samples, *event))
        u = self.ask([*inputs, noise])
        expected = (*batch, num_samples, self.action_dim)
        if u.shape != expected:
            raise ValueError(
                f"AmortizedSVGDActor: network must return [*B, K, A] = {list(expected)} for the "
                f"{self.action_dim}-dimensional action_spec, got {list(u.shape)}"
            )
        return u

    def log_prob(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        r"""Log density of the actions that noise xi ``[*B, K, A]`` produces, ``[*B, K]``.

        log pi(a | s) = log N(xi; 0, I) - log abs det da/dxi, a = f(xi; s)    eq. (33)

        It is the density of the sampler only where f(.; s) is injective, and +inf where the
        Jacobian is singular, which early in training it may be. A ValueError if the dimensions of
        noise and action differ, or noise is from a finite set.
        """
        return self._squash_with_log_prob(tensordict, noise)[1]

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """K actions per state ``[*B, K, A]`` and their log densities, see :meth:`log_prob`."""
        return self._squash_with_log_prob(tensordict, self.draw_noise(tensordict, num_samples))

    def _squash_with_log_prob(
        self, tensordict: TensorDictBase, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.noise_set is not None:
            raise ValueError("AmortizedSVGDActor: with a noise set, the actions have no density")
        if self.noise_dim != self.action_dim:
            raise ValueError(
                "AmortizedSVGDActor: log_prob needs noise_dim equal to the action dimension, "
                f"got noise_dim={self.noise_dim} and {self.action_dim} action dimensions"
            )
        u, pullback = torch.func.vjp(lambda xi: self.unsquashed(tensordict, xi), noise)[:2]
        # Samples do not interact, so one pullback per action dimension gives a row of every
        # sample's Jacobian at once.
        basis = torch.eye(self.action_dim, device=u.device, dtype=u.dtype)
        rows = [pullback(basis[a].expand_as(u))[0] for a in range(self.action_dim)]
        log_det = torch.linalg.slogdet(torch.stack(rows, -2)).logabsdet
        log_noise = -0.5 * (noise.square() + math.log(2.0 * math.pi)).sum(-1)
        log_prob = log_noise - log_det - squash_log_det(u, self.low, self.high)
        return self.squash(u), log_prob


class TanhGaussianActor(SamplingActor):
    """u = loc(s) + scale(s) xi, squashed to the box: the policy of SAC as a sampler.

    Args:
        network: called as ``network(*observations)``, or with their concatenation if it takes one
            input; returns loc and scale > 0, ``[*B, A]`` each, such as an MLP with tensordict's
            ``NormalParamExtractor`` behind.

    Keyword arguments are those of :class:`AmortizedSVGDActor` without the noise.

    Example:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import NormalParamExtractor
        >>> from torchrl.data import Bounded
        >>> network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
        >>> actor = TanhGaussianActor(network, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> states = TensorDict({"observation": torch.zeros(5, 3)}, [5])
        >>> actions, log_prob = actor.sample_with_log_prob(states, 10)
        >>> actions.shape, log_prob.shape
        (torch.Size([5, 10, 2]), torch.Size([5, 10]))
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        action_spec: TensorSpec,
        in_keys: Sequence[NestedKey] = ("observation",),
        out_keys: Sequence[NestedKey] = ("action",),
        observation_dims: int | None = None,
    ) -> None:
        check_type(type(self).__name__, "a torch.nn.Module", nn.Module, network=network)
        super().__init__(
            action_spec, None, in_keys, out_keys, network=network, observation_dims=observation_dims
        )

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u = loc + scale xi, ``[*B, K, A]``."""
        loc, scale = self._loc_and_scale(tensordict)
        return loc + scale * noise

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """K actions per state ``[*B, K, A]`` and their log densities ``[*B, K]``."""
        u, log_prob = self._gaussian(tensordict, self.draw_noise(tensordict, num_samples))
        return self.squash(u), log_prob - squash_log_det(u, self.low, self.high)

    def _gaussian(self, tensordict: TensorDictBase, noise: Tensor) -> tuple[Tensor, Tensor]:
        """u = loc + scale xi, [*B, K, A], and log N(u; loc, scale^2), [*B, K]."""
        loc, scale = self._loc_and_scale(tensordict)
        u = loc + scale * noise
        return u, _log_normal(u, loc, scale)

    def _loc_and_scale(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """loc and scale, [*B, 1, A]."""
        batch = self.batch_shape(tensordict)
        answer = self.ask(self.observations(tensordict, batch))
        loc, scale = _loc_and_scale(self, tensordict, answer, (*batch, self.action_dim))
        return loc.unsqueeze(-2), scale.unsqueeze(-2)


class TanhGaussianMixtureActor(SamplingActor):
    """A mixture of the squashed Gaussians of all particles of a population, equal weights.

    One policy whose parameters have a distribution, as the Bayesian network that is the policy of
    DP-WGF-V: its density at a state is that of the mixture. Several draws for one state are
    stratified, n of them come from n different particles. ``xi`` carries the particle's number in
    its last entry, so that two sets of parameters can be compared under the same noise. The fixed
    sample xi = 0 of evaluation is the mean of the first particle.

    Args:
        network: a ParticleModule that is called as ``network(*observations)`` with leading
            dimension n and returns loc and scale > 0, ``[n, ..., A]`` each. One of ``(S, n)`` is a
            mixture for each of S seeds, of states ``[S, ...]``.

    Keyword arguments are those of :class:`AmortizedSVGDActor` without the noise.

    Source: Zhang et al. 2018 (arXiv:1808.03030), section 4.2, "Reducing variance". Differs: the
    particles' heads are Gaussian with a scale each; the paper does not say.

    Example:
        >>> from tensordict import TensorDict
        >>> from tensordict.nn import NormalParamExtractor
        >>> from torchrl.data import Bounded
        >>> particles = ParticleModule(
        ...     lambda: nn.Sequential(nn.Linear(3, 4), NormalParamExtractor()), num_particles=8
        ... )
        >>> actor = TanhGaussianMixtureActor(particles, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> actor(TensorDict({"observation": torch.zeros(5, 3)}, [5]))["action"].shape
        torch.Size([5, 2])
    """

    network: ParticleModule

    def __init__(
        self,
        network: ParticleModule,
        *,
        action_spec: TensorSpec,
        in_keys: Sequence[NestedKey] = ("observation",),
        out_keys: Sequence[NestedKey] = ("action",),
        observation_dims: int | None = None,
    ) -> None:
        check_type("TanhGaussianMixtureActor", "a ParticleModule", ParticleModule, network=network)
        super().__init__(
            action_spec, None, in_keys, out_keys, network=network, observation_dims=observation_dims
        )
        self.noise_dim = self.action_dim + 1

    def draw_noise(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Normal noise, and in the last entry the number of a particle, ``[*B, K, A + 1]``."""
        noise = super().draw_noise(tensordict, num_samples)
        n = self.network.num_particles
        first = torch.randint(n, (*noise.shape[:-2], 1), device=noise.device)
        order = torch.arange(num_samples, device=noise.device)
        noise[..., -1] = (first + order) % n
        return noise

    def draw_noise_sets(self, tensordict: TensorDictBase, sizes: Sequence[int]) -> list[Tensor]:
        """One stratified draw per set: parts of a single one would name different particles."""
        return [self.draw_noise(tensordict, size) for size in sizes]

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u = loc + scale xi of the particles that the noise names, ``[*B, K, A]``."""
        return self._of_particles(noise, *self._loc_and_scale(tensordict))

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """K actions per state ``[*B, K, A]`` and their log densities ``[*B, K]``."""
        noise = self.draw_noise(tensordict, num_samples)
        loc, scale = self._loc_and_scale(tensordict)
        u = self._of_particles(noise, loc, scale)
        of_each = _log_normal(u.unsqueeze(-2), loc.unsqueeze(-3), scale.unsqueeze(-3))
        log_prob = torch.logsumexp(of_each, -1) - math.log(self.network.num_particles)
        return self.squash(u), log_prob - squash_log_det(u, self.low, self.high)

    def _of_particles(self, noise: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        index = noise[..., -1:].long().expand(*noise.shape[:-1], self.action_dim)
        return loc.gather(-2, index) + scale.gather(-2, index) * noise[..., :-1]

    def _loc_and_scale(self, tensordict: TensorDictBase) -> tuple[Tensor, Tensor]:
        """loc and scale of all particles, [*B, n, A]."""
        n, batch = self.network.num_particles, self.batch_shape(tensordict)
        *seeds, _ = self.network.leading
        dim = len(seeds)  # behind which the particles stand
        if list(batch[:dim]) != seeds:
            raise ValueError(
                f"TanhGaussianMixtureActor: the batch size of states must begin with {seeds}, for "
                f"a network of {tuple(self.network.leading)}, got {list(batch)}"
            )
        values = self.observations(tensordict, batch)
        repeated = [v.unsqueeze(dim).expand(*seeds, n, *v.shape[dim:]) for v in values]
        expected = (*seeds, n, *batch[dim:], self.action_dim)
        loc, scale = _loc_and_scale(self, tensordict, self.ask(repeated), expected)
        return loc.movedim(dim, -2), scale.movedim(dim, -2)


def _check_names(owner: str, **lists: Any) -> None:
    """Require lists or tuples of keys."""
    for name, keys in lists.items():
        if not isinstance(keys, (list, tuple)):
            raise TypeError(f"{owner}: {name} must be a list of keys, got {keys!r}")
        for key in keys:
            parts = key if isinstance(key, tuple) and key else (key,)
            if not all(isinstance(part, str) for part in parts):
                raise TypeError(
                    f"{owner}: {name} must hold keys, str or tuples of str, got {key!r}"
                )


def _log_normal(u: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """Log density of independent normals, summed over the last dimension."""
    square = ((u - loc) / scale).square()
    return -(0.5 * square + scale.log() + 0.5 * math.log(2.0 * math.pi)).sum(-1)


def _loc_and_scale(
    actor: SamplingActor, tensordict: TensorDictBase, answer: Any, expected: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """A network's answer, or the error that says what is wrong with it."""
    owner = type(actor).__name__
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        got = list(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
        raise ValueError(f"{owner}: network must return a pair, loc and scale, got {got}")
    for name, value in zip(("loc", "scale"), answer, strict=True):
        if value.shape != expected:
            given = ", ".join(f"{k!r} {list(tensordict.get(k).shape)}" for k in actor.in_keys)
            raise ValueError(
                f"{owner}: network must return {name} of shape {list(expected)} for {given}, "
                f"got {list(value.shape)}"
            )
    return answer[0], answer[1]
