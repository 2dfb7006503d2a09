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
_WITHOUT_SERVER = ("offline", "dryrun", "disabled")
_DEFAULT_HOST, _ITS_OLD_NAME = "api.forge.coreweave.com", "api.wandb.ai"


def open_wandb(directory: Path, *, name: str, project: str, config: dict[str, Any]) -> WandbLogger:
    """A TorchRL WandbLogger, online if that is possible without asking, else offline.

    ``WANDB_MODE`` decides if it is set; else the run is online. But without credentials, or if the
    server does not answer within 30 s, it is written to ``directory``, and one line says how to
    upload it later.

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
    mode = os.environ.get("WANDB_MODE") or "online"
    if mode not in _WITHOUT_SERVER and not _has_credentials():
        mode = "offline"  # whatever WANDB_MODE says: on a terminal, W&B would show a menu
    try:
        logger = _open(directory, mode, name, project, config)
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        print(f"W&B is not reachable ({type(error).__name__}), logging offline")  # noqa: T201
        mode = "offline"
        logger = _open(directory, mode, name, project, config)
    if mode in ("offline", "dryrun"):
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
    # Looks where W&B would before it asks; its own search cannot be told not to ask.
    if any(os.environ.get(key) for key in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    # wandb.Settings() would know the default server only, setup() reads the user's settings.
    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    machine = urlparse(server).netloc
    machines = (machine, _ITS_OLD_NAME) if machine == _DEFAULT_HOST else (machine,)
    homes = (Path("~/.netrc"), Path("~/_netrc"))
    paths = [Path(os.environ["NETRC"])] if os.environ.get("NETRC") else homes
    for path in paths:
        try:
            entries = netrc.netrc(path.expanduser())
        except (OSError, netrc.NetrcParseError):
            continue
        logins = [entries.authenticators(name) for name in machines]
        return any(login is not None and bool(login[2]) for login in logins)
    return False
