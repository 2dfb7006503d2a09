"""Samplers with a density in closed form: one squashed Gaussian, or a mixture of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import TensorSpec

from torchrl_stein._checks import check_type
from torchrl_stein.functional import squash_log_det

from .particle_module import ParticleModule
from .sampling_actor import SamplingActor

__all__ = ["TanhGaussianActor", "TanhGaussianMixtureActor"]


class TanhGaussianActor(SamplingActor):
    """u = loc(s) + scale(s) xi, squashed to the box: the policy of SAC as a sampler.

    Args:
        network: called as ``network(*observations)``, or with their concatenation if it takes one
            input; returns loc and scale > 0, ``[*B, A]`` each, such as an MLP with tensordict's
            ``NormalParamExtractor`` behind.

    Keyword Args:
        action_spec: a finite ``Bounded`` spec, see :class:`SamplingActor`; so are the errors.
        in_keys: observation keys, passed to the network in this order.
        out_keys: one key, the action's.
        observation_dims: for data without a batch size, see :class:`SamplingActor`.

    Raises:
        ValueError: at the call, if loc or scale is not ``[*B, A]``.

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
        check_type("TanhGaussianActor", "a torch.nn.Module", nn.Module, network=network)
        super().__init__(
            action_spec,
            None,
            in_keys,
            out_keys,
            network=network,
            observation_dims=observation_dims,
        )

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u = loc + scale xi, ``[*B, K, A]``."""
        loc, scale = self._loc_and_scale(tensordict)
        return loc + scale * noise

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """K actions per state ``[*B, K, A]`` and their log densities ``[*B, K]``."""
        noise = self.draw_noise(tensordict, num_samples)
        loc, scale = self._loc_and_scale(tensordict)
        u = loc + scale * noise
        log_prob = _log_normal(u, loc, scale) - squash_log_det(u, self.low, self.high)
        return self.squash(u), log_prob

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
            dimension n and returns loc and scale > 0, ``[n, ..., A]`` each.

    Keyword Args:
        action_spec: a finite ``Bounded`` spec, see :class:`SamplingActor`; so are the errors.
        in_keys: observation keys, passed to the networks in this order.
        out_keys: one key, the action's.

    Raises:
        TypeError: if ``network`` is no ParticleModule.
        ValueError: at the call, if loc or scale is not ``[n, *B, A]``.

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
            action_spec,
            None,
            in_keys,
            out_keys,
            network=network,
            observation_dims=observation_dims,
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
        values = self.observations(tensordict, batch)
        answer = self.ask([value.expand(n, *value.shape) for value in values])
        loc, scale = _loc_and_scale(self, tensordict, answer, (n, *batch, self.action_dim))
        return loc.movedim(0, -2), scale.movedim(0, -2)


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
