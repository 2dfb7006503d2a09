"""The loop of on-policy populations: collect, update, evaluate, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.checkpoint import GlobalRNGState

from .checkpoint import Checkpoints, read_metadata
from .guards import catch_interrupt, check_losses
from .population import PopulationAgent, training_returns
from .progress import Progress
from .run import Run

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

    Progress and evaluations are printed; metrics go to ``run``; checkpoints hold every particle,
    critic, the optimizer, the temperature and random numbers. A resumed run continues with all of
    these; its environments start from a reset.

    Args:
        agent: the population and its update.
        batches: of data ``[n, E, T]``, from a collector that acts with the agent's actor.
        settings: numbers of the loop.
        run: where results go.
        evaluate: returns of every particle ``[n]``; called every ``eval_interval`` iterations.
        resume: checkpoint or run directory to start from.

    Returns:
        bool: True if the run is complete, False if it was interrupted.

    Raises:
        FloatingPointError: if a loss is not finite, naming term and iteration.
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
    loop = _Loop(agent, settings, run, evaluate)
    if resume is not None:
        loop.restore(resume)
    left = max(0, settings.iterations - loop.progress.updates)
    with catch_interrupt() as stop:
        for data in islice(batches, left):
            loop.iterate(data)
            if stop.requested:
                break
    path = loop.save()
    if stop.requested:
        print(f"Stopped. To go on: resume={path}")  # noqa: T201
    return not stop.requested


class _Loop:
    """State and steps of one run of :func:`train_on_policy`."""

    def __init__(
        self,
        agent: PopulationAgent,
        settings: OnPolicySettings,
        run: Run,
        evaluate: Callable[[], Tensor],
    ) -> None:
        self.agent, self.settings, self.run, self.evaluate = agent, settings, run, evaluate
        self.progress = Progress()
        components = {
            "actor": agent.actor,  # by itself too, for those who only want to act
            "optimizer": agent.optimizer,
            "progress": self.progress,
            "rng": GlobalRNGState(),
        }
        if agent.birth_death is not None:
            components["birth_death"] = agent.birth_death
        if agent.trust_region is not None:
            components["trust_region"] = agent.trust_region.loss
        self.checkpoints = Checkpoints(
            run.directory / "checkpoints", loss=agent.loss, config=run.config, others=components
        )
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
        return self.checkpoints.save(self.progress.frames, returns=self.returns)

    def iterate(self, data: TensorDictBase) -> None:
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
            self.report()
        if updates % settings.checkpoint_interval == 0:
            self.save()

    def log(
        self, data: TensorDictBase, losses: TensorDictBase, figures: Mapping[str, Tensor]
    ) -> None:
        scalars = {k: v for k, v in losses.items() if v.ndim == 0} | dict(figures)
        values = torch.stack([v.float() for v in scalars.values()]).tolist()
        metrics = {f"train/{k}": v for k, v in zip(scalars, values, strict=True)}
        returns = return_metrics(training_returns(data))
        metrics |= {f"train/return_{k}": v for k, v in returns.items() if not math.isnan(v)}
        if "scale" in data:
            metrics["train/scale"] = data["scale"].mean().item()
        now = time.perf_counter()
        done = self.progress.updates
        metrics["time/iterations_per_s"] = (done - self.logged) / (now - self.clock)
        self.logged, self.clock = done, now
        self.run.log(metrics, self.progress.frames)

    def report(self) -> None:
        returns = self.evaluate()
        self.returns = returns.tolist()
        metrics = return_metrics(returns)
        self.run.log({f"test/return_{k}": v for k, v in metrics.items()}, self.progress.frames)
        done = self.progress.updates
        pace = (time.perf_counter() - self.begin) / (done - self.first)
        left = pace * (self.settings.iterations - done)
        summary = "  ".join(f"{k} {metrics.get(k, math.nan):.1f}" for k in ("max", "top4", "mean"))
        line = f"iteration {done:>5}  test return: {summary}  ({left / 60:.1f} min left)"
        print(line, flush=True)  # noqa: T201
