"""What stands around a training loop: directory, loggers, progress, checkpoints, the end."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from tensordict import TensorDictBase
from torchrl.checkpoint import GlobalRNGState
from torchrl.collectors import Collector
from torchrl.data import ReplayBuffer

from torchrl_stein.products import choose_float32_products

from . import checkpoint, process
from .checkpoint import Checkpoints, claim_directory, find_checkpoint, load_checkpoint
from .collect import CollectorState, ReplayState, ReturnMeter
from .loggers import Recorder, open_loggers
from .process import check_losses

if TYPE_CHECKING:
    from .settings import RecipeSettings

__all__ = ["Session"]

_WRAPPERS: dict[type, Any] = {ReplayBuffer: ReplayState, Collector: CollectorState}


class Session(Recorder):
    """A run of a recipe, around the loop that the recipe shows.

    ::

        with Session(settings) as session:
            ...                                            # environment, networks, loss, ...
            session.track(loss=loss, optim=optim, buffer=buffer, collector=collector)
            for data in session.batches(collector, total=settings.training.total_frames):
                ...                                        # learn
                session.log_update(losses, batch)
                if session.evaluation_due:
                    session.log_evaluation(evaluate(...))
            session.finish(metrics)

    Nothing is written before :meth:`track`, so that a setting that is refused leaves no directory.
    Checkpoints are written between two batches of data. Ctrl-C, SIGTERM and SIGHUP end the loop
    after a batch, with a checkpoint; a second one ends the run at once. SystemExit has one line
    about settings, the disk or losses that are no numbers, or code 128 + n after signal n.

    Of several processes that train together only that of rank 0 prints and writes.

    Attributes:
        steps: environment steps taken, of all environments together.
        updates: calls of :meth:`log_update`.
        seeds: for the training environment, evaluations and the final evaluation.
        notes: plain values for the next checkpoint.
        directory: of the run, once there is one.
    """

    def __init__(self, settings: RecipeSettings, *, rank: int = 0, processes: int = 1) -> None:
        super().__init__()
        process.prepare_cpu(settings.threads)
        self.products = str(choose_float32_products()) if settings.device == "cpu" else None
        self.settings, self.rank, self.processes = settings, rank, processes
        self.intervals = settings.training  # type: ignore[attr-defined]
        self.seeds = self.spawn_seeds(3)
        self.steps = self.updates = 0
        self.notes: dict[str, Any] = {}
        self._first = self._total = 0  # steps: where this process began, and the goal
        self._logged = self._evaluated = self._saved = 0  # updates: when each was last done
        self._eval_return: float | None = None  # since the last checkpoint
        self._latest: tuple[TensorDictBase, TensorDictBase | None] | None = None
        self._components: dict[str, Any] = {}
        self._checkpoints: Checkpoints | None = None
        self._meter = ReturnMeter()
        self._signals = process.Signals()
        self._begin = self._clock = time.perf_counter()

    def __enter__(self) -> Self:
        device = torch.device(self.settings.device)
        found = torch.cuda.device_count() if device.type == "cuda" else 1
        if device.type == "cuda" and (device.index or 0) >= found:
            self.refuse(f"device must be one that torch finds, got {device}; CUDA devices: {found}")
        if self.processes == 1:  # several must not leave a loop at different iterations
            self._signals.listen()
        return self

    def spawn_seeds(self, count: int) -> list[int]:
        """Seed torch and NumPy anew, and return independent seeds, all from the run's seed."""
        return process.spawn_seeds(self.settings.seed, count)

    def track(self, **components: Any) -> None:
        """Restore what ``resume`` names, and make the run's directory.

        Components are all that has a state, by name: what has ``state_dict`` and
        ``load_state_dict``, buffers and collectors of TorchRL, or None.
        """
        for name, component in components.items():
            kind = next((k for k in _WRAPPERS if isinstance(component, k)), None)
            if component is not None:
                self._components[name] = _WRAPPERS[kind](component) if kind else component
        if self.rank > 0:
            return
        # Random numbers last: other states may draw while they are restored.
        self._components |= {"session": self, "meter": self._meter, "rng": GlobalRNGState()}
        resume = self.settings.resume and find_checkpoint(self.settings.resume)
        length = self._schedule_length()
        if resume:
            self.notes = load_checkpoint(resume, self._components)["notes"]
            self._first = self.steps
            self._logged = self._evaluated = self._saved = self.updates
        self.directory = claim_directory(self.settings)
        config = self.settings.plain() | {"run_dir": str(self.directory)}
        # Several seeds have a folder each, and only folders with a config.json count as runs.
        several = config.get("seeds", 1) > 1
        self.write("batch.json" if several else "config.json", config)
        self.provenance = process.read_provenance(self.settings.device)
        self.provenance["float32_products"] = self.products
        self.write("provenance.json", self.provenance)
        self.loggers = open_loggers(self.settings.logger, self.directory, config, self.provenance)
        self._checkpoints = Checkpoints(self.directory / "checkpoints", config)
        if resume:
            self.print(f"Resuming {resume}; writing to {self.directory}")
            if (saved := self._schedule_length()) != length:
                self.print(f"Learning rates still fall over {saved} updates, not {length}")

    def batches(
        self, collector: Iterable[Any], *, total: int, size: int | None = None
    ) -> Iterator[Any]:
        """The batches of data of a collector; between two of them, what is due on the disk.

        A batch counts for ``size`` of the ``total`` steps; None: the number of its transitions.
        """
        from tqdm import tqdm  # an extra: only recipes need it

        self._total = total
        if self.steps >= total:
            self.print(f"Nothing left to train: {self.steps} steps are done")
            return
        self._begin = self._clock = time.perf_counter()
        self._signals.may_wait = True
        with tqdm(
            total=total,
            initial=self.steps,
            unit=" steps",
            unit_scale=True,
            mininterval=0.5,
            dynamic_ncols=True,
            disable=None if self.rank == 0 else True,
        ) as self._bar:
            for data in collector:
                taken = data.numel() * self.processes if size is None else size
                self.steps += taken
                self._bar.update(taken)
                if isinstance(data, TensorDictBase):
                    self._meter.add(data)
                yield data
                every = self.intervals.checkpoint_interval
                if self.updates // every > self._saved // every:
                    self.save()
                if self._signals.number is not None or self.steps >= total:
                    break
        path = self.save()
        self._signals.may_wait, self._bar = False, None
        if self._signals.number is not None:
            how = "To go on: resume=" if self.settings.can_resume() else "The last checkpoint is "
            self.print(f"Stopped. {how}{path}")
            raise SystemExit(128 + self._signals.number)

    def log_update(
        self, losses: TensorDictBase, batch: TensorDictBase | None = None, **more: float
    ) -> None:
        """Count an update; look whether its losses are finite; log them when it is time.

        On an accelerator the losses are looked at when they are logged and before a checkpoint:
        reading them waits for the device. What was learnt from, ``batch``, is for the message.
        """
        self.updates += 1
        self._latest = losses, batch
        if self.log_due or next(iter(losses.values())).device.type == "cpu":
            self._check_latest()
        if not self.log_due:
            return
        scalars = {key: value for key, value in losses.items() if value.ndim == 0}
        values = torch.stack([value.float() for value in scalars.values()]).tolist()
        named = dict(zip(scalars, values, strict=True)) | more
        metrics = {f"train/{name}": value for name, value in named.items()}
        episode_return = self._meter.read()
        if episode_return is not None:
            metrics["train/return"] = episode_return
        now = time.perf_counter()
        metrics["time/updates_per_s"] = (self.updates - self._logged) / (now - self._clock)
        self._clock, self._logged = now, self.updates
        self.log(metrics)

    @property
    def log_due(self) -> bool:
        """Whether the latest update is one whose numbers are logged; those at the end are."""
        at_the_end = 0 < self._total <= self.steps
        return at_the_end or self.updates % self.intervals.log_interval == 0

    @property
    def evaluation_due(self) -> bool:
        """Whether an interval ended since the last evaluation, or the run is at its end."""
        every = self.intervals.eval_interval
        ended = self.steps >= self._total and self._evaluated < self.updates
        return ended or self.updates // every > self._evaluated // every

    def log_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Log metrics under ``eval/`` and print them; "return" decides which checkpoint is best."""
        self.log({f"eval/{name}": value for name, value in metrics.items()})
        self.evaluated(metrics, metrics.get("return"))

    def evaluated(self, metrics: Mapping[str, float], best_by: float | None) -> None:
        """Print metrics of an evaluation, and remember by what checkpoints are compared."""
        self._evaluated, self._eval_return = self.updates, best_by
        pace = (time.perf_counter() - self._begin) / max(1, self.steps - self._first)
        left = pace * max(0, self._total - self.steps) / 60
        summary = "  ".join(f"{name} {value:.3g}" for name, value in metrics.items())
        self.print(f"update {self.updates:>6}  {summary}  ({left:.1f} min left)")

    def save(self) -> Path:
        """Write a checkpoint, whose losses are known to be numbers."""
        self._check_latest()
        self._saved = self.updates
        if self._checkpoints is None:
            return Path()
        path = self._checkpoints.save(self.steps, self._components, self._eval_return, **self.notes)
        self._eval_return = None
        return path

    def write(self, name: str, content: Any) -> Path:
        """Write a JSON file into the run's directory."""
        assert self.directory is not None, "track() comes first"
        return checkpoint.write_json(self.directory / name, content)

    def finish(self, metrics: Mapping[str, float], shown: Sequence[str] | None = None) -> None:
        """Write ``summary.json`` and say what the run reached; ``shown`` are names to print."""
        if self.rank > 0:
            return
        self.write("summary.json", dict(metrics))
        started = datetime.fromisoformat(self.provenance["started"])
        minutes, seconds = divmod(int((datetime.now(started.tzinfo) - started).total_seconds()), 60)
        names = metrics if shown is None else shown
        printed = {name: metrics[name] for name in names if name in metrics}
        width = max((len(name) for name in printed), default=0) + 2
        lines = [f"Finished after {minutes} min {seconds:02} s"]
        lines += [f"  {name:<{width}}{value:>10.4g}" for name, value in printed.items()]
        self.print("\n".join([*lines, f"Results: {self.directory}"]))
        self.log_checkpoints()

    def state_dict(self) -> dict[str, int]:
        """The counters."""
        return {"steps": self.steps, "updates": self.updates}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore the counters."""
        self.steps, self.updates = int(state["steps"]), int(state["updates"])

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        parts = [c for c in self._components.values() if isinstance(c, CollectorState)]
        try:
            for close in [part.shutdown for part in parts] + [log.close for log in self.loggers]:
                close()
        except (KeyboardInterrupt, OSError) as late:
            error = error or late
        finally:
            if self.directory is not None:
                checkpoint.release_directory(self.directory)
            self._signals.restore()
        # What it interrupted may have made another error of it.
        at_once = self._signals.at_once and isinstance(error, Exception)
        if isinstance(error, KeyboardInterrupt) or at_once:
            raise SystemExit(128 + (self._signals.number or signal.SIGINT)) from None
        line = process.explain_failure(error, self.directory, self.updates)
        if isinstance(error, FloatingPointError) and self._checkpoints and self._checkpoints.latest:
            line = f"{line}; the last checkpoint is {self._checkpoints.latest}"
        if line is not None:
            self.refuse(line)
        if kind is None and error is not None:
            raise error

    def refuse(self, line: str) -> None:
        """End the process with one line; of several processes one says it."""
        raise SystemExit(f"{self.settings.recipe}.py: {line}" if self.rank == 0 else 1) from None

    def _check_latest(self) -> None:
        if self._latest is not None:
            check_losses(self._latest[0], self.updates, self._latest[1])

    def _schedule_length(self) -> int | None:
        """Over how many updates a schedule changes learning rates: that is part of its state."""
        schedule: Any = self._components.get("schedule")
        return schedule.total_iters if getattr(schedule, "end_factor", 1.0) != 1.0 else None
