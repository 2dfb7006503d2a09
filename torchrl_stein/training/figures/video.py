"""One episode of a policy as a video."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase, GymWrapper, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from torchrl_stein.envs import BatchedEnv

from ..bookkeeping.run import Run
from ..tasks import make_configured_task
from .rendering import prepare_rendering

__all__ = ["log_episode", "record_episode"]

_FPS = 30.0  # of simulators that do not say theirs


@torch.no_grad()
def record_episode(
    env: EnvBase,
    policy: TensorDictModuleBase,
    max_steps: int,
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,
) -> Tensor:
    """Pictures of one episode: of its start, and after each of its steps.

    Args:
        env: with one row, of batch size ``[1]``: a :class:`~torchrl_stein.envs.BatchedEnv` whose
            world has ``render``, or simulators of gymnasium with ``render_mode="rgb_array"``, as
            ``make_task(name, (1,), options={"render_mode": "rgb_array"})`` returns them.
        policy: writes the action; one of several particles is an ``EnsemblePolicy``.
        max_steps: an episode still running then is cut.
        exploration: RANDOM samples from the policy, DETERMINISTIC takes its mode.

    Returns:
        Tensor: uint8 ``[T, H, W, 3]``, 1 < T <= max_steps + 1.

    Raises:
        ValueError: if ``env`` has not one row, or ``max_steps`` < 1.
        NotImplementedError: if the world or the simulator cannot draw itself.
        RuntimeError: if it is MuJoCo, which finds nothing to draw with.

    Example:
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.envs import CartpoleEnv
        >>> env = CartpoleEnv((1,), seed=0)
        >>> record_episode(env, RandomPolicy(env.action_spec), max_steps=5).shape
        torch.Size([6, 100, 200, 3])
    """
    if env.batch_size.numel() != 1:
        raise ValueError(
            f"record_episode: env must have one row, got batch size {list(env.batch_size)}"
        )
    if max_steps < 1:
        raise ValueError(f"record_episode: max_steps must be >= 1, got {max_steps}")
    draw = _painter(env)
    with set_exploration_type(exploration):
        now = env.reset()
        frames = [draw(now)]
        for _ in range(max_steps):
            after = env.step(policy(now))
            frames.append(draw(after["next"]))
            if after["next", "done"].all():
                break
            now = step_mdp(after)
    return torch.stack(frames)


def log_episode(
    run: Run,
    policy: TensorDictModuleBase,
    task: Mapping[str, Any],
    step: int,
    *,
    max_steps: int,
    seed: int = 0,
    device: str = "cpu",
    exploration: ExplorationType = ExplorationType.DETERMINISTIC,
    name: str = "eval/episode",
) -> Path | None:
    """Play one episode of a task and keep it as a video of the run.

    Never stops a run: where it cannot be drawn or encoded, one line says "no video" and why.

    Args:
        run: keeps the video, see :meth:`Run.log_video`.
        policy: acts.
        task: "name" and "options", and what else :func:`make_configured_task` takes.
        step: environment steps taken so far.
        max_steps: an episode still running then is cut; on a machine without a graphics card a
            frame of MuJoCo takes up to a second.
        seed: of the start.
        device: where the policy acts.
        exploration: whether it samples.
        name: of the video.

    Returns:
        Path | None: the MP4, if there is one.

    Example:
        >>> import tempfile
        >>> from torchrl.envs.utils import RandomPolicy
        >>> from torchrl_stein.envs import CartpoleEnv
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(Path(folder) / "run", config={})
        ...     policy = RandomPolicy(CartpoleEnv((1,)).action_spec)
        ...     task = {"name": "cartpole", "options": {}}
        ...     log_episode(run, policy, task, step=20, max_steps=5).name
        'episode_000000000020.mp4'
    """
    env = None
    try:
        env = _make_visible_task(task, seed, device)
        frames = record_episode(env, policy, max_steps, exploration)
        return run.log_video(name, frames, _frames_per_second(env), step)
    except Exception as error:  # drivers raise what they like
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        print(f"no video: {reason}", flush=True)  # noqa: T201
        return None
    finally:
        if env is not None:
            env.close()


def _make_visible_task(task: Mapping[str, Any], seed: int, device: str) -> EnvBase:
    env = make_configured_task(task, 1, device=device, seed=seed)
    if not isinstance(_base(env), GymWrapper):  # worlds draw themselves, without render_mode
        return env
    env.close()
    options = {**task["options"], "render_mode": "rgb_array"}
    return make_configured_task({**task, "options": options}, 1, device=device, seed=seed)


def _base(env: EnvBase) -> EnvBase:
    while isinstance(env, TransformedEnv):
        env = env.base_env
    return env


def _painter(env: EnvBase) -> Callable[[TensorDictBase], Tensor]:
    """What draws the state after a step, ``[H, W, 3]``."""
    base = _base(env)
    if isinstance(base, BatchedEnv):
        return lambda td: base.render(td.reshape(-1)[0]).cpu()
    if not isinstance(base, GymWrapper) or getattr(base, "render_mode", None) != "rgb_array":
        raise NotImplementedError(
            f"{type(base).__name__} cannot be drawn: it is neither a BatchedEnv nor simulators "
            'of gymnasium with render_mode="rgb_array"'
        )
    if _is_mujoco(base):
        prepare_rendering()
    return lambda td: torch.as_tensor(base.render()[0].copy())


def _is_mujoco(base: GymWrapper) -> bool:
    from gymnasium.envs.mujoco import MujocoEnv

    return isinstance(base.envs[0].unwrapped, MujocoEnv)


def _frames_per_second(env: EnvBase) -> float:
    base = _base(env)
    if isinstance(base, BatchedEnv):
        return 1.0 / getattr(base.world, "time_step", 1.0 / _FPS)
    return float(base.metadata.get("render_fps") or _FPS)
