"""Tables and figures of the robots' runs, which need not be complete.

    python -m benchmarks.experiments.robots_report

Writes benchmarks/results/robots.{json,md} and docs/pictures/robots_*.png. What was found is read
from benchmarks/results/robots_findings.md.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import RESULTS, ROOT
from benchmarks.experiments.robots import SUITES, Job, directory_of
from benchmarks.experiments.robots_figures import (
    draw_finish_line,
    draw_returns,
    draw_traces,
    ways_of,
)
from benchmarks.experiments.svpg_statistics import markdown, read_scalar, rounded, spread

OUT = RESULTS / "robots"
LINE = 3.0  # metres, of the swimmer
EPISODES = 20  # in the picture of the ant
CURVES = ("return", "max_forward_distance_max", "x_position_min", "x_position_max")
TITLES = {
    "finish_line": "Swimmer with a finish line",
    "hopper": "Hopper-v5",
    "pretrain": "Ant, paid for speed in any direction",
    "fine_tune": "Ant in a hallway: trained from there, or from scratch",
    "composition": "Composition: two rewards in one, without new data",
}


def finished(out: Path, seeds: Sequence[int]) -> Iterator[tuple[Job, Path]]:
    """Runs with a summary."""
    for suite, methods in SUITES.items():
        for method in methods:
            for seed in seeds:
                job = Job(suite, method, seed)
                if (directory_of(job, out) / "summary.json").exists():
                    yield job, directory_of(job, out)


def read(job: Job, directory: Path) -> dict:
    """A run in numbers."""
    scalars = directory / "metrics" / "scalars" / "eval"
    curves = {}
    for name in CURVES:
        steps, values = read_scalar(scalars / f"{name}.csv")
        if steps:
            curves[name] = [[int(s), rounded(v)] for s, v in zip(steps, values, strict=True)]
    summary = directory / "summary.json"
    provenance = json.loads((directory / "provenance.json").read_text())
    seconds = summary.stat().st_mtime - datetime.fromisoformat(provenance["started"]).timestamp()
    run = {
        **job._asdict(),
        "minutes": rounded(seconds / 60),
        "final": {name: rounded(v) for name, v in json.loads(summary.read_text()).items()},
        "curves": curves,
    }
    if job.suite == "composition":
        table = json.loads((directory / "comparison.json").read_text())
        run["policies"] = {
            Path(name).name.split("-")[0]: metrics for name, metrics in table.items()
        }
    return run


def grouped(runs: Sequence[dict], suite: str) -> dict[str, list[dict]]:
    """Runs of a suite by method."""
    found: dict[str, list[dict]] = {name: [] for name in SUITES[suite]}
    for run in runs:
        if run["suite"] == suite:
            found[run["method"]].append(run)
    return {name: own for name, own in found.items() if own}


def score_table(runs: Sequence[dict], suite: str) -> str:
    """Returns at the end and on the way, one method per row."""
    rows = []
    for method, own in grouped(runs, suite).items():
        ends = [run["final"]["return"] for run in own]
        bests = [max(value for _, value in run["curves"]["return"]) for run in own]
        row = [method, f"{SUITES[suite][method].steps:,}", str(len(own)), spread(ends, 1)]
        row += [spread(bests, 1), spread([run["minutes"] for run in own], 1)]
        if suite == "finish_line":
            row += [f"{sum(passed(run) for run in own)} of {len(own)}"]
            row += [spread([furthest(run) for run in own], 2)]
        rows.append(row)
    head = ["method", "steps", "seeds", "return at the end", "best", "minutes"]
    head += ["pass the line", "furthest [m]"] if suite == "finish_line" else []
    return markdown(head, rows)


def furthest(run: dict) -> float:
    """How far forward any evaluated episode came, at any time in training (figure 3a)."""
    ways = [value for _, value in run["curves"]["max_forward_distance_max"]]
    return max(*ways, run["final"]["max_forward_distance_max"])


def passed(run: dict) -> bool:
    """Whether an evaluated episode came beyond the finish line."""
    return furthest(run) > LINE


def composition_table(runs: Sequence[dict]) -> str:
    """Policies in the world of the sum, mean and deviation over seeds."""
    own = grouped(runs, "composition")["composed"]
    names = {"composed": "composed", "xy": "learnt from the sum", "x": "part x", "y": "part y"}
    columns = ("return", "success", "goals_reached", "entropy")
    rows = [
        [label, str(len(own)), *(spread([r["policies"][key][c] for r in own], 3) for c in columns)]
        for key, label in names.items()
    ]
    return markdown(["policy", "seeds", *columns], rows)


def page(runs: Sequence[dict], findings: str = "") -> str:
    """The Markdown page."""
    seeds = " ".join(str(seed) for seed in sorted({run["seed"] for run in runs}))
    suites = [suite for suite in TITLES if grouped(runs, suite)]
    lines = [
        "# Robots on a small budget",
        "```console\n"
        f"$ for s in {' '.join(SUITES)}; do\n"
        f">   python -m benchmarks.experiments.robots $s --seeds {seeds}; done\n"
        "$ python -m benchmarks.experiments.robots_report\n```",
        f"{date.today()}, {platform.machine()}, one thread per run, two runs at a time, torch "
        f"{version('torch')}, torchrl {version('torchrl')}, mujoco {version('mujoco')}. One update "
        "per environment step, networks of 2 x 128, 16 + 16 actions per state; settings in "
        "benchmarks/experiments/robots.py. Returns are undiscounted, of 20 episodes at the end and "
        "of 5 on the way, with sampled actions. Mean ± standard deviation over seeds; a busy "
        "machine.",
        findings.strip(),
    ]
    for suite in suites:
        table = composition_table(runs) if suite == "composition" else score_table(runs, suite)
        picture = f"![{TITLES[suite]}](../../docs/pictures/robots_{suite}.png)"
        lines += [f"## {TITLES[suite]}", table, "" if suite == "composition" else picture]
    return "\n\n".join(filter(None, lines)) + "\n"


def main() -> None:
    """Read, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", type=Path, default=ROOT / "runs", help="where the runs are")
    given = parser.parse_args()
    found = list(finished(given.out, given.seeds))
    runs = [read(job, directory) for job, directory in found]
    OUT.with_suffix(".json").write_text("[\n" + ",\n".join(map(json.dumps, runs)) + "\n]\n")
    findings = OUT.with_name("robots_findings.md")
    text = findings.read_text() if findings.exists() else ""
    OUT.with_suffix(".md").write_text(page(runs, text))
    docs = ROOT / "docs" / "pictures"
    if swimmers := grouped(runs, "finish_line"):
        draw_finish_line(docs / "robots_finish_line.png", swimmers, LINE)
    for suite in ("hopper", "fine_tune"):
        if methods := grouped(runs, suite):
            draw_returns(docs / f"robots_{suite}.png", methods, TITLES[suite])
    if ways := {job: ways_of(run, EPISODES) for job, run in found if job.suite == "pretrain"}:
        draw_traces(docs / "robots_pretrain.png", ways)


if __name__ == "__main__":
    main()
