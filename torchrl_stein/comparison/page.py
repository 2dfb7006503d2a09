"""Groups of runs as a Markdown page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["comparison_page"]

_FEW_SEEDS = 5  # with five normal scores 90 of 100 intervals of 95 % cover the mean, with three 75

Numbers = dict[str, Any]


def comparison_page(numbers: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """A Markdown page of what :func:`compare_groups` returns.

    Args:
        numbers: the comparison.
        notes: further sentences, such as the runs that were left out.

    Example:
        >>> numbers = {"confidence": 0.95, "resamples": 100, "tasks": {}, "settings": {}}
        >>> print(comparison_page(numbers).splitlines()[0])
        # Comparison of runs
    """
    tasks = numbers["tasks"]
    methods = dict.fromkeys(name for task in tasks.values() for name in task["methods"])
    number = {name: str(i) for i, name in enumerate(methods, 1)}
    percent = f"{100 * numbers['confidence']:g} %"
    metrics = {m for task in tasks.values() for g in task["methods"].values() for m in g["metrics"]}
    parts = [
        "# Comparison of runs",
        f"Final {' or '.join(sorted(metrics))} of each run. IQM: interquartile mean. Intervals: "
        f"{percent}, percentiles of {numbers['resamples']:,} bootstrap samples of the runs.",
        _score_table(tasks, number, percent),
    ]
    parts += _improvement_parts(tasks, number)
    if "overall" in numbers:
        parts += ["## All tasks", *_overall_parts(numbers["overall"], number, percent)]
    parts += _setting_parts(numbers["settings"], number)
    parts.append("\n".join(f"- {note}" for note in (*_cautions(tasks), *notes)))
    return "\n\n".join(filter(None, parts)) + "\n"


def _score_table(tasks: Mapping[str, Any], number: Mapping[str, str], percent: str) -> str:
    head = ["", "group", "task", "seeds", "steps", f"IQM [{percent}]", "mean", "median"]
    rows = []
    for task, found in tasks.items():
        for name, group in found["methods"].items():
            unfinished = f" ({group['unfinished']} unfinished)" if group["unfinished"] else ""
            steps = "" if group["steps"] is None else f"{group['steps']:,}"
            seeds = f"{len(group['seeds'])}{unfinished}"
            rows.append([number[name], name, task, seeds, steps, *_cells(group)])
    return _markdown(head, rows)


def _improvement_parts(tasks: Mapping[str, Any], number: Mapping[str, str]) -> list[str]:
    """Nothing where no task has two methods."""
    parts = []
    for task, found in tasks.items():
        if len(found["methods"]) > 1:
            parts += [f"### {task}", _matrix(found["improvement"], number)]
    if not parts:
        return []
    meaning = "How likely a run of the row scores higher than a run of the column, ties one half."
    return ["## Probability of improvement", meaning, *parts]


def _overall_parts(overall: Numbers, number: Mapping[str, str], percent: str) -> list[str]:
    parts = []
    absent = [name for name in number if name not in overall["improvement"]]
    if absent:
        parts.append(f"Not on every task, so not here: {', '.join(absent)}.")
    if "methods" in overall:
        ranges = [f"{t} {_short(a)} to {_short(b)}" for t, (a, b) in overall["normalize"].items()]
        head = ["", "group", "seeds", f"normalized IQM [{percent}]", "mean", "median"]
        rows = [
            [number[name], name, " + ".join(map(str, group["seeds"])), *_cells(group)]
            for name, group in overall["methods"].items()
        ]
        parts += [f"Scores that became 0 and 1: {'; '.join(ranges)}.", _markdown(head, rows)]
    else:
        parts.append(
            "No score over all tasks: returns of different tasks cannot be averaged. Give every "
            "task its range, `--normalize TASK=LOW,HIGH`."
        )
    if len(overall["improvement"]) > 1:
        matrix = _matrix(overall["improvement"], number)
        parts += ["Probability of improvement, mean over tasks:", matrix]
    return parts


def _setting_parts(settings: Mapping[str, Any], number: Mapping[str, str]) -> list[str]:
    """Methods in rows; nothing without such settings."""
    names = dict.fromkeys(name for one in settings.values() for name in one)
    if not names:
        return []
    rows = [[number[m], *(one.get(name, "") for name in names)] for m, one in settings.items()]
    return ["## Settings that differ", _markdown(["", *names], rows)]


def _cautions(tasks: Mapping[str, Any]) -> list[str]:
    groups = [group for task in tasks.values() for group in task["methods"].values()]
    fewest = min((len(group["seeds"]) for group in groups), default=_FEW_SEEDS)
    notes = [
        f"{task}: evaluations differ in {name} ({', '.join(values)}), so scores mean other things."
        for task, found in tasks.items()
        for name, values in found["evaluation"].items()
    ]
    if fewest == 1:
        notes.append("A group with one seed has no interval: one run says nothing about others.")
    if fewest < _FEW_SEEDS:
        notes.append(f"Fewer than {_FEW_SEEDS} seeds: bootstrap intervals are too narrow.")
    return notes


def _matrix(improvement: Numbers, number: Mapping[str, str]) -> str:
    rows = []
    for row, line in improvement.items():
        cells = [_odds(line[column]) if column in line else "" for column in improvement]
        rows.append([number[row], row, *cells])
    return _markdown(["", "group", *(number[name] for name in improvement)], rows)


def _odds(pair: Numbers) -> str:
    ends = pair["interval"]
    return f"{pair['probability']:.2f}" + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")


def _cells(group: Numbers) -> list[str]:
    ends = group["interval"]
    bracket = f" [{_short(ends[0])}, {_short(ends[1])}]" if ends else ""
    return [_short(group["iqm"]) + bracket, _short(group["mean"]), _short(group["median"])]


def _short(value: float) -> str:
    """Four significant digits, without an exponent."""
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
