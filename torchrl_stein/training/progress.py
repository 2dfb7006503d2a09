"""How far a run is."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Progress"]


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
