"""Saving and restoring runs, on top of TorchRL's checkpoints (atomic, rotated)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchrl.checkpoint import Checkpoint, CheckpointRotation

from .checkpoint_files import OneFileAdapter, explain_write_errors

__all__ = [
    "Checkpoints",
    "check_same_problem",
    "find_checkpoint",
    "load_weights",
    "read_metadata",
]


_BEST = ("eval_return", "max")


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a user means by ``path``.

    Args:
        path: a checkpoint; or the directory of a run, which stands for its newest checkpoint; or
            that directory followed by ``/best``, for the one with the best evaluation. What a
            killed process left half-written is never found.

    Raises:
        FileNotFoundError: if there is none, or none was evaluated.

    Example:
        >>> find_checkpoint("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: no checkpoint at nowhere
    """
    path = Path(path)
    if path.exists() and Checkpoint.is_checkpoint(path):
        return path
    best = path.name == "best" and not path.exists()
    run = path.parent if best else path
    found = None
    if (run / "checkpoints").is_dir():
        rotation = CheckpointRotation(run / "checkpoints", keep_last=1, keep_best=_BEST)
        found = rotation.best() if best else rotation.latest()
    if found is None:
        kind = "evaluated checkpoint" if best else "checkpoint"
        raise FileNotFoundError(f"no {kind} at {run}")
    return found


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What :class:`Checkpoints` wrote beside the weights: ``config``, ``shapes`` and notes."""
    return dict(Checkpoint.manifest(find_checkpoint(path))["metadata"])


def check_same_problem(saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    """Refuse to resume with a loss that differs from the one that was trained.

    Compared are ``recipe``, ``loss``, ``training.reward_scale`` and, where there are such,
    ``mode``, ``base``, ``birth_death``, ``trust_region``, ``env`` (all but ``num_envs``) and
    ``env_options``. Settings that may change from one part of a run to the next, such as its
    length or the logger, are not.

    Args:
        saved: configuration of the checkpoint.
        here: configuration of the run that resumes.

    Raises:
        ValueError: naming the first setting that differs, and both values.

    Example:
        >>> saved = {"recipe": "soft_q", "loss": {"gamma": 0.9}, "training": {"reward_scale": 1.0}}
        >>> check_same_problem(saved, {**saved, "loss": {"gamma": 0.5}})
        Traceback (most recent call last):
        ValueError: resume: loss.gamma is 0.9 in the checkpoint, it cannot become 0.5
    """
    before, now = _problem(saved), _problem(here)
    for name in sorted({*before, *now}):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"resume: {name} is {before.get(name)} in the checkpoint, "
                f"it cannot become {now.get(name)}"
            )


def _problem(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = {f"loss.{name}": value for name, value in config["loss"].items()}
    if "reward_scale" in config["training"]:
        settings["training.reward_scale"] = config["training"]["reward_scale"]
    names = ("recipe", "mode", "base", "birth_death", "trust_region", "env_options")
    settings |= {name: config[name] for name in names if name in config}
    if isinstance(config.get("env"), str):  # a task's name; elsewhere settings of one world
        settings["env"] = config["env"]
    elif isinstance(config.get("env"), Mapping):
        kept = {name: value for name, value in config["env"].items() if name != "num_envs"}
        settings |= {f"env.{name}": value for name, value in kept.items()}
    return settings


def load_weights(path: str | Path, loss: nn.Module) -> None:
    """Load a trained loss module: actor, critics and targets.

    Args:
        path: a checkpoint or a run directory.
        loss: of the same architecture; its networks share these weights.

    Raises:
        FileNotFoundError: if there is no checkpoint.
        ValueError: if the checkpoint holds another architecture, naming the first difference.
    """
    path = find_checkpoint(path)
    _check_architecture(path, loss)
    # Saved on a GPU, it may be read on a machine without one.
    Checkpoint(loss=loss).load(path, components=["loss"], map_location="cpu")


class Checkpoints:
    """The rotating checkpoints of a run: the last ones, and the one with the best evaluation.

    A checkpoint is written under a hidden name and renamed when it is complete; only then others
    are removed. A process may be killed at any moment: what it leaves is hidden, ignored, and can
    be deleted (``.checkpoint-*``).

    Args:
        directory: where they go.
        loss: the loss module; its parameters' names and shapes are recorded.
        config: resolved configuration, recorded.
        others: further components with ``state_dict`` and ``load_state_dict``: optimizer, ...
        keep_last: how many to keep.

    Raises:
        OSError: if the directory cannot be made.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     checkpoints = Checkpoints(Path(folder), loss=nn.Linear(2, 1), config={}, others={})
        ...     path = checkpoints.save(step=10)
        ...     checkpoints.restore(path)
        ...     find_checkpoint(path) == path
        True
    """

    def __init__(
        self,
        directory: Path,
        *,
        loss: nn.Module,
        config: Mapping[str, Any],
        others: Mapping[str, Any],
        keep_last: int = 2,
    ) -> None:
        self._loss = loss
        self._metadata = {"config": dict(config), "shapes": _shapes(loss)}
        self._checkpoint = Checkpoint()
        for name, component in {"loss": loss, **others}.items():
            self._checkpoint.register(name, component, adapter=OneFileAdapter())
        self._rotation = CheckpointRotation(directory, keep_last=keep_last, keep_best=_BEST)
        self._latest: Path | None = None
        with explain_write_errors(directory, None):  # now and not after hours of training
            directory.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, eval_return: float | None = None, **notes: Any) -> Path:
        """Write a checkpoint; it appears whole or not at all.

        Nothing is written if the last one was of the same step: while a directory is replaced,
        there is a moment without any.

        Args:
            step: environment steps taken, part of the name.
            eval_return: mean return of the last evaluation, if there was one since the last
                checkpoint; decides which is the best. NaN and infinity never are.
            **notes: plain values to record beside it, see :func:`read_metadata`.

        Raises:
            OSError: if it cannot be written, naming the directory and the last good checkpoint.
        """
        path = self._rotation.directory / f"checkpoint-{step:012d}"
        if path == self._latest:
            return path
        metadata = self._metadata | notes
        if eval_return is not None:
            metadata[_BEST[0]] = eval_return
        with explain_write_errors(self._rotation.directory, self._latest):
            # Not the rotation's save, which wants an evaluation with every checkpoint.
            self._checkpoint.save(path, metadata=metadata)
            self._latest = path
            self._rotation.prune()
        return path

    def restore(self, path: str | Path) -> None:
        """Restore every component.

        Args:
            path: a checkpoint or a run directory.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if it holds another architecture, naming the first difference.
        """
        path = find_checkpoint(path)
        _check_architecture(path, self._loss)
        self._checkpoint.load(path)


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    state = module.state_dict()
    return {name: list(v.shape) for name, v in state.items() if isinstance(v, Tensor)}


def _check_architecture(path: Path, loss: nn.Module) -> None:
    # TorchRL's parameter containers ignore missing and surplus entries even when asked to be
    # strict, and would go on with half of the weights.
    saved, here = read_metadata(path)["shapes"], _shapes(loss)
    for name in sorted({*saved, *here}):
        if saved.get(name) != here.get(name):
            raise ValueError(
                f"the checkpoint {path} was made by another architecture: {name} has shape "
                f"{saved.get(name, 'none (absent)')} there and {here.get(name, 'none (absent)')} "
                "here"
            )
