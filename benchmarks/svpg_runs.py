"""Training runs behind benchmarks/results/svpg.md, by suite; finished ones are kept.

    python -m benchmarks.svpg_runs table --seeds 0 1 2 --workers 2

Each run is one process of recipes/svpg.py with one thread and writes runs/svpg_<suite>/<name>;
``python -m benchmarks.svpg_report`` turns them into tables and figures. Interrupted runs start
again. Prints how long the rest will take.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.recipe_runs import ROOT, run_all, run_recipe

HARD = ("cartpole_swingup", "double_pendulum")
EASY = ("cartpole", "mountain_car")
BASES = ("reinforce", "a2c")
MODES = ("svpg", "independent", "joint")
CONTROLS = (
    "controls",
    "birth_death",
    "no_repulsion",
    "sparse",
)  # suites whose claims need intervals
# Large buffers are otherwise given back to the system and zeroed again at every iteration.
MALLOC = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"

Overrides = dict[str, object]


def grid(**choices: Iterable[object]) -> Iterator[Overrides]:
    """All combinations, the first name varying slowest."""
    for values in itertools.product(*choices.values()):
        yield dict(zip(choices, values, strict=True))


def suites() -> dict[str, list[Overrides]]:
    """Settings of every run but its seed, by suite."""
    return {
        "table": list(grid(env=HARD, base=BASES, mode=MODES)),
        "table_birth_death": list(
            grid(env=HARD, base=BASES, mode=["birth_death"], **{"training.iterations": [300]})
        ),
        "easy": list(grid(env=EASY, base=BASES, mode=MODES, **{"training.iterations": [50]})),
        "controls": list(
            grid(
                env=["cartpole_swingup"],
                base=["reinforce"],
                mode=["svpg", "independent", "drift", "radial", "tangential", "joint"],
                **{"training.iterations": [220]},
            )
        ),
        "birth_death": list(
            grid(
                env=["cartpole_swingup"],
                base=["reinforce"],
                mode=["birth_death"],
                **{
                    "birth_death.interaction": [
                        "svpg",
                        "independent",
                        "drift",
                        "shared_drift",
                        "radial",
                    ],
                    "training.iterations": [220],
                },
            )
        ),
        "no_repulsion": list(  # birth and death with shared gradients alone
            grid(
                env=["cartpole_swingup"],
                base=["reinforce"],
                mode=["birth_death"],
                **{"loss.temperature": [0.0], "training.iterations": [220]},
            )
        ),
        "sparse": [
            settings
            for env, iterations in (("cartpole_swingup", 200), ("mountain_car", 50))
            for settings in grid(
                env=[env],
                base=["a2c"],
                mode=["birth_death", "svpg", "independent", "drift", "radial"],
                **{"+env_options.sparse_reward": [True], "training.iterations": [iterations]},
            )
        ],
        "ip_wgf": [  # of Zhang et al. 2018, with their settings; --config-name is Hydra's
            {"--config-name": "ip_wgf", **settings}
            for env, iterations in (("cartpole", 100), *((env, 1000) for env in HARD))
            for settings in grid(
                env=[env],
                base=BASES,
                mode=["svpg", "ip_wgf"],
                **{"training.iterations": [iterations]},
            )
        ]
        + [  # and without a trust region, but with steps about as small as it leaves them
            {"--config-name": "ip_wgf", **settings}
            for settings in grid(
                env=HARD,
                base=BASES,
                mode=["svpg"],
                **{"training.iterations": [1000], "optim.lr": [0.00125]},
            )
        ],
        "temperature": list(
            grid(
                env=["cartpole_swingup"],
                base=["a2c"],
                mode=["svpg"],
                **{"loss.temperature": [0.1, 1.0, 10.0, 100.0], "training.iterations": [300]},
            )
        ),
    }


def name_of(overrides: Overrides, seed: int) -> str:
    """Directory of a run: the values of its settings."""
    words = (re.sub(r"[^\w.]+", "_", str(value)).strip("_") for value in overrides.values())
    return "-".join(words) + f"-seed{seed}"


def run(suite: str, overrides: Overrides, seed: int, out: Path) -> None:
    """One run in a process of its own, unless its summary is there."""
    directory = out / f"svpg_{suite}" / name_of(overrides, seed)
    arguments = [f"{name}={value}" for name, value in overrides.items()]
    arguments += [f"seed={seed}", f"run_dir={directory}", "compile.compile=true"]
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
