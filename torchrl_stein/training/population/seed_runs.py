"""Several seeds that are trained as one batch: a directory for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..bookkeeping.checkpoint import find_checkpoint
from ..bookkeeping.run import Run

__all__ = ["SeedRuns", "population_sizes"]


def population_sizes(config: Mapping[str, Any]) -> tuple[int, int]:
    """Number of populations of a run, one per seed, and of policies in each.

    Args:
        config: with the keys of ``recipes/conf/svpg.yaml``; "seeds" may be missing.

    Example:
        >>> population_sizes({"mode": "joint", "seeds": 5, "population": {"num_particles": 16}})
        (5, 1)
    """
    joint = config["mode"] == "joint"
    return config.get("seeds", 1), 1 if joint else config["population"]["num_particles"]


class SeedRuns(Run):
    """A run of several seeds at once, and within its directory one run for each of them.

    The folder ``seed{k}`` is what a run of that seed alone would write, but for checkpoints and
    what has one value for all of them, such as losses: these are beside the folders. Settings of
    the batch are in ``batch.json``, so that only the folders count as runs.

    Args:
        directory: of the batch.
        config: of the batch, with "seed", "seeds", "run_dir" and "resume".
        logger: of the batch, see :class:`Run`. The runs in it have CSV files (with ``"none"``
            nothing).

    Attributes:
        runs: of seed, seed + 1, ...; their environment steps are those of one seed.

    Example:
        >>> import tempfile
        >>> config = {"seed": 3, "seeds": 2, "run_dir": "runs/a", "resume": None}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     batch = SeedRuns(folder, config)
        ...     [run.directory.name for run in batch.runs], batch.runs[1].config["seed"]
        (['seed3', 'seed4'], 4)
    """

    settings_file = "batch.json"

    def __init__(
        self, directory: str | Path, config: Mapping[str, Any], logger: str = "csv"
    ) -> None:
        super().__init__(directory, config, logger)
        of_one = "none" if logger == "none" else "csv"
        self._runs = [
            Run(self.directory / f"seed{own['seed']}", own, of_one) for own in _split(config)
        ]

    @property
    def runs(self) -> list[Run]:
        """See the attributes."""
        return self._runs

    def close(self) -> None:
        """See :meth:`Run.close`."""
        super().close()
        for run in self.runs:
            run.close()


def _split(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings with which each seed would run alone."""
    before = config["resume"]
    origin = None if before is None else find_checkpoint(before).parents[1]
    runs = []
    for seed in range(config["seed"], config["seed"] + config["seeds"]):
        own = {
            "seed": seed,
            "seeds": 1,
            "run_dir": f"{config['run_dir']}/seed{seed}",
            "resume": None if origin is None else str(origin / f"seed{seed}"),
        }
        runs.append({**config, **own})
    return runs
