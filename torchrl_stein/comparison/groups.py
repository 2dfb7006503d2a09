"""Which runs are seeds of one method, and the groups in numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from .runs import RunScores
from .statistics import interquartile_mean, probability_of_improvement, stratified_bootstrap

_CONFIDENCE = 0.95
_CURVE_RESAMPLES = 2000  # a band needs no exact ends, and has many

Groups = Mapping[str, Mapping[str, Sequence[RunScores]]]  # by task and method
Ranges = Mapping[str, tuple[float, float]]
Strata = list[list[float]]  # scores by task
Numbers = dict[str, Any]


def compare_runs(runs: Sequence[RunScores], *, normalize: Ranges | None = None) -> Numbers:
    """Interquartile means, probabilities of improvement and learning curves, with intervals.

    Runs of a group differ in their seed only. A task is its environment and those options that
    differ between the runs. A method is its recipe and those settings that differ between runs of
    the recipe on one task; its name has no more of them than tell it from the others.

    Args:
        runs: in the order in which groups appear.
        normalize: for every task the scores that become 0 and 1; without it there is no score over
            several tasks.

    Returns:
        Plain values, ready for JSON: ``tasks``, by name, with ``methods``, ``improvement`` (row
        over column) and the settings in which the ``evaluation`` differs; ``overall``, of methods
        that have run on all of several tasks; ``settings`` by which methods differ. An interval is
        None where a task has a single run.

    Raises:
        ValueError: if two runs have the same settings and the same seed, or ``normalize`` does not
            name the tasks or gives an empty range.

    Example:
        >>> from pathlib import Path
        >>> def make_run(seed, gamma):
        ...     task = ("ddpg", "multigoal", {}, {"loss.gamma": gamma}, seed, "eval/return")
        ...     return RunScores(Path(f"{gamma}-{seed}"), *task, 1.0 + seed, {}, None, True)
        >>> numbers = compare_runs([make_run(seed, g) for g in (0.9, 0.99) for seed in range(3)])
        >>> methods = numbers["tasks"]["multigoal"]["methods"]
        >>> {name: method["iqm"] for name, method in methods.items()}
        {'ddpg gamma=0.9': 2.0, 'ddpg gamma=0.99': 2.0}
    """
    return compare_groups(group_runs(runs), normalize=normalize)


def group_runs(runs: Sequence[RunScores]) -> dict[str, dict[str, list[RunScores]]]:
    """Runs by task and, within it, by method."""
    worlds = _by(runs, lambda run: run.env)
    options = {env: _differing([run.options for run in same]) for env, same in worlds.items()}

    def task_of(run: RunScores) -> str:
        return _label(run.env, run.options, {name: name for name in options[run.env]})

    tasks = _by(runs, task_of)
    names = {
        recipe: _short_names([run.settings for run in runs if run.recipe == recipe], differing)
        for recipe, differing in _differing_by_recipe(tasks).items()
    }
    methods = _by(runs, lambda run: _label(run.recipe, run.settings, names[run.recipe]))
    groups: dict[str, dict[str, list[RunScores]]] = {task: {} for task in tasks}
    for method, same in methods.items():  # outside, so that every task has them in one order
        for task, seeds in _by(same, task_of).items():
            _check_seeds(method, seeds)
            groups[task][method] = seeds
    return groups


def differing_settings(groups: Groups) -> dict[str, dict[str, str]]:
    """For each method the settings by which methods of its recipe differ on some task, as shown."""
    tasks = {task: list(chain(*methods.values())) for task, methods in groups.items()}
    names = _differing_by_recipe(tasks)
    first = {name: runs[0] for methods in groups.values() for name, runs in methods.items()}
    return {
        method: {
            name: _shown(name, run.settings) for name in names[run.recipe] if name in run.settings
        }
        for method, run in first.items()
    }


def differing_evaluations(runs: Sequence[RunScores]) -> dict[str, list[str]]:
    """Settings of the evaluation in which runs on one task differ: their scores mean other things.

    A setting that a recipe does not have counts as none.
    """
    values: dict[str, dict[str, None]] = {}
    for run in runs:
        for name in run.settings:
            if name.startswith("eval."):
                values.setdefault(name, {})[_shown(name, run.settings)] = None
    return {name: list(found) for name, found in values.items() if len(found) > 1}


def _differing_by_recipe(tasks: Mapping[str, Sequence[RunScores]]) -> dict[str, list[str]]:
    names: dict[str, dict[str, None]] = {}
    for runs in tasks.values():
        for recipe, same in _by(runs, lambda run: run.recipe).items():
            differing = _differing([run.settings for run in same])
            names.setdefault(recipe, {}).update(dict.fromkeys(differing))
    return {recipe: list(found) for recipe, found in names.items()}


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names with several values; being absent is a value too."""
    names = dict.fromkeys(name for one in settings for name in one)
    # A whole section that some runs have not, "selection", tells more than an entry of it.
    entries = {name for name in names if any(name.startswith(f"{other}.") for other in names)}
    ordered = sorted(names, key=lambda name: name in entries)
    return [name for name in ordered if _count(settings, [name]) > 1]


def _short_names(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """Of dotted names the last part, unless two share it; without those that the others tell."""
    last = {
        name: name.removesuffix("._target_").removesuffix(".name").rpartition(".")[2]
        for name in names
    }
    parts = list(last.values())
    kept = list(names)
    for name in reversed(names):
        others = [other for other in kept if other != name]
        if _count(settings, others) == _count(settings, names):
            kept = others
    return {name: last[name] if parts.count(last[name]) == 1 else name for name in kept}


def _count(settings: Sequence[Mapping[str, Any]], names: Sequence[str]) -> int:
    return len({tuple(n in one and _shown(n, one) for n in names) for one in settings})


def _check_seeds(method: str, runs: Sequence[RunScores]) -> None:
    for seed, same in _by(runs, lambda run: run.seed).items():
        if len(same) > 1:
            directories = " and ".join(str(run.directory) for run in same)
            raise ValueError(
                f"{directories} are both seed {seed} of {method}, with the same settings; "
                "leave out all but one"
            )


def _by(runs: Sequence[RunScores], key: Callable[[RunScores], Any]) -> dict[Any, list[RunScores]]:
    found: dict[Any, list[RunScores]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def _label(head: str, settings: Mapping[str, Any], names: Mapping[str, str]) -> str:
    words = [f"{short}={_shown(n, settings)}" for n, short in names.items() if n in settings]
    return " ".join([head, *words])


def _shown(name: str, settings: Mapping[str, Any]) -> str:
    value = settings[name]
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith("torchrl_stein.") else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.10g}"  # 1 and 1.0 are the same
    return json.dumps(value, separators=(",", ":"))


# The numbers


def compare_groups(
    groups: Groups,
    *,
    normalize: Ranges | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Numbers:
    """:func:`compare_runs` of groups; ``resamples`` and ``seed`` are those of the bootstrap."""
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


def _check_ranges(normalize: Ranges | None, tasks: list[str]) -> None:
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
    normalize: Ranges | None,
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
