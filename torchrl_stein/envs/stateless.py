"""What a world without state cannot do for TorchRL's transforms, said at the first reset."""

from __future__ import annotations

import sys
from types import FrameType

import torch
from torchrl.envs import EnvBase, FrameSkipTransform, TransformedEnv
from torchrl.envs.transforms import AutoResetTransform, Transform


def refuse_stateful_transforms(env: EnvBase) -> None:
    """Refuses the transforms around an environment that presume that it remembers where it is.

    ``FrameSkipTransform`` steps the environment with the tensordict of the first step again and
    again, and ``AutoResetTransform`` waits for it to reset itself. An environment whose state
    travels in the tensordict would repeat one step, and would never reset.

    To be called from ``_reset``. An environment is not told what stands around it; but whoever
    resets it is on the stack, also where that one is compiled, and a reset is rare enough to look.

    Args:
        env: who asks.

    Raises:
        ValueError: naming the transform and what to do instead.
    """
    if torch.compiler.is_compiling():
        return
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_reset":
            caller = frame.f_locals.get("self")
            if isinstance(caller, TransformedEnv):
                for transform in caller.transform.modules():
                    _refuse(type(env).__name__, transform)
        frame = frame.f_back


def _refuse(owner: str, transform: Transform) -> None:
    if isinstance(transform, FrameSkipTransform) and transform.frame_skip > 1:
        raise ValueError(
            f"{owner}: transforms must not include FrameSkipTransform, which repeats one step of a "
            f"world whose state travels in the tensordict; use BatchedEnv(ActionRepeatWorld(world, "
            f"{transform.frame_skip}), ...)"
        )
    if isinstance(transform, AutoResetTransform):
        raise ValueError(
            f"{owner}: transforms must not include AutoResetTransform (auto_reset=True), this "
            "environment does not reset itself; rollout and collectors reset it"
        )
