"""What policy gradients subtract and divide by: a linear value function, and standard scores."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor, nn

from torchrl_stein._checks import (
    check_count,
    check_finite,
    check_keys,
    check_number,
    check_particles,
)

__all__ = ["LinearBaseline", "StandardizePerParticle"]

# Entries by which TorchRL marks steps that its losses leave out.
_MASKS: tuple[NestedKey, ...] = (("collector", "mask"), "shifted_valid")


class LinearBaseline(nn.Module):
    r"""Value functions linear in features of state and time, one per particle, fitted exactly.

    V_i(s, t) = w_i . [s, s^2, t/100, (t/100)^2, (t/100)^3, 1] with s clipped to +-10. The weights
    are buffers, fitted by :meth:`fit` in closed form and not by gradients; before the first fit
    the value is 0. Wrap it in a ValueOperator and it is the critic of any TorchRL loss.

    Args:
        num_particles: n, or a pair (S, n) for S seeds.
        observation_dim: O.
        ridge: weight of the penalty on |w|^2.

    Raises:
        TypeError, ValueError: if an argument is out of range, leading dimensions are not those of
            the particles or, in ``fit``, numbers on a CPU are not finite.

    Source: Duan et al. 2016 (arXiv:1604.06778), the baseline of the toolkit that the experiments
    of Liu et al. 2017 (arXiv:1704.02399) were made with.

    Example:
        >>> baseline = LinearBaseline(num_particles=2, observation_dim=3)
        >>> s, t = torch.randn(2, 50, 3), torch.arange(50.0).expand(2, 50).unsqueeze(-1)
        >>> baseline.fit(s, t, 5.0 * torch.ones(2, 50, 1))
        >>> bool((baseline(s, t) - 5.0).abs().max() < 1e-3)
        True
    """

    weight: Tensor

    def __init__(
        self,
        num_particles: int | tuple[int, ...],
        observation_dim: int,
        *,
        ridge: float = 1e-5,
    ) -> None:
        super().__init__()
        owner = "LinearBaseline"
        leading = check_particles(owner, num_particles)
        check_count(owner, observation_dim=observation_dim)
        check_number(owner, above=0, ridge=ridge)
        self.ridge = ridge
        self.register_buffer("weight", torch.zeros(*leading, 2 * observation_dim + 4))

    def forward(self, observation: Tensor, elapsed_steps: Tensor) -> Tensor:
        """Values ``[n, ..., 1]`` of ``[n, ..., O]`` and steps since the episode's start."""
        features = self._features(observation, elapsed_steps)
        *leading, width = self.weight.shape
        weight = self.weight.view(*leading, *(1,) * (features.ndim - self.weight.ndim), width)
        return (features * weight).sum(-1, keepdim=True)

    @torch.no_grad()
    def fit(self, observation: Tensor, elapsed_steps: Tensor, target: Tensor) -> None:
        """Least squares, particle by particle; ``target`` is what the values should be."""
        if target.shape != elapsed_steps.shape:
            raise ValueError(
                "LinearBaseline: target must have the shape of elapsed_steps, "
                f"{list(elapsed_steps.shape)}, got {list(target.shape)}"
            )
        numbers = {"observation": observation, "elapsed_steps": elapsed_steps, "target": target}
        check_finite("LinearBaseline", numbers)
        features = self._features(observation, elapsed_steps).double()
        leading = self.weight.ndim - 1
        features = features.flatten(leading, -2)
        gram = features.mT @ features
        gram.diagonal(dim1=-2, dim2=-1).add_(self.ridge)
        moment = features.mT @ target.double().flatten(leading, -2)
        # solve_ex: solve waits for the device to look for errors; a ridge leaves none
        self.weight.copy_(torch.linalg.solve_ex(gram, moment).result.squeeze(-1))

    def _features(self, observation: Tensor, elapsed_steps: Tensor) -> Tensor:
        *leading, width = self.weight.shape
        given = list(observation.shape)
        if given[: len(leading)] != leading or 2 * given[-1] + 4 != width:
            words = ", ".join(map(str, leading))
            raise ValueError(
                f"LinearBaseline: observation must have shape [{words}, ..., {(width - 4) // 2}] "
                f"(one leading row per particle), got {given}"
            )
        s = observation.clamp(-10.0, 10.0)
        t = elapsed_steps.to(s.dtype) / 100.0
        return torch.cat([s, s.square(), t, t.square(), t**3, torch.ones_like(t)], -1)


