"""Runs to compare: what the recipes left in their directories."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Test returns: of a single agent, and the mean over the particles of a population.
_METRICS = ("eval/return", "test/return_mean")
# Settings that do not change results.
_BOOKKEEPING = {"recipe", "seed", "device", "threads", "logger", "resume", "run_dir", "compile"}
_BOOKKEEPING |= {"seeds", "eval.video_steps"}
_BOOKKEEPING |= {f"training.{name}_interval" for name in ("log", "eval", "checkpoint")}
_OPTIONS = ("env.options.", "env_options.")


@dataclass(frozen=True)
class RunScores:
    """One run as a comparison sees it.

    Example:
        >>> run = RunScores(
        ...     Path("runs/a"), "ddpg", "multigoal", {}, {"loss.gamma": 0.9}, seed=0,
        ...     metric="eval/return", score=-80.0, curve={640: -95.0, 1280: -82.0}, steps=1600,
        ...     finished=True,
        ... )
        >>> max(run.curve)
        1280
    """

    directory: Path
    recipe: str
    env: str
    options: Mapping[str, Any]  # of the environment, by name
    settings: Mapping[str, Any]  # all others that may change results, by dotted name
    seed: int
    metric: str
    score: float  # final value of the metric
    curve: Mapping[int, float]  # its values by environment step; a short run may have none
    steps: int | None  # the last step at which anything was logged, if ever
    finished: bool


def read_runs(
    paths: Iterable[str | Path], metrics: Sequence[str] = (), *, unfinished: bool = False
) -> tuple[list[RunScores], list[str]]:
    """Runs to compare, and a sentence for each that is left out.

    Args:
        paths: run directories, or folders that hold some; plain files are passed over, since a
            shell's ``runs/soft_q/*`` takes logs along.
        metrics: names such as ``eval/return``; of each run the first that it has is read. Default:
            eval/return, then test/return_mean.
        unfinished: whether runs without a summary.json take part, with their last value.

    Raises:
        FileNotFoundError: if a path does not exist, or is a directory without a run.
        ValueError: if no run is left, or one lacks what a comparison needs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     config = {"recipe": "mine", "env": "cartpole", "seed": 3}
        ...     _ = Path(folder, "config.json").write_text(json.dumps(config))
        ...     _ = Path(folder, "summary.json").write_text(json.dumps({"return": 10.0}))
        ...     (run,), notes = read_runs([folder])
        >>> run.seed, run.score, run.finished
        (3, 10.0, True)
    """
    runs, notes = [], []
    for directory in find_runs(paths):
        run = None
        if unfinished or (directory / "summary.json").exists():
            run = read_run(directory, metrics or _METRICS)
        if run is None:
            why = "logged no value yet" if unfinished else "is unfinished (summary.json is missing)"
            notes.append(f"Left out: {directory} {why}.")
        else:
            runs.append(run)
    if not runs:
        raise ValueError("\n".join(["no finished run to compare", *notes]))
    return runs, notes


def find_runs(paths: Iterable[str | Path]) -> list[Path]:
    """Directories of runs: those given, and for a folder of runs, those in it, each once."""
    found: dict[Path, None] = {}  # in order
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if path.is_file():
            continue
        inside = sorted(config.parent for config in path.glob("*/config.json"))
        runs = [path] if (path / "config.json").exists() else inside
        if not runs:
            raise FileNotFoundError(f"{path} holds no run: config.json is missing")
        found |= dict.fromkeys(runs)
    return list(found)


def read_run(directory: str | Path, metrics: Sequence[str] = _METRICS) -> RunScores | None:
    """Final score and learning curve of a run; None for one that logged none of the metrics yet.

    The score is the evaluation after training, from ``summary.json``, if that has the metric, and
    otherwise its last logged value. A run that went on with another has the other's curve before
    its own, as long as the other is where it was.
    """
    directory = Path(directory)
    config = _read_json(directory / "config.json")
    missing = [name for name in ("recipe", "seed", "env") if name not in config]
    if missing:
        raise ValueError(f"config.json of {directory} has no {missing[0]}")
    finished = (directory / "summary.json").exists()
    summary = _read_json(directory / "summary.json") if finished else {}
    for metric in metrics:
        curve = _read_curve(directory, config, metric)
        final = _final_value(summary, metric)
        if final is None and curve:
            final = curve[max(curve)]
        if final is not None:
            break
    else:
        if not finished:
            return None
        raise ValueError(
            f"{directory} has no {' and no '.join(metrics)}, but {', '.join(_logged(directory))}"
        )
    for value in (final, *curve.values()):
        if not math.isfinite(value):
            raise ValueError(f"{metric} of {directory} must be finite, got {value}")
    env, settings = config["env"], _flatten(config)
    options = {name: value for name, value in settings.items() if name.startswith(_OPTIONS)}
    ignored = {*_BOOKKEEPING, *options, "env", "env.name"}
    return RunScores(
        directory,
        recipe=config["recipe"],
        env=env["name"] if isinstance(env, dict) else env,
        options={name.partition("options.")[2]: value for name, value in options.items()},
        settings={name: value for name, value in settings.items() if name not in ignored},
        seed=config["seed"],
        metric=metric,
        score=final,
        curve=curve,
        steps=_last_step(directory),
        finished=finished,
    )


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            settings |= _flatten(value, f"{prefix}{key}.")
        else:
            settings[prefix + key] = value
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"{path.parent} holds no run: {path.name} is missing")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


def _read_curve(directory: Path, config: Mapping[str, Any], metric: str) -> dict[int, float]:
    path = directory / "metrics" / "scalars" / f"{metric}.csv"
    lines = path.read_text().splitlines() if path.exists() else []
    own = dict(_parse(line, path) for line in lines)
    if not own or not config.get("resume"):
        return own
    origin = Path(config["resume"])  # a run, or run/checkpoints/checkpoint-...
    for parent in (origin, *origin.parents[:2]):
        if (parent / "config.json").exists():
            before = _read_curve(parent, _read_json(parent / "config.json"), metric)
            return {step: value for step, value in before.items() if step < min(own)} | own
    return own


def _parse(line: str, path: Path) -> tuple[int, float]:
    try:
        step, value = line.split(",")
        return int(step), float(value)
    except ValueError as error:
        raise ValueError(f"{path} must have lines 'step,value', got {line!r}") from error


def _last_step(directory: Path) -> int | None:
    """Of all metrics: evaluations may end before training does."""
    files = (directory / "metrics" / "scalars").rglob("*.csv")
    last = ((path, path.read_text().rstrip().rpartition("\n")[2]) for path in files)
    return max((_parse(line, path)[0] for path, line in last if line), default=None)


def _final_value(summary: Mapping[str, Any], metric: str) -> float | None:
    """``eval/return`` is there as "return", ``test/return_max`` as "max"."""
    kind, _, name = metric.partition("/")
    if kind not in ("eval", "test"):
        return None
    values = (summary.get(key) for key in (name, name.removeprefix("return_")))
    return next((float(v) for v in values if isinstance(v, int | float)), None)


def _logged(directory: Path) -> list[str]:
    folder = directory / "metrics" / "scalars"
    names = [str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.csv")]
    return sorted(name for name in names if "particle_" not in name) or ["no metric at all"]
