"""SVPG runs as numbers: what a finished run's directory holds, and how seeds are summed up."""

from __future__ import annotations

import csv
import json
import multiprocessing
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.experiments.figures import LearningCurves, mean_interval

Run = dict  # one run of the JSON file, see read_run
MODES = ("svpg", "independent", "joint", "drift", "radial", "tangential")  # these first
NAMES = {"cartpole_swingup": "Cartpole Swing Up"}  # others: by capital letters
# What pages call a kernel; the others have its own name.
KERNELS = {
    "RBFKernel": "svpg",
    "IdentityKernel": "independent",
    "DriftControl": "drift",
    "SharedDriftControl": "shared_drift",
    "RadialControl": "radial",
    "TangentialControl": "tangential",
}
PARTICLES = 16  # the one agent of joint has the data of so many, see recipes/conf/joint.yaml
BOOKKEEPING = {"recipe", "seed", "device", "threads", "logger", "resume", "run_dir", "compile"}
BOOKKEEPING |= {"seeds", "eval.video_steps"}
BOOKKEEPING |= {f"training.{name}_interval" for name in ("log", "eval", "checkpoint")}
MAX_POINTS = 100
PACKAGES = ("torch", "torchrl", "tensordict")


def read_run(directory: Path) -> Run:
    """A finished run: settings, seed, thinned curves, final test returns (best first), minutes."""
    config = json.loads((directory / "config.json").read_text())
    summary = json.loads((directory / "summary.json").read_text())
    population, steps = config["population"], config["training"]["steps"]
    frames = population["num_particles"] * population["envs_per_particle"] * steps
    scalars = directory / "metrics" / "scalars"
    finished = datetime.fromtimestamp((directory / "summary.json").stat().st_mtime, UTC)
    return {
        "suite": directory.parent.name.removeprefix("svpg_"),
        "name": directory.name,
        "seed": config["seed"],
        "date": finished.date().isoformat(),
        "settings": flatten(described(config)),
        "final": sorted((rounded(v) for k, v in summary.items() if "particle" in k), reverse=True),
        "train": read_curves(scalars / "train", frames),
        "test": read_curves(scalars / "test", frames),
        "minutes": minutes(scalars / "time", config["training"]["log_interval"]),
        "distance": (read_scalar(scalars / "train/particle_distance.csv")[1] or [None])[-1],
    }


def interaction_of(config: Mapping) -> str:
    """How particles interact between replacements, in the word of the pages."""
    kernel = config["kernel"]["_target_"].rpartition(".")[2]
    return KERNELS.get(kernel, kernel)


def mode_of(config: Mapping) -> str:
    """What pages call a method: a kernel, a selection, a trust region, a number of particles."""
    if config["selection"] is not None:
        return "birth_death"
    if config["trust_region"] is not None:
        return "ip_wgf"
    joint = config["population"]["num_particles"] == 1
    return "joint" if joint else interaction_of(config)


