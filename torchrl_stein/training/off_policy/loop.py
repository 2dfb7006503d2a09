"""The loop of off-policy algorithms: collect, store, update, evaluate, save."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from tensordict import TensorDictBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, RewardSum, TransformedEnv

from ..bookkeeping.checkpoint import Checkpoints
from ..bookkeeping.collector_state import CollectorState
from ..bookkeeping.console import print_above, progress_bar
from ..bookkeeping.guards import StopFlag, catch_interrupt, check_losses
from ..bookkeeping.progress import Progress, ReturnMeter
from ..bookkeeping.run import Run
from .agent import OffPolicyAgent, OffPolicySettings
from .replay import ReplayState, make_buffer

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["train_off_policy"]


def train_off_policy(
    agent: OffPolicyAgent,
    env: EnvBase,
    settings: OffPolicySettings,
    run: Run,
    evaluate: Callable[[], dict[str, float]],
    resume: str | None = None,
) -> bool:
    """Train until the frames are spent, or Ctrl-C.

    Progress and evaluations are printed; metrics go to ``run``; checkpoints hold all that a
    resumed run needs to have the losses of an uninterrupted one: networks, optimizer, schedule,
    replay buffer, random numbers and, of batched worlds, the episodes. Simulators start from a
    reset.

    Args:
        agent: the algorithm.
        env: batched environment.
        settings: numbers of the loop.
        run: where results go.
        evaluate: returns metrics by name; called every ``eval_interval`` updates. The checkpoint
            with the highest "return" is kept.
        resume: checkpoint or run directory to start from.

    Returns:
        bool: True if the run is complete, False if it was interrupted.

    Raises:
        FloatingPointError: if a loss is not finite, naming term and step. No checkpoint holds
            what came after.
        OSError: if a checkpoint cannot be written, naming the directory.
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
        >>> actor = AmortizedSVGDActor(make_mlp(4, 2, [16]), action_spec=env.action_spec_unbatched)
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
    try:
        if resume is not None:
            loop.restore(resume)
        with catch_interrupt() as stop:
            loop.train(stop)
        path = loop.save()
    finally:
        loop.collector.shutdown()
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
        self.agent, self.settings, self.run = agent, settings, run
        self.evaluate = evaluate
        self.buffer = make_buffer(settings, env.device)
        self.progress = Progress()
        self.meter = ReturnMeter(env.device)
        self.eval_return: float | None = None  # since the last checkpoint
        self.clock = self.begin = time.perf_counter()
        self.first = 0  # frames of the run that this one resumes
        self.check_latest: Callable[[], None] = lambda: None
        if env.full_observation_spec.get("episode_reward", None) is None:
            env = TransformedEnv(env, RewardSum())
        self.collector = Collector(
            env,
            agent.explorer,
            frames_per_batch=env.numel(),
            total_frames=settings.total_frames,
            init_random_frames=settings.warmup_frames,
            auto_register_policy_transforms=False,
            track_traj_ids=False,
        )
        self.checkpoints = Checkpoints(
            run.directory / "checkpoints",
            loss=agent.loss,
            config=run.config,
            others=agent.components()
            | {
                "buffer": ReplayState(self.buffer),
                "collector": CollectorState(self.collector),
                "meter": self.meter,
                "progress": self.progress,
                "rng": GlobalRNGState(),
            },
        )

    def restore(self, path: str) -> None:
        """Go on where a checkpoint was written."""
        self.checkpoints.restore(path)
        self.first = self.progress.frames
        counted = {"frames": self.progress.frames, "iter": 0}
        self.collector.load_state_dict(counted, strict=False)  # the rest is restored
        if self.agent.anneal is not None and self.progress.updates:
            self.agent.anneal(self.progress.updates - 1)  # holds until the next update

    def save(self) -> Path:
        """Write a checkpoint, whose losses are known to be numbers."""
        self.check_latest()
        path = self.checkpoints.save(self.progress.frames, self.eval_return)
        self.eval_return = None
        return path

    def train(self, stop: StopFlag) -> None:
        settings, progress = self.settings, self.progress
        if progress.frames >= settings.total_frames:
            print(f"Nothing left to train: {progress.frames} frames are done")  # noqa: T201
            return
        with progress_bar(settings.total_frames, progress.frames, "steps") as bar:
            for data in self.collector:
                self.buffer.extend(data.reshape(-1))
                self.meter.add(data)
                progress.frames += data.numel()
                bar.update(data.numel())
                if progress.frames > settings.warmup_frames:
                    self.learn_and_save(bar)
                if stop.requested:
                    break

    def learn_and_save(self, bar: tqdm) -> None:
        """The updates of one step; a checkpoint between two of them would lose the others."""
        interval, before = self.settings.checkpoint_interval, self.progress.updates
        for _ in range(self.settings.updates_per_step):
            self.learn(bar)
        if self.progress.updates // interval > before // interval:
            self.save()

    def learn(self, bar: tqdm) -> None:
        """One update, and what is due after it."""
        batch = self.buffer.sample()
        losses = self.agent.update(batch)
        self.progress.updates += 1
        log, evaluation = (
            self.progress.updates % interval == 0
            for interval in (self.settings.log_interval, self.settings.eval_interval)
        )
        learnt_from = batch.select(*self.agent.loss.in_keys, strict=False)
        self.check_latest = partial(check_losses, losses, self.progress.updates, learnt_from)
        if log or _looking_is_free(batch):
            self.check_latest()
        if log:
            self.log(losses)
        if evaluation:
            self.run.log_histogram("train/actions", batch["action"], self.progress.frames)
            self.report(bar)

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
        self.eval_return = metrics.get("return")
        self.run.log({f"eval/{name}": v for name, v in metrics.items()}, self.progress.frames)
        summary = "  ".join(f"{name} {value:.3g}" for name, value in metrics.items())
        progress = self.progress
        pace = (time.perf_counter() - self.begin) / (progress.frames - self.first)
        left = pace * max(0, self.settings.total_frames - progress.frames) / 60
        print_above(bar, f"update {progress.updates:>6}  {summary}  ({left:.1f} min left)")
        shown = [name for name in ("return", "goals_reached") if name in metrics]
        bar.set_postfix({name: f"{metrics[name]:.4g}" for name in shown}, refresh=False)


def _looking_is_free(batch: TensorDictBase) -> bool:
    # On the CPU; elsewhere reading a loss waits for the device.
    return batch.get(("next", "reward")).device.type == "cpu"
