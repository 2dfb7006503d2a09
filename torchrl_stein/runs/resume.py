"""The settings of a run that goes on where another stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from .checkpoint import CheckpointError, find_checkpoint, read_manifest
from .settings import SettingsError

if TYPE_CHECKING:
    from .settings import RecipeSettings

__all__ = ["resumed_settings"]

# What may change from one part of a run to the next. All else is part of what is trained: a rate
# of learning, for one, lives in the state of the optimizer.
_MAY_CHANGE = (
    "device",
    "threads",
    "logger",
    "run_dir",
    "resume",
    "eval.",
    "compile.",
    "env.num_envs",
    "training.total_frames",
    "training.iterations",
    "training.batch_size",
    "training.updates_per_step",
    "training.log_interval",
    "training.eval_interval",
    "training.checkpoint_interval",
)


def resumed_settings(
    settings: RecipeSettings, composed: Mapping[str, Any], overrides: Sequence[str]
) -> dict[str, Any]:
    """Settings of the run that ``settings.resume`` names, changed by what was typed now.

    Args:
        settings: with ``resume``, a checkpoint or the directory of a run.
        composed: what Hydra made of the command line, for the values of what was typed.
        overrides: of the command line, ``["eval.episodes=10"]``.

    Returns:
        dict: plain values; ``resume`` is the absolute path of the checkpoint.

    Raises:
        SettingsError: if a setting is given that cannot change, or there is no such checkpoint.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    assert settings.resume is not None
    try:
        path = find_checkpoint(settings.resume).resolve()
        saved: dict[str, Any] = deepcopy(read_manifest(path)["config"])
    except (CheckpointError, FileNotFoundError) as error:
        raise SettingsError(f"resume: {error}") from error
    if saved.get("recipe") != settings.recipe:
        raise SettingsError(
            f"resume: recipe is {saved.get('recipe')} in the checkpoint, it cannot become "
            f"{settings.recipe}"
        )
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        name = override.key_or_group
        if name.startswith("hydra"):
            continue
        found, value = _get(composed, name)
        if not found or override.is_delete() or "@" in name:
            raise SettingsError(f"resume: the run has no setting {name}, it cannot be given now")
        before = _get(saved, name)[1]
        free = any(
            name == kept or (kept.endswith(".") and name.startswith(kept)) for kept in _MAY_CHANGE
        )
        if value != before and not free:
            raise SettingsError(
                f"resume: {name} is {before} in the checkpoint, it cannot become {value}"
            )
        _set(saved, name, value)
    return saved | {"resume": str(path), "run_dir": settings.run_dir}


def _get(values: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    current: Any = values
    for part in name.split("."):
        if not isinstance(current, Mapping) or part not in current:
            return False, None
        current = current[part]
    return True, current


def _set(values: dict[str, Any], name: str, value: Any) -> None:
    *sections, last = name.split(".")
    for part in sections:
        values = values.setdefault(part, {})
    values[last] = value
