"""What policies that turn noise into actions of a box have in common."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, TensorSpec
from torchrl.envs.utils import ExplorationType, exploration_type

from torchrl_stein._checks import check_count
from torchrl_stein.functional import squash_to_box

from ._by_keyword import by_keyword, refuse_keywords
from ._network_inputs import image_dims, reads_vectors, takes_one_input, where_it_computes

__all__ = ["SamplingActor"]


class SamplingActor(TensorDictModuleBase):
    r"""Base class of policies a = squash(u(s, xi)): one draw per state, or many.

    Subclasses define :meth:`unsquashed` and, if they have a density,
    :meth:`sample_with_log_prob`. Losses work in the unsquashed space u; actions are
    ``low + (high - low) (tanh(u) + 1) / 2``.

    Args:
        action_spec: a finite ``Bounded`` spec of shape ``[A]``: ``env.action_spec_unbatched``. Of a
            longer shape, all but the last dimension are taken for the batch of a batched
            environment, with one set of bounds. An action that is a matrix looks the same, so that
            there is a warning, and an error where states have fewer batch dimensions.
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
        TypeError: if ``action_spec`` is not a floating-point ``Bounded`` spec, keys are no list of
            keys, a number is no integer, or the network takes other inputs.
        ValueError: if bounds are infinite, empty or differ between batch entries, if
            ``noise_dim`` < 1, or if ``out_keys`` does not hold exactly one key; at the call, if
            shapes do not fit.

    ``forward`` honours TorchRL's exploration type: RANDOM draws noise, every other type (MODE,
    DETERMINISTIC, ...) uses :meth:`fixed_noise`. It also takes observations by keyword, which is
    how ``torch.export`` calls it.

    Example:
        >>> from tensordict import TensorDict
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
        for name, keys in (("in_keys", in_keys), ("out_keys", out_keys)):
            _check_keys(owner, name, keys)
        if len(out_keys) != 1:
            raise ValueError(
                f"{owner}: out_keys must hold the one action key, got {list(out_keys)}"
            )
        self.in_keys, self.out_keys = list(in_keys), list(out_keys)
        low, high = _box(owner, action_spec)
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
            low, high = _inside(low, high, of_network.device, of_network.dtype)
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
        """Noise xi ~ N(0, I) for K samples per state.

        Args:
            tensordict: states, batch size ``[*B]``.
            num_samples: K.

        Returns:
            Tensor: ``[*B, K, noise_dim]``.

        Raises:
            ValueError: if K < 1.
        """
        check_count(type(self).__name__, num_samples=num_samples)
        shape = (*self.batch_shape(tensordict), num_samples, self.noise_dim)
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

    def observations(
        self, tensordict: TensorDictBase, batch: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The entries of ``in_keys``.

        Args:
            tensordict: states.
            batch: ``*B``, with which each of them begins. Default: :meth:`batch_shape`.

        Raises:
            KeyError: if one is missing.
            ValueError: if one does not begin with ``*B``, or is no vector for a network that
                concatenates.
        """
        values = self._read(tensordict)
        batch = self.batch_shape(tensordict) if batch is None else batch
        count = len(batch)
        for key, value in zip(self.in_keys, values, strict=True):
            if value.shape[:count] != torch.Size(batch) or (
                self._reads_vectors and value.ndim != count + 1
            ):
                form = "[*B, F]" if self._reads_vectors else "[*B, ...]"
                raise ValueError(
                    f"{type(self).__name__}: observation {key!r} must have shape {form} for batch "
                    f"size B = {list(batch)}, got {list(value.shape)}"
                )
        return values

    def ask(self, values: Sequence[Tensor]) -> Any:
        """The network's answer to observations and further inputs; concatenated if it takes one.

        Raises:
            ValueError: if shapes or dtypes do not suit the network.
        """
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

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SamplingActor:
        low, high = self.low, self.high
        super()._apply(fn, recurse)
        if self.low.dtype != low.dtype:  # rounded to nearest, which may be outside
            self.low, self.high = _inside(low, high, self.low.device, self.low.dtype)
        return self


def _check_keys(owner: str, name: str, keys: Any) -> None:
    """Require a list or tuple of keys."""
    if not isinstance(keys, (list, tuple)):
        raise TypeError(f"{owner}: {name} must be a list of keys, got {keys!r}")
    for key in keys:
        parts = key if isinstance(key, tuple) and key else (key,)
        if not all(isinstance(part, str) for part in parts):
            raise TypeError(f"{owner}: {name} must hold keys, str or tuples of str, got {key!r}")


def _inside(
    low: Tensor, high: Tensor, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Bounds in another dtype, rounded inwards: what is inside of them is so after casts, too."""

    def up(bound: Tensor) -> Tensor:
        near, wide = bound.to(dtype), torch.promote_types(bound.dtype, dtype)
        above = torch.nextafter(near, torch.full_like(near, torch.inf))
        return torch.where(near.to(wide) < bound.to(wide), above, near).to(device)

    return up(low), -up(-high)


def _box(owner: str, action_spec: TensorSpec) -> tuple[Tensor, Tensor]:
    """Bounds ``[A]`` of a finite box, or the error that says why it is none."""
    if not isinstance(action_spec, Bounded) or not action_spec.dtype.is_floating_point:
        hint = ""
        if isinstance(action_spec, Composite):
            hint = "; take its leaf, such as env.action_spec_unbatched"
        elif isinstance(action_spec, TensorSpec) and not action_spec.dtype.is_floating_point:
            hint = "; for discrete actions take a ProbabilisticActor and SteinPolicyLoss"
        raise TypeError(
            f"{owner}: action_spec must be a floating-point Bounded spec (a box), "
            f"got {type(action_spec).__name__} of dtype {getattr(action_spec, 'dtype', None)}{hint}"
        )
    if action_spec.ndim < 1 or 0 in action_spec.shape:
        raise ValueError(
            f"{owner}: action_spec must have a last dimension A >= 1 and none of size 0, "
            f"got shape {list(action_spec.shape)}"
        )
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
    if action_spec.ndim > 1:
        warnings.warn(
            f"{owner}: action_spec should have shape [A], got {list(action_spec.shape)}; "
            f"{list(action_spec.shape[:-1])} is taken for the batch size of the environment, whose "
            f"actions then have A = {low.shape[0]}. Pass env.action_spec_unbatched to say so, and "
            "flatten an action that is a matrix.",
            stacklevel=4,
        )
    return low.clone(), high.clone()
