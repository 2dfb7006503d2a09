"""The loop of on-policy populations: collect, update, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.checkpoint import GlobalRNGState
from torchrl.collectors import Collector

from ..bookkeeping.checkpoint import Checkpoints, read_metadata
from ..bookkeeping.collector_state import CollectorState
from ..bookkeeping.console import print_above, progress_bar
from ..bookkeeping.guards import catch_interrupt, check_losses
from ..bookkeeping.progress import Progress
from ..bookkeeping.run import Run
from ..figures.kernel_image import kernel_image, kernel_matrix
from .agent import PopulationAgent, training_returns

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["OnPolicySettings", "return_metrics", "train_on_policy"]


@dataclass(frozen=True)
class OnPolicySettings:
    """Numbers of the loop; all intervals count iterations (batches of data).

    Attributes:
        iterations: length of the run.
        log_interval: between log entries.
        eval_interval: between evaluations.
        checkpoint_interval: between checkpoints.

    Example:
        >>> OnPolicySettings(iterations=10).log_interval
        1
    """

    iterations: int
    log_interval: int = 1
    eval_interval: int = 20
    checkpoint_interval: int = 50

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 < value < math.inf:
                raise ValueError(f"OnPolicySettings: {name} must be positive, got {value}")


def return_metrics(returns: Tensor) -> dict[str, float]:
    """Best, mean, mean of the four best, and every particle's return.

    The best of many particles profits from selection; the others show how the population fares.

    Args:
        returns: ``[n]``; NaN for particles that finished no episode.

    Example:
        >>> return_metrics(torch.tensor([1.0, 3.0]))
        {'max': 3.0, 'mean': 2.0, 'top4': 2.0, 'particle_0': 1.0, 'particle_1': 3.0}
    """
    values = returns.tolist()
    known = sorted((v for v in values if not math.isnan(v)), reverse=True)
    metrics = {f"particle_{i}": v for i, v in enumerate(values)}
    if not known:
        return metrics
    best = known[:4]
    summary = {"max": known[0], "mean": sum(known) / len(known), "top4": sum(best) / len(best)}
    return summary | metrics


def train_on_policy(
    agent: PopulationAgent,
    batches: Iterable[TensorDictBase],
    settings: OnPolicySettings,
    run: Run,
    evaluate: Callable[[], Tensor],
    resume: str | None = None,
) -> bool:
    """Train until the iterations are spent, or Ctrl-C.

    Progress and evaluations are printed; metrics go to ``run``; checkpoints hold all that a
    resumed run needs to have the losses of an uninterrupted one: particles, critics, optimizer,
    temperature, random numbers and, of batched worlds, the episodes. Simulators start from a
    reset.

    Args:
        agent: the population and its update.
        batches: of data ``[n, E, T]``, from a collector that acts with the agent's actor: a
            :class:`WorldCollector` or TorchRL's. Of others a checkpoint has what they hold in
            ``state_dict``.
        settings: numbers of the loop.
        run: where results go; in a :class:`SeedRuns` each run gets the returns of its particles.
        evaluate: returns of every particle ``[n]``; called every ``eval_interval`` iterations. The
            checkpoint with the highest mean over the particles is kept.
        resume: checkpoint or run directory to start from.

    Returns:
        bool: True if the run is complete, False if it was interrupted.

    Raises:
        FloatingPointError: if a loss is not finite, naming term and iteration.
        OSError: if a checkpoint cannot be written, naming the directory.
        FileNotFoundError: if there is no checkpoint at ``resume``.
        ValueError: if the checkpoint holds another architecture.

    Example:
        >>> import tempfile
        >>> from torchrl.objectives import ReinforceLoss
        >>> from torchrl_stein.envs import CartpoleEnv
        >>> from torchrl_stein.objectives import SteinPolicyLoss
        >>> from torchrl_stein.training import (
        ...     WorldCollector, make_gaussian_actor, make_linear_critic
        ... )
        >>> env = CartpoleEnv((3, 2), seed=0)
        >>> actor, critic = make_gaussian_actor(env, 3, [8]), make_linear_critic(env, 3)
        >>> loss = SteinPolicyLoss(ReinforceLoss(actor, critic))
        >>> agent = PopulationAgent(
        ...     actor, critic, False, loss, torch.optim.Adam(loss.parameters(), lr=1e-3)
        ... )
        >>> batches = WorldCollector(env, actor, frames_per_batch=60, total_frames=120)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(Path(folder) / "run", config={})
        ...     settings = OnPolicySettings(iterations=2)
        ...     train_on_policy(agent, batches, settings, run, evaluate=lambda: torch.zeros(3))
        iteration     2  test return: max 0.0  top4 0.0  mean 0.0  (0.0 min left)
        True
    """
    loop = _Loop(agent, batches, settings, run, evaluate)
    if resume is not None:
        loop.restore(resume)
    done = loop.progress.updates
    bar = progress_bar(settings.iterations, done, "iterations")
    with bar, catch_interrupt() as stop:
        for data in islice(batches, max(0, settings.iterations - done)):
            loop.iterate(data, bar)
            bar.update()
            if stop.requested:
                break
    path = loop.save()
    if stop.requested:
        print(f"Stopped. To go on: resume={path}")  # noqa: T201
    return not stop.requested


def _components(agent: PopulationAgent, batches: Iterable[TensorDictBase]) -> dict[str, Any]:
    """What of an agent has a state, beside its loss, and where the episodes are."""
    parts = {
        "actor": agent.actor,  # by itself too, for those who only want to act
        "optimizer": agent.optimizer,
    }
    if agent.birth_death is not None:
        parts["birth_death"] = agent.birth_death
    if agent.trust_region is not None:
        parts["trust_region"] = agent.trust_region.loss
        parts["trust_region_updater"] = agent.trust_region.updater
    if isinstance(batches, Collector):
        parts["collector"] = CollectorState(batches)
    elif hasattr(batches, "state_dict"):
        parts["collector"] = batches
    return parts


class _Loop:
    """State and steps of one run of :func:`train_on_policy`."""

    def __init__(
        self,
        agent: PopulationAgent,
        batches: Iterable[TensorDictBase],
        settings: OnPolicySettings,
        run: Run,
        evaluate: Callable[[], Tensor],
    ) -> None:
        self.agent, self.settings, self.run, self.evaluate = agent, settings, run, evaluate
        self.progress = Progress()
        self.checkpoints = Checkpoints(
            run.directory / "checkpoints",
            loss=agent.loss,
            config=run.config,
            others=_components(agent, batches)
            | {"progress": self.progress, "rng": GlobalRNGState()},
        )
        self.eval_return: float | None = None  # since the last checkpoint
        self.returns: list[float] = []
        self.latest: tuple[TensorDictBase, TensorDictBase] | None = None  # losses and their data
        self.logged = self.first = 0
        self.clock = self.begin = time.perf_counter()

    def restore(self, path: str) -> None:
        """Go on where a checkpoint was written."""
        self.checkpoints.restore(path)
        self.returns = read_metadata(path).get("returns", [])
        self.logged = self.first = self.progress.updates

    def check(self) -> None:
        """Stop if the latest losses are not finite."""
        if self.latest is not None:
            check_losses(self.latest[0], self.progress.updates, self.latest[1])

    def save(self) -> Path:
        """Write a checkpoint with the last test returns of its particles."""
        self.check()
        path = self.checkpoints.save(self.progress.frames, self.eval_return, returns=self.returns)
        self.eval_return = None
        return path

    def iterate(self, data: TensorDictBase, bar: tqdm) -> None:
        """One iteration, and what is due after it."""
        losses, figures = self.agent.update(data)
        self.latest = losses, data
        if self.returns and self.agent.parents is not None:
            # A copy has the return of its parent until the next evaluation.
            self.returns = [self.returns[parent] for parent in self.agent.parents.tolist()]
        self.progress.updates += 1
        self.progress.frames += data.numel()
        updates, settings = self.progress.updates, self.settings
        last = updates == settings.iterations
        if updates % settings.log_interval == 0 or last:
            self.check()
            self.log(data, losses, figures)
        if updates % settings.eval_interval == 0 or last:
            self.report(bar)
        if updates % settings.checkpoint_interval == 0:
            self.save()

    def log(
        self, data: TensorDictBase, losses: TensorDictBase, figures: Mapping[str, Tensor]
    ) -> None:
        scalars = {k: v for k, v in losses.items() if v.ndim == 0} | dict(figures)
        values = torch.stack([v.float() for v in scalars.values()]).tolist()
        metrics = {f"train/{k}": v for k, v in zip(scalars, values, strict=True)}
        if "scale" in data:
            metrics["train/scale"] = data["scale"].mean().item()
        now = time.perf_counter()
        done = self.progress.updates
        metrics["time/iterations_per_s"] = (done - self.logged) / (now - self.clock)
        self.logged, self.clock = done, now
        self.run.log(metrics, self.progress.frames)
        self.log_returns("train", training_returns(data))

    def log_returns(self, kind: str, returns: Tensor) -> dict[str, float]:
        """To every run those of its own particles; of their summaries, means over the runs."""
        runs = self.run.runs
        found = [return_metrics(own) for own in returns.chunk(len(runs))]
        for run, metrics in zip(runs, found, strict=True):
            known = {f"{kind}/return_{k}": v for k, v in metrics.items() if not math.isnan(v)}
            run.log(known, self.progress.frames // len(runs))
        summaries = {k: [m.get(k, math.nan) for m in found] for k in ("max", "top4", "mean")}
        means = {k: sum(values) / len(values) for k, values in summaries.items()}
        if len(runs) > 1:
            known = {f"{kind}/return_{k}": v for k, v in means.items() if not math.isnan(v)}
            self.run.log(known, self.progress.frames)
        return means

    def report(self, bar: tqdm) -> None:
        returns = self.evaluate()
        self.returns = returns.tolist()
        metrics = self.log_returns("test", returns)
        self.eval_return = metrics["mean"]
        done = self.progress.updates
        pace = (time.perf_counter() - self.begin) / (done - self.first)
        left = pace * (self.settings.iterations - done)
        summary = "  ".join(f"{k} {v:.1f}" for k, v in metrics.items())
        line = f"iteration {done:>5}  test return: {summary}  ({left / 60:.1f} min left)"
        print_above(bar, line)
        self.show(returns)

    def show(self, returns: Tensor) -> None:
        """What is more than a number: how the particles fare, and how they interact."""
        known, frames = returns[returns.isfinite()], self.progress.frames
        if len(known):
            self.run.log_histogram("test/returns", known, frames)
        kernel = kernel_matrix(self.agent.loss)
        if kernel.isfinite().all():  # that it diverged is said where losses are looked at
            self.run.log_image("test/kernel", kernel_image(kernel), frames)
