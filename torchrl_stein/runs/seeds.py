"""Several seeds of one recipe in one batch: a folder for each, as if it had run alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.objectives import SACLoss

from torchrl_stein._torchrl import PerSeedAlpha

from .checkpoint import find_checkpoint, write_json
from .loggers import CSVLog
from .session import Session

__all__ = ["SeedFolders", "SeedsSACLoss", "mean_metrics", "one_per_seed", "rows_of_seeds"]
__all__ += ["seeds_of_rows"]


class SeedFolders:
    """Metrics of S seeds, in a session and, if S > 1, in a folder for each.

    The folder ``seed{k}`` holds what a run of that seed alone would write, but for checkpoints
    and what has one value for all of them, such as losses. Settings of the batch are in
    ``batch.json``, so that only the folders count as runs. Made after ``session.track``.
    """

    def __init__(self, session: Session, num_seeds: int) -> None:
        self.session, self.num_seeds = session, num_seeds
        self._folders = []
        self._logs: list[CSVLog] = []
        if num_seeds == 1:
            return
        assert session.directory is not None, "track() comes first"
        config = session.settings.plain()
        origin = config["resume"] and find_checkpoint(config["resume"]).parents[1]
        for seed in range(config["seed"], config["seed"] + num_seeds):
            folder = session.directory / f"seed{seed}"
            own: dict[str, Any] = {
                "seed": seed,
                "seeds": 1,
                "run_dir": str(folder),
                "resume": origin and str(origin / f"seed{seed}"),
            }
            folder.mkdir(exist_ok=True)
            write_json(folder / "config.json", config | own)
            write_json(folder / "provenance.json", session.provenance)
            self._folders.append(folder)
            if config["logger"] != "none":
                self._logs.append(CSVLog(folder))

    @property
    def names(self) -> list[str]:
        """Of the folders; one seed has none, and its name is empty."""
        return [folder.name for folder in self._folders] or [""]

    def log(
        self, found: Sequence[Mapping[str, float]], summary: Mapping[str, float], step: int
    ) -> None:
        """Log the metrics of each seed in its folder, at its own step, and a summary of all."""
        for log, metrics in zip(self._logs, found, strict=False):
            log.log(dict(metrics), step)
        self.session.log(dict(summary))

    def log_evaluation(self, found: Sequence[Mapping[str, float]]) -> None:
        """Log the evaluation of each seed, print means; they decide which checkpoint is best."""
        named = [{f"eval/{name}": value for name, value in own.items()} for own in found]
        for log, metrics in zip(self._logs, named, strict=False):
            log.log(metrics, self.session.steps)
        self.session.log_evaluation(mean_metrics(found))

    def finish(
        self,
        found: Sequence[Mapping[str, float]],
        summary: Mapping[str, float] | None = None,
        shown: Sequence[str] | None = None,
    ) -> None:
        """Write the ``summary.json`` of each seed and that of all: means, unless it is given."""
        for folder, metrics in zip(self._folders, found, strict=False):
            write_json(folder / "summary.json", dict(metrics))
        self.session.finish(mean_metrics(found) if summary is None else summary, shown)


def rows_of_seeds(data: TensorDictBase, seeds: int) -> TensorDictBase:
    """Transitions ``[*B]`` as rows of a buffer, ``[N]``; of several seeds ``[S, *B]``, ``[N, S]``.

    One index of the buffer then stands for a transition of every seed, each with its own data.
    """
    if seeds == 1:
        return data.reshape(-1)
    return data.flatten(1, -1).transpose(0, 1) if data.ndim > 2 else data.transpose(0, 1)


def seeds_of_rows(rows: TensorDictBase, seeds: int) -> TensorDictBase:
    """What was sampled from such a buffer, ``[B]``, as a batch of each seed, ``[S, B]``."""
    return rows if seeds == 1 else rows.transpose(0, 1).contiguous()


def one_per_seed(value: float, seeds: int) -> float | Tensor:
    """A number; of several seeds one for each, ``[S, 1]``, which expands to data ``[S, B]``.

    Example:
        >>> one_per_seed(0.5, 1), one_per_seed(0.5, 2).tolist()
        (0.5, [[0.5], [0.5]])
    """
    return value if seeds == 1 else torch.full((seeds, 1), value)


class SeedsSACLoss(PerSeedAlpha, SACLoss):
    """SACLoss over networks of S seeds, data ``[S, B]``, with a learnt temperature for each."""

    def __init__(self, *args: Any, seeds: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not kwargs["fixed_alpha"]:
            own = self.log_alpha.detach().expand(seeds, 1)  # type: ignore[has-type]
            self.log_alpha = nn.Parameter(own.clone())


def mean_metrics(
    found: Sequence[Mapping[str, float]], names: Iterable[str] | None = None
) -> dict[str, float]:
    """Means over seeds, of all metrics or of these; NaN where one seed lacks it."""
    chosen = found[0] if names is None else names
    return {name: sum(own.get(name, math.nan) for own in found) / len(found) for name in chosen}
