"""Runs to compare: which of them are seeds of one method."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

from .runs import RunScores

__all__ = ["differing_evaluations", "differing_settings", "group_runs"]

Groups = dict[str, dict[str, list[RunScores]]]  # by task and method


def group_runs(runs: Sequence[RunScores]) -> Groups:
    """Runs by task and, within it, by method: runs of a group differ in their seed only.

    A task is its environment and those options that differ between the runs. A method is its
    recipe and those settings that differ between runs of the recipe on one task; its name has no
    more of them than tell it from the others, while :func:`differing_settings` has all.

    Args:
        runs: in the order in which groups shall appear.

    Raises:
        ValueError: if two runs have the same settings and the same seed.

    Example:
        >>> from pathlib import Path
        >>> def make_run(seed, gamma):
        ...     settings = {"loss.gamma": gamma, "loss.temperature": 1.0}
        ...     return RunScores(
        ...         Path(f"{gamma}-{seed}"), "ddpg", "multigoal", {}, settings, seed,
        ...         metric="eval/return", score=0.0, curve={}, steps=None, finished=True,
        ...     )
        >>> groups = group_runs([make_run(seed, gamma) for gamma in (0.9, 0.99) for seed in (0, 1)])
        >>> {method: len(runs) for method, runs in groups["multigoal"].items()}
        {'ddpg gamma=0.9': 2, 'ddpg gamma=0.99': 2}
    """
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
    groups: Groups = {task: {} for task in tasks}
    for method, same in methods.items():  # outside, so that every task has them in one order
        for task, seeds in _by(same, task_of).items():
            _check_seeds(method, seeds)
            groups[task][method] = seeds
    return groups


def differing_settings(
    groups: Mapping[str, Mapping[str, Sequence[RunScores]]],
) -> dict[str, dict[str, str]]:
    """For each method the settings by which methods of its recipe differ on some task, as shown.

    Args:
        groups: see :func:`group_runs`.

    Example:
        >>> from pathlib import Path
        >>> def make_run(gamma, lr):
        ...     settings = {"loss.gamma": gamma, "optim.lr": lr}
        ...     return RunScores(
        ...         Path(f"{gamma}"), "ddpg", "multigoal", {}, settings, seed=0,
        ...         metric="eval/return", score=0.0, curve={}, steps=None, finished=True,
        ...     )
        >>> settings = differing_settings(group_runs([make_run(0.9, 0.1), make_run(0.99, 0.01)]))
        >>> settings["ddpg gamma=0.9"]
        {'loss.gamma': '0.9', 'optim.lr': '0.1'}
    """
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

    Args:
        runs: of any recipes. A setting that a recipe does not have counts as none.

    Example:
        >>> from pathlib import Path
        >>> def make_run(recipe, steps):
        ...     return RunScores(
        ...         Path("."), recipe, "multigoal", {}, {"eval.max_steps": steps}, seed=0,
        ...         metric="eval/return", score=0.0, curve={}, steps=None, finished=True,
        ...     )
        >>> differing_evaluations([make_run("ddpg", 20), make_run("sac", 1000)])
        {'eval.max_steps': ['20', '1000']}
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
