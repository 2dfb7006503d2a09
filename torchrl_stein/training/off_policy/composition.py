"""Composing policies: a sampler of the sum of Q-functions, without new data of the world."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from torchrl_stein.envs import MultiGoalWorld
from torchrl_stein.objectives import SoftQLoss

from .fine_tuning import read_component
from .optimizer import make_optimizer

__all__ = ["replayed_observations", "sum_of_worlds", "train_sampler"]

_OF_THE_ENVIRONMENT = ("horizon", "init_sigma")
_SHARED = ("distance_cost", "goal_threshold", "position_limit")


def replayed_observations(paths: Sequence[str | Path]) -> Tensor:
    """The states that several runs have been in: all observations of their replay buffers.

    Args:
        paths: checkpoints or run directories.

    Returns:
        Tensor: ``[N, observation]``.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if a checkpoint has no buffer, or it is empty.

    Example:
        >>> import tempfile
        >>> from torchrl_stein.training import Checkpoints, OffPolicySettings, ReplayState
        >>> from torchrl_stein.training.off_policy.replay import make_buffer
        >>> buffer = make_buffer(OffPolicySettings(total_frames=10, buffer_size=5), None)
        >>> _ = buffer.extend(TensorDict({"observation": torch.ones(3, 2)}, [3]))
        >>> parts = {"loss": torch.nn.Linear(2, 1), "others": {"buffer": ReplayState(buffer)}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Checkpoints(Path(folder), config={}, **parts).save(step=1)
        ...     replayed_observations([path, path]).shape
        torch.Size([6, 2])
    """
    states = []
    for path in paths:
        buffer = read_component(path, "buffer")
        if "transitions" not in buffer:
            raise ValueError(f"the replay buffer of {path} is empty")
        states.append(buffer["transitions"]["observation"])
    return torch.cat(states)


def train_sampler(
    loss: SoftQLoss,
    states: Tensor,
    *,
    updates: int,
    batch_size: int = 128,
    lr: float = 3e-3,
    final_lr_fraction: float = 0.05,
    log: Callable[[int, TensorDict], None] = lambda update, losses: None,
) -> None:
    """Train the sampler of a loss on its fixed Q-function, by amortized SVGD alone.

    Args:
        loss: whose actor learns.
        states: to draw from, ``[N, observation]``, on the loss's device.
        updates: number of steps.
        batch_size: states per step.
        lr: of Adam, decaying linearly.
        final_lr_fraction: of it, at the end.
        log: called with the number of the update and its losses.

    Example:
        >>> from torchrl.data import Bounded
        >>> from torchrl.modules import MLP, ValueOperator
        >>> from torchrl_stein.modules import AmortizedSVGDActor
        >>> actor = AmortizedSVGDActor(MLP(5, 2), action_spec=Bounded(-1.0, 1.0, shape=(2,)))
        >>> qvalue = ValueOperator(MLP(5, 1), in_keys=["observation", "action"])
        >>> loss = SoftQLoss(actor, qvalue, delay_qvalue=False)
        >>> train_sampler(loss, torch.randn(20, 3), updates=2)
    """
    optimizer, scheduler = make_optimizer(
        (loss.actor_network_params.parameters(), lr),
        updates=updates,
        final_fraction=final_lr_fraction,
    )
    for update in range(1, updates + 1):
        index = torch.randint(len(states), (batch_size,), device=states.device)
        losses = loss.actor_loss(TensorDict({"observation": states[index]}, [batch_size]))
        losses["loss_actor"].backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        log(update, losses.detach())


def sum_of_worlds(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The multi-goal world whose reward is the sum of those of several others.

    It exists where each part's goals are lines of a coordinate of its own, x = 5 of one and y = 3
    of the other, and no part ends or pays a bonus: squared distances to lines add up to those to
    their crossings, and the costs of actions add up.

    Args:
        parts: options of each world, see :class:`~torchrl_stein.envs.MultiGoalEnv`.

    Returns:
        dict: options, with the first part's horizon and the default start.

    Raises:
        ValueError: if there is no such world, naming the option.

    Example:
        >>> options = {"ends_at_goal": False, "goal_reward": 0.0, "action_cost": 15.0}
        >>> total = sum_of_worlds(
        ...     [{"goals": [[5, None]], **options}, {"goals": [[None, 3], [None, -3]], **options}]
        ... )
        >>> total["goals"], total["action_cost"]
        ([[5.0, 3.0], [5.0, -3.0]], 30.0)
    """
    worlds = [
        MultiGoalWorld(**{k: v for k, v in part.items() if k not in _OF_THE_ENVIRONMENT})
        for part in parts
    ]
    for world in worlds:
        if world.ends_at_goal or world.goal_reward != 0:
            raise ValueError(
                "composition: every part must have ends_at_goal false and goal_reward 0, got "
                f"{world.ends_at_goal} and {world.goal_reward}"
            )
    shared = {name: _the_same(name, worlds) for name in _SHARED}
    horizon = {"horizon": parts[0]["horizon"]} if "horizon" in parts[0] else {}
    return horizon | {
        "goals": [_crossing(lines) for lines in product(*(world.goals for world in worlds))],
        "goal_reward": 0.0,
        "action_cost": sum(world.action_cost for world in worlds),
        "ends_at_goal": False,
        **shared,
    }


def _the_same(name: str, worlds: Sequence[MultiGoalWorld]) -> float:
    values = {getattr(world, name) for world in worlds}
    if len(values) > 1:
        raise ValueError(f"composition: every part must have the same {name}, got {sorted(values)}")
    return values.pop()


def _crossing(lines: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The point that lines of different coordinates have in common."""
    point = []
    for axis in range(2):
        given = [line[axis] for line in lines if line[axis] is not None]
        if len(given) > 1:
            raise ValueError(
                "composition: goals of the parts must be lines of different coordinates, such as "
                f"(5, None) and (None, 3), got {[tuple(line) for line in lines]}"
            )
        point.append(given[0] if given else None)
    return point
