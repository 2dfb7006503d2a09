"""Pictures of populations: figures 1 to 4 of Liu et al. 2017 (arXiv:1704.02399), from arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, then Tol's muted one: apart for colour-blind readers too.
_MODE_COLOURS = {
    "svpg": "#0072B2",
    "independent": "#D55E00",
    "joint": "#3F3F3F",
    "drift": "#009E73",
    "radial": "#CC79A7",
    "tangential": "#56B4E9",
}
_MORE_COLOURS = ("#E69F00", "#882255", "#999933", "#332288", "#AA4499", "#661100")
_DASHES = (3.0, 1.6)
_STYLES = ("best particle", "mean of the particles")  # drawn through, dashed

Array = NDArray[np.floating]


@dataclass(frozen=True)
class LearningCurves:
    """Returns of one method during training, by seed.

    Attributes:
        iterations: ``[T]``.
        best: return of the best particle, ``[S, T]``: a line with its 95 % band.
        mean: mean over the particles, ``[S, T]``, dashed; None: not drawn.
    """

    iterations: Array
    best: Array
    mean: Array | None = None

    def __post_init__(self) -> None:
        for name in ("iterations", "best", "mean"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), float))
        want = f"[S, {len(self.iterations)}] as iterations says"
        for name, value in (("best", self.best), ("mean", self.mean)):
            if value is not None and (value.ndim, *value.shape[1:]) != (2, len(self.iterations)):
                raise ValueError(f"LearningCurves: {name} must be {want}, got {value.shape}")


def mode_colours(modes: Iterable[str]) -> dict[str, str]:
    """A colour for each mode of the experiments, the same in every figure.

    Those of the paper's comparisons are fixed; other names take the remaining colours in
    alphabetical order: give all names that several figures shall share.
    """
    names = sorted(set(modes))
    others = [name for name in names if name not in _MODE_COLOURS]
    extra = {name: _MORE_COLOURS[i % len(_MORE_COLOURS)] for i, name in enumerate(others)}
    return {name: _MODE_COLOURS.get(name) or extra[name] for name in names}


def mean_interval(values: ArrayLike) -> tuple[Array, Array]:
    """Mean over the first dimension and half the width of its 95 % confidence interval.

    By Student's t distribution: for independent, roughly normal values such as those of seeds.

    Args:
        values: ``[S, ...]`` -> both ``[...]``; the half width of a single value is NaN.
    """
    from scipy.special import stdtrit  # an extra

    array = np.asarray(values, float)
    if array.ndim == 0 or len(array) == 0:
        raise ValueError("mean_interval: values must be [S, ...] with S >= 1")
    count, mean = len(array), array.mean(0)
    if count == 1:
        return mean, np.full_like(mean, np.nan)
    return mean, stdtrit(count - 1, 0.975) * array.std(0, ddof=1) / math.sqrt(count)


def draw_learning_curves(
    path: str | Path,
    panels: Mapping[str, Mapping[str, LearningCurves]],
    *,
    colours: Mapping[str, str] | None = None,
) -> Path:
    """Figures 1 and 4: return against iteration, a panel per task and a line per method.

    Bands are 95 % confidence intervals of the mean over seeds; a single seed has none.

    Args:
        path: where the PNG goes.
        panels: curves by title and method.
        colours: of the methods; None: :func:`mode_colours`.
    """
    figure, axes = _grid(panels)
    colours = colours or mode_colours(name for panel in panels.values() for name in panel)
    for ax, (title, methods) in zip(axes, panels.items(), strict=True):
        for name, curves in methods.items():
            _draw_band(ax, curves.iterations, curves.best, colours[name], linewidth=1.5)
            if curves.mean is not None:
                mean = curves.mean.mean(0)
                ax.plot(curves.iterations, mean, color=colours[name], lw=1.1, dashes=_DASHES)
        _fit_to_lines(ax)
        ax.set(title=title, xlabel="iteration", xlim=(0, None))
        _note_seeds(ax, {name: len(curves.best) for name, curves in methods.items()})
    dashed = any(c.mean is not None for methods in panels.values() for c in methods.values())
    _legend(figure, panels, colours, dashed=dashed)
    return _save(figure, path)


def draw_sorted_returns(
    path: str | Path,
    panels: Mapping[str, Mapping[str, ArrayLike]],
    *,
    colours: Mapping[str, str] | None = None,
) -> Path:
    """Figure 3: returns of all particles, best first; mean over seeds with its 95 % interval.

    Args:
        path: where the PNG goes.
        panels: returns ``[S, n]`` of S seeds and n particles, by title and method; each seed's
            are sorted here. A single particle is drawn as a dotted level.
        colours: of the methods; None: :func:`mode_colours`.
    """
    figure, axes = _grid(panels)
    colours = colours or mode_colours(name for panel in panels.values() for name in panel)
    for ax, (title, methods) in zip(axes, panels.items(), strict=True):
        for name, returns in methods.items():
            values = -np.sort(-np.asarray(returns, float), axis=-1)
            if values.ndim != 2:
                raise ValueError(f"draw_sorted_returns: {name} must be [S, n], got {values.shape}")
            if values.shape[1] == 1:
                ax.axhline(values.mean(), color=colours[name], linewidth=1.4, dashes=(1, 1.5))
            else:
                ranks = np.arange(1, values.shape[1] + 1)
                _draw_band(ax, ranks, values, colours[name], marker="o", markersize=3)
        _fit_to_lines(ax)
        ax.set(title=title, xlabel="rank of the particle")
        ax.locator_params(axis="x", integer=True)
        _note_seeds(ax, {name: len(np.asarray(values)) for name, values in methods.items()})
    _legend(figure, panels, colours)
    return _save(figure, path)


def draw_state_densities(path: str | Path, rows: Mapping[str, Mapping[str, ArrayLike]]) -> Path:
    """Figure 2: where policies go, one density per panel over the states of all of them (grey).

    Args:
        path: where the PNG goes.
        rows: points ``[N, 2]`` of an embedding that all share, by method (a row) and title.
    """
    points = [np.asarray(p, float) for panels in rows.values() for p in panels.values()]
    if not points or any(p.ndim != 2 or p.shape[1] != 2 for p in points):
        shapes = [p.shape for p in points]
        raise ValueError(f"draw_state_densities: rows must hold points [N, 2], got {shapes}")
    everything = np.concatenate(points)
    columns = max(len(panels) for panels in rows.values())
    figure = _figure(2.6 * columns, 2.8 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    colours = mode_colours(rows)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[], frame_on=False)
    for line, (name, panels) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=12, color=colours[name])
        for ax, (title, chosen) in zip(line, panels.items(), strict=False):
            ax.scatter(*everything.T, s=1.5, color="#CFCFCF", linewidths=0)
            _draw_density(ax, everything, np.asarray(chosen, float))
            ax.set(title=title, frame_on=True)
    return _save(figure, path)


def _draw_density(ax: Axes, everything: Array, points: Array, cells: int = 120) -> None:
    from scipy.ndimage import gaussian_filter  # an extra

    low, high = everything.min(0), everything.max(0)
    margin = 0.08 * (high - low) + 1e-9
    edges = np.linspace(low - margin, high + margin, cells + 1)
    counts, x, y = np.histogram2d(points[:, 0], points[:, 1], bins=[*edges.T])
    density = gaussian_filter(counts, 0.02 * cells)  # the same width in every panel
    levels = density.max() * np.geomspace(0.03, 1.0, 9)
    centres = [(edge[1:] + edge[:-1]) / 2 for edge in (x, y)]
    ax.contourf(*centres, density.T, levels=levels, cmap="viridis", alpha=0.85)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))


def _draw_band(ax: Axes, x: Array, values: Array, colour: str, **style: Any) -> None:
    mean, half = mean_interval(values)
    ax.plot(x, mean, color=colour, **style)
    ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)


def _fit_to_lines(ax: Axes) -> None:
    """Limits by the lines: the wide bands of few seeds would flatten them."""
    values = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    margin = 0.15 * float(np.ptp(values)) or 1.0
    ax.set_ylim(values.min() - margin, values.max() + margin)


def _note_seeds(ax: Axes, seeds: Mapping[str, int]) -> None:
    counts = list(set(seeds.values()))
    note = "seeds: " + ", ".join(f"{name} {count}" for name, count in seeds.items())
    if len(counts) == 1:
        note = f"{counts[0]} seed" + "s" * (counts[0] > 1)
    ax.text(0.99, 0.03, note, transform=ax.transAxes, fontsize=7, color="#6A6A6A", ha="right")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure  # an extra; Figure needs no display

    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def _grid(panels: Mapping[str, Mapping[str, Any]]) -> tuple[Figure, Any]:
    if not panels or not all(panels.values()):
        raise ValueError("there is nothing to draw: give panels, with at least one method each")
    rows, columns = math.ceil(len(panels) / 4), min(4, len(panels))
    figure = _figure(3.5 * columns + 0.3, 2.7 * rows + 0.4)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.set_axis_off()
    for ax in axes.flat[: len(panels)]:
        ax.grid(color="#E6E6E6", linewidth=0.6)
        ax.spines[["top", "right"]].set_visible(False)
        ax.title.set_size(9.5)
    for ax in axes[:, 0]:
        ax.set_ylabel("return")
    return figure, axes.flat[: len(panels)]


def _legend(
    figure: Figure, panels: Mapping[str, Any], colours: Mapping[str, str], dashed: bool = False
) -> None:
    from matplotlib.lines import Line2D

    names = dict.fromkeys(name for panel in panels.values() for name in panel)
    lines = [Line2D([], [], color=colours[name], linewidth=2, label=name) for name in names]
    if dashed:
        lines += [Line2D([], [], color="black", label=name) for name in _STYLES]
        lines[-1].set_dashes(_DASHES)
    columns = min(len(lines), 6)
    figure.legend(handles=lines, loc="outside lower center", ncols=columns, frameon=False)


def _save(figure: Figure, path: str | Path) -> Path:
    figure.savefig(path, bbox_inches="tight", pad_inches=0.06)
    return Path(path)
