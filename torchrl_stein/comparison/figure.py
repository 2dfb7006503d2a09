"""Pictures of a comparison: learning curves and final scores, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["draw_curves", "draw_scores"]

# Okabe and Ito's palette without yellow, then Tol's muted one.
_COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#3F3F3F"),
    *("#882255", "#999933", "#332288", "#AA4499", "#661100"),
)
_DASHES = ("-", "--", ":")  # of the lines beyond these colours
_GREY = "#6A6A6A"


def draw_curves(path: str | Path, numbers: Mapping[str, Any]) -> Path | None:
    """Interquartile mean over seeds against environment steps, with its band; a panel per task.

    Args:
        path: where the PNG goes.
        numbers: what :func:`compare_groups` returns.

    Returns:
        The path; None, and no file, if no method has a curve.

    Example:
        >>> import tempfile
        >>> curve = {"steps": [1, 2], "iqm": [0.0, 1.0], "low": [-1.0, 0.0], "high": [1.0, 2.0]}
        >>> method = {"curve": curve, "seeds": [0, 1], "metrics": ["eval/return"]}
        >>> numbers = {"tasks": {"multigoal": {"methods": {"ddpg": method}}}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_curves(f"{folder}/a.png", numbers).name
        'a.png'
    """
    panels = {}
    for task, found in numbers["tasks"].items():
        methods = {name: m for name, m in found["methods"].items() if m["curve"]["steps"]}
        if methods:
            panels[task] = methods
    if not panels:
        return None
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
        ax.xaxis.set_major_formatter(_thousands())
        note = _seeds(methods.values())
        ax.text(0.99, 0.03, note, transform=ax.transAxes, fontsize=7, color=_GREY, ha="right")
    _add_legend(figure, lines)
    return _save(figure, path)


def draw_scores(path: str | Path, numbers: Mapping[str, Any]) -> Path:
    """Final scores: a dot for each run, a mark for the interquartile mean, a bar for its interval.

    Args:
        path: where the PNG goes.
        numbers: what :func:`compare_groups` returns.

    Example:
        >>> import tempfile
        >>> method = {"scores": [1.0, 2.0], "iqm": 1.5, "interval": [1.0, 2.0]}
        >>> method["metrics"] = ["eval/return"]
        >>> numbers = {"tasks": {"multigoal": {"methods": {"ddpg": method}}}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_scores(f"{folder}/a.png", numbers).name
        'a.png'
    """
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


def _thousands() -> Any:
    from matplotlib.ticker import EngFormatter  # an extra

    return EngFormatter(sep="")  # 500k, 2M


def _save(figure: Figure, path: str | Path) -> Path:
    figure.savefig(path, bbox_inches="tight", pad_inches=0.06)
    return Path(path)
