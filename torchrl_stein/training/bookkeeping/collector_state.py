"""Where the episodes of a collector are, so that a resumed run goes on in the middle of them."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, TransformedEnv

from torchrl_stein.envs import BatchedEnv

__all__ = ["CollectorState", "warn_of_fresh_episodes"]


class CollectorState:
    """The part of TorchRL's Collector that its own ``state_dict`` leaves out.

    After ``Collector.load_state_dict`` (TorchRL 0.14) the environments start from a reset, and
    the losses of a resumed run differ from those of an uninterrupted one. Here a
    :class:`~torchrl_stein.envs.BatchedEnv`, with transforms or without, goes on in the middle of
    its episodes: all that it knows is in the data that the collector carries from step to step,
    and in one generator. Simulators hide what they know: they start from a reset, with other
    starts than those of the beginning of the run.

    Args:
        collector: in this process.

    Example:
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> env = MultiGoalEnv((2,), seed=0)
        >>> collector = Collector(env, frames_per_batch=2, total_frames=10)
        >>> sorted(CollectorState(collector).state_dict())
        ['carrier', 'generator', 'transforms']
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def state_dict(self) -> dict[str, Any]:
        """Episodes and generator of a batched world; of simulators a seed to start with."""
        env = self._collector.env
        state: dict[str, Any] = {"transforms": _transforms_state(env)}
        world = _world_of(env)
        if world is None:
            # A digest: to draw a seed would change the run that goes on.
            return state | {"seed": zlib.crc32(torch.get_rng_state().numpy().tobytes()) >> 1}
        carrier = self._collector._carrier.to_dict()
        return state | {"carrier": carrier, "generator": world.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there.

        Args:
            state: of a collector with as many environments; with another number the episodes
                start anew, with a warning.
        """
        env, old = self._collector.env, self._collector._carrier
        if isinstance(env, TransformedEnv):
            env.load_state_dict(state["transforms"])
        world = _world_of(env)
        if world is None:
            env.set_seed(state["seed"])
            self._collector.reset()
            return
        saved, here = state["carrier"]["done"].shape[:-1], env.batch_size
        if saved != here:
            warn_of_fresh_episodes(saved, here)
            return
        self._collector._carrier = TensorDict(state["carrier"], here, device=old.device)
        world.generator.set_state(state["generator"].cpu())


def warn_of_fresh_episodes(saved: Sequence[int], here: Sequence[int]) -> None:
    """Say that episodes start anew, because the checkpoint has another number of them.

    Args:
        saved: batch size in the checkpoint.
        here: batch size of the run that resumes.
    """
    warnings.warn(
        f"the checkpoint has environments {list(saved)}, here are {list(here)}: "
        "their episodes start anew",
        stacklevel=3,
    )


def _world_of(env: EnvBase) -> BatchedEnv | None:
    while isinstance(env, TransformedEnv):
        env = env.base_env
    return env if isinstance(env, BatchedEnv) else None


def _transforms_state(env: EnvBase) -> dict[str, Any]:
    return dict(env.state_dict()) if isinstance(env, TransformedEnv) else {}
