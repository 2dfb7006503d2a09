"""A count that lives on the device, and what the host knows of it."""

from __future__ import annotations

from torch import Tensor

from torchrl_stein._torchrl import number_of_changes

__all__ = ["HostCount"]


class HostCount:
    """The value of an integer buffer, read from the device only after others wrote to it."""

    def __init__(self) -> None:
        self._seen: tuple[Tensor, int, int] | None = None  # buffer, its version, its value

    def advance(self, buffer: Tensor) -> int:
        """Add one in place.

        Args:
            buffer: an integer, ``[]``.

        Returns:
            int: its value afterwards. Waits for the device at the first call, and if the buffer
            was loaded, moved or assigned since the last one.
        """
        before = None
        if (
            self._seen is not None
            and self._seen[0] is buffer
            and self._seen[1] == number_of_changes(buffer)
        ):
            before = self._seen[2]
        value = (int(buffer) if before is None else before) + 1
        buffer.add_(1)
        self._seen = (buffer, number_of_changes(buffer), value)
        return value
