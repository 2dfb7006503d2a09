"""Tasks by name: a vector of environments, or one whose row i belongs to particle i."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
import torch
from torchrl.data import Bounded, OneHot, TensorSpec
from torchrl.envs import (
    Compose,
    DoubleToFloat,
    EnvBase,
    RewardSum,
    SerialEnv,
    StepCounter,
    TransformedEnv,
)

from torchrl_stein.envs import (
    HARD_MAZE,
    MEDIUM_MAZE,
    SIMPLE_MAZE,
    BatchedEnv,
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    GoalMaze,
    GoalMazeEnv,
    GridWorldEnv,
    MountainCarEnv,
    MultiGoalEnv,
    ParticleEnv,
    SimpleSpreadEnv,
    SimulatorEnv,
)

from .command_line import first_line
from .settings import Environment
from .targets import find_environment_class

__all__ = ["ROBOTS", "goal_maze_of", "make_configured_task", "make_task"]

_MAZES = {"simple": SIMPLE_MAZE, "medium": MEDIUM_MAZE, "hard": HARD_MAZE}
_WORLDS: dict[str, Callable[..., BatchedEnv]] = {
    "cartpole": CartpoleEnv,
    "cartpole_swingup": CartpoleSwingUpEnv,
    "double_pendulum": DoublePendulumEnv,
    "mountain_car": MountainCarEnv,
    "multigoal": MultiGoalEnv,
    "simple_spread": SimpleSpreadEnv,
} | {f"goal_maze_{name}": partial(GoalMazeEnv, maze=maze) for name, maze in _MAZES.items()}
_DISCRETE_WORLDS: dict[str, Callable[..., BatchedEnv]] = {"grid_world": GridWorldEnv}

ROBOTS = {
    "ant_hallway_narrow": "torchrl_stein/AntHallwayNarrow-v0",
    "ant_hallway_wide": "torchrl_stein/AntHallwayWide-v0",
    "ant_maze": "torchrl_stein/AntMaze-v0",
    "ant_pretrain": "torchrl_stein/AntPretrain-v0",
    "ant_umaze": "torchrl_stein/AntUMaze-v0",
    "swimmer_finish_line": "torchrl_stein/SwimmerFinishLine-v0",
}
"""Short names of the package's MuJoCo tasks, and their ids."""


def make_task(
    name: str,
    batch_size: tuple[int, ...],
    *,
    device: str = "cpu",
    seed: int,
    options: Mapping[str, Any] | None = None,
    info: Sequence[str] = (),
    discrete: bool | None = False,
) -> EnvBase:
    """A batch of environments; of shape [n, E], row i belongs to particle i.

    All have "observation", actions in [-1, 1] (more is clipped) or, if they are discrete, one-hot,
    and "elapsed_steps"; of several agents, observations and actions are under "agents". Simulators
    of gymnasium run one after the other in this process.

    Args:
        name: "cartpole", "cartpole_swingup", "double_pendulum", "goal_maze_simple" (or medium or
            hard), "mountain_car", "multigoal", "simple_spread", a robot task of this package such
            as "ant_maze", or the id of a gymnasium environment whose actions are continuous and
            whose observations are vectors; else ValueError.
        batch_size: [n, E], particles and environments of each, or [B].
        device: where tensors live.
        seed: of the starts.
        options: further arguments of the environment.
        info: numbers or vectors of gymnasium's ``info`` to carry beside the observation, in single
            precision. The environment must report them after a reset too.
        discrete: whether actions must be, as those of "grid_world" are; None: either kind will do.
    """
    worlds = {False: _WORLDS, True: _DISCRETE_WORLDS, None: _WORLDS | _DISCRETE_WORLDS}[discrete]
    options = options or {}
    if name in worlds:
        if info:
            raise ValueError(f"env: {name!r} has no info, so {list(info)} cannot be carried")
        try:
            return worlds[name](batch_size, device, seed=seed, **options)
        except TypeError as error:
            raise ValueError(f"env.options of {name}: {error}") from error
    if ":" in name:  # gymnasium would import the module before the colon
        raise ValueError(f"env must be the id of a registered environment, got {name!r}")
    # The checker would look at every step.
    kept = {"disable_env_checker": True, **options}
    try:
        make = partial(gym.make, ROBOTS.get(name, name), **kept)
        env = SimulatorEnv(make, batch_size, device, seed=seed, info=info)
    except (gym.error.Error, ImportError, OSError, TypeError, ValueError) as error:
        if str(error).startswith("SimulatorEnv"):
            raise ValueError(f"env: {name!r}: {error}") from None
        raise ValueError(
            f"env must be one of {sorted(worlds if discrete else {*worlds, *ROBOTS})} or the id "
            f"of a gymnasium environment, got {name!r} ({first_line(error)})"
        ) from error
    try:
        _check_actions(f"env: {name!r}", env.action_spec, discrete)
    except ValueError:
        env.close()
        raise
    return env


