"""Bayesian neural networks on the UCI regression sets, beside table 3 of arXiv:1808.03030.

    python -m benchmarks.experiments.uci_regression --data uci --workers 2

Every folder of --data (see torchrl_stein.regression.read_table) is one process of
recipes/bnn_regression.py per method and budget: a short one with as many steps as the released code
of SVGD, and a long one to convergence. Results go to benchmarks/results/uci_regression.{json,md}
after every run; runs that the JSON file holds are not repeated unless their settings changed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from benchmarks import RESULTS
from benchmarks.experiments.svpg_statistics import markdown
from benchmarks.recipes import run_recipe
from torchrl_stein.regression import read_table

OUT = RESULTS / "uci_regression"

PAPER_COST = "cost._target_=torchrl_stein.objectives.WGFPotential"
METHODS = {
    "svgd": ["method=svgd"],
    # 25 iterations leave 0.1 % of error in the force between particles of many dimensions.
    "wgf": ["method=wgf", "+cost.num_iterations=25"],
    "wgf_paper": ["method=wgf", PAPER_COST],
    # Eq. (9) is a sum over the 20 previous particles, our WGFPotential a mean: 0.4 * 20.
    "wgf_paper_sum": ["method=wgf", PAPER_COST, "weight=8.0"],
}
LABELS = {
    "svgd": "SVGD",
    "wgf": "WGF",
    "wgf_paper": "WGF, eq. (9)",
    "wgf_paper_sum": "WGF, eq. (9) summed",
}
BUDGETS = {
    "short": ["training.steps=2000"],
    "long": ["training.steps=12000", "training.final_lr_fraction=0.01"],
}
LARGE = 5000  # rows from which 5 splits do: the paper's 20 would take most of the time
SCORES = {"rmse": "Test RMSE", "log_likelihood": "Test log-likelihood"}

# Table 3 of the paper, by folder: its name there, and SVGD and WGF for each score.
PUBLISHED = {
    "bostonHousing": ("Boston", "2.96 ± .10", "2.46 ± .34", "-2.50 ± .03", "-2.40 ± .10"),
    "concrete": ("Concrete", "5.32 ± .10", "4.59 ± .29", "-3.08 ± .02", "-2.95 ± .06"),
    "energy": ("Energy", "1.37 ± .05", ".48 ± .04", "-1.77 ± .02", "-.73 ± .08"),
    "kin8nm": ("Kin8nm", ".09 ± .00", ".09 ± .00", ".98 ± .01", ".97 ± .02"),
    "naval-propulsion-plant": ("Naval", ".00 ± .00", ".00 ± .00", "4.09 ± .01", "4.11 ± .02"),
    "power-plant": ("CCPP", "4.03 ± .03", "3.88 ± .06", "-2.82 ± .01", "-2.78 ± .01"),
    "wine-quality-red": ("Winequality", ".61 ± .01", ".57 ± .03", "-.93 ± .01", "-.87 ± .04"),
    "yacht": ("Yacht", ".86 ± .05", ".56 ± .16", "-1.23 ± .04", "-.99 ± .15"),
}


class Job(NamedTuple):
    """One run: a data set, a method and a budget."""

    folder: Path
    method: str
    budget: str
    overrides: list[str]
    cost: float  # relative, for the time that is left

    @property
    def key(self) -> str:
        return f"{self.folder.name}/{self.method}/{self.budget}"


def plan(data: Path, methods: Sequence[str], budgets: Sequence[str]) -> list[Job]:
    """Every set with every method and budget, the longest runs first."""
    folders = sorted(path.parent for path in data.glob("*/data.txt"))
    if not folders:
        raise SystemExit(f"--data must hold folders with a data.txt, got {data}")
    jobs = []
    for folder in folders:
        splits = 5 if len(read_table(folder).target) > LARGE else 20
        settings = [f"splits.num_splits={splits}", "training.eval_interval=1000"]
        for method, budget in itertools.product(methods, budgets):
            cost = splits * steps_of(budget) * (1.0 if method == "svgd" else 1.4)  # as measured
            overrides = [*METHODS[method], *BUDGETS[budget], *settings]
            jobs.append(Job(folder, method, budget, overrides, cost))
    return sorted(jobs, key=lambda job: -job.cost)


def steps_of(budget: str) -> int:
    return int(BUDGETS[budget][0].removeprefix("training.steps="))


def run(job: Job) -> dict:
    """One process of the recipe; its settings and scores."""
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory, "run")
        run_recipe("bnn_regression", [*job.overrides, f"data={job.folder.resolve()}"], out)
        summary = json.loads((out / "summary.json").read_text())
    curve = [[e["step"], *(rounded(e[s]["mean"]) for s in SCORES)] for e in summary["evaluations"]]
    return {
        "overrides": job.overrides,
        "date": date.today().isoformat(),
        "train_rows": summary["train_rows"],
        "features": summary["features"],
        "splits": len(summary["rmse"]["splits"]),
        "ms_per_step": rounded(1e3 * summary["seconds"] / summary["step"]),
        "scores": {score: [rounded(v) for v in summary[score]["splits"]] for score in SCORES},
        "curve": curve,  # step and the mean of each score
    }


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def spread(values: Sequence[float]) -> str:
    """Mean ± standard error, the error with two digits and the mean to the same place."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.4g}"
    error = statistics.stdev(values) / math.sqrt(len(values))
    places = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 3
    return f"{mean:.{places}f} ± {error:.{places}f}"


