"""The loop of off-policy algorithms: collect, store, update, evaluate, save."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import EnvBase, RewardScaling, RewardSum, TransformedEnv

from .checkpoint import Checkpoints
from .guards import StopFlag, catch_interrupt, check_losses
from .off_policy_agent import OffPolicyAgent, OffPolicySettings
from .progress import Progress
from .run import Run

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["train_off_policy"]


class _ReturnMeter:
    """Mean return of the training episodes that ended since the last reading, without a sync."""

    def __init__(self, device: torch.device | None) -> None:
        self._totals = torch.zeros(2, device=device)

    def add(self, data: TensorDictBase) -> None:
        done = data.get(("next", "done"))
        total = data.get(("next", "episode_reward")) * done
        self._totals += torch.stack([total.sum(), done.sum()])

    def read(self) -> float | None:
        total, count = self._totals.tolist()
        self._totals.zero_()
        return total / count if count else None


def train_off_policy(
    agent: OffPolicyAgent,
    env: EnvBase,
    settings: OffPolicySettings,
    run: Run,
    evaluate: Callable[[], dict[str, float]],
    resume: str | None = None,
) -> bool:
    """Train until the frames are spent, or Ctrl-C.

    Progress and evaluations are printed; metrics go to ``run``; checkpoints hold networks,
    optimizer, schedule, replay buffer and random numbers. A resumed run continues with all of
    these; its environments start from a reset.

    Args:
        agent: the algorithm.
        env: batched environment.
        settings: numbers of the loop.
        run: where results go.
        evaluate: returns metrics by name; called every ``eval_interval`` updates.
        resume: checkpoint or run directory to start from.

    Returns:
        bool: True if the run is complete, False if it was interrupted.

    Raises:
        FloatingPointError: if a loss is not finite, naming term and step. No checkpoint holds
            what came after.
        FileNotFoundError: if there is no checkpoint at ``resume``.
        ValueError: if the checkpoint holds another architecture.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from torchrl.modules import ValueOperator
        >>> from torchrl.objectives import SoftUpdate
        >>> from torchrl_stein import AmortizedSVGDActor, SoftQLoss
        >>> from torchrl_stein.envs import MultiGoalEnv
        >>> from torchrl_stein.training import make_mlp, make_optimizer
        >>> env = MultiGoalEnv((8,), seed=0)
        >>> actor = AmortizedSVGDActor(make_mlp(4, 2, [16]), action_spec=env.action_spec)
        >>> qvalue = ValueOperator(make_mlp(4, 1, [16]), in_keys=["observation", "action"])
        >>> loss = SoftQLoss(actor, qvalue).make_value_estimator(gamma=0.99)
        >>> optimizer, scheduler = make_optimizer(
        ...     (loss.parameters(), 1e-3), updates=8, final_fraction=1.0
        ... )
        >>> target = SoftUpdate(loss, tau=0.01)
        >>> agent = OffPolicyAgent(actor, actor, loss, optimizer, scheduler, target)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(Path(folder) / "run", config={})
        ...     train_off_policy(agent, env, OffPolicySettings(64), run, evaluate=dict)
        True
    """
    loop = _Loop(agent, env, settings, run, evaluate)
    if resume is not None:
        loop.checkpoints.restore(resume)
    with catch_interrupt() as stop:
        loop.train(stop)
    loop.check_latest()  # on an accelerator not every update was looked at
    path = loop.checkpoints.save(loop.progress.frames)
    if stop.requested:
        print(f"Stopped. To go on: resume={path}")  # noqa: T201
    return not stop.requested


class _Loop:
    """State and steps of one run of :func:`train_off_policy`."""

    def __init__(
        self,
        agent: OffPolicyAgent,
        env: EnvBase,
        settings: OffPolicySettings,
        run: Run,
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        self.agent, self.env, self.settings, self.run = agent, env, settings, run
        self.evaluate = evaluate
        self.buffer = make_buffer(settings, env.device)
        self.progress = Progress()
        self.meter = _ReturnMeter(env.device)
        self.clock = time.perf_counter()
        self.check_latest: Callable[[], None] = lambda: None
        components = {
            "optimizer": agent.optimizer,
            "scheduler": agent.scheduler,
            "target_updater": agent.target_updater,
            "buffer": self.buffer,
            "progress": self.progress,
            "rng": GlobalRNGState(),
        }
        if agent.trust_region is not None:
            components["trust_region"] = agent.trust_region.loss
        self.checkpoints = Checkpoints(
            run.directory / "checkpoints", loss=agent.loss, config=run.config, others=components
        )

    def train(self, stop: StopFlag) -> None:
        from tqdm import tqdm  # an extra: only recipes need it

        settings, progress = self.settings, self.progress
        frames_left = settings.total_frames - progress.frames
        if frames_left <= 0:
            print(f"Nothing left to train: {progress.frames} frames are done")  # noqa: T201
            return
        env = self.env
        if env.full_observation_spec.get("episode_reward", None) is None:
            env = TransformedEnv(env, RewardSum())
        collector = Collector(
            env,
            self.agent.explorer,
            frames_per_batch=self.env.numel(),
            total_frames=frames_left,
            init_random_frames=max(0, settings.warmup_frames - progress.frames),
            auto_register_policy_transforms=False,
        )
        # disable=None: a bar on a terminal, plain lines in a log file.
        bar = tqdm(
            total=settings.total_frames,
            initial=progress.frames,
            unit=" steps",
            unit_scale=True,
            mininterval=0.5,
            dynamic_ncols=True,
            disable=None,
        )
        try:
            with bar:
                for data in collector:
                    self.buffer.extend(data.reshape(-1))
                    self.meter.add(data)
                    progress.frames += data.numel()
                    bar.update(data.numel())
                    if progress.frames > settings.warmup_frames:
                        for _ in range(settings.updates_per_step):
                            self.learn(bar)
                    if stop.requested:
                        break
        finally:
            collector.shutdown()

    def learn(self, bar: tqdm) -> None:
        """One update, and what is due after it."""
        batch = self.buffer.sample()
        losses = self.agent.update(batch)
        self.progress.updates += 1
        log, evaluation, checkpoint = (
            self.progress.updates % interval == 0
            for interval in (
                self.settings.log_interval,
                self.settings.eval_interval,
                self.settings.checkpoint_interval,
            )
        )
        learnt_from = batch.select(*self.agent.loss.in_keys, strict=False)
        self.check_latest = partial(check_losses, losses, self.progress.updates, learnt_from)
        if log or checkpoint or _looking_is_free(batch):
            self.check_latest()
        if log:
            self.log(losses)
        if evaluation:
            self.report(bar)
        if checkpoint:
            self.checkpoints.save(self.progress.frames)

    def log(self, losses: TensorDictBase) -> None:
        names = [name for name, value in losses.items() if value.ndim == 0]
        values = torch.stack([losses.get(name).float() for name in names]).tolist()
        metrics = {f"train/{name}": value for name, value in zip(names, values, strict=True)}
        metrics["train/lr"] = float(self.agent.optimizer.param_groups[0]["lr"])
        episode_return = self.meter.read()
        if episode_return is not None:
            metrics["train/return"] = episode_return
        now = time.perf_counter()
        metrics["time/updates_per_s"] = self.settings.log_interval / (now - self.clock)
        self.clock = now
        self.run.log(metrics, self.progress.frames)

    def report(self, bar: tqdm) -> None:
        metrics = self.evaluate()
        self.run.log({f"eval/{name}": v for name, v in metrics.items()}, self.progress.frames)
        summary = "  ".join(f"{name} {value:.3g}" for name, value in metrics.items())
        bar.write(f"update {self.progress.updates:>6}  {summary}")
        shown = [name for name in ("return", "goals_reached") if name in metrics]
        bar.set_postfix({name: f"{metrics[name]:.4g}" for name in shown}, refresh=False)


def _looking_is_free(batch: TensorDictBase) -> bool:
    # On the CPU; elsewhere reading a loss waits for the device.
    return batch.get(("next", "reward")).device.type == "cpu"


def make_buffer(settings: OffPolicySettings, device: torch.device | None) -> TensorDictReplayBuffer:
    """Uniform replay of transitions, with scaled rewards."""
    storage = LazyTensorStorage(settings.buffer_size, device=device or "cpu")
    buffer = TensorDictReplayBuffer(storage=storage, batch_size=settings.batch_size)
    if settings.reward_scale != 1.0:
        scale = RewardScaling(0.0, settings.reward_scale, in_keys=[("next", "reward")])
        buffer.append_transform(scale)
    return buffer
