"""The picture that a finished run of an off-policy recipe leaves."""

from __future__ import annotations

from typing import Any

from tensordict import TensorDict
from torch import Tensor

from torchrl_stein.envs import MultiGoalEnv

from .evaluation import Episodes
from .loggers import Recorder
from .multigoal_picture import draw_multigoal
from .robot_traces import draw_robot_traces
from .settings import OffPolicySettings

__all__ = ["draw_run"]


def draw_run(
    recorder: Recorder, settings: OffPolicySettings, episodes: Episodes, loss: Any
) -> None:
    """Goals and Q of the multi-goal world, or the ways of a robot from above; else nothing.

    Args:
        recorder: of the run, whose directory gets the picture.
        settings: of the run.
        episodes: to draw.
        loss: its policy, ``actor_network``, and ``qvalue`` are drawn if they are those of soft
            Q-learning.
    """
    assert recorder.directory is not None, "track() comes first"
    if settings.env.name == "multigoal" and hasattr(loss, "qvalue"):

        def states(s: Tensor) -> TensorDict:
            return TensorDict({"observation": s}, s.shape[:1])

        path = draw_multigoal(
            recorder.directory / "multigoal.png",
            MultiGoalEnv((1,), settings.device, **settings.env.options),
            episodes,
            qvalue=lambda s, a: loss.qvalue(states(s), a),
            sample=lambda s, k: loss.actor_network.sample(states(s), k).detach(),
        )
    elif "centre_of_mass" in settings.env.info:
        path = draw_robot_traces(recorder.directory / "traces.png", settings.env, episodes)
    else:
        return
    print(f"Picture: {path}")  # noqa: T201