def page(runs: Mapping[str, dict], command: str) -> str:
    """The Markdown page."""
    names, found, spans = (set(parts) for parts in zip(*(k.split("/") for k in runs), strict=True))
    sets = sorted(names, key=lambda name: label(name).lower())
    methods = [m for m in METHODS if m in found]
    budgets = [b for b in BUDGETS if b in spans]
    parts = ["# Bayesian neural networks on the UCI regression sets", provenance(runs, command)]
    for position, (score, title) in enumerate(SCORES.items()):
        parts += [f"## {title}", score_table(runs, sets, methods, budgets, score, position)]
    if "svgd" in methods and len(methods) > 1:
        parts += ["## What the trust region changes", differences(runs, sets, methods, budgets)]
    return "\n\n".join(parts) + "\n"


def label(name: str) -> str:
    return PUBLISHED[name][0] if name in PUBLISHED else name


def provenance(runs: Mapping[str, dict], command: str) -> str:
    days = sorted({found["date"] for found in runs.values()})
    times = [found["ms_per_step"] for found in runs.values()]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchrl"))
    return (
        f"```console\n$ {command}\n```\n\n"
        f"Runs of {days[0]} to {days[-1]}; {platform.machine()}, one thread per run, "
        f"{min(times):.0f} to {max(times):.0f} ms per step for all splits together, {packages}.\n\n"
        "One hidden layer of 50 units, 20 particles, batches of 100, RMSprop with rate 0.001: "
        "recipes/conf/bnn_regression.yaml has everything. Short runs have "
        f"{steps_of('short'):,} steps, long ones {steps_of('long'):,} and a rate that falls "
        "linearly to a hundredth. The precision of the weights' prior is 1, not learnt as in the "
        "paper, since in long runs on some tables all weights would go to 0. Random splits, 90 % "
        f"for training, the same ones for every run: 20, or 5 for sets over {LARGE:,} rows. Scores "
        "are on the original scale, mean ± standard error over the splits. The paper's splits, "
        "number of particles, steps and learning rate are not published; its columns are from "
        "table 3."
    )


def score_table(
    runs: Mapping[str, dict],
    sets: Sequence[str],
    methods: Sequence[str],
    budgets: Sequence[str],
    score: str,
    position: int,
) -> str:
    header = ["", "splits", "paper: SVGD", "paper: WGF"]
    header += [f"{LABELS[m]}, {b}" for b in budgets for m in methods]
    rows = []
    for name in sets:
        start = 1 + 2 * position
        published = PUBLISHED[name][start : start + 2] if name in PUBLISHED else ("", "")
        splits = {str(found["splits"]) for key, found in runs.items() if key.startswith(f"{name}/")}
        cells = [values_of(runs, name, m, b, score) for b in budgets for m in methods]
        shown = [spread(values) if values else "" for values in cells]
        rows.append([label(name), "/".join(sorted(splits)), *published, *shown])
    return markdown(header, rows)


def values_of(
    runs: Mapping[str, dict], name: str, method: str, budget: str, score: str
) -> list[float]:
    """Of every split; empty without the run."""
    return runs.get(f"{name}/{method}/{budget}", {}).get("scores", {}).get(score, [])


def differences(
    runs: Mapping[str, dict], sets: Sequence[str], methods: Sequence[str], budgets: Sequence[str]
) -> str:
    """Differences to SVGD split by split: both methods had the same rows and first particles."""
    columns = [(s, b, m) for s in SCORES for b in budgets for m in methods if m != "svgd"]
    header = ["", *(f"{SCORES[s]}, {LABELS[m]}, {b}" for s, b, m in columns)]
    rows = []
    for name in sets:
        cells = []
        for score, budget, method in columns:
            pair = [values_of(runs, name, m, budget, score) for m in (method, "svgd")]
            change = [a - b for a, b in zip(*pair, strict=True)] if all(pair) else []
            cells.append(spread(change) if change else "")
        rows.append([label(name), *cells])
    note = (
        "Mean ± standard error of the difference to SVGD over the splits, which share rows and "
        "first particles. Negative is better for the error, positive for the log-likelihood."
    )
    return f"{note}\n\n{markdown(header, rows)}"


def save(out: Path, runs: Mapping[str, dict], command: str) -> None:
    """Both files; a stop at any time leaves what is finished."""
    out.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps({"command": command, "runs": runs}, indent=1)
    out.with_suffix(".json").write_text(content + "\n")
    out.with_suffix(".md").write_text(page(runs, command))


def main() -> None:
    """Parse the command line, run what is missing, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["svgd", "wgf"])
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    path = given.out.with_suffix(".json")
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    jobs = plan(given.data, given.methods, given.budgets)
    jobs = [job for job in jobs if runs.get(job.key, {}).get("overrides") != job.overrides]
    flags = f"--data {given.data.name} --methods {' '.join(given.methods)}"
    flags += f" --budgets {' '.join(given.budgets)}"
    command = f"python -m benchmarks.experiments.uci_regression {flags}"
    begin, total, done = time.perf_counter(), sum(job.cost for job in jobs), 0.0
    with ThreadPoolExecutor(given.workers) as pool:
        futures = {pool.submit(run, job): job for job in jobs}
        for future in as_completed(futures):
            job = futures[future]
            runs[job.key], done = future.result(), done + job.cost
            save(given.out, runs, command)
            left = (time.perf_counter() - begin) * (total / done - 1.0) / 60
            print(f"{job.key}  about {left:.0f} min left", flush=True)
    save(given.out, runs, command)
    print(f"Results: {given.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
