"""The recipes: as modules and settings, and as processes whose finished runs are kept."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from benchmarks import ROOT

RECIPES = ROOT / "recipes"
Job = TypeVar("Job")


@cache
def load_recipe(name: str) -> ModuleType:
    """The module of a recipe."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settings_of(name: str, *overrides: str, config: str | None = None) -> Any:
    """The settings of a recipe, checked as those of the command line."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
        composed = compose(config or name, list(overrides))
    return load_recipe(name).Settings.parse(OmegaConf.to_container(composed, resolve=True))


def run_recipe(
    recipe: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> None:
    """One process of a recipe, from its beginning, unless its summary is there."""
    if (directory / "summary.json").exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    start_recipe(recipe, arguments, directory, environment)


def start_recipe(
    recipe: str,
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> None:
    """One process of a recipe, to its end; what it prints is beside its folder.

    Raises:
        RuntimeError: with the last lines of that if it fails.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    printed = directory.parent / f"{directory.name}.log"
    with printed.open("w") as log:
        done = subprocess.run(
            [sys.executable, str(RECIPES / f"{recipe}.py"), *arguments, f"run_dir={directory}"],
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        )
    if done.returncode != 0:
        end = "\n".join(printed.read_text().splitlines()[-20:])
        raise RuntimeError(f"{recipe}.py ended with {done.returncode}, {printed}:\n{end}")


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
