"""What the off-policy loop is given: its numbers, and an algorithm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchrl.objectives import LossModule
from torchrl.objectives.utils import TargetNetUpdater

from ..compilation import CompileSettings, make_capturable
from ..trust_region import TrustRegion

__all__ = ["OffPolicyAgent", "OffPolicySettings"]


@dataclass(frozen=True)
class OffPolicySettings:
    """Numbers of the loop; frames are environment steps, summed over all environments.

    Attributes:
        total_frames: length of the run.
        warmup_frames: taken with uniform actions before the first update.
        updates_per_step: gradient steps per step of the batched environment.
        batch_size: transitions per update.
        buffer_size: transitions kept; memory is that large from the start, checkpoints grow with
            what is held.
        reward_scale: factor on the rewards that the loss sees; logged returns are unscaled.
        log_interval: updates between log entries.
        eval_interval: updates between evaluations.
        checkpoint_interval: updates between checkpoints.

    Example:
        >>> OffPolicySettings(total_frames=1000).batch_size
        128
    """

    total_frames: int
    warmup_frames: int = 0
    updates_per_step: int = 1
    batch_size: int = 128
    buffer_size: int = 200_000
    reward_scale: float = 1.0
    log_interval: int = 25
    eval_interval: int = 250
    checkpoint_interval: int = 500

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value < math.inf or (value == 0 and name != "warmup_frames"):
                raise ValueError(f"OffPolicySettings: {name} must be positive, got {value}")

    def updates(self, num_envs: int) -> int:
        """Number of gradient steps of the whole run.

        Args:
            num_envs: environment steps taken at a time.
        """
        steps = -(-self.total_frames // num_envs) - self.warmup_frames // num_envs
        return max(0, steps) * self.updates_per_step


@dataclass
class OffPolicyAgent:
    """What an algorithm brings to the loop.

    Attributes:
        policy: acts when evaluated.
        explorer: acts when data are collected.
        loss: with ``make_value_estimator`` called.
        optimizer: over the loss's parameters.
        scheduler: stepped once per update; its ``last_epoch`` counts them.
        target_updater: stepped when the actor is.
        trust_region: of the policy, or None.
        actor_interval: updates per step of the actor; 2 is the delay of TD3.
        anneal: called before each update with the number of updates done, or None.
    """

    policy: TensorDictModuleBase
    explorer: TensorDictModuleBase
    loss: LossModule
    optimizer: Optimizer
    scheduler: LRScheduler
    target_updater: TargetNetUpdater
    trust_region: TrustRegion | None = None
    actor_interval: int = 1
    anneal: Callable[[int], None] | None = None
    _fused_loss: Callable[[TensorDictBase], TensorDictBase] | None = field(
        default=None, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.actor_interval < 1:
            raise ValueError(
                f"OffPolicyAgent: actor_interval must be >= 1, got {self.actor_interval}"
            )
        self._learners = {learns: partial(self._learn, learns) for learns in (False, True)}

    def compile(self, settings: CompileSettings) -> None:
        """Compile or capture the updates to come; call it before the first.

        ``torch.compile`` fuses the losses, forward and backward; without graphs the optimizer
        stays as it is. A CUDA graph holds an update's whole :meth:`_learn`. Priorities, which
        losses write to the batch, do not come out of a graph.

        Args:
            settings: what to do.

        Raises:
            ValueError: if ``settings.cudagraphs`` and there is no CUDA device, the optimizer cannot
                be captured or a trust region's previous policy does not follow at every update.
        """
        settings.check(next(self.loss.parameters()).device)
        if settings.compile:
            self._fused_loss = settings.compiled(self.loss)
        if self.trust_region is not None:
            self.trust_region.compile(settings)
        if settings.cudagraphs:
            make_capturable(self.optimizer)
            self._learners = {k: settings.captured(f) for k, f in self._learners.items()}

    def components(self) -> dict[str, Any]:
        """What has a state that changes beside the loss, by name: for checkpoints.

        Exploration noise that goes from step to step is not here: TorchRL keeps it in the data.
        """
        parts = {
            "optimizer": self.optimizer,
            "scheduler": self.scheduler,
            "target_updater": self.target_updater,
        }
        if self.trust_region is not None:
            parts["trust_region"] = self.trust_region.loss
            parts["trust_region_updater"] = self.trust_region.updater
        return parts

    def update(self, batch: TensorDictBase) -> TensorDictBase:
        """One gradient step on all losses at once; each reaches only its own network.

        Args:
            batch: transitions ``[B]``.

        Returns:
            TensorDictBase: losses and diagnostics.
        """
        done = self.scheduler.last_epoch
        if self.anneal is not None:
            self.anneal(done)
        actor_learns = (done + 1) % self.actor_interval == 0
        losses = self._learners[actor_learns](batch)
        self.scheduler.step()
        if actor_learns:
            self.target_updater.step()
        return losses

    def _learn(self, actor_learns: bool, batch: TensorDictBase) -> TensorDictBase:
        """The tensor work of an update: a graph of it has no other effects.

        Whole: a gradient that one graph leaves and another one takes would be garbage in the
        update that captures both.
        """
        forward = self.loss if self._fused_loss is None else self._fused_loss
        losses = forward(batch)
        # Without a gradient, Adam leaves an actor that waits alone, with its moments.
        used = [k for k in losses.keys() if k.startswith("loss_")]  # noqa: SIM118
        sum(losses[k] for k in used if actor_learns or k != "loss_actor").backward()
        if self.trust_region is not None and actor_learns:
            losses.update(self.trust_region.backward(batch))
            self.trust_region.follow()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return losses.detach()
