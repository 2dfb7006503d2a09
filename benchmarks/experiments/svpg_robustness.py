"""What the particles of trained populations are worth when the world changes.

    python -m benchmarks.experiments.svpg_robustness runs/svpg_birth_death

Evaluates every run below a directory, as trained and with other constants of the cart-pole. The
particle that is best in the world of training is the one a user would pick; its return elsewhere,
the best return of any particle there, and the mean over particles are averaged over seeds. Writes
benchmarks/results/svpg_robustness.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

import torch

from benchmarks import RESULTS
from benchmarks.experiments.svpg_statistics import interaction_of, mode_of
from torchrl_stein.runs import evaluate_particles, read_manifest

OUT = RESULTS / "svpg_robustness"
EPISODES = 20
WORLDS: dict[str, dict[str, float]] = {
    "as trained": {},
    "pole 1.5 times as long": {"pole_length": 1.5},
    "pole 3 times as heavy": {"pole_mass": 0.3},
    "gravity + 20 %": {"gravity": 12.0},
    "force - 30 %": {"force_limit": 7.0},
}

Row = dict[str, dict[str, float]]  # by world: picked, best, mean


def evaluate(run: Path) -> Row:
    """Returns of one run in every world."""
    returns = {
        world: evaluate_particles(run, EPISODES, seed=0, options=options).mean(1)
        for world, options in WORLDS.items()
    }
    picked = int(returns["as trained"].argmax())
    return {
        world: {
            "picked": value[picked].item(),
            "best": value.max().item(),
            "mean": value.mean().item(),
        }
        for world, value in returns.items()
    }


def name_of(run: Path) -> str:
    """Which algorithm a run is of."""
    config = read_manifest(run)["config"]
    words = [config["base"]["name"], mode_of(config)]
    if mode_of(config) == "birth_death":
        words.append(interaction_of(config))
    return " ".join(words)


def page(results: dict[str, list[Row]]) -> str:
    """One table for each measure."""
    lines = [
        "# Changed dynamics",
        "",
        "`python -m benchmarks.experiments.svpg_robustness RUNS`: swing-up, mean test return over ",
        f"seeds ± standard deviation, {EPISODES} episodes of each particle with the mean action.",
        "",
    ]
    titles = {
        "picked": "The particle that is best as trained",
        "best": "The particle that is best there",
        "mean": "Mean over particles",
    }
    for measure, title in titles.items():
        lines += [f"## {title}", "", "| run | seeds | " + " | ".join(WORLDS) + " |"]
        lines.append("|---" * (len(WORLDS) + 2) + "|")
        for name, rows in results.items():
            cells = []
            for world in WORLDS:
                values = [row[world][measure] for row in rows]
                spread = statistics.stdev(values) if len(values) > 1 else float("nan")
                cells.append(f"{statistics.mean(values):.0f} ± {spread:.0f}")
            lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Evaluate all finished runs and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="directories of runs")
    torch.set_num_threads(1)
    results: dict[str, list[Row]] = defaultdict(list)
    for directory in parser.parse_args().runs:
        for summary in sorted(directory.glob("*/summary.json")):
            results[name_of(summary.parent)].append(evaluate(summary.parent))
            print(summary.parent.name, flush=True)
    OUT.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    main()
