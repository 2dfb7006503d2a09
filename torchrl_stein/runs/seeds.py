"""Random numbers of a run; and several seeds as one batch, with a directory for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import find_checkpoint, write_json
from .loggers import CSVLog

if TYPE_CHECKING:
    from .session import Session

__all__ = ["SeedFolders", "return_metrics", "spawn_seeds"]

_SUMMARY = ("max", "top4", "mean")


def spawn_seeds(seed: int, count: int) -> list[int]:
    """Seed torch and NumPy, and return independent seeds for the environments.

    Seeds of neighbouring runs do not overlap, unlike seed + 1, seed + 2, ...
    """
    children = np.random.SeedSequence(seed).spawn(count + 1)
    own, *others = (int(child.generate_state(1)[0]) for child in children)
    torch.manual_seed(own)
    np.random.seed(own)  # noqa: NPY002 - gymnasium tools and TorchRL draw from the global state
    return others


def return_metrics(returns: Tensor) -> dict[str, float]:
    """Best, mean, mean of the four best, and every particle's return, of ``[n]``.

    The best of many particles profits from selection; the others show how the population fares.
    NaN are those of particles that finished no episode.
    """
    values = returns.tolist()
    known = sorted((v for v in values if not math.isnan(v)), reverse=True)
    metrics = {f"particle_{i}": v for i, v in enumerate(values)}
    if not known:
        return metrics
    best = known[:4]
    summary = {"max": known[0], "mean": sum(known) / len(known), "top4": sum(best) / len(best)}
    return summary | metrics


class SeedFolders:
    """Returns of the populations of S seeds, in a session and, if S > 1, in a folder for each.

    The folder ``seed{k}`` holds what a run of that seed alone would write, but for checkpoints
    and what has one value for all of them, such as losses: these are beside the folders. Settings
    of the batch are in ``batch.json``, so that only the folders count as runs. Made after
    ``session.track``.
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

    def log_returns(self, kind: str, returns: Tensor) -> dict[str, float]:
        """Log what particles earn, ``[S, n]``, or ``[n]`` of one seed; the batch logs means.

        Returns:
            dict: ``max``, ``top4`` and ``mean``, averaged over the seeds.
        """
        found = [return_metrics(own) for own in returns.view(self.num_seeds, -1)]
        for log, metrics in zip(self._logs, found, strict=False):
            log.log(_named(kind, metrics), self.session.steps // self.num_seeds)
        if self.num_seeds == 1:
            self.session.log(_named(kind, found[0]))
        summary = _means(found)
        if self.num_seeds > 1:
            self.session.log(_named(kind, summary))
        return summary

    def finish(self, returns: Tensor) -> None:
        """Final returns as above, in the ``summary.json`` of each seed and on the terminal."""
        self.session.print("final test return of each particle, best first:")
        found = []
        for index, own in enumerate(returns.view(self.num_seeds, -1)):
            found.append(return_metrics(own))
            ranked = own.argsort(descending=True).tolist()
            line = "  ".join(f"#{number} {own[number]:.1f}" for number in ranked)
            if self._folders:
                write_json(self._folders[index] / "summary.json", found[-1])
                line = f"{self._folders[index].name}: {line}"
            self.session.print(line)
        self.session.finish(found[0] if self.num_seeds == 1 else _means(found), _SUMMARY)


def _named(kind: str, metrics: Mapping[str, float]) -> dict[str, float]:
    known = {name: value for name, value in metrics.items() if not math.isnan(value)}
    return {f"{kind}/return_{name}": value for name, value in known.items()}


def _means(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(m.get(name, math.nan) for m in found) / len(found) for name in _SUMMARY}
