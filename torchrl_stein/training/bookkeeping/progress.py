"""How far a run is, and what its training episodes earn."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tensordict import TensorDictBase
from torch import Tensor

__all__ = ["Progress", "ReturnMeter"]


class Progress:
    """Counters of a run, part of every checkpoint.

    Attributes:
        frames: environment steps taken, summed over all environments.
        updates: updates (off-policy) or iterations (on-policy) made.

    Example:
        >>> Progress().state_dict()
        {'frames': 0, 'updates': 0}
    """

    def __init__(self) -> None:
        self.frames = self.updates = 0

    def state_dict(self) -> dict[str, int]:
        """Both counters."""
        return {"frames": self.frames, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore both counters."""
        self.frames, self.updates = int(state["frames"]), int(state["updates"])


class ReturnMeter:
    """Mean return of the training episodes that ended since the last reading, without a sync.

    Args:
        device: of the data.

    Example:
        >>> from tensordict import TensorDict
        >>> done, total = torch.tensor([[True], [False]]), torch.tensor([[5.0], [2.0]])
        >>> meter = ReturnMeter(None)
        >>> meter.add(TensorDict({"next": {"done": done, "episode_reward": total}}, [2]))
        >>> meter.read()
        5.0
    """

    def __init__(self, device: torch.device | None) -> None:
        self._totals = torch.zeros(2, device=device)

    def add(self, data: TensorDictBase) -> None:
        """Take in data with "done" and "episode_reward" under "next"."""
        done = data.get(("next", "done"))
        total = data.get(("next", "episode_reward")) * done
        self._totals += torch.stack([total.sum(), done.sum()])

    def read(self) -> float | None:
        """The mean, or None if no episode ended; and begin anew."""
        total, count = self._totals.tolist()
        self._totals.zero_()
        return total / count if count else None

    def state_dict(self) -> dict[str, Tensor]:
        """What was taken in since the last reading."""
        return {"totals": self._totals}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore it."""
        self._totals.copy_(state["totals"])
