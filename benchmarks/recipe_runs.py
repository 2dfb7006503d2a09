"""Recipes as processes: one thread each, several at a time, finished runs are kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[1]

Job = TypeVar("Job")


def run_recipe(
    recipe: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> None:
    """One process of a recipe, unless its summary is there; what it prints is beside its folder.

    ``arguments`` name the directory themselves, in the recipe's own way.
    """
    if (directory / "summary.json").exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.log").open("w") as log:
        subprocess.run(
            [
                sys.executable,
                str(ROOT / "benchmarks" / "first_recipes" / f"{recipe}.py"),
                *arguments,
            ],
            check=True,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )


def run_all(
    jobs: Sequence[Job],
    work: Callable[[Job], object],
    name_of: Callable[[Job], str],
    workers: int,
) -> Iterator[Job]:
    """Work on every job; yields each as it is done, and prints how long the rest will take."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            left = (time.perf_counter() - begin) / done * (len(jobs) - done) / 60
            line = f"{done}/{len(jobs)} {name_of(futures[future])}  {left:.0f} min left"
            print(line, flush=True)
            yield futures[future]