def make_configured_task(
    task: Environment, rows: int | tuple[int, ...], *, device: str = "cpu", seed: int
) -> EnvBase:
    """The environment that settings describe: a task by name, or a class of TorchRL.

    ``rows`` is B, or the batch size [B] or [S, B]: row i of the latter belongs to seed i.

    With ``target``, the full name of a TorchRL environment class, that is called with the options
    instead, and ``info`` are entries it has beside its observation; ``batch_argument`` says how it
    is told the number of rows. None makes one simulator per row, stepped one after the other.
    ValueError if what is made does not fit.
    """
    batch_size = (rows,) if isinstance(rows, int) else rows
    if task.target is None:
        env = make_task(
            task.name,
            batch_size,
            device=device,
            seed=seed,
            options=task.options,
            info=task.info,
            discrete=task.discrete,
        )
        # Worlds leave it to us to add up rewards, for the return that is logged in training.
        return TransformedEnv(env, RewardSum()) if isinstance(env, BatchedEnv) else env
    rows = math.prod(batch_size)
    make = partial(find_environment_class(task.target, task.options), **task.options)
    try:
        if task.batch_argument is None:
            env = SerialEnv(rows, make)
        else:
            size = rows if task.batch_argument == "num_envs" else [rows]
            env = make(**{task.batch_argument: size})
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"env.options: {task.target}: {first_line(error)}") from error
    _check_environment(task.target, env, rows, task.info, task.discrete)
    if len(batch_size) > 1:
        env = ParticleEnv(env, batch_size[0])
    return _with_transforms(env.to(device), seed)


def goal_maze_of(task: Environment) -> GoalMaze | None:
    """The maze of a task with several goals, of our world or on MuJoCo; of another task None."""
    if task.target is not None:
        return None
    for name, maze in _MAZES.items():
        if task.name in (f"goal_maze_{name}", f"torchrl_stein/GoalMaze{name.title()}-v0"):
            return maze
    return None


def _check_environment(
    target: str, env: Any, rows: int, info: Sequence[str], discrete: bool | None
) -> None:
    if not isinstance(env, EnvBase):
        raise TypeError(
            f"env._target_: {target} must make a TorchRL environment, got {type(env).__name__}"
        )
    if env.numel() != rows:
        raise ValueError(
            f"env._target_: {target} must have {rows} rows, got batch size "
            f"{list(env.batch_size)}; see env.batch_argument"
        )
    _check_actions(f"env._target_: {target}", env.action_spec, discrete)
    observation = env.observation_spec.get("observation", None)
    held = sorted(env.observation_spec.keys(True, True), key=str)
    if observation is None or observation.ndim != env.ndim + 1:
        raise ValueError(f'env._target_: {target} must have a vector "observation", got {held}')
    missing = [key for key in info if key not in held]
    if missing:
        raise ValueError(f"env._target_: {target} has no {missing[0]!r} to record, it has {held}")


def _check_actions(owner: str, spec: TensorSpec, discrete: bool | None) -> None:
    box = isinstance(spec, Bounded) and spec.dtype.is_floating_point
    one_hot = isinstance(spec, OneHot)
    if not {False: box, True: one_hot, None: box or one_hot}[discrete]:
        kinds = {False: "a finite box of", True: "one-hot", None: "a finite box of or one-hot"}
        got = f"{type(spec).__name__} of shape {list(spec.shape)}"
        raise ValueError(f"{owner} must have {kinds[discrete]} actions, got {got}")


def _with_transforms(env: EnvBase, seed: int) -> TransformedEnv:
    """Steps, returns, single precision."""
    specs = env.observation_spec.items(True, True)
    doubles = [key for key, spec in specs if spec.dtype == torch.float64]
    transforms = [StepCounter(step_count_key="elapsed_steps"), RewardSum()]
    if doubles:
        transforms.insert(0, DoubleToFloat(in_keys=doubles))
    transformed = TransformedEnv(env, Compose(*transforms))
    transformed.set_seed(seed)
    return transformed
