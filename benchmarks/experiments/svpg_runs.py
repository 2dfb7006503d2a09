"""Training runs behind benchmarks/results/svpg.md, by suite; finished ones are kept.

    python -m benchmarks.experiments.svpg_runs table --seeds 0 1 2 --workers 2

Each run is one process of recipes/svpg.py with one thread and writes runs/svpg_<suite>/<name>;
svpg_report turns them into tables and figures. Interrupted runs start again. Prints how long the
rest will take.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks import ROOT
from benchmarks.recipes import run_all, run_recipe

HARD = ("cartpole_swingup", "double_pendulum")
EASY = ("cartpole", "mountain_car")
BASES = ("reinforce", "a2c")
MODES = ("svpg", "independent", "joint")
CONTROLS = ("controls", "birth_death", "no_repulsion", "sparse")  # whose claims need intervals
# Large buffers are otherwise given back to the system and zeroed again at every iteration.
MALLOC = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"
# How modes of the pages call kernels; others have their kernel's name.
KERNELS = {"svpg": "rbf", "ip_wgf": "rbf", "birth_death": "rbf", "independent": "none"}
WGF = "--config-name=ip_wgf"  # the settings of Zhang et al. 2018

Overrides = dict[str, object]


def grid(**choices: Iterable[object]) -> list[Overrides]:
    """All combinations, the first name varying slowest."""
    values = itertools.product(*choices.values())
    return [dict(zip(choices, chosen, strict=True)) for chosen in values]


def suites() -> dict[str, list[Overrides]]:
    """Settings of every run but its seed, by suite, and its mode: what pages call its method."""
    swing_up = {"env": ["cartpole_swingup"], "base": ["reinforce"]}
    birth_death = swing_up | {"mode": ["birth_death"]}
    short = {"training.iterations": [220]}
    interactions = ["svpg", "independent", "drift", "shared_drift", "radial"]
    controls = ["svpg", "independent", "drift", "radial", "tangential", "joint"]
    sparse = ["birth_death", "svpg", "independent", "drift", "radial"]
    alphas = {"loss.temperature": [0.1, 1.0, 10.0, 100.0], "training.iterations": [300]}
    slow = {"training.iterations": [1000], "optim.lr": [0.00125]}
    return {
        "table": grid(env=HARD, base=BASES, mode=MODES),
        "table_birth_death": grid(
            env=HARD, base=BASES, mode=["birth_death"], **{"training.iterations": [300]}
        ),
        "easy": grid(env=EASY, base=BASES, mode=MODES, **{"training.iterations": [50]}),
        "controls": grid(**swing_up, mode=controls, **short),
        "birth_death": grid(**birth_death, interaction=interactions, **short),
        # Birth and death with shared gradients alone.
        "no_repulsion": grid(**birth_death, **{"loss.temperature": [0.0]}, **short),
        "sparse": [
            settings
            for env, iterations in (("cartpole_swingup", 200), ("mountain_car", 50))
            for settings in grid(
                env=[env],
                base=["a2c"],
                mode=sparse,
                **{"+env_options.reward": ["sparse"], "training.iterations": [iterations]},
            )
        ],
        "ip_wgf": [
            settings
            for env, iterations in (("cartpole", 100), *((env, 1000) for env in HARD))
            for settings in grid(
                config=[WGF],
                env=[env],
                base=BASES,
                mode=["svpg", "ip_wgf"],
                **{"training.iterations": [iterations]},
            )
        ]
        # And without a trust region, but with steps about as small as it leaves them.
        + grid(config=[WGF], env=HARD, base=BASES, mode=["svpg"], **slow),
        "temperature": grid(env=["cartpole_swingup"], base=["a2c"], mode=["svpg"], **alphas),
    }


def name_of(overrides: Overrides, seed: int) -> str:
    """Directory of a run: the values of its settings."""
    values = (str(value).removeprefix("--config-name=") for value in overrides.values())
    words = (re.sub(r"[^\w.]+", "_", value).strip("_") for value in values)
    return "-".join(words) + f"-seed{seed}"


def arguments_of(overrides: Overrides, seed: int) -> list[str]:
    """The command line of recipes/svpg.py, but for the directory."""
    given = dict(overrides)
    config, mode = str(given.pop("config", "")), str(given.pop("mode"))
    interaction = str(given.pop("interaction", mode))
    if mode == "joint":
        words = ["--config-name=joint"]
    elif config == WGF:
        words = [config] + ["trust_region=none"] * (mode != "ip_wgf")
    else:
        words = [f"kernel={KERNELS.get(interaction, interaction)}"]
        words += ["selection=none"] * (mode != "birth_death")
    words += [f"{name}={value}" for name, value in given.items()]
    return [*words, f"seed={seed}", "compile.compile=true"]


def run(suite: str, overrides: Overrides, seed: int, out: Path) -> None:
    """One run in a process of its own, unless its summary is there."""
    directory = out / f"svpg_{suite}" / name_of(overrides, seed)
    arguments = arguments_of(overrides, seed)
    run_recipe("svpg", arguments, directory, {"GLIBC_TUNABLES": MALLOC})


def main() -> None:
    """Parse the command line and run a suite."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suite", choices=sorted(suites()))
    parser.add_argument("--seeds", type=int, nargs="+", help="default: 0 1 2, for controls 0 to 4")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "runs")
    given = parser.parse_args()
    seeds = given.seeds or range(5 if given.suite in CONTROLS else 3)
    jobs = [(overrides, seed) for seed in seeds for overrides in suites()[given.suite]]
    for _ in run_all(
        jobs,
        lambda job: run(given.suite, *job, given.out),
        lambda job: name_of(*job),
        given.workers,
    ):
        pass  # what is done has its summary


if __name__ == "__main__":
    main()
