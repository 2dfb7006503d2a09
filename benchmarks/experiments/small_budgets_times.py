"""CPU minutes that each method of ``small_budgets`` takes for a seed, from a hundredth of it.

    python -m benchmarks.experiments.small_budgets_times
    python -m benchmarks.experiments.small_budgets_times hopper/td3 maze_simple/svgd

Of each method a short and a longer process: their difference is so many updates, with their steps
and evaluations in the proportion of the whole run, without imports and compilation. It is CPU
time, so that what else the machine does matters little. Early episodes of a robot that falls are
short, so that evaluations of a trained one take longer.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from pathlib import Path
from typing import NamedTuple

from benchmarks.experiments.small_budgets import RESULTS, TASKS, methods_of
from benchmarks.recipes import settings_of, start_recipe

UPDATES = 1000  # of each seed, a fifth of the steps between two evaluations
ITERATIONS = 5  # of TRPO, as many as between two evaluations
FILE = RESULTS / "small_budgets_times.json"


def seconds_of(recipe: str, settings: list[str]) -> float:
    """CPU seconds of a process that ends well."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        start_recipe(recipe, settings, Path(folder) / "run")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Plan(NamedTuple):
    """Two processes of a method, and of which part of a seed the second has more."""

    recipe: str
    short: list[str]
    long: list[str]
    seeds: int
    parts: float  # of a whole run


def plan(name: str) -> Plan:
    """How a method is measured."""
    task, method = name.split("/")
    recipe, settings = methods_of(task)[method]
    cfg = settings_of(recipe, *settings)
    if recipe == "trpo":
        seeds, parts = cfg.population.num_particles, cfg.training.iterations / ITERATIONS
        lengths = [f"training.iterations={n}" for n in (ITERATIONS, 2 * ITERATIONS)]
        more = ["eval.final_episodes=1"]
    else:
        seeds, parts = cfg.seeds, cfg.num_updates / UPDATES
        begin = 500  # steps before the first update, and updates of the short process
        lengths = [f"training.total_frames={begin + n}" for n in (begin, begin + UPDATES)]
        more = [
            f"training.warmup_frames={begin}",
            f"training.eval_interval={2 * begin + UPDATES}",  # at the end of the long one
            f"eval.episodes={cfg.eval.episodes * UPDATES // cfg.training.eval_interval}",
            "eval.final_episodes=1",
        ]
    short, long = ([*settings, *more, length] for length in lengths)
    return Plan(recipe, short, long, seeds, parts)


def measure(name: str) -> dict[str, float]:
    """Seeds of a process, and CPU minutes of each."""
    recipe, short, long, seeds, parts = plan(name)
    seconds = seconds_of(recipe, long) - seconds_of(recipe, short)
    return {"seeds": seeds, "minutes": round(seconds * parts / 60 / seeds, 1)}


def main() -> None:
    """Measure, and write small_budgets_times.json and .md; those measured before are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="TASK/METHOD, as hopper/sac; all if none is given")
    given = parser.parse_args()
    every = [f"{task}/{method}" for task in TASKS for method in methods_of(task)]
    unknown = [name for name in given.names if name not in every]
    if unknown:
        parser.error(f"{unknown[0]!r} is not one of {', '.join(every)}")
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in given.names or every:
        found[name] = measure(name)
        print(f"{name}: {found[name]['minutes']} CPU minutes a seed", flush=True)
        FILE.write_text(json.dumps(found, indent=1) + "\n")
        write(found)


def write(found: dict[str, dict[str, float]]) -> None:
    """A table of tasks and methods."""
    names = sorted({name.split("/")[1] for name in found})
    lines = ["# CPU minutes of a seed", "", (__doc__ or "").strip(), ""]
    lines += ["| task | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for task in TASKS:
        if any(name.startswith(f"{task}/") for name in found):
            cells = (found.get(f"{task}/{name}") for name in names)
            lines += [
                f"| {task} | "
                + " | ".join(f"{c['minutes']:.0f}" if c else "" for c in cells)
                + " |"
            ]
    FILE.with_suffix(".md").write_text("\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
