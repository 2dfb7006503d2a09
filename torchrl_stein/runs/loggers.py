"""Where metrics go: CSV files, TensorBoard, Weights & Biases. Each takes what it can show."""

from __future__ import annotations

import contextlib
import json
import netrc
import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .checkpoint import find_checkpoint

__all__ = ["CSVLog", "Recorder", "RunLogger", "TensorboardLog", "WandbLog", "flatten_settings"]
__all__ += ["open_loggers"]

Pixels = npt.NDArray[np.uint8]

_BINS = 64
_INIT_TIMEOUT_S = 30
_WITHOUT_SERVER = ("offline", "dryrun", "disabled")
_DEFAULT_HOST, _ITS_OLD_NAME = "api.forge.coreweave.com", "api.wandb.ai"


class RunLogger:
    """Takes everything that a run logs and, here in the base class, drops it."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Scalars by name."""

    def show(self, name: str, shown: npt.NDArray[Any] | Path, step: int) -> None:
        """Finite numbers [k] as a distribution, a picture [H, W, 3], or the path of an MP4."""

    def keep(self, path: Path, aliases: list[str]) -> None:
        """A checkpoint, a folder, and what it is called."""

    def close(self) -> None:
        """Nothing is logged after this."""


class CSVLog(RunLogger):
    """Scalars as ``step,value`` lines, one file for each name below ``metrics/scalars``.

    A file is open only while a line is written: TorchRL's CSVLogger keeps one descriptor per name
    open and every value in memory, so that 30 seeds exhaust 1024 descriptors.
    """

    def __init__(self, directory: Path) -> None:
        self.folder = directory / "metrics" / "scalars"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._known: set[str] = set()

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Append a line to the file of each name."""
        for name, value in metrics.items():
            path = self.folder / f"{check_name(name)}.csv"
            if name not in self._known:
                _make_parents(path, self.folder)
                self._known.add(name)
            with path.open("a") as file:
                file.write(f"{step},{value}\n")


class TensorboardLog(RunLogger):
    """Scalars, histograms, pictures and the settings, below ``tensorboard``.

    No videos, as its encoder needs moviepy before version 2; the MP4 files remain. What is logged
    is written at once: where the directory is gone, its thread would print a traceback later.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"))
        self.writer.add_hparams(flatten_settings(config), {}, run_name=".")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Add scalars."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)
        self.writer.flush()

    def show(self, name: str, shown: npt.NDArray[Any] | Path, step: int) -> None:
        """Add a histogram or a picture."""
        if isinstance(shown, Path):
            return
        if shown.ndim == 1:
            self.writer.add_histogram(name, shown, step)
        else:
            self.writer.add_image(name, shown, step, dataformats="HWC")
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if Path(self.writer.log_dir).is_dir():
            self.writer.close()


