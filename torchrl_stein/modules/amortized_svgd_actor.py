"""A policy that is a sampler: a network fed with noise, trained by amortized SVGD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import TensorSpec

from torchrl_stein._checks import check_count, check_type
from torchrl_stein.functional import squash_log_det

from .sampling_actor import SamplingActor

__all__ = ["AmortizedSVGDActor"]


class AmortizedSVGDActor(SamplingActor):
    r"""Sampling network a = f(xi; s), xi ~ N(0, I): one draw per state, or many.

    The network works in the unsquashed space, u = network(s, xi); actions are
    ``low + (high - low) (tanh(u) + 1) / 2``. It has no density of its own making:
    :class:`torchrl_stein.objectives.SoftQLoss` trains it so that its samples follow exp(Q / alpha).

    Args:
        network: called as ``network(*observations, noise)``; all inputs share their leading
            dimensions ``[*B, K]`` and the result is u, ``[*B, K, A]``. A network that takes one
            input, such as ``nn.Sequential``, gets their concatenation. Observations arrive
            expanded to K samples (a view), so an encoder of pixels inside runs for each sample,
            not once.

    Keyword Args:
        action_spec: a finite ``Bounded`` spec, see :class:`SamplingActor`; so are the errors.
        noise_dim: dimension of xi. Default: A, which :meth:`log_prob` needs.
        noise_set_size: with it, xi is one of that many values, drawn once from N(0, I) and kept in
            the state; :meth:`limit_noise` lowers their number. None: xi ~ N(0, I).
        in_keys: observation keys, passed to the network in this order.
        out_keys: one key, the action's.
        observation_dims: for data without a batch size, see :class:`SamplingActor`.

    Raises:
        ValueError: if ``noise_set_size`` < 1 or, at the call, if the network does not take the
            observations or does not return ``[*B, K, A]``.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), section 3.3 and appendix C; appendix D.1 for
    the finite set of noise.

    Example:
        >>> import torch
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
        """Draw xi from the first values of the noise set only; with one, actions are certain.

        Args:
            count: from 1 to ``noise_set_size``.

        Raises:
            ValueError: if there is no noise set, or ``count`` is out of range.
        """
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
        """u = network(s, xi), before squashing.

        Args:
            tensordict: states, batch size ``[*B]``.
            noise: ``[*B, K, noise_dim]``.

        Returns:
            Tensor: ``[*B, K, A]``.

        Raises:
            KeyError: if an observation key is missing.
            ValueError: if an observation is not ``[*B, ...]``, or the network's output is not
                ``[*B, K, A]``.
        """
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
        r"""Log density of the actions that the given noise produces.

        log pi(a | s) = log N(xi; 0, I) - log abs det da/dxi, a = f(xi; s)

        It is the density of the sampler only where f(.; s) is injective, and +inf where the
        Jacobian is singular, which early in training it may be.

        Args:
            tensordict: states, batch size ``[*B]``.
            noise: xi, ``[*B, K, noise_dim]``.

        Returns:
            Tensor: ``[*B, K]``.

        Raises:
            ValueError: if the dimensions of noise and action differ, or noise is from a finite
                set: there is no density then.

        Source: Haarnoja et al. 2017 (arXiv:1702.08165), eq. (33).
        """
        return self._squash_with_log_prob(tensordict, noise)[1]

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """K actions per state ``[*B, K, A]`` and their log densities ``[*B, K]``.

        See :meth:`sample` and :meth:`log_prob`, also for the errors.
        """
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
