"""A comparison as a Markdown page and as pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


_FEW_SEEDS = 5  # with five normal scores 90 of 100 intervals of 95 % cover the mean, with three 75
# Okabe and Ito's palette without yellow, then Tol's muted one.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#3F3F3F"),
    *("#882255", "#999933", "#332288", "#AA4499", "#661100"),
)
_DASHES = ("-", "--", ":")  # of the lines beyond these colours
_GREY = "#6A6A6A"

Numbers = dict[str, Any]


def comparison_page(numbers: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """A Markdown page of what :func:`compare_runs` returns, and ``notes``, further sentences.

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


def draw_comparison(folder: str | Path, numbers: Mapping[str, Any]) -> list[Path]:
    """Pictures of what :func:`compare_runs` returns: learning_curves.png and scores.png.

    Curves are interquartile means over seeds against environment steps, with bands, a panel per
    task; without a curve there is no such picture. Final scores are a dot for each run, a mark for
    the interquartile mean and a bar for its interval.

    Example:
        >>> import tempfile
        >>> method = {"scores": [1.0, 2.0], "iqm": 1.5, "interval": [1.0, 2.0], "seeds": [0, 1]}
        >>> method |= {"metrics": ["eval/return"], "curve": {"steps": []}}
        >>> numbers = {"tasks": {"multigoal": {"methods": {"ddpg": method}}}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in draw_comparison(folder, numbers)]
        ['scores.png']
    """
    curves = _draw_curves(Path(folder, "learning_curves.png"), numbers)
    scores = _draw_scores(Path(folder, "scores.png"), numbers)
    return [scores] if curves is None else [curves, scores]


# The page


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


# The pictures


def _draw_curves(path: Path, numbers: Mapping[str, Any]) -> Path | None:
    panels = {}
    for task, found in numbers["tasks"].items():
        methods = {name: m for name, m in found["methods"].items() if m["curve"]["steps"]}
        if methods:
            panels[task] = methods
    if not panels:
        return None
    from matplotlib.ticker import EngFormatter  # an extra

    rows, columns = math.ceil(len(panels) / 3), min(3, len(panels))
    figure = _figure(max(6.0, 4.0 * columns), 3.0 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    styles, lines = _styles(numbers), {}
    for ax, (task, methods) in zip(axes, panels.items(), strict=False):
        _prepare(ax, task, grid="both")
        for name, method in methods.items():
            lines[name] = _draw_curve(ax, method["curve"], **styles[name])
        ax.set(xlabel="environment steps", ylabel=_metrics(methods.values()), xlim=(0, None))
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 500k, 2M
        note = _seeds(methods.values())
        ax.text(0.99, 0.03, note, transform=ax.transAxes, fontsize=7, color=_GREY, ha="right")
    _add_legend(figure, lines)
    return _save(figure, path)


def _draw_scores(path: Path, numbers: Mapping[str, Any]) -> Path:
    panels = {
        task: (found["methods"], _metrics(found["methods"].values()))
        for task, found in numbers["tasks"].items()
    }
    if "methods" in numbers.get("overall", {}):
        panels["all tasks"] = numbers["overall"]["methods"], "normalized score"
    sizes = [len(methods) for methods, _ in panels.values()]
    longest = max(len(name) for methods, _ in panels.values() for name in methods)
    figure = _figure(5 + 0.07 * longest, sum(0.25 * size + 0.9 for size in sizes))
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=[size + 1 for size in sizes])
    styles = _styles(numbers)
    for ax, (title, (methods, unit)) in zip(axes.flat, panels.items(), strict=True):
        _prepare(ax, title, grid="x")
        for row, (name, method) in enumerate(methods.items()):
            colour = styles[name]["color"]
            scores = method.get("scores", [])
            ax.scatter(scores, [row] * len(scores), s=9, color=_GREY, linewidths=0, zorder=3)
            if method["interval"] is not None:
                bar = {"lw": 5, "alpha": 0.35, "solid_capstyle": "butt"}
                ax.plot(method["interval"], [row, row], color=colour, **bar)
            ax.plot(method["iqm"], row, "|", color=colour, ms=11, mew=2)
        ax.set(yticks=range(len(methods)), yticklabels=list(methods), xlabel=unit)
        ax.set_ylim(len(methods) - 0.5, -0.5)  # the first on top, as in the table
    return _save(figure, path)


def _draw_curve(ax: Axes, curve: Mapping[str, Any], **style: Any) -> Line2D:
    marker = "o" if len(curve["steps"]) == 1 else None
    (line,) = ax.plot(curve["steps"], curve["iqm"], lw=1.5, marker=marker, **style)
    if curve["low"] is not None:
        band = curve["steps"], curve["low"], curve["high"]
        ax.fill_between(*band, color=style["color"], alpha=0.15, linewidth=0)
    return line


def _add_legend(figure: Figure, lines: Mapping[str, Line2D]) -> None:
    """Below the panels, as wide as they are; the figure grows by its height (inches)."""
    longest = max(map(len, lines))
    columns = min(len(lines), max(1, int(figure.get_figwidth() / (0.075 * longest + 0.6))))
    figure.set_figheight(figure.get_figheight() + 0.18 * math.ceil(len(lines) / columns) + 0.1)
    handles = {"handles": list(lines.values()), "labels": list(lines), "fontsize": 8}
    figure.legend(**handles, loc="outside lower center", ncols=columns, frameon=False)


def _styles(numbers: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """A look for each method, the same in all panels."""
    names = dict.fromkeys(name for task in numbers["tasks"].values() for name in task["methods"])
    count = len(_COLOURS)
    return {
        name: {"color": _COLOURS[i % count], "linestyle": _DASHES[i // count % len(_DASHES)]}
        for i, name in enumerate(names)
    }


def _metrics(methods: Iterable[Mapping[str, Any]]) -> str:
    return " or ".join(sorted({metric for method in methods for metric in method["metrics"]}))


def _seeds(methods: Iterable[Mapping[str, Any]]) -> str:
    counts = [len(method["seeds"]) for method in methods]
    fewest, most = min(counts), max(counts)
    number = f"{most}" if fewest == most else f"{fewest} to {most}"
    return f"{number} seed" + "s" * (most > 1)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # an extra; Figure needs no display

    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def _prepare(ax: Axes, title: str, grid: Literal["both", "x"]) -> None:
    ax.set_title(title, size=9.5)
    ax.grid(axis=grid, color="#E6E6E6", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=8)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_fontsize(8)


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, bbox_inches="tight", pad_inches=0.06)
    return path
