"""Standardising a quantity particle by particle."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

__all__ = ["StandardizePerParticle"]


class StandardizePerParticle(TensorDictModuleBase):
    """(x - mean) / (std + eps) of an entry, over all dimensions but the first.

    TorchRL's own standardisation of advantages pools everything, so that a good particle would
    turn the advantages of all others negative; here particle i's advantages depend on particle
    i's data alone. The published temperatures of Stein variational policy gradients belong to
    advantages standardised in this way.

    Args:
        key: entry to replace, ``[n, ...]``.
        eps: added to the standard deviation.

    Raises:
        KeyError: if the entry is missing.
        ValueError: if it has one value per row, as after flattening ``[n, E, T]``: all would be 0.

    Source: the released code of Liu et al. 2017 (arXiv:1704.02399).

    Example:
        >>> import torch
        >>> from tensordict import TensorDict
        >>> data = TensorDict({"advantage": torch.randn(4, 100, 1)}, [4, 100])
        >>> deviation = StandardizePerParticle()(data)["advantage"].std((1, 2), correction=0)
        >>> bool((deviation - 1.0).abs().max() < 1e-5)
        True
    """

    def __init__(self, key: NestedKey = "advantage", *, eps: float = 1e-8) -> None:
        super().__init__()
        self.key = key
        self.eps = eps
        self.in_keys = [key]
        self.out_keys = [key]

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Replace the entry."""
        value: Tensor | None = tensordict.get(self.key, None)
        if value is None:
            raise KeyError(f"StandardizePerParticle: the batch lacks {self.key!r}")
        if value.numel() == value.shape[0] > 1:
            raise ValueError(
                f"StandardizePerParticle: {self.key!r} must be [n, ...] with several values per "
                f"particle, got shape {list(value.shape)}; flatten after standardising, not before"
            )
        others = tuple(range(1, value.ndim))
        exact = value.to(torch.promote_types(value.dtype, torch.float32))
        mean = exact.mean(others, keepdim=True)
        centred = exact - mean
        scale = centred.square().mean(others, keepdim=True).sqrt()
        # Equal entries differ by rounding, which must not be blown up to size 1.
        rounding = 10 * torch.finfo(exact.dtype).eps * mean.abs()
        result = torch.where(scale <= rounding, 0.0, centred / (scale + self.eps))
        return tensordict.set(self.key, result.to(value.dtype))
