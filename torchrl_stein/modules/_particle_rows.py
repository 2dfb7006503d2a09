"""Whether row i of a batch belongs to particle i."""

from __future__ import annotations

import torch
from tensordict import TensorDictBase
from torch import Tensor

from torchrl_stein._checks import may_look

__all__ = ["check_rows"]


def check_rows(
    owner: str,
    tensordict: TensorDictBase,
    leading: torch.Size | int,
    first: int | None = None,
) -> None:
    """Require a batch ``[n, ...]`` and, where it says which particle made it, the right order.

    The entry "particle", integers ``[*B, 1]``, is written by ParticleEnv, WorldCollector and
    EnsemblePolicy. Nobody else needs to; a batch without it is taken at its word.

    Args:
        owner: who asks, for the message.
        tensordict: the batch.
        leading: n, or the leading dimensions of the population, ``(n,)`` or ``(S, n)``.
        first: number of the first particle in a larger population, which the entry may count from.
    """
    leading = torch.Size((leading,)) if isinstance(leading, int) else leading
    *seeds, n = leading
    if tensordict.batch_size[: len(leading)] != leading:
        words = f"dimension {n}" if not seeds else f"dimensions {list(leading)}"
        raise ValueError(
            f"{owner}: the batch must have leading {words} (row i belongs to particle i), "
            f"got batch size {list(tensordict.batch_size)}"
        )
    entry = tensordict.get("particle", None)
    if not isinstance(entry, Tensor) or entry.shape != (*tensordict.batch_size, 1):
        return  # none, or another thing of this name
    if entry.dtype not in (torch.int64, torch.int32) or not may_look(entry):
        return
    index = torch.arange(n).view(-1, *(1,) * (entry.ndim - len(leading)))
    wrong = entry != index
    if first and wrong.any():
        wrong = entry != index + first
    if wrong.any():
        place = tuple(wrong.flatten(len(leading)).any(-1).nonzero()[0].tolist())
        row = place[0] if len(place) == 1 else list(place)
        raise ValueError(
            f"{owner}: row i of the batch must hold data of particle i, but by its entry "
            f"'particle' row {row} holds data of {entry[place].unique().tolist()}; keep the "
            "leading dimension [n, ...] of the data where it is when you reshape, shuffle or "
            "stack it"
        )
