"""The replay buffer of the off-policy loop, and its part of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import RewardScaling

from .agent import OffPolicySettings

__all__ = ["ReplayState", "make_buffer"]


def make_buffer(settings: OffPolicySettings, device: torch.device | None) -> TensorDictReplayBuffer:
    """Uniform replay of transitions, with scaled rewards."""
    storage = LazyTensorStorage(settings.buffer_size, device=device or "cpu")
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=settings.batch_size)
    if settings.reward_scale != 1.0:
        scale = RewardScaling(0.0, settings.reward_scale, in_keys=[("next", "reward")])
        buffer.append_transform(scale)
    return buffer


class ReplayState:
    """A buffer as a component of a checkpoint, as large as what it holds and not as its capacity.

    TorchRL's own state of a buffer has the whole storage, and when it is loaded, its capacity
    silently becomes the saved one.

    Args:
        buffer: to save, or to fill; empty then.

    Example:
        >>> buffer = make_buffer(OffPolicySettings(total_frames=10, buffer_size=5), None)
        >>> _ = buffer.extend(TensorDict({"reward": torch.ones(3, 1)}, [3]))
        >>> other = make_buffer(OffPolicySettings(total_frames=10, buffer_size=5), None)
        >>> ReplayState(other).load_state_dict(ReplayState(buffer).state_dict())
        >>> len(other)
        3
    """

    def __init__(self, buffer: TensorDictReplayBuffer) -> None:
        self._buffer = buffer

    def state_dict(self) -> dict[str, Any]:
        """Capacity, transitions in the order of the storage, and where the next one goes."""
        buffer = self._buffer
        state: dict[str, Any] = {
            "capacity": buffer.storage.max_size,
            "writer": buffer.writer.state_dict(),
            "sampler": buffer.sampler.state_dict(),
        }
        if len(buffer) > 0:
            # A file of a slice would hold all of the storage that the slice is of.
            part = len(buffer) < buffer.storage.max_size
            held = buffer.storage[:]
            state["transitions"] = (held.clone() if part else held).to_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Fill the buffer.

        Raises:
            ValueError: if its capacity is another one.
        """
        buffer = self._buffer
        if state["capacity"] != buffer.storage.max_size:
            raise ValueError(
                f"training.buffer_size is {state['capacity']} in the checkpoint, it cannot become "
                f"{buffer.storage.max_size}"
            )
        if "transitions" in state:
            size = len(state["transitions"]["index"])
            buffer.storage.set(torch.arange(size), TensorDict(state["transitions"], [size]))
        buffer.writer.load_state_dict(state["writer"])
        buffer.sampler.load_state_dict(state["sampler"])