class StandardizePerParticle(TensorDictModuleBase):
    """(x - mean) / (std + eps) of an entry, over all dimensions but the first.

    TorchRL's own standardisation of advantages pools everything, so that a good particle would
    turn the advantages of all others negative; here particle i's advantages depend on particle
    i's data alone. The published temperatures of Stein variational policy gradients belong to
    advantages standardised in this way.

    Args:
        key: entry to replace, ``[n, ...]``; integers become floating-point numbers.
        num_leading: dimensions that tell particles apart: 1 for ``[n, ...]``, 2 for the
            ``[S, n, ...]`` of several seeds.
        eps: added to the standard deviation.
        mask_key: which boolean entry marks the steps that count, as ``loss_mask_key`` of TorchRL's
            losses: ``"auto"`` for the masks that TorchRL writes itself, a key, or None for no mask.
            The others become 0.

    Raises:
        KeyError: if the entry is missing, or the mask that ``mask_key`` names.
        TypeError, ValueError: if ``eps`` < 0, or the entry has one value per particle: all would
            be 0.

    Source: the released code of Liu et al. 2017 (arXiv:1704.02399).

    Example:
        >>> from tensordict import TensorDict
        >>> data = TensorDict({"advantage": torch.randn(4, 100, 1)}, [4, 100])
        >>> deviation = StandardizePerParticle()(data)["advantage"].std((1, 2), correction=0)
        >>> bool((deviation - 1.0).abs().max() < 1e-5)
        True
    """

    def __init__(
        self,
        key: NestedKey = "advantage",
        *,
        num_leading: int = 1,
        eps: float = 1e-8,
        mask_key: NestedKey | None = "auto",
    ) -> None:
        super().__init__()
        check_number("StandardizePerParticle", at_least=0, eps=eps)
        check_count("StandardizePerParticle", num_leading=num_leading)
        self.key, self.eps, self.mask_key = key, eps, mask_key
        self.num_leading = num_leading
        self.in_keys = [key]
        self.out_keys = [key]

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Replace the entry."""
        check_keys("StandardizePerParticle", tensordict, [self.key])
        value: Tensor = tensordict.get(self.key)
        if value.numel() == value.shape[: self.num_leading].numel() > 1:
            raise ValueError(
                f"StandardizePerParticle: {self.key!r} must be [n, ...] with several values per "
                f"particle, got shape {list(value.shape)}; flatten after standardising, not before"
            )
        exact = value.to(torch.promote_types(value.dtype, torch.float32))
        kept = self._kept(tensordict, exact)
        mean = self._mean(exact, kept)
        centred = exact - mean
        scale = self._mean(centred.square(), kept).sqrt()
        # Equal entries differ by rounding, which must not be blown up to size 1.
        rounding = 10 * torch.finfo(exact.dtype).eps * mean.abs()
        result = torch.where(scale <= rounding, 0.0, centred / (scale + self.eps))
        if kept is not None:
            result = torch.where(kept, result, 0.0)
        dtype = value.dtype if value.is_floating_point() else exact.dtype
        return tensordict.set(self.key, result.to(dtype))

    def _kept(self, tensordict: TensorDictBase, value: Tensor) -> Tensor | None:
        """The masks together, in the shape of the value; None where there is none."""
        if self.mask_key is None:
            return None
        keys = _MASKS if self.mask_key == "auto" else (self.mask_key,)
        if self.mask_key != "auto":
            check_keys("StandardizePerParticle", tensordict, keys)
        kept = None
        for mask in (tensordict.get(key, None) for key in keys):
            if mask is not None:
                mask = mask.bool().squeeze(-1) if mask.ndim > value.ndim else mask.bool()
                mask = mask.reshape(*mask.shape, *(1,) * (value.ndim - mask.ndim)).expand_as(value)
                kept = mask if kept is None else kept & mask
        return kept

    def _mean(self, value: Tensor, kept: Tensor | None) -> Tensor:
        """Over all dimensions but the leading ones, of what is kept."""
        others = tuple(range(self.num_leading, value.ndim))
        if kept is None:
            return value.mean(others, keepdim=True)
        count = kept.sum(others, keepdim=True).clamp_min(1)
        return torch.where(kept, value, 0.0).sum(others, keepdim=True) / count
