"""The configuration of a run that goes on with another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .checkpoint import read_metadata

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["resumed_config"]


def resumed_config(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """Settings of the run named by ``cfg.resume``, changed by what the command line says now.

    Without ``resume`` that is ``cfg`` itself. Results go to ``cfg.run_dir``, a new directory.

    Args:
        cfg: the composed configuration.
        overrides: as given on the command line, ``["seed=1", "eval.episodes=10"]``.

    Raises:
        FileNotFoundError: if there is no checkpoint at ``cfg.resume``.
        ValueError: if the command line gives what is no setting of that run, such as ``task=``.

    Example:
        >>> from omegaconf import OmegaConf
        >>> cfg = OmegaConf.create({"resume": None, "seed": 1})
        >>> resumed_config(cfg, []) is cfg
        True
    """
    from omegaconf import DictConfig, OmegaConf  # an extra: only recipes need it

    if cfg.resume is None:
        return cfg
    saved = OmegaConf.create(read_metadata(cfg.resume)["config"])
    given = OmegaConf.from_dotlist(list(overrides))
    unknown = sorted(set(given) - set(saved))
    if unknown:  # a group such as task= would choose settings that the saved ones then replace
        raise ValueError(f"resume: the run has no setting {unknown[0]}, it cannot be given now")
    own = {"resume": cfg.resume, "run_dir": str(cfg.run_dir), "recipe": cfg.recipe}
    merged = OmegaConf.merge(saved, given, own)
    assert isinstance(merged, DictConfig)
    print(f"Resuming {cfg.resume} with its settings; writing to {cfg.run_dir}")  # noqa: T201
    return merged
