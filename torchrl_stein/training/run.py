"""A run: its directory, its configuration on disk, its loggers and its random numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchrl.record import CSVLogger
from torchrl.record.loggers import Logger

from .wandb_logger import open_wandb

__all__ = ["Run", "spawn_seeds"]

LOGGERS = ("csv", "wandb")


def spawn_seeds(seed: int, count: int) -> list[int]:
    """Seed torch and NumPy, and return independent seeds for the environments.

    Seeds of neighbouring runs do not overlap, unlike seed + 1, seed + 2, ...

    Args:
        seed: of the run, >= 0.
        count: number of seeds to return.

    Example:
        >>> spawn_seeds(0, 2) == spawn_seeds(0, 2)
        True
    """
    children = np.random.SeedSequence(seed).spawn(count + 1)
    own, *others = (int(child.generate_state(1)[0]) for child in children)
    torch.manual_seed(own)
    np.random.seed(own)  # noqa: NPY002 - gymnasium tools and TorchRL draw from the global state
    return others


class Run:
    r"""Where a run writes: ``config.json``, metrics as CSV (always) and on W&B (if asked).

    Args:
        directory: created; a run never shares one with another.
        config: resolved configuration, of plain JSON types.
        logger: ``"csv"`` or ``"wandb"``.

    Raises:
        ValueError: if ``logger`` is unknown.
        FileExistsError: if the directory already holds a run.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(Path(folder) / "a", {"seed": 0})
        ...     run.log({"train/loss": 1.0}, step=10)
        ...     (run.directory / "metrics/scalars/train/loss.csv").read_text()
        '10,1.0\n'
    """

    def __init__(
        self, directory: str | Path, config: Mapping[str, Any], logger: str = "csv"
    ) -> None:
        if logger not in LOGGERS:
            raise ValueError(f"Run: logger must be one of {list(LOGGERS)}, got {logger!r}")
        self.directory = Path(directory)
        self.config = dict(config)
        if (self.directory / "config.json").exists():
            raise FileExistsError(f"Run: directory {self.directory} already holds a run")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.save_json("config.json", self.config)
        self._loggers: list[Logger] = [CSVLogger("metrics", log_dir=str(self.directory))]
        if logger == "wandb":
            self._loggers.append(
                open_wandb(
                    self.directory,
                    name=self.directory.name,
                    project="torchrl_stein",
                    config=self.config,
                )
            )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars to every logger.

        Args:
            metrics: names such as ``train/loss_actor`` or ``eval/return``.
            step: environment steps taken so far.
        """
        for logger in self._loggers:
            logger.log_metrics(dict(metrics), step=step)

    def save_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a JSON file into the run directory."""
        path = self.directory / name
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path

    def close(self) -> None:
        """Finish the W&B run, if there is one."""
        for logger in self._loggers:
            finish = getattr(logger.experiment, "finish", None)
            if finish is not None:
                finish()