class WandbLog(RunLogger):
    """Everything, on Weights & Biases: online, or as ``WANDB_MODE`` says.

    Without credentials, or if the server does not answer within 30 s, it is written to the run's
    directory, and one line says how to upload it later. It never asks.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any]) -> None:
        import wandb  # takes a second, and only this logger needs it

        self._wandb, self._directory = wandb, directory
        mode = os.environ.get("WANDB_MODE") or "online"
        if mode not in _WITHOUT_SERVER and not _has_credentials():
            mode = "offline"  # whatever WANDB_MODE says: on a terminal, W&B would show a menu
        try:
            self.run = self._open(directory, mode, config)
        except (wandb.errors.CommError, wandb.errors.UsageError) as error:
            print(f"W&B is not reachable ({type(error).__name__}), logging offline")  # noqa: T201
            mode = "offline"
            self.run = self._open(directory, mode, config)
        if mode in ("offline", "dryrun"):
            place = Path(self.run.dir).parent
            print(f"W&B logs offline; to upload later: wandb sync {place}")  # noqa: T201

    def _open(self, directory: Path, mode: Any, config: Mapping[str, Any]) -> Any:
        run = self._wandb.init(
            project="torchrl_stein",
            name=directory.name,
            dir=str(directory),
            config=dict(config),
            mode=mode,
            settings=self._wandb.Settings(init_timeout=_INIT_TIMEOUT_S, silent=True),
            reinit="finish_previous",
        )
        run.define_metric("*", step_metric="trainer/step")
        # Of a return the table of runs shows the last value and the best.
        for name in ("eval/return", "test/return_mean", "test/return_max"):
            run.define_metric(name, step_metric="trainer/step", summary="last,max")
        return run

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log scalars."""
        self.run.log({**metrics, "trainer/step": step})

    def show(self, name: str, shown: npt.NDArray[Any] | Path, step: int) -> None:
        """Log a histogram, a picture or a video."""
        if isinstance(shown, Path):
            media: Any = self._wandb.Video(str(shown))
        elif shown.ndim == 1:
            media = self._wandb.Histogram(shown.tolist(), num_bins=_BINS)
        else:
            media = self._wandb.Image(shown)
        self.run.log({name: media, "trainer/step": step})

    def keep(self, path: Path, aliases: list[str]) -> None:
        """As an artifact of type "model", without the replay buffer, which may be gigabytes."""
        artifact = self._wandb.Artifact(f"checkpoint-{self.run.id}", type="model")
        for file in sorted(file for file in path.iterdir() if file.name != "buffer.pt"):
            # "immutable": uploaded from where it lies, not from a second copy.
            artifact.add_file(str(file), name=file.name, policy="immutable")
        self.run.log_artifact(artifact, aliases=aliases)

    def close(self) -> None:
        """Log a table of all pictures, step by step, and upload what is left."""
        # Of files, as what was logged is not kept: those of the recorder have the step in their
        # names, one in the run's directory is the last.
        table = self._wandb.Table(columns=["name", "step", "picture"])
        images = self._directory / "images"
        for path in sorted(images.rglob("*.png")):
            name, _, step = path.relative_to(images).with_suffix("").as_posix().rpartition("_")
            table.add_data(name, int(step), self._wandb.Image(str(path)))
        for path in sorted(self._directory.glob("*.png")):
            table.add_data(f"test/{path.stem}", None, self._wandb.Image(str(path)))
        if table.data:
            self.run.log({"pictures": table})
        self.run.finish()


class Recorder:
    """Writes what a run tells to all of its loggers; pictures and videos are files with each."""

    directory: Path | None = None  # of the run, once there is one
    steps = 0  # of the environments, the abscissa of everything
    rank = 0  # of the process; others are silent

    def __init__(self) -> None:
        self.loggers: list[RunLogger] = []
        self._bar: Any = None

    def log(self, metrics: Mapping[str, float]) -> None:
        """Write scalars to every logger; names are such as ``train/loss_actor``."""
        for logger in self.loggers:
            logger.log(metrics, self.steps)

    def log_histogram(self, name: str, values: Tensor) -> None:
        """Show a distribution of finite values, on TensorBoard and W&B."""
        array = values.detach().double().flatten().cpu().numpy()
        if not (array.size and np.isfinite(array).all()):
            raise ValueError(f"log_histogram: values of {name} must be finite and at least one")
        self._show(name, array)

    def log_image(self, name: str, image: Tensor) -> Path:
        """Write a picture, uint8 ``[H, W, 3]``, to ``images``; show it on TensorBoard and W&B."""
        import imageio.v3 as imageio  # an extra, as is what encodes videos

        array = as_picture("log_image: image", image, "HW3")
        path = self._place("images", name, "png")
        imageio.imwrite(path, array)
        self._show(name, array)
        return path

    def show_picture(self, name: str, path: Path) -> None:
        """Show a PNG that is there, on TensorBoard and W&B."""
        import imageio.v3 as imageio

        self._show(name, np.asarray(imageio.imread(path))[..., :3])

    def log_video(self, name: str, frames: Tensor, fps: float) -> Path | None:
        """Write a video, uint8 ``[T, H, W, 3]``, to ``videos``, and show it on W&B.

        Where it cannot be encoded, one line says why.
        """
        from .video import write_video

        array = as_picture("log_video: frames", frames, "THW3")
        path = self._place("videos", name, "mp4")
        try:
            write_video(path, array, fps)
        except (ImportError, OSError, RuntimeError) as error:
            self.print(f"no video: {error}")
            return None
        self._show(name, path)
        return path

    def print(self, line: str) -> None:
        """Print a line above the progress bar, at once."""
        if self.rank > 0:
            return
        if self._bar is None:
            print(line, flush=True)  # noqa: T201
        else:
            self._bar.write(line)
            sys.stdout.flush()

    def log_checkpoints(self) -> None:
        """Keep the last and the best checkpoint where the loggers keep files."""
        assert self.directory is not None
        aliases: dict[Path, list[str]] = {}
        for alias, place in (("last", self.directory), ("best", self.directory / "best")):
            with contextlib.suppress(FileNotFoundError):  # none was evaluated
                aliases.setdefault(find_checkpoint(place), []).append(alias)
        for path, names in aliases.items():
            for logger in self.loggers:
                logger.keep(path, names)

    def _show(self, name: str, shown: npt.NDArray[Any] | Path) -> None:
        for logger in self.loggers:
            logger.show(name, shown, self.steps)

    def _place(self, folder: str, name: str, ending: str) -> Path:
        assert self.directory is not None, "track() comes first"
        path = self.directory / folder / f"{check_name(name)}_{self.steps:012d}.{ending}"
        _make_parents(path, self.directory)
        return path


