"""Figures of the robot runs, after figures 3a and 5 to 7 of Haarnoja et al. 2017."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.experiments.robots import Job
from torchrl_stein.runs import evaluate, load_loss

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
Runs = Mapping[str, Sequence[Mapping]]  # by method


def points(run: Mapping, name: str) -> np.ndarray:
    """Steps and values of a curve, [2, k]."""
    return np.array(run["curves"][name]).T


def draw_finish_line(path: Path, methods: Runs, line: float) -> None:
    """How far forward runs have come so far (figure 3a); where episodes end, by seed (figure 6)."""
    columns = 1 + max(map(len, methods.values()))
    figure = Figure(figsize=(2.6 * columns, 2.2 * len(methods)), layout="constrained", dpi=110)
    axes = figure.subplots(len(methods), columns, squeeze=False, sharex=True)
    for ax, (method, runs), colour in zip(axes[:, 0], methods.items(), COLOURS, strict=False):
        for run in runs:
            steps, far = points(run, "max_forward_distance_max")
            ax.plot(steps, np.maximum.accumulate(far), color=colour, lw=1.2)
        ax.set_title(f"{method}: furthest so far", size=9)
        ax.set_ylabel("x [m]")
    for row, (method, runs), colour in zip(axes[:, 1:], methods.items(), COLOURS, strict=False):
        for ax in row[len(runs) :]:
            ax.set_axis_off()
        for ax, run in zip(row, runs, strict=False):
            steps, low = points(run, "x_position_min")
            ax.fill_between(steps, low, points(run, "x_position_max")[1], color=colour, alpha=0.4)
            ax.axhline(0.0, color="grey", lw=0.6)
            ax.set_title(f"{method}, seed {run['seed']}: ends of episodes", size=9)
    highest = max(line, *(ax.get_ylim()[1] for ax in axes.flat if ax.axison)) + 0.3
    lowest = min(ax.get_ylim()[0] for ax in axes.flat if ax.axison)
    for ax in axes.flat:
        ax.axhline(line, color="red", lw=0.8)
        ax.set_ylim(lowest, highest)
        ax.tick_params(labelsize=7)
    for ax in axes[-1]:
        ax.set_xlabel("environment steps", size=8)
    figure.savefig(path)


def draw_returns(path: Path, methods: Runs, title: str) -> None:
    """Test returns: each seed, and their mean."""
    figure = Figure(figsize=(5.5, 3.2), layout="constrained", dpi=110)
    ax = figure.subplots()
    for (method, runs), colour in zip(methods.items(), COLOURS, strict=False):
        curves = [points(run, "return") for run in runs]
        length = min(curve.shape[1] for curve in curves)
        for steps, values in curves:
            ax.plot(steps, values, color=colour, lw=0.7, alpha=0.4)
        mean = np.mean([curve[1, :length] for curve in curves], 0)
        label = f"{method} ({len(runs)} seed{'s' * (len(runs) > 1)})"
        ax.plot(curves[0][0, :length], mean, color=colour, lw=2, label=label)
    ax.set_title(title, size=10)
    ax.set(xlabel="environment steps", ylabel="test return")
    ax.legend(fontsize=7)
    figure.savefig(path)


def draw_traces(path: Path, ways: Mapping[Job, Sequence[np.ndarray]]) -> None:
    """Ways of the ant from above: a column for each method, a row for each seed (figure 7)."""
    methods = list(dict.fromkeys(job.method for job in ways))
    seeds = sorted({job.seed for job in ways})
    size = (2.3 * len(methods), 2.3 * len(seeds) + 0.2)
    figure = Figure(figsize=size, layout="constrained", dpi=110)
    axes = figure.subplots(len(seeds), len(methods), squeeze=False)
    reach = 1.05 * max(float(np.abs(way).max()) for own in ways.values() for way in own)
    for job, own in ways.items():
        ax = axes[seeds.index(job.seed), methods.index(job.method)]
        for way in own:
            ax.plot(way[:, 0], way[:, 1], lw=0.7, alpha=0.7)
        ax.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
        ax.set_title(f"{job.method}, seed {job.seed}", size=8)
        ax.tick_params(labelsize=7)
    figure.supxlabel("x [m]", size=9)
    figure.supylabel("y [m]", size=9)
    figure.savefig(path)


def ways_of(directory: Path, episodes: int) -> list[np.ndarray]:
    """Positions of the centre of mass in episodes of a run's last policy, each [T, 2]."""
    loss, settings = load_loss(directory)
    _, played = evaluate(loss.actor_network, settings, episodes=episodes, seed=1)
    places = played.data.get(("next", "centre_of_mass")).numpy()
    return [places[row, :length] for row, length in enumerate(played.lengths.tolist())]
