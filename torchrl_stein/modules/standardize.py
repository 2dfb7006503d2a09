"""Standardising a quantity particle by particle."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from tensordict.utils import NestedKey
from torch import Tensor

from torchrl_stein._checks import check_count, check_keys, check_number

__all__ = ["StandardizePerParticle"]

# Entries by which TorchRL marks steps that its losses leave out.
_MASKS: tuple[NestedKey, ...] = (("collector", "mask"), "shifted_valid")


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
        TypeError: if ``eps`` is no number.
        KeyError: if the entry is missing, or the mask that ``mask_key`` names.
        ValueError: if ``eps`` < 0 or the entry has one value per row, as after flattening
            ``[n, E, T]``: all would be 0.

    Source: the released code of Liu et al. 2017 (arXiv:1704.02399).

    Example:
        >>> import torch
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
