"""A policy that is a sampler: a network fed with noise, trained by amortized SVGD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Bounded, TensorSpec
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein.functional import squash_log_det, squash_to_box

__all__ = ["AmortizedSVGDActor"]


class AmortizedSVGDActor(TensorDictModuleBase):
    r"""Sampling network a = f(xi; s), xi ~ N(0, I): one draw per state, or many.

    The network works in the unsquashed space, u = network(s, xi); actions are
    ``low + (high - low) (tanh(u) + 1) / 2``. It has no density of its own making:
    :class:`torchrl_stein.objectives.SoftQLoss` trains it so that its samples follow exp(Q / alpha).

    Args:
        network: called as ``network(*observations, noise)``; all inputs share their leading
            dimensions ``[*B, K]`` and the result is u, ``[*B, K, A]``. TorchRL's ``MLP``
            concatenates its inputs and needs nothing more. Observations arrive expanded to K
            samples (a view), so an encoder of pixels inside runs for each sample, not once.

    Keyword Args:
        action_spec: a finite ``Bounded`` spec; leading batch dimensions (``env.action_spec`` of a
            batched env) are fine if all entries have the same bounds.
        noise_dim: dimension of xi. Default: A, which :meth:`log_prob` needs.
        in_keys: observation keys, passed to the network in this order.
        out_keys: one key, the action's.

    Raises:
        TypeError: if ``action_spec`` is not a floating-point ``Bounded`` spec, or keys are a str.
        ValueError: if bounds are infinite, empty or differ between batch entries, if
            ``noise_dim`` < 1, or if ``out_keys`` does not hold exactly one key.

    ``forward`` honours TorchRL's exploration type: RANDOM draws noise, every other type (MODE,
    DETERMINISTIC, ...) uses the fixed sample xi = 0.

    Source: Haarnoja et al. 2017 (arXiv:1702.08165), section 3.3 and appendix C.

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

    low: Tensor
    high: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        action_spec: TensorSpec,
        noise_dim: int | None = None,
        in_keys: Sequence[NestedKey] = ("observation",),
        out_keys: Sequence[NestedKey] = ("action",),
    ) -> None:
        super().__init__()
        low, high = _box(action_spec)
        self.action_dim = low.shape[-1]
        self.noise_dim = self.action_dim if noise_dim is None else noise_dim
        if self.noise_dim < 1:
            raise ValueError(f"AmortizedSVGDActor: noise_dim must be >= 1, got {noise_dim}")
        for name, keys in (("in_keys", in_keys), ("out_keys", out_keys)):
            if isinstance(keys, str):
                raise TypeError(f"AmortizedSVGDActor: {name} must be a list of keys, got {keys!r}")
        if len(out_keys) != 1:
            raise ValueError(
                f"AmortizedSVGDActor: out_keys must hold the one action key, got {list(out_keys)}"
            )
        self.in_keys, self.out_keys = list(in_keys), list(out_keys)
        self.network = network
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @dispatch(auto_batch_size=False)
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write one action per state, ``[*B, A]``, under ``out_keys[0]``.

        By keyword, ``actor(observation=...)``, one state: only a tensordict says what is batch.
        """
        if exploration_type() in (ExplorationType.RANDOM, None):
            noise = self.draw_noise(tensordict, 1)
        else:
            noise = self.low.new_zeros(*tensordict.batch_size, 1, self.noise_dim)
        action = self.squash(self.unsquashed(tensordict, noise))
        return tensordict.set(self.out_keys[0], action.squeeze(-2))

    def draw_noise(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Noise xi ~ N(0, I) for K samples per state.

        Args:
            tensordict: states, batch size ``[*B]``.
            num_samples: K.

        Returns:
            Tensor: ``[*B, K, noise_dim]``.

        Raises:
            ValueError: if K < 1.
        """
        if num_samples < 1:
            raise ValueError(f"AmortizedSVGDActor: num_samples must be >= 1, got {num_samples}")
        shape = (*tensordict.batch_size, num_samples, self.noise_dim)
        return torch.randn(shape, device=self.low.device, dtype=self.low.dtype)

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u = network(s, xi), before squashing.

        Args:
            tensordict: states, batch size ``[*B]``.
            noise: ``[*B, K, noise_dim]``.

        Returns:
            Tensor: ``[*B, K, A]``.

        Raises:
            KeyError: if an observation key is missing.
            ValueError: if the network's output is not ``[*B, K, A]``.
        """
        batch_dims, num_samples = tensordict.batch_dims, noise.shape[-2]
        inputs = []
        for key in self.in_keys:
            value = tensordict.get(key, None)
            if value is None:
                held = ", ".join(sorted(map(str, tensordict.keys(True, True))))
                raise KeyError(
                    f"AmortizedSVGDActor: observation key {key!r} is missing, "
                    f"the tensordict holds {held}"
                )
            event = value.shape[batch_dims:]
            value = value.unsqueeze(batch_dims)
            inputs.append(value.expand(*tensordict.batch_size, num_samples, *event))
        u = self.network(*inputs, noise)
        expected = (*tensordict.batch_size, num_samples, self.action_dim)
        if u.shape != expected:
            raise ValueError(
                f"AmortizedSVGDActor: network must return [*B, K, A] = {list(expected)} for the "
                f"{self.action_dim}-dimensional action_spec, got {list(u.shape)}"
            )
        return u

    def squash(self, u: Tensor) -> Tensor:
        """Actions of u, ``[..., A]``, inside the box of ``action_spec``."""
        return squash_to_box(u, self.low, self.high)

    def sample(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Draw K actions per state, whatever the exploration type.

        Args:
            tensordict: states, batch size ``[*B]``; not written to.
            num_samples: K >= 1.

        Returns:
            Tensor: ``[*B, K, A]``, differentiable in the network's parameters.

        Raises:
            KeyError: if an observation key is missing.
            ValueError: if K < 1.
        """
        return self.squash(self.unsquashed(tensordict, self.draw_noise(tensordict, num_samples)))

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
            ValueError: if the dimensions of noise and action differ: there is no density then.

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


def _box(action_spec: TensorSpec) -> tuple[Tensor, Tensor]:
    """Bounds ``[A]`` of a finite box, or the error that says why it is none."""
    if not isinstance(action_spec, Bounded) or not action_spec.dtype.is_floating_point:
        raise TypeError(
            "AmortizedSVGDActor: action_spec must be a floating-point Bounded spec (a box), "
            f"got {type(action_spec).__name__} of dtype {getattr(action_spec, 'dtype', None)}"
        )
    if action_spec.ndim < 1:
        raise ValueError("AmortizedSVGDActor: action_spec must have a last dimension A, got []")
    low, high = action_spec.space.low, action_spec.space.high
    if not (low.isfinite().all() and high.isfinite().all()):
        raise ValueError(
            "AmortizedSVGDActor: action_spec must have finite bounds, "
            f"got low={low.tolist()}, high={high.tolist()}"
        )
    low, high = low.reshape(-1, low.shape[-1]), high.reshape(-1, high.shape[-1])
    if not ((low == low[0]).all() and (high == high[0]).all()):
        raise ValueError(
            "AmortizedSVGDActor: action_spec must have one set of bounds for the whole batch, "
            f"got bounds that differ between its {low.shape[0]} entries"
        )
    low, high = low[0], high[0]
    if not (low < high).all():
        raise ValueError(
            f"AmortizedSVGDActor: action_spec must have low < high, "
            f"got low={low.tolist()}, high={high.tolist()}"
        )
    return low.clone(), high.clone()
