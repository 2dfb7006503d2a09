"""The replay buffer of the off-policy loop, and how it comes back from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import RewardScaling

from .off_policy_agent import OffPolicySettings

__all__ = ["BufferState", "make_buffer"]


def make_buffer(settings: OffPolicySettings, device: torch.device | None) -> TensorDictReplayBuffer:
    """Uniform replay of transitions, with scaled rewards."""
    capacity = min(settings.buffer_size, settings.total_frames)
    storage = LazyTensorStorage(capacity, device=device or "cpu")
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=settings.batch_size)
    if settings.reward_scale != 1.0:
        scale = RewardScaling(0.0, settings.reward_scale, in_keys=[("next", "reward")])
        buffer.append_transform(scale)
    return buffer


class BufferState:
    """A replay buffer as a component of a checkpoint.

    TorchRL reads a buffer only into one of the same capacity. A run that goes on for longer has
    a larger one: then the newest transitions that fit are stored anew.
    """

    def __init__(self, buffer: TensorDictReplayBuffer) -> None:
        self._buffer = buffer

    def dump(self, path: Path) -> None:
        """Write the buffer."""
        self._buffer.dumps(path)

    def load(self, path: Path) -> None:
        """Read a buffer of any capacity."""
        rows = TensorDict.load_memmap(path / "storage")
        capacity = self._buffer.storage.max_size
        if len(rows) == capacity:
            self._buffer.loads(path)
            return
        filled = json.loads((path / "storage/storage_metadata.json").read_text())["len"]
        oldest = json.loads((path / "writer/metadata.json").read_text())["cursor"]
        order = torch.arange(filled)
        if filled == len(rows):  # full: the next write would have gone to the oldest
            order = order.roll(-oldest)
        self._buffer.empty()
        self._buffer.extend(rows[order[-capacity:]])
