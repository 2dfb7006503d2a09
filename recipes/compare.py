"""Compare methods over seeds: interquartile means, probability of improvement, learning curves.

python recipes/compare.py runs/soft_q/* runs/ddpg/*     # or: runs/soft_q runs/ddpg
python recipes/compare.py runs/svpg --metric test/return_max --out comparison/svpg
python recipes/compare.py runs/* --normalize multigoal=-100,0 --normalize Swimmer-v5=0,120

Runs that differ in their seed only are one group; a group is named by its recipe and the settings
that tell it from others of that recipe. Definitions: Agarwal et al. 2021 (arXiv:2108.13264).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from torchrl_stein.comparison import compare_runs, comparison_page, draw_comparison, read_runs


def main(
    runs: Sequence[Path],
    out: Path,
    metrics: Sequence[str] = (),
    normalize: Sequence[tuple[str, tuple[float, float]]] = (),
    *,
    unfinished: bool = False,
) -> dict:
    """Write the comparison into ``out``, print it, and return its numbers."""
    found, notes = read_runs(runs, metrics, unfinished=unfinished)
    numbers = compare_runs(found, normalize=dict(normalize))
    numbers["notes"] = notes
    page = comparison_page(numbers, notes)
    out.mkdir(parents=True, exist_ok=True)
    (out / "comparison.json").write_text(json.dumps(numbers, indent=2) + "\n")
    drawn = draw_comparison(out, numbers)
    pictures = [f"![{path.stem.replace('_', ' ')}]({path.name})" for path in drawn]
    (out / "comparison.md").write_text("\n\n".join([page.rstrip(), *pictures]) + "\n")
    print(page)
    print(f"Written to {out}: comparison.md, comparison.json and pictures")
    return numbers


def score_range(text: str) -> tuple[str, tuple[float, float]]:
    """TASK=LOW,HIGH as (task, (low, high))."""
    task, _, ends = text.rpartition("=")  # names of tasks may contain =
    try:
        low, high = map(float, ends.split(","))
    except ValueError:
        low = high = float("nan")
    if not task or not low < high:
        raise argparse.ArgumentTypeError(f"must be TASK=LOW,HIGH with LOW < HIGH, got {text!r}")
    return task, (low, high)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="or a folder of runs")
    parser.add_argument("--out", type=Path, default=Path("comparison"), help="default: comparison")
    parser.add_argument(
        "--metric",
        dest="metrics",
        action="append",
        default=[],
        metavar="NAME",
        help="a logged scalar of which more is better; may be repeated: the first that a run has "
        "counts. Default: eval/return, then test/return_mean (populations)",
    )
    parser.add_argument(
        "--normalize",
        type=score_range,
        action="append",
        default=[],
        metavar="TASK=LOW,HIGH",
        help="scores that become 0 and 1, for every task; needed for a score over several tasks",
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="use the last value of unfinished runs"
    )
    return parser


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    try:
        main(**vars(arguments))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"compare.py: {error}")
