"""What a Wasserstein trust region costs per update, beside the same update without it.

    python -m benchmarks.speed.trust_region

Agents are those of the recipes; both sides take turns in one process, and the median of their ratio
in CPU time is quoted with the quartiles. Writes benchmarks/results/trust_region_speed.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from datetime import date
from importlib.metadata import version

import torch

from benchmarks import RESULTS
from benchmarks.recipes import settings_of
from benchmarks.speed.agents import (
    MULTI_GOAL,
    Sizes,
    make_agent,
    make_population,
    random_transitions,
)
from benchmarks.speed.harness import interleave

OUT = RESULTS / "trust_region_speed"
CPU = torch.device("cpu")

SWIMMER = Sizes("Swimmer sizes", 8, 2)
EQ_9 = "trust_region.cost._target_=torchrl_stein.objectives.WGFPotential"
# Recipe, sizes and settings, by row of the table.
OFF_POLICY = {
    "DP-WGF, multi-goal, batch 128": ("soft_q", MULTI_GOAL, []),
    "DP-WGF, multi-goal, batch 128, 32 actions": (
        "soft_q",
        MULTI_GOAL,
        ["trust_region.num_action_samples=32"],
    ),
    "DP-WGF, multi-goal, batch 128, 8 actions": (
        "soft_q",
        MULTI_GOAL,
        ["trust_region.num_action_samples=8"],
    ),
    "DP-WGF, multi-goal, batch 128, eq. (9)": ("soft_q", MULTI_GOAL, [EQ_9]),
    "DP-WGF, Swimmer-v5, batch 64": ("soft_q", SWIMMER, ["task=swimmer"]),
    "DP-WGF-V, multi-goal, batch 128": ("soft_qv", MULTI_GOAL, []),
    "DP-WGF-V, Swimmer-v5, batch 64": ("soft_qv", SWIMMER, ["task=swimmer"]),
}


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 1
) -> dict[str, float]:
    """Both in turn; their time over ours, median and quartiles."""
    ours_ms, (peer,), _ = interleave(ours, {"theirs": theirs}, CPU, repeats=repeats)
    return {"ours_ms": ours_ms, "ratio": peer.ratio, "low": peer.low, "high": peer.high}


def setting() -> dict[str, str]:
    """When and where."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "torchrl": version("torchrl"),
    }


def off_policy(recipe: str, sizes: Sizes, overrides: list[str]) -> dict[str, float]:
    """One update of a recipe on random transitions, with and without its trust region."""
    cfg = settings_of(recipe, *overrides)
    overrides = [*overrides, f"network.num_cells={cfg.network.num_cells}"]
    batch = random_transitions(cfg.training.batch_size, sizes, CPU)
    agent, plain = (
        make_agent(recipe, sizes, CPU, [*overrides, f"trust_region.weight={weight}"])
        for weight in (0.4, 0)
    )
    return compare(lambda: plain.update(batch), lambda: agent.update(batch), repeats=10)


def population(*sizes: str) -> dict[str, float]:
    """One iteration's update of recipes/svpg.py with the settings of the paper, 5000 rows each."""
    settings = ["base=reinforce", *sizes]
    ours = make_population(CPU, settings, config="ip_wgf")
    plain = make_population(CPU, [*settings, "trust_region=none"], config="ip_wgf")
    data = ours.collect()
    return compare(lambda: plain.update(data.copy()), lambda: ours.update(data.copy()))


def page(results: dict) -> str:
    """The results as Markdown."""
    where = ", ".join(f"{name} {value}" for name, value in results["setting"].items())
    lines = [
        "# What a trust region costs",
        "",
        "`python -m benchmarks.speed.trust_region`: CPU time of one whole update, one thread, with",
        f"and without in turn in one process; {where}. The machine is shared: read ratios.",
        "SinkhornCost() with 16 actions per state unless said otherwise.",
        "",
        "| update | without, ms | with / without | quartiles |",
        "|---|---|---|---|",
    ]
    for name, row in results["updates"].items():
        lines.append(
            f"| {name} | {row['ours_ms']:.1f} | {row['ratio']:.2f} | "
            f"{row['low']:.2f} - {row['high']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    updates = {name: off_policy(*case) for name, case in OFF_POLICY.items()}
    updates["IP-WGF, swing-up, 16 x 5000 rows"] = population()
    results = {"setting": setting(), "updates": updates}
    OUT.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
