"""Weights & Biases that never asks a question and never loses a run for want of a network."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from torchrl.record import WandbLogger

__all__ = ["open_wandb"]

_INIT_TIMEOUT_S = 30


def open_wandb(directory: Path, *, name: str, project: str, config: dict[str, Any]) -> WandbLogger:
    """A TorchRL WandbLogger, online if that is possible without asking, else offline.

    ``WANDB_MODE`` decides if it is set. Otherwise a run is online if credentials are found and
    the server answers within 30 s; in every other case it is written to ``directory`` and one
    line says how to upload it later.

    Args:
        directory: where W&B keeps its files.
        name: name of the run.
        project: name of the project.
        config: the resolved configuration.

    Example:
        >>> import tempfile
        >>> os.environ["WANDB_MODE"] = "disabled"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     logger = open_wandb(Path(folder), name="a", project="b", config={})
        ...     logger.log_scalar("train/loss", 1.0, step=0)
        >>> del os.environ["WANDB_MODE"]
    """
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_credentials() else "offline")
    try:
        logger = _open(directory, mode, name, project, config)
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        print(f"W&B is not reachable ({type(error).__name__}), logging offline")  # noqa: T201
        mode = "offline"
        logger = _open(directory, mode, name, project, config)
    if mode == "offline":
        run = Path(logger.experiment.dir).parent
        print(f"W&B logs offline; to upload later: wandb sync {run}")  # noqa: T201
    return logger


def _open(
    directory: Path, mode: str, name: str, project: str, config: dict[str, Any]
) -> WandbLogger:
    # `mode` and not WandbLogger's offline=True: that writes WANDB_MODE into the environment, and
    # every later run of the process is offline too.
    settings = wandb.Settings(init_timeout=_INIT_TIMEOUT_S, silent=True)
    return WandbLogger(
        name,
        save_dir=str(directory),
        project=project,
        config=config,
        mode=mode,
        settings=settings,
    )


def _has_credentials() -> bool:
    if any(os.environ.get(key) for key in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    host = urlparse(wandb.Settings().base_url).hostname or ""
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
