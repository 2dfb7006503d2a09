"""A run: its directory, its configuration on disk, its loggers and its random numbers."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checkpoint import find_checkpoint
from .loggers import check_logger, open_loggers
from .pictures import as_picture, write_picture, write_video
from .provenance import read_provenance

__all__ = ["Run", "spawn_seeds"]


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
    r"""Where a run writes: settings, provenance, metrics, pictures, videos.

    ``config.json`` and ``provenance.json`` are there at once. Scalars become CSV files and go to
    the chosen logger; what that cannot show it leaves out. Pictures and videos are files of the
    run with every logger.

    Args:
        directory: created; a run never shares one with another.
        config: resolved configuration, of plain JSON types; its "device", if any, is looked up.
        logger: ``"csv"``; ``"tensorboard"`` or ``"wandb"``, on top of CSV; or ``"none"``.

    Attributes:
        directory: as given.
        config: as given.
        provenance: of :func:`read_provenance`.

    Raises:
        ValueError: if ``logger`` is unknown.
        ImportError: if the package of ``logger`` is not installed.
        FileExistsError: if the directory already holds a run.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = Run(Path(folder) / "a", {"seed": 0})
        ...     run.log({"train/loss": 1.0}, step=10)
        ...     (run.directory / "metrics/scalars/train/loss.csv").read_text()
        '10,1.0\n'
    """

    settings_file = "config.json"

    def __init__(
        self, directory: str | Path, config: Mapping[str, Any], logger: str = "csv"
    ) -> None:
        check_logger(logger)
        self.directory = Path(directory)
        self.config = dict(config)
        if (self.directory / self.settings_file).exists():
            raise FileExistsError(f"Run: directory {self.directory} already holds a run")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.save_json(self.settings_file, self.config)
        self.provenance = read_provenance(str(self.config.get("device", "cpu")))
        self.save_json("provenance.json", self.provenance)
        self._loggers = open_loggers(logger, self.directory, self.config, self.provenance)

    @property
    def runs(self) -> list[Run]:
        """The runs whose results are written here: this one; see also :class:`SeedRuns`."""
        return [self]

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Write scalars to every logger.

        Args:
            metrics: names such as ``train/loss_actor`` or ``eval/return``.
            step: environment steps taken so far.
        """
        for logger in self._loggers:
            logger.log(metrics, step)

    def log_histogram(self, name: str, values: Tensor, step: int) -> None:
        """Show a distribution, on TensorBoard and W&B.

        Args:
            name: such as ``eval/actions``.
            values: of any shape.
            step: environment steps taken so far.

        Raises:
            ValueError: if there are no values, or some are not finite.
        """
        array = torch.as_tensor(values).detach().double().flatten().cpu().numpy()
        bad = int((~np.isfinite(array)).sum())
        if bad or not array.size:
            raise ValueError(
                f"Run.log_histogram: values of {name} must be finite and at least one, got "
                f"{bad} of {array.size} that are not"
            )
        for logger in self._loggers:
            logger.log_histogram(name, array, step)

    def log_image(self, name: str, image: Tensor, step: int) -> Path:
        """Write a picture to ``images``, and show it on TensorBoard and W&B.

        Args:
            name: such as ``eval/kernel``.
            image: uint8 ``[H, W, 3]``.
            step: environment steps taken so far.

        Returns:
            Path: the PNG.

        Raises:
            TypeError: if ``image`` is not of uint8.
            ValueError: if it has another shape.
        """
        array = as_picture("Run.log_image: image", image, "HW3")
        path = write_picture(self._path("images", name, step, "png"), array)
        for logger in self._loggers:
            logger.log_image(name, array, step)
        return path

    def log_video(self, name: str, frames: Tensor, fps: float, step: int) -> Path | None:
        """Write a video to ``videos``, and show it on W&B.

        Where it cannot be encoded, one line says why, and the run goes on.

        Args:
            name: such as ``eval/episode``.
            frames: uint8 ``[T, H, W, 3]``.
            fps: frames per second.
            step: environment steps taken so far.

        Returns:
            Path | None: the MP4, if there is one.

        Raises:
            TypeError: if ``frames`` are not of uint8.
            ValueError: if they have another shape or ``fps`` is not positive.
        """
        array = as_picture("Run.log_video: frames", frames, "THW3")
        if not fps > 0:
            raise ValueError(f"Run.log_video: fps must be positive, got {fps}")
        path = self._path("videos", name, step, "mp4")
        try:
            write_video(path, array, fps)
        except (ImportError, OSError, RuntimeError) as error:
            print(f"no video: {error}")  # noqa: T201
            return None
        for logger in self._loggers:
            logger.log_video(name, path, step)
        return path

    def save_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a JSON file into the run directory."""
        path = self.directory / name
        path.write_text(json.dumps(content, indent=2) + "\n")
        return path

    def close(self) -> None:
        """Keep the last and the best checkpoint on W&B, and finish what the loggers have open."""
        for path, aliases in self._final_checkpoints().items():
            for logger in self._loggers:
                logger.log_checkpoint(path, aliases)
        for logger in self._loggers:
            logger.close()

    def _final_checkpoints(self) -> dict[Path, list[str]]:
        found: dict[Path, list[str]] = {}
        for alias, where in (("last", self.directory), ("best", self.directory / "best")):
            with contextlib.suppress(FileNotFoundError):  # none yet, or none was evaluated
                found.setdefault(find_checkpoint(where), []).append(alias)
        return found

    def _path(self, folder: str, name: str, step: int, ending: str) -> Path:
        path = self.directory / folder / f"{name}_{step:012d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
