"""Bandwidth rules: callables from pairwise squared distances to h in k = exp(-|x - y|^2 / h)."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from torchrl_stein._checks import check_choice, check_count, check_floating, check_number, may_look

BandwidthRule = Callable[[Tensor, int], Tensor]
"""``rule(pairs, n) -> h``: squared distances of the distinct pairs ``[..., P]`` (no diagonal) and
the number n of particles that exert the force; returns h ``[...]`` > 0. Kernels call rules under
``torch.no_grad``."""

_DENOMINATORS: dict[str, Callable[[int], float]] = {
    "log(n+1)": lambda n: math.log(n + 1),
    "2log(n+1)": lambda n: 2.0 * math.log(n + 1),
    # One particle feels no other: log(1) = 0 means an infinitely wide kernel.
    "log(n)": lambda n: math.log(n),
}

# Fewer numbers are sorted out by torch before NumPy has been handed the tensor.
_PARTITION_SIZE = 4096


def check_rule(owner: str, name: str, rule: Any) -> float | BandwidthRule:
    """A positive number as a float, or a rule, a callable that is no class, as it is."""
    if isinstance(rule, (type, bool)) or not (callable(rule) or isinstance(rule, (Real, Tensor))):
        got = f"the class {rule.__name__}" if isinstance(rule, type) else repr(rule)
        raise TypeError(f"{owner}: {name} must be a number > 0 or a bandwidth rule, got {got}")
    if callable(rule):
        return rule
    number: dict[str, Any] = {name: rule}
    check_number(owner, above=0, **number)
    return float(rule)


def apply_rule(owner: str, rule: BandwidthRule, pairs: Tensor, n: int) -> Tensor:
    """What a rule returns, if that is a bandwidth: ``[...]`` or ``[]``, > 0, perhaps infinite."""
    h: Any = rule(pairs, n)
    if isinstance(h, bool) or not isinstance(h, (Tensor, Real)):
        raise TypeError(f"{owner}: the bandwidth rule {rule!r} must return a tensor, got {h!r}")
    h = torch.as_tensor(h, dtype=pairs.dtype, device=pairs.device)
    if h.shape not in (pairs.shape[:-1], ()):
        raise ValueError(
            f"{owner}: the bandwidth rule {rule!r} must return h of shape "
            f"{list(pairs.shape[:-1])}, got {list(h.shape)}"
        )
    if may_look(h) and h.numel() > 0:
        lowest = (h.min() if h.ndim else h).item()  # NaN where one is
        if not lowest > 0:
            if not bool(pairs.isfinite().all()):
                raise ValueError(f"{owner}: squared distances between the points must be finite")
            raise ValueError(
                f"{owner}: the bandwidth rule {rule!r} must return h > 0, got {lowest}"
            )
    return h


class _StatisticBandwidth:
    def __init__(
        self, denominator: str = "log(n+1)", *, scale: float = 1.0, floor: float = 1e-12
    ) -> None:
        check_choice(type(self).__name__, _DENOMINATORS, denominator=denominator)
        check_number(type(self).__name__, above=0, scale=scale, floor=floor)
        self.denominator, self.scale, self.floor = denominator, scale, floor

    def statistic(self, pairs: Tensor) -> Tensor:
        raise NotImplementedError

    def __call__(self, pairs: Tensor, n: int) -> Tensor:
        check_floating(type(self).__name__, pairs=pairs)
        check_count(type(self).__name__, n=n)
        if pairs.ndim == 0 or pairs.shape[-1] == 0:
            raise ValueError(
                f"{type(self).__name__}: pairs must be [..., P] with P >= 1, got shape "
                f"{list(pairs.shape)}"
            )
        divisor = _DENOMINATORS[self.denominator](n)
        if divisor == 0.0:
            return torch.full_like(pairs[..., 0], math.inf)
        h = self.statistic(pairs) / divisor
        return (h if self.scale == 1.0 else self.scale * h).clamp_min(self.floor)

    def __repr__(self) -> str:
        scale = "" if self.scale == 1.0 else f"scale={self.scale}, "
        return f"{type(self).__name__}({self.denominator!r}, {scale}floor={self.floor})"


class MedianBandwidth(_StatisticBandwidth):
    """h = median of squared distances / denominator: the median heuristic.

    Off-diagonal pairs only, each once; of an even number the lower middle one (``torch.median``).
    Published codes disagree by factors of two and more, hence the choice of denominator.

    Args:
        denominator: ``"log(n+1)"`` (Liu et al. 2017, section 5, and the released code of SVGD),
            ``"2log(n+1)"`` (the released code of Liu et al. 2017; Haarnoja et al. 2017, D.1, with
            distance in place of its square) or ``"log(n)"`` (Liu & Wang 2016).
        scale: factor of h; below 1 for a narrower kernel.
        floor: smallest h, in squared units of the particles: more than half of the pairs coincide.

    Source: Liu & Wang 2016 (arXiv:1608.04471), section 5. Differs: the zero diagonal is left out,
    and the default denominator is log(n + 1), which is not zero for n = 1.

    Example:
        >>> rule = MedianBandwidth("log(n)")
        >>> round(rule(torch.tensor([1.0, 2.0, 3.0]), 3).item(), 4)  # 2 / log 3
        1.8205
    """

    def statistic(self, pairs: Tensor) -> Tensor:
        """Lower median over the last dimension."""
        plain = type(pairs) is Tensor and pairs.dtype in (torch.float32, torch.float64)
        if not (plain and may_look(pairs) and pairs.numel() >= _PARTITION_SIZE):
            return pairs.median(-1).values
        # A partition by NumPy equals torch.median to the bit in a fifth of its time on a CPU.
        middle = (pairs.shape[-1] - 1) // 2
        array = pairs.detach().numpy().copy()
        array.partition(middle, axis=-1)
        median = torch.from_numpy(array[..., middle].copy())
        # It puts NaN last, where it would not be seen.
        return torch.where(pairs.sum(-1).isnan(), torch.nan, median)


class MeanBandwidth(_StatisticBandwidth):
    """h = mean of squared distances / denominator: cheap, since nothing is sorted or selected.

    Wider than the median rule where a few particles lie far out; close to it otherwise. Arguments
    as for :class:`MedianBandwidth`.

    Example:
        >>> round(MeanBandwidth("log(n+1)")(torch.tensor([1.0, 3.0]), 3).item(), 4)  # 2 / log 4
        1.4427
    """

    def statistic(self, pairs: Tensor) -> Tensor:
        """Mean over the last dimension."""
        return pairs.mean(-1)
