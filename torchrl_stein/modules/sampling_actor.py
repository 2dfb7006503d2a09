"""What policies that turn noise into actions of a box have in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase, dispatch
from tensordict.utils import NestedKey
from torch import Tensor
from torchrl.data import Bounded, TensorSpec
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein.functional import squash_to_box

__all__ = ["SamplingActor"]


class SamplingActor(TensorDictModuleBase):
    r"""Base class of policies a = squash(u(s, xi)): one draw per state, or many.

    Subclasses define :meth:`unsquashed` and, if they have a density,
    :meth:`sample_with_log_prob`. Losses work in the unsquashed space u; actions are
    ``low + (high - low) (tanh(u) + 1) / 2``.

    Args:
        action_spec: a finite ``Bounded`` spec; leading batch dimensions (``env.action_spec`` of a
            batched env) are fine if all entries have the same bounds.
        noise_dim: dimension of xi; None is A.
        in_keys: observation keys.
        out_keys: one key, the action's.

    Raises:
        TypeError: if ``action_spec`` is not a floating-point ``Bounded`` spec, or keys are a str.
        ValueError: if bounds are infinite, empty or differ between batch entries, if
            ``noise_dim`` < 1, or if ``out_keys`` does not hold exactly one key.

    ``forward`` honours TorchRL's exploration type: RANDOM draws noise, every other type (MODE,
    DETERMINISTIC, ...) uses :meth:`fixed_noise`.

    Example:
        >>> from tensordict import TensorDict
        >>> class Uniform(SamplingActor):
        ...     def unsquashed(self, tensordict, noise):
        ...         return noise
        >>> spec = Bounded(-1.0, 1.0, shape=(2,))
        >>> actor = Uniform(spec, None, ["observation"], ["action"])
        >>> actor.sample(TensorDict({"observation": torch.zeros(5, 3)}, [5]), 10).shape
        torch.Size([5, 10, 2])
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        action_spec: TensorSpec,
        noise_dim: int | None,
        in_keys: Sequence[NestedKey],
        out_keys: Sequence[NestedKey],
    ) -> None:
        super().__init__()
        owner = type(self).__name__
        low, high = _box(owner, action_spec)
        self.action_dim = low.shape[-1]
        self.noise_dim = self.action_dim if noise_dim is None else noise_dim
        if self.noise_dim < 1:
            raise ValueError(f"{owner}: noise_dim must be >= 1, got {noise_dim}")
        for name, keys in (("in_keys", in_keys), ("out_keys", out_keys)):
            if isinstance(keys, str):
                raise TypeError(f"{owner}: {name} must be a list of keys, got {keys!r}")
        if len(out_keys) != 1:
            raise ValueError(
                f"{owner}: out_keys must hold the one action key, got {list(out_keys)}"
            )
        self.in_keys, self.out_keys = list(in_keys), list(out_keys)
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
            noise = self.fixed_noise().expand(*tensordict.batch_size, 1, self.noise_dim)
        action = self.squash(self.unsquashed(tensordict, noise))
        return tensordict.set(self.out_keys[0], action.squeeze(-2))

    def fixed_noise(self) -> Tensor:
        """The sample that stands for all when nothing is to be drawn: xi = 0, ``[noise_dim]``."""
        return self.low.new_zeros(self.noise_dim)

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
            owner = type(self).__name__
            raise ValueError(f"{owner}: num_samples must be >= 1, got {num_samples}")
        shape = (*tensordict.batch_size, num_samples, self.noise_dim)
        return torch.randn(shape, device=self.low.device, dtype=self.low.dtype)

    def draw_noise_sets(self, tensordict: TensorDictBase, sizes: Sequence[int]) -> list[Tensor]:
        """Sets of noise that are independent of each other, whatever :meth:`draw_noise` couples.

        Args:
            tensordict: states, batch size ``[*B]``.
            sizes: K of each set.

        Returns:
            list: ``[*B, K, noise_dim]`` each.
        """
        return list(self.draw_noise(tensordict, sum(sizes)).split(list(sizes), -2))

    def unsquashed(self, tensordict: TensorDictBase, noise: Tensor) -> Tensor:
        """u(s, xi), before squashing.

        Args:
            tensordict: states, batch size ``[*B]``.
            noise: ``[*B, K, noise_dim]``.

        Returns:
            Tensor: ``[*B, K, A]``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define unsquashed")

    def squash(self, u: Tensor) -> Tensor:
        """Actions of u, ``[..., A]``, inside the box of ``action_spec``."""
        return squash_to_box(u, self.low, self.high)

    def sample(self, tensordict: TensorDictBase, num_samples: int) -> Tensor:
        """Draw K actions per state, whatever the exploration type.

        Args:
            tensordict: states, batch size ``[*B]``; not written to.
            num_samples: K >= 1.

        Returns:
            Tensor: ``[*B, K, A]``, differentiable in the policy's parameters.

        Raises:
            KeyError: if an observation key is missing.
            ValueError: if K < 1.
        """
        return self.squash(self.unsquashed(tensordict, self.draw_noise(tensordict, num_samples)))

    def sample_with_log_prob(
        self, tensordict: TensorDictBase, num_samples: int
    ) -> tuple[Tensor, Tensor]:
        """K actions per state ``[*B, K, A]`` and their log densities ``[*B, K]``."""
        raise NotImplementedError(f"{type(self).__name__} has no density")

    def observations(self, tensordict: TensorDictBase) -> list[Tensor]:
        """The entries of ``in_keys``.

        Raises:
            KeyError: if one is missing.
        """
        values = []
        for key in self.in_keys:
            value = tensordict.get(key, None)
            if value is None:
                held = ", ".join(sorted(map(str, tensordict.keys(True, True))))
                raise KeyError(
                    f"{type(self).__name__}: observation key {key!r} is missing, "
                    f"the tensordict holds {held}"
                )
            values.append(value)
        return values


def _box(owner: str, action_spec: TensorSpec) -> tuple[Tensor, Tensor]:
    """Bounds ``[A]`` of a finite box, or the error that says why it is none."""
    if not isinstance(action_spec, Bounded) or not action_spec.dtype.is_floating_point:
        raise TypeError(
            f"{owner}: action_spec must be a floating-point Bounded spec (a box), "
            f"got {type(action_spec).__name__} of dtype {getattr(action_spec, 'dtype', None)}"
        )
    if action_spec.ndim < 1:
        raise ValueError(f"{owner}: action_spec must have a last dimension A, got []")
    low, high = action_spec.space.low, action_spec.space.high
    if not (low.isfinite().all() and high.isfinite().all()):
        raise ValueError(
            f"{owner}: action_spec must have finite bounds, "
            f"got low={low.tolist()}, high={high.tolist()}"
        )
    low, high = low.reshape(-1, low.shape[-1]), high.reshape(-1, high.shape[-1])
    if not ((low == low[0]).all() and (high == high[0]).all()):
        raise ValueError(
            f"{owner}: action_spec must have one set of bounds for the whole batch, "
            f"got bounds that differ between its {low.shape[0]} entries"
        )
    low, high = low[0], high[0]
    if not (low < high).all():
        raise ValueError(
            f"{owner}: action_spec must have low < high, "
            f"got low={low.tolist()}, high={high.tolist()}"
        )
    return low.clone(), high.clone()
