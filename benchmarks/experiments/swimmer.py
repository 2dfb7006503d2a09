"""DP-WGF and DP-WGF-V on Swimmer-v5 beside soft Q-learning, SAC and DDPG; weights of the region.

    python -m benchmarks.experiments.swimmer --workers 2
    python -m benchmarks.experiments.swimmer --workers 2 --ablation --steps 6000

Every run is one process of a recipe with ``task=swimmer`` and writes runs/swimmer/<name>; finished
ones are kept, so an interrupted benchmark goes on where it stopped. Results go to
benchmarks/results/swimmer.{json,md} and docs/pictures/swimmer.png after every run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import re
import statistics
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks import RESULTS, ROOT
from benchmarks.experiments.svpg_statistics import read_scalar, rounded, spread
from benchmarks.recipes import run_all, run_recipe

OUT = RESULTS / "swimmer"

# The weights are those of figure 4 of arXiv:1808.03030; 0.4 is the value of its other experiments.
WEIGHTS = (0.1, 0.5, 1.0, 5.0)
METHODS = {
    "soft Q-learning": ("soft_q", []),
    "DP-WGF": ("soft_q", ["trust_region.weight=0.4"]),
    "DP-WGF-V": ("soft_qv", []),
    "DP-WGF-V, no trust region": ("soft_qv", ["trust_region.weight=0"]),
    "SAC (TorchRL)": ("sac", ["loss.loss_function=smooth_l1"]),
    "DDPG (TorchRL)": ("ddpg", []),
}
ABLATION = {f"DP-WGF, weight {w:g}": ("soft_q", [f"trust_region.weight={w}"]) for w in WEIGHTS}
RECIPES: dict[str, tuple[str, list[str]]] = METHODS | ABLATION


class Job(NamedTuple):
    """One run."""

    method: str
    seed: int
    steps: int

    def directory(self, out: Path) -> Path:
        words = re.sub(r"[^\w.]+", "_", self.method).strip("_")
        return out / f"{words}-{self.steps}-seed{self.seed}"


def run(job: Job, out: Path) -> None:
    """One process of the recipe, unless its summary is there."""
    directory = job.directory(out)
    recipe, overrides = RECIPES[job.method]
    settings = ["task=swimmer", "training.eval_interval=2500", *overrides]
    settings += [f"training.total_frames={job.steps}", f"seed={job.seed}"]
    run_recipe(recipe, settings, directory)


def read(job: Job, out: Path) -> dict:
    """A finished run: final return, test returns by environment step, minutes."""
    directory = job.directory(out)
    summary = json.loads((directory / "summary.json").read_text())
    scalars = directory / "metrics" / "scalars"
    steps, returns = read_scalar(scalars / "eval" / "return.csv")
    speeds = read_scalar(scalars / "time" / "updates_per_s.csv")[1]
    return {
        "method": job.method,
        "seed": job.seed,
        "steps": job.steps,
        "return": rounded(summary["return"]),
        "curve": [[int(step), rounded(value)] for step, value in zip(steps, returns, strict=True)],
        "ms_per_update": rounded(1e3 / statistics.median(speeds)),
    }


def page(runs: Sequence[dict]) -> str:
    """The Markdown page."""
    # The last evaluation that all have; they come every 2500 updates, and updates after a warm-up.
    shared = max(set.intersection(*(set(dict(run["curve"])) for run in runs)))
    lines = [
        "# Swimmer-v5: Wasserstein trust regions beside soft Q-learning, SAC and DDPG",
        "",
        "```console",
        "$ python -m benchmarks.experiments.swimmer",
        "$ python -m benchmarks.experiments.swimmer --ablation --steps 6000",
        "```",
        "",
        f"{date.today()}, {platform.machine()}, one thread per run, torch {version('torch')}, "
        f"torchrl {version('torchrl')}, mujoco {version('mujoco')}; one update per environment "
        "step. Returns of episodes of 1000 steps with sampled actions: 20 after training, 5 during "
        "it. A run is the beginning of every longer one with its settings and seed, so the column "
        f"of step {shared:,} compares all. Mean ± standard deviation over seeds. Times with "
        "other runs on the machine.",
        "",
        "![Test returns](../../docs/pictures/swimmer.png)",
        "",
        f"| method | steps | seeds | at the end | at step {shared:,} | best | ms per update |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, steps in itertools.product(RECIPES, sorted({run["steps"] for run in runs})):
        rows = [run for run in runs if (run["method"], run["steps"]) == (method, steps)]
        if rows:
            curves = [dict(run["curve"]) for run in rows]
            cells = [spread([run["return"] for run in rows], 1)]
            cells.append(spread([curve[shared] for curve in curves], 1))
            cells.append(spread([max(curve.values()) for curve in curves], 1))
            cells.append(spread([run["ms_per_update"] for run in rows], 0))
            lines.append(f"| {method} | {steps:,} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(runs: Sequence[dict], path: Path) -> None:
    """Test returns, mean over seeds: the methods, and the weights."""
    import matplotlib.pyplot as plt
    import numpy as np

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    panels = [list(METHODS), ["soft Q-learning", *ABLATION]]
    for ax, names in zip(axes, panels, strict=True):
        for name in names:
            curves = [run["curve"] for run in runs if run["method"] == name]
            if curves:
                shortest = min(map(len, curves))
                points = np.array([curve[:shortest] for curve in curves])
                ax.plot(points[0, :, 0], points[:, :, 1].mean(0), label=f"{name} ({len(curves)})")
        ax.set(xlabel="environment steps")
        ax.legend(fontsize=7)
    axes[0].set(ylabel="test return")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Run what is missing, and write the results after every run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=15_000, help="environment steps of each run")
    parser.add_argument("--methods", nargs="+", choices=RECIPES, default=list(METHODS))
    parser.add_argument("--ablation", action="store_true", help="the weights instead")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "swimmer")
    given = parser.parse_args()
    methods = list(ABLATION) if given.ablation else given.methods
    jobs = [Job(method, seed, given.steps) for seed in given.seeds for method in methods]
    known = OUT.with_suffix(".json")
    runs = json.loads(known.read_text()) if known.exists() else []
    done = {(run["method"], run["seed"], run["steps"]) for run in runs}
    todo = [job for job in jobs if tuple(job) not in done]
    print(f"{len(todo)} of {len(jobs)} runs to do", flush=True)
    for job in run_all(
        todo, lambda job: run(job, given.out), lambda job: job.method, given.workers
    ):
        runs.append(read(job, given.out))
        runs.sort(key=lambda run: (list(RECIPES).index(run["method"]), run["seed"]))
        known.write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n")
        OUT.with_suffix(".md").write_text(page(runs))
        draw(runs, ROOT / "docs" / "pictures" / "swimmer.png")


if __name__ == "__main__":
    main()
