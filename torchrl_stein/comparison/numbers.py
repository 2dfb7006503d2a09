"""Groups of runs in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .groups import differing_evaluations, differing_settings
from .runs import RunScores
from .statistics import interquartile_mean, probability_of_improvement, stratified_bootstrap

__all__ = ["compare_groups"]

_CONFIDENCE = 0.95
_CURVE_RESAMPLES = 2000  # a band needs no exact ends, and has many

Groups = Mapping[str, Mapping[str, Sequence[RunScores]]]  # by task and method
Strata = list[list[float]]  # scores by task
Numbers = dict[str, Any]


def compare_groups(
    groups: Groups,
    *,
    normalize: Mapping[str, tuple[float, float]] | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Numbers:
    """Interquartile means, probabilities of improvement and learning curves, with intervals.

    Args:
        groups: runs by task and method, see :func:`group_runs`.
        normalize: for every task the scores that become 0 and 1; without it there is no score over
            several tasks.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        Plain values, ready for JSON: ``tasks``, by name, with ``methods``, ``improvement`` (row
        over column) and the settings in which the ``evaluation`` differs; the same over all tasks
        in ``overall``, if there are several and methods that have run on all of them; ``settings``
        by which methods differ. An interval is None where a task has a single run.

    Raises:
        ValueError: if ``normalize`` does not name the tasks, or gives an empty range.

    Example:
        >>> from pathlib import Path
        >>> task = ("ddpg", "multigoal", {}, {})
        >>> runs = [
        ...     RunScores(Path(f"{seed}"), *task, seed, "eval/return", 1.0 + seed, {}, None, True)
        ...     for seed in range(3)
        ... ]
        >>> numbers = compare_groups({"multigoal": {"ddpg": runs}})
        >>> numbers["tasks"]["multigoal"]["methods"]["ddpg"]["iqm"]
        2.0
    """
    _check_ranges(normalize, list(groups))
    draws = {"resamples": resamples, "seed": seed}
    tasks: Numbers = {}
    for task, methods in groups.items():
        scores = {name: [[run.score for run in runs]] for name, runs in methods.items()}
        tasks[task] = {
            "methods": {
                name: _describe(runs) | _summarize(scores[name], draws) | _curve(runs, draws)
                for name, runs in methods.items()
            },
            "improvement": _improvements(scores, draws),
            "evaluation": differing_evaluations(list(chain(*methods.values()))),
        }
    numbers = {"confidence": _CONFIDENCE, **draws, "tasks": tasks}
    numbers["settings"] = differing_settings(groups)
    everywhere = _on_all_tasks(groups)
    if everywhere and (len(tasks) > 1 or normalize):
        numbers["overall"] = _overall(everywhere, normalize, draws)
    return numbers


def _check_ranges(normalize: Mapping[str, tuple[float, float]] | None, tasks: list[str]) -> None:
    if not normalize:
        return
    if set(normalize) != set(tasks):
        raise ValueError(f"normalize must name the tasks {tasks}, got {list(normalize)}")
    for task, (low, high) in normalize.items():
        if not (low < high and math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"normalize: {task} must have LOW < HIGH, got {low} and {high}")


def _describe(runs: Sequence[RunScores]) -> Numbers:
    return {
        "metrics": sorted({run.metric for run in runs}),
        "runs": [str(run.directory) for run in runs],
        "seeds": [run.seed for run in runs],
        "unfinished": sum(not run.finished for run in runs),
        "steps": max((run.steps for run in runs if run.steps is not None), default=None),
        "scores": [run.score for run in runs],
    }


def _summarize(scores: Strata, draws: Mapping[str, int]) -> Numbers:
    pooled = np.concatenate(scores)
    ends = stratified_bootstrap(
        lambda tasks: interquartile_mean(np.concatenate(tasks, -1)), scores, **draws
    )
    return {
        "iqm": float(interquartile_mean(pooled)),
        "interval": _plain(ends),
        "mean": float(pooled.mean()),
        "median": float(np.median(pooled)),
    }


def _curve(runs: Sequence[RunScores], draws: Mapping[str, int]) -> Numbers:
    """At the steps that all runs have."""
    steps = sorted(set.intersection(*(set(run.curve) for run in runs)))
    if not steps:
        return {"curve": {"steps": [], "iqm": [], "low": None, "high": None}}
    values = np.array([[run.curve[step] for run in runs] for step in steps])
    count = min(draws["resamples"], _CURVE_RESAMPLES)
    low, high = stratified_bootstrap(
        lambda tasks: interquartile_mean(tasks[0]), [values], resamples=count, seed=draws["seed"]
    )
    band = len(runs) > 1
    return {
        "curve": {
            "steps": steps,
            "iqm": interquartile_mean(values).tolist(),
            "low": low.tolist() if band else None,
            "high": high.tolist() if band else None,
        }
    }


def _improvements(scores: Mapping[str, Strata], draws: Mapping[str, int]) -> Numbers:
    """Of each method over each other; the two directions of a pair add up to one."""
    matrix: dict[str, Numbers] = {name: {} for name in scores}
    names = list(scores)
    for i, row in enumerate(names):
        for column in names[i + 1 :]:
            pair = scores[row], scores[column]
            value = float(probability_of_improvement(*pair))
            ends = _plain(stratified_bootstrap(probability_of_improvement, *pair, **draws))
            mirrored = [1 - end for end in reversed(ends)] if ends else None
            matrix[row][column] = {"probability": value, "interval": ends}
            matrix[column][row] = {"probability": 1 - value, "interval": mirrored}
    return matrix


def _on_all_tasks(groups: Groups) -> dict[str, dict[str, list[float]]]:
    """Scores by method and task, of methods that have run on each."""
    names = next(iter(groups.values()), {})
    return {
        name: {task: [run.score for run in methods[name]] for task, methods in groups.items()}
        for name in names
        if all(name in methods for methods in groups.values())
    }


def _overall(
    methods: Mapping[str, Mapping[str, list[float]]],
    normalize: Mapping[str, tuple[float, float]] | None,
    draws: Mapping[str, int],
) -> Numbers:
    raw = {name: list(scores.values()) for name, scores in methods.items()}
    numbers: Numbers = {"improvement": _improvements(raw, draws)}
    if normalize:
        numbers["normalize"] = {task: list(ends) for task, ends in normalize.items()}
        numbers["methods"] = {
            name: {"seeds": [len(one) for one in scores.values()]}
            | _summarize([_scaled(one, normalize[task]) for task, one in scores.items()], draws)
            for name, scores in methods.items()
        }
    return numbers


def _scaled(scores: Sequence[float], ends: tuple[float, float]) -> list[float]:
    low, high = ends
    return [(score - low) / (high - low) for score in scores]


def _plain(ends: tuple[Any, Any]) -> list[float] | None:
    low, high = map(float, ends)
    return None if math.isnan(low) else [low, high]