def open_loggers(
    name: str, directory: Path, config: Mapping[str, Any], provenance: Mapping[str, Any]
) -> list[RunLogger]:
    """The loggers of a run: CSV and, on top of it, what was asked for; or "none"."""
    if name == "none":
        return []
    loggers: list[RunLogger] = [CSVLog(directory)]
    if name == "tensorboard":
        loggers.append(TensorboardLog(directory, config))
    elif name == "wandb":
        loggers.append(WandbLog(directory, {**config, "provenance": dict(provenance)}))
    return loggers


def check_name(name: str) -> str:
    """The name of a metric or a picture, a file below the run's directory: ValueError if not."""
    parts = PurePosixPath(name).parts
    if not parts or "\\" in name or name.startswith("/") or set(parts) & {"..", "."}:
        raise ValueError(f"a name to log must be like 'train/loss', got {name!r}")
    return name


def as_picture(what: str, pixels: Tensor, shape: str) -> Pixels:
    """Pixels as an array of shape "HW3" or "THW3"; TypeError or ValueError if they are not."""
    layout = f"[{', '.join(shape)}]"
    if pixels.dtype != torch.uint8:
        raise TypeError(f"{what} must be uint8 {layout}, got {pixels.dtype}")
    if pixels.ndim != len(shape) or pixels.shape[-1] != 3 or not pixels.numel():
        raise ValueError(f"{what} must be uint8 {layout}, got shape {list(pixels.shape)}")
    return pixels.detach().cpu().numpy()


def flatten_settings(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names, with values that are numbers, truths or words."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten_settings(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, bool | int | float | str) else json.dumps(value)
    return flat


def _make_parents(path: Path, folder: Path) -> None:
    # Not those of the folder itself: a run directory that is gone stays so.
    for parent in reversed(path.relative_to(folder).parents[:-1]):
        (folder / parent).mkdir(exist_ok=True)


def _has_credentials() -> bool:
    # Looks where W&B would before it asks; its own search cannot be told not to ask.
    import wandb

    if any(os.environ.get(key) for key in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    # wandb.Settings() would know the default server only, setup() reads the user's settings.
    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    machine = urlparse(server).netloc
    machines = (machine, _ITS_OLD_NAME) if machine == _DEFAULT_HOST else (machine,)
    chosen = os.environ.get("NETRC")
    for path in [Path(chosen)] if chosen else [Path("~/.netrc"), Path("~/_netrc")]:
        try:
            entries = netrc.netrc(path.expanduser())
        except (OSError, netrc.NetrcParseError):
            continue
        logins = [entries.authenticators(name) for name in machines]
        return any(login is not None and bool(login[2]) for login in logins)
    return False
