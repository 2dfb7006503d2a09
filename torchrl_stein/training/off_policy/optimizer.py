"""What moves the parameters of an off-policy recipe: optimizer, schedule, target updates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR
from torchrl.objectives import HardUpdate, LossModule, SoftUpdate
from torchrl.objectives.utils import TargetNetUpdater

from .agent import OffPolicySettings

__all__ = ["linear_schedule", "make_optimizer", "make_updaters"]


def linear_schedule(optimizer: Optimizer, updates: int, final_fraction: float) -> LinearLR:
    """Every learning rate falls linearly and then stays; step it after each update.

    Args:
        optimizer: whose rates fall.
        updates: over which they do.
        final_fraction: of the first rate, where they end, in [0, 1].

    Raises:
        ValueError: if ``updates`` < 1 or ``final_fraction`` is outside [0, 1].

    Example:
        >>> from torch import nn
        >>> optimizer = Adam(nn.Linear(2, 1).parameters(), lr=1.0)
        >>> schedule = linear_schedule(optimizer, updates=2, final_fraction=0.5)
        >>> optimizer.step()
        >>> schedule.step()
        >>> schedule.get_last_lr()
        [0.75]
    """
    if updates < 1:
        raise ValueError(f"linear_schedule: updates must be >= 1, got {updates}")
    if not 0 <= final_fraction <= 1:
        raise ValueError(
            f"linear_schedule: final_fraction must be between 0 and 1, got {final_fraction}"
        )
    return LinearLR(optimizer, 1.0, final_fraction, updates)


def make_optimizer(
    *groups: tuple[Iterable[Tensor], float], updates: int, final_fraction: float
) -> tuple[Adam, LinearLR]:
    """One Adam over several groups of parameters, all rates decaying linearly.

    Args:
        *groups: parameters and their learning rate.
        updates: number of updates over which the rates decay.
        final_fraction: of the initial rate, reached at the end and kept; in [0, 1].

    Example:
        >>> from torch import nn
        >>> optimizer, scheduler = make_optimizer(
        ...     (nn.Linear(2, 1).parameters(), 1e-3), updates=10, final_fraction=0.1
        ... )
        >>> optimizer.param_groups[0]["lr"]
        0.001
    """
    rows = [{"params": list(parameters), "lr": lr} for parameters, lr in groups]
    optimizer = Adam(rows, fused=True)
    return optimizer, linear_schedule(optimizer, max(1, updates), final_fraction)


def make_updaters(
    loss: LossModule, critic: Iterable[Tensor], actor: Iterable[Tensor], config: Mapping[str, Any]
) -> tuple[Adam, LinearLR, TargetNetUpdater]:
    """Optimizer, schedule and target updates, as ``recipes/conf/off_policy.yaml`` has them.

    Args:
        loss: has target parameters.
        critic: parameters that learn at ``optim.lr_qvalue``.
        actor: parameters that learn at ``optim.lr_actor``.
        config: with the keys ``training``, ``env.num_envs`` and ``optim``.

    Raises:
        ValueError: if not exactly one of ``optim.target_update_interval`` (updates between hard
            copies) and ``optim.target_tau`` (rate of a moving average) is given.

    Returns:
        tuple: optimizer and schedule, see :func:`make_optimizer`, and the target updater.
    """
    optim = config["optim"]
    optimizer, scheduler = make_optimizer(
        (critic, optim["lr_qvalue"]),
        (actor, optim["lr_actor"]),
        updates=OffPolicySettings(**config["training"]).updates(config["env"]["num_envs"]),
        final_fraction=optim["final_lr_fraction"],
    )
    return optimizer, scheduler, _target_updater(loss, optim)


def _target_updater(loss: LossModule, optim: Mapping[str, Any]) -> TargetNetUpdater:
    interval, tau = optim["target_update_interval"], optim["target_tau"]
    if (interval is None) == (tau is None):
        raise ValueError(
            "optim: one of target_update_interval and target_tau must be null, got "
            f"{interval} and {tau}"
        )
    if tau is not None:
        return SoftUpdate(loss, tau=tau)
    return HardUpdate(loss, value_network_update_interval=interval)
