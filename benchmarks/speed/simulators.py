"""Simulators of gymnasium, one after the other: SimulatorEnv, TorchRL's wrapper, and vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from tensordict import TensorDictBase
from torchrl.envs import (
    Compose,
    DoubleToFloat,
    EnvBase,
    GymWrapper,
    RewardSum,
    StepCounter,
    TransformedEnv,
)

from benchmarks.speed.harness import Case, Roofline, interleave
from benchmarks.speed.peers import available
from torchrl_stein.envs import ParticleEnv, SimulatorEnv

GROUP = "Simulators"
ALONE = "their own steps alone, in a loop"
SIZES = {"InvertedPendulum-v5": (16, 2), "Hopper-v5": (5, 1), "HalfCheetah-v5": (5, 1)}
STEPS = 50
TARGETS = {"InvertedPendulum-v5": "3 x GymWrapper"}


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """All rows of this group."""
    for name, batch in SIZES.items():
        actions = _actions(name, batch)
        check_same_steps(name, batch, actions)
        ours = play(SimulatorEnv(_maker(name), batch, seed=0), actions)
        vector = gym.make_vec(name, batch[0] * batch[1], vectorization_mode="sync")
        theirs = {
            "GymWrapper": play(_wrapped(name, batch), actions),
            "SyncVectorEnv": _play_vector(vector, actions, seed=0),
            ALONE: _play_alone(name, actions),
        }
        if available("stable_baselines3"):
            theirs["DummyVecEnv"] = _play_dummy(name, actions)
        ours_ms, peers, _ = interleave(ours, theirs, device, repeats=1)
        figures = {"env steps/s": 1e3 * STEPS * batch[0] * batch[1] / ours_ms}
        target = TARGETS.get(name, "")
        words = f"{name}, {batch[0]} x {batch[1]}, {STEPS} steps"
        yield Case(GROUP, words, ours_ms, peers, target=target, figures=figures)


def play(env: EnvBase, actions: torch.Tensor) -> Callable[[], TensorDictBase]:
    """Steps of an environment, which resets the rows that end: the data of the last."""
    state = [env.reset()]

    def steps() -> TensorDictBase:
        for action in actions:
            data, state[0] = env.step_and_maybe_reset(state[0].set("action", action))
        return data

    return steps


def check_same_steps(name: str, batch: tuple[int, int], actions: torch.Tensor) -> None:
    """Compare what follows on the same starts; AssertionError if it differs."""
    found, expected = (
        play(env, actions[:5])().get("next")
        for env in (SimulatorEnv(_maker(name), batch, seed=0), _wrapped(name, batch))
    )
    for key in ("observation", "reward", "terminated", "elapsed_steps", "episode_reward"):
        torch.testing.assert_close(found[key], expected[key])


def _maker(name: str) -> Callable[[], gym.Env]:
    return lambda: gym.make(name, disable_env_checker=True)


def _actions(name: str, batch: tuple[int, int]) -> torch.Tensor:
    """Small ones, so that few episodes end."""
    env = SimulatorEnv(_maker(name), batch)
    torch.manual_seed(0)
    drawn = torch.stack([0.1 * env.action_spec.rand() for _ in range(STEPS)])
    env.close()
    return drawn


def _wrapped(name: str, batch: tuple[int, int]) -> EnvBase:
    """The same entries by TorchRL."""
    vector = gym.make_vec(
        name,
        batch[0] * batch[1],
        vectorization_mode="sync",
        wrappers=[lambda env: gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))],
        vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
    )
    transforms = Compose(
        DoubleToFloat(in_keys=["observation"]),
        StepCounter(step_count_key="elapsed_steps"),
        RewardSum(),
    )
    env = TransformedEnv(ParticleEnv(GymWrapper(vector), batch[0]), transforms)
    env.set_seed(0)
    return env


def _play_vector(vector: Any, actions: torch.Tensor, **reset: int) -> Callable[[], Any]:
    """Bare steps of a vector, whose actions are not rescaled."""
    vector.reset(**reset)
    rows = cycle(actions.flatten(1, 2).numpy())

    def steps() -> Any:
        for _ in range(STEPS):
            last = vector.step(next(rows))
        return last

    return steps


def _play_alone(name: str, actions: torch.Tensor) -> Callable[[], Any]:
    """What nobody saves who steps one simulator of gymnasium after the other; ends are reset."""
    rows = actions.flatten(1, 2).numpy()
    envs = [_maker(name)() for _ in rows[0]]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)

    def steps() -> Any:
        for own in rows:
            for env, action in zip(envs, own, strict=True):
                last = env.step(action)
                if last[2] or last[3]:
                    env.reset()
        return last

    return steps


def _play_dummy(name: str, actions: torch.Tensor) -> Callable[[], Any]:
    from stable_baselines3.common.vec_env import DummyVecEnv

    return _play_vector(DummyVecEnv([_maker(name)] * actions[0, ..., 0].numel()), actions)
