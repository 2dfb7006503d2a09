"""Where metrics go: CSV files, TensorBoard, Weights & Biases. Each takes what it can show."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torchrl.record import CSVLogger, TensorboardLogger
from torchrl.record.loggers import Logger

from .wandb_logger import open_wandb

__all__ = [
    "LOGGERS",
    "CSVRunLogger",
    "RunLogger",
    "TensorboardRunLogger",
    "WandbRunLogger",
    "check_logger",
    "flatten_settings",
    "open_loggers",
]

LOGGERS = ("csv", "tensorboard", "wandb", "none")
"""What ``logger=`` may be. CSV files are written with each of them but ``"none"``."""

_HISTOGRAM_BINS = 64
_BUFFER = "-buffer"  # ending of the folder that holds the replay buffer of a checkpoint


class RunLogger:
    """Takes everything a run logs and, here in the base class, drops it."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Scalars by name."""

    def log_histogram(self, name: str, values: npt.NDArray[Any], step: int) -> None:
        """The distribution of finite numbers [k]."""

    def log_image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """A picture [H, W, 3]."""

    def log_video(self, name: str, path: Path, step: int) -> None:
        """An MP4 file."""

    def log_checkpoint(self, path: Path, aliases: list[str]) -> None:
        """A checkpoint, a folder, and what it is called."""

    def close(self) -> None:
        """Nothing is logged after this."""


class CSVRunLogger(RunLogger):
    """Scalars as ``step,value`` lines, one file for each name below ``metrics/scalars``.

    Args:
        directory: of the run.
    """

    def __init__(self, directory: Path) -> None:
        self.logger: Logger = CSVLogger("metrics", log_dir=str(directory))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """See :class:`RunLogger`."""
        self.logger.log_metrics(dict(metrics), step=step)


class TensorboardRunLogger(CSVRunLogger):
    """Scalars, histograms, pictures and the settings, below ``tensorboard``.

    No videos: TensorBoard's own encoder needs moviepy before version 2. The MP4 files of the run
    remain.

    Args:
        directory: of the run.
        config: shown as hyperparameters, flattened.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self.logger = TensorboardLogger("tensorboard", log_dir=str(directory))
        # Not TorchRL's log_hparams: it opens a second run, named by the time, for them.
        self.logger.experiment.add_hparams(flatten_settings(config), {}, run_name=".")

    def log_histogram(self, name: str, values: npt.NDArray[Any], step: int) -> None:
        """See :class:`RunLogger`."""
        # TorchRL's method raises KeyError without bins.
        self.logger.log_histogram(name, values, step=step, bins="tensorflow")

    def log_image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """See :class:`RunLogger`."""
        self.logger.experiment.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        """See :class:`RunLogger`."""
        self.logger.experiment.close()


class WandbRunLogger(CSVRunLogger):
    """Everything, on Weights & Biases; see :func:`open_wandb` for what happens without a network.

    Args:
        directory: of the run, whose name becomes that of the run there.
        config: the settings, nested as they are, and whatever else tells runs apart.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        self.logger = open_wandb(
            directory, name=directory.name, project="torchrl_stein", config=dict(config)
        )

    def log_histogram(self, name: str, values: npt.NDArray[Any], step: int) -> None:
        """See :class:`RunLogger`."""
        # Without bins TorchRL passes None to NumPy, which refuses it.
        self.logger.log_histogram(name, values, step=step, bins=_HISTOGRAM_BINS)

    def log_image(self, name: str, image: npt.NDArray[np.uint8], step: int) -> None:
        """See :class:`RunLogger`."""
        import wandb

        self.logger.log_metrics({name: wandb.Image(image)}, step=step)

    def log_video(self, name: str, path: Path, step: int) -> None:
        """See :class:`RunLogger`."""
        import wandb

        # Not TorchRL's log_video, which encodes again and needs moviepy. The file has its format
        # in its name.
        self.logger.log_metrics({name: wandb.Video(str(path))}, step=step)

    def log_checkpoint(self, path: Path, aliases: list[str]) -> None:
        """As an artifact of type "model", without the replay buffer, which may be gigabytes."""
        import wandb

        artifact = wandb.Artifact(f"checkpoint-{self.logger.experiment.id}", type="model")
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            inside = file.relative_to(path)
            if not any(part.endswith(_BUFFER) for part in inside.parts):
                # "immutable": uploaded from where it lies, not from a second copy.
                artifact.add_file(str(file), name=inside.as_posix(), policy="immutable")
        self.logger.experiment.log_artifact(artifact, aliases=aliases)

    def close(self) -> None:
        """See :class:`RunLogger`."""
        self.logger.experiment.finish()


def check_logger(name: str) -> None:
    """Refuse a logger that is unknown or not installed.

    Raises:
        ValueError: if ``name`` is not one of ``LOGGERS``.
        ImportError: if its package is missing, naming the extra that brings it.

    Example:
        >>> check_logger("paper")
        Traceback (most recent call last):
        ValueError: Run: logger must be one of csv, tensorboard, wandb, none; got 'paper'
    """
    if name not in LOGGERS:
        raise ValueError(f"Run: logger must be one of {', '.join(LOGGERS)}; got {name!r}")
    if name == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
        raise ImportError(
            "Run: logger=tensorboard needs TensorBoard, pip install 'torchrl_stein[tensorboard]'"
        )


def open_loggers(
    name: str, directory: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]
) -> list[RunLogger]:
    """The loggers of a run: CSV and what was asked for.

    Args:
        name: one of ``LOGGERS``.
        directory: of the run.
        config: its settings.
        provenance: of :func:`read_provenance`.
    """
    if name == "none":
        return []
    loggers: list[RunLogger] = [CSVRunLogger(directory)]
    if name == "tensorboard":
        loggers.append(TensorboardRunLogger(directory, config))
    elif name == "wandb":
        loggers.append(WandbRunLogger(directory, {**config, "provenance": dict(provenance)}))
    return loggers


def flatten_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, with values that are numbers, truths or words.

    Args:
        config: of plain JSON types.
        prefix: in front of every name.

    Example:
        >>> flatten_settings({"seed": 0, "loss": {"kernel": None}, "cells": [64, 64]})
        {'seed': 0, 'loss.kernel': 'null', 'cells': '[64, 64]'}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten_settings(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return flat
