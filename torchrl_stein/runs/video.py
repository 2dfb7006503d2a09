"""One episode of a policy as a video."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs import EnvBase, GymWrapper
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from torchrl_stein.envs import BatchedEnv

from .evaluation import base_env, isolated_draws
from .loggers import Recorder
from .rendering import prepare_rendering
from .settings import Environment
from .tasks import make_configured_task

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
    recorder: Recorder,
    policy: TensorDictModuleBase,
    task: Environment,
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
        recorder: keeps the video.
        policy: acts.
        task: the environment.
        max_steps: an episode still running then is cut; on a machine without a graphics card a
            frame of MuJoCo takes up to a second. 0: no video.
        seed: of the start.
        device: where the policy acts.
        exploration: whether it samples.
        name: of the video.

    Returns:
        Path | None: the MP4, if there is one.
    """
    if max_steps == 0:
        return None
    env = None
    try:
        with isolated_draws(seed):
            env = _make_visible_task(task, seed, device)
            frames = record_episode(env, policy, max_steps, exploration)
        return recorder.log_video(name, frames, _frames_per_second(env))
    except Exception as error:  # drivers raise what they like
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        recorder.print(f"no video: {reason}")
        return None
    finally:
        if env is not None:
            env.close()


def _make_visible_task(task: Environment, seed: int, device: str) -> EnvBase:
    env = make_configured_task(task, 1, device=device, seed=seed)
    if not isinstance(base_env(env), GymWrapper):  # worlds draw themselves, without render_mode
        return env
    env.close()
    options = {**task.options, "render_mode": "rgb_array"}
    visible = task.model_copy(update={"options": options})
    return make_configured_task(visible, 1, device=device, seed=seed)


def _painter(env: EnvBase) -> Callable[[TensorDictBase], Tensor]:
    """What draws the state after a step, ``[H, W, 3]``."""
    base = base_env(env)
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
    base = base_env(env)
    if isinstance(base, BatchedEnv):
        return 1.0 / getattr(base.world, "time_step", 1.0 / _FPS)
    return float(base.metadata.get("render_fps") or _FPS)