def described(config: Mapping) -> dict:
    """Settings of recipes/svpg.py in the words of the pages: a mode, and a kernel without it."""
    words = {"mode": mode_of(config), **config}
    kernel, base, selection = words.pop("kernel"), words.pop("base"), words.pop("selection")
    words["base"] = base["name"]
    words["loss"], words["training"] = dict(config["loss"]), dict(config["training"])
    if interaction_of(config) != "independent":
        words["loss"]["kernel"] = kernel.get("kernel", kernel)  # of a placebo the one inside
    for name in ("num_epochs", "num_minibatches"):
        words["training"][name] = base[name]
    if base.get("clip_epsilon") is not None:
        words["loss"]["clip_epsilon"] = base["clip_epsilon"]
    if selection is not None:
        words["birth_death"] = selection | {"interaction": interaction_of(config)}
    if words["trust_region"] is None:
        del words["trust_region"]
    if words["mode"] == "joint":
        rows = config["population"]["envs_per_particle"]
        sizes = {"num_particles": PARTICLES, "envs_per_particle": rows // PARTICLES}
        words["population"] = config["population"] | sizes
    return words


def flatten(config: Mapping, prefix: str = "") -> dict[str, object]:
    """Settings by dotted name, without those that do not change results."""
    settings: dict[str, object] = {}
    for key, value in config.items():
        name = prefix + key
        if name == "env_options":
            settings[name] = json.dumps(value, sort_keys=True)  # what is absent is a value too
        elif isinstance(value, dict):
            settings |= flatten(value, f"{name}.")
        elif name not in BOOKKEEPING:
            plain = isinstance(value, str | int | float)  # "null" differs from a missing setting
            settings[name] = value if plain else json.dumps(value)
    return settings


def read_scalar(path: Path) -> tuple[list[float], list[float]]:
    """Steps and values that the CSV logger wrote; empty without the file."""
    rows = list(csv.reader(path.read_text().splitlines())) if path.exists() else []
    return [float(row[0]) for row in rows], [float(row[1]) for row in rows]


def read_curves(folder: Path, frames: int) -> dict[str, list[float]]:
    """Best, mean and mean of the best four particles against the iteration."""
    curves: dict[str, list[float]] = {}
    for name in ("max", "mean", "top4"):
        steps, values = read_scalar(folder / f"return_{name}.csv")
        curves["iteration"] = [round(block[-1] / frames) for block in blocks(steps)]
        curves[name] = [rounded(block.mean()) for block in blocks(values)]
    return curves


def blocks(values: Sequence[float]) -> list[np.ndarray]:
    """At most MAX_POINTS runs of neighbours; each becomes its mean, at its last iteration."""
    return np.array_split(np.asarray(values), min(len(values), MAX_POINTS)) if values else []


def rounded(value: float) -> float:
    return float(f"{value:.5g}")


def minutes(folder: Path, log_interval: int) -> float | None:
    """Duration from the logged speed, evaluations included."""
    speeds = read_scalar(folder / "updates_per_s.csv")[1]
    return rounded(sum(log_interval / speed for speed in speeds) / 60) if speeds else None


def gather(directory: Path, results: Path) -> dict:
    """What the JSON file and the finished runs below ``directory`` hold; a directory wins."""
    known = json.loads(results.read_text()) if results.exists() else {"runs": []}
    runs = {(run["suite"], run["name"]): run for run in known["runs"]}
    before = dict(runs)
    for path in sorted(directory.glob("svpg_*/*/summary.json")):
        run = read_run(path.parent)
        runs[run["suite"], run["name"]] = run
    if not runs:
        raise FileNotFoundError(f"no finished run at {directory}/svpg_*/* and none in {results}")
    ordered = [runs[key] for key in sorted(runs)]
    if runs != before:
        known = {"environment": environment()}
    return {"environment": known["environment"], "runs": ordered}


def environment() -> dict[str, object]:
    machine = {"machine": platform.machine(), "cores": multiprocessing.cpu_count()}
    versions = {name: version(name) for name in PACKAGES}
    today = date.today().isoformat()
    return {"date": today, **machine, "python": platform.python_version(), **versions}


def write(content: Mapping, results: Path) -> None:
    """JSON with a line per run."""
    head = json.dumps(content["environment"])
    body = ",\n".join(json.dumps(run, separators=(",", ":")) for run in content["runs"])
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(f'{{"environment": {head},\n"runs": [\n{body}\n]}}\n')


class Group(NamedTuple):
    """Runs that differ in their seed only."""

    settings: dict[str, object]
    runs: dict[int, Run]  # by seed

    def values(self, measure: str) -> dict[int, float]:
        """One number per seed: "best", "top4" or "mean" of the particles at the end."""
        return {seed: final_return(run, measure) for seed, run in self.runs.items()}


def final_return(run: Run, measure: str) -> float:
    best_first = run["final"]
    chosen = best_first[: {"best": 1, "top4": 4, "mean": len(best_first)}[measure]]
    return statistics.fmean(chosen)


def runs_by_suite(runs: Sequence[Run], first: Iterable[str] = ()) -> dict[str, list[Run]]:
    """Those named first in their order, then the others by name."""
    found = {run["suite"] for run in runs}
    ahead = [name for name in first if name in found]
    order = ahead + sorted(found - set(ahead))
    return {suite: [run for run in runs if run["suite"] == suite] for suite in order}


def varying(runs: Sequence[Run]) -> list[str]:
    """Settings with several values. One that older runs do not know yet does not count."""
    names = dict.fromkeys(name for run in runs for name in run["settings"])
    values = {name: {run["settings"].get(name) for run in runs} - {None} for name in names}
    return [name for name in names if len(values[name]) > 1]


def group(runs: Sequence[Run]) -> list[Group]:
    """By all settings that vary, ordered by task and mode."""
    names = varying(runs)
    groups: dict[tuple, Group] = {}
    for run in runs:
        key = tuple(run["settings"].get(name) for name in names)
        groups.setdefault(key, Group(run["settings"], {})).runs[run["seed"]] = run

    def order(found: Group) -> tuple:
        settings = found.settings
        mode = str(settings["mode"])
        rank = MODES.index(mode) if mode in MODES else len(MODES)
        others = [sortable(settings.get(name)) for name in names]
        return str(settings["base"]), str(settings["env"]), rank, mode, others

    return sorted(groups.values(), key=order)


def sortable(value: object) -> tuple:
    return (0, value, "") if isinstance(value, int | float) else (1, 0, str(value))


def task(found: Group) -> tuple:
    """What must agree for two groups to be compared: the problem and the amount of data."""
    names = ("env", "env_options", "base", "population.num_particles", "training.iterations")
    return tuple(found.settings.get(name) for name in (*names, "training.steps"))


def reference(groups: Sequence[Group], found: Group, name: str, where: Sequence) -> Group | None:
    """Of the groups on the same task with that name in one of the settings, the most similar."""

    def agreement(other: Group) -> int:
        return sum(found.settings.get(k) == v for k, v in other.settings.items())

    named = [g for g in groups if name in [g.settings.get(setting) for setting in where]]
    same = [g for g in named if g is not found and task(g) == task(found)]
    return max(same, key=agreement, default=None)


def labels(groups: Sequence[Group], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the columns that tell groups apart."""
    with_task = "env" in names or "base" in names
    others = [name for name in names if name not in ("env", "base", "mode")]
    heads = ["task"] * with_task + ["mode"] + [name.split(".", 1)[-1] for name in others]
    cells = []
    for found in groups:
        row = [task_name(found.settings)] * with_task + [str(found.settings["mode"])]
        cells.append(row + [shown(found.settings.get(name)) for name in others])
    return heads, cells


def method(found: Group, groups: Sequence[Group]) -> str:
    """Name of a line in a figure: the mode, and what else varies beside the task."""
    runs = [run for other in groups for run in other.runs.values()]
    names = [name for name in varying(runs) if name not in ("env", "base", "training.iterations")]
    return " ".join(labels([found], names)[1][0])


def shown(value: object) -> str:
    if isinstance(value, str):
        return value if value[:1] in "{[" else value.rpartition(".")[2]
    return "" if value is None else f"{value:g}"


def task_name(settings: Mapping) -> str:
    env = NAMES.get(settings["env"], settings["env"].replace("_", " ").title())
    return f"{settings['base'].upper()} {env}"


class Interval(NamedTuple):
    """A mean over seeds and half its 95 % interval by Student's t, NaN for one seed."""

    mean: float
    half: float
    seeds: int

    def __str__(self) -> str:
        low, high = self.mean - self.half, self.mean + self.half
        return f"{self.mean:.1f}" + (f" [{low:.1f}, {high:.1f}]" if self.seeds > 1 else "")


def interval(values: Sequence[float]) -> Interval:
    mean, half = mean_interval(values)
    return Interval(float(mean), float(half), len(values))


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int) -> str:
    """mean ± standard deviation; nothing of nothing."""
    if not values:
        return ""
    tail = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{tail}"


def paired_difference(a: Group, b: Group, measure: str) -> Interval:
    """a - b over the seeds that both have."""
    first, second = a.values(measure), b.values(measure)
    return interval([first[seed] - second[seed] for seed in sorted(first.keys() & second.keys())])


def difference_at(a: Group, b: Group, iteration: int, measure: str) -> Interval:
    """a - b in the test returns of one evaluation in training, over the seeds that both have."""

    def at(run: Run) -> float:
        return run["test"][measure][run["test"]["iteration"].index(iteration)]

    return interval(
        [at(a.runs[seed]) - at(b.runs[seed]) for seed in sorted(a.runs.keys() & b.runs.keys())]
    )


def reach(curves: Mapping[str, Sequence], fraction: float = 0.95) -> int:
    """First iteration with ``fraction`` of the way from the first value to the best one.

    For a curve that begins near zero this is the usual fraction of the best value; unlike that, it
    has a meaning for negative returns, and does not change if a constant is added to them.
    """
    values, best = curves["max"], max(curves["max"])
    level = best - (1 - fraction) * (best - values[0])
    return next(i for i, v in zip(curves["iteration"], values, strict=True) if v >= level)


def curves(found: Group, *, with_mean: bool = True) -> LearningCurves:
    """Training curves of all seeds on the iterations of the first."""
    all_seeds = [run["train"] for run in found.runs.values()]
    iterations = np.asarray(all_seeds[0]["iteration"], float)

    def stack(name: str) -> np.ndarray:
        return np.stack([np.interp(iterations, c["iteration"], c[name]) for c in all_seeds])

    mean = (
        stack("mean") if with_mean and len(next(iter(found.runs.values()))["final"]) > 1 else None
    )
    return LearningCurves(iterations, stack("max"), mean)
