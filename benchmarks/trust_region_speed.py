"""What a Wasserstein trust region costs per update, beside the same update without it.

    python -m benchmarks.trust_region_speed

Agents are those of the recipes; both sides take turns in one process, and the median of their ratio
in CPU time is quoted with the quartiles. Writes benchmarks/results/trust_region_speed.{json,md}.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

import torch

from benchmarks.suite.agents import compose_config, load_recipe
from benchmarks.suite.harness import interleave
from torchrl_stein.training import OffPolicyAgent, make_task

RESULTS = Path(__file__).parent / "results" / "trust_region_speed"

# Recipe, its settings, and what changes the trust region, by row of the table.
OFF_POLICY = {
    "DP-WGF, multi-goal, batch 128": ("soft_q", []),
    "DP-WGF, multi-goal, batch 128, 32 actions": ("soft_q", ["trust_region.num_action_samples=32"]),
    "DP-WGF, multi-goal, batch 128, 8 actions": ("soft_q", ["trust_region.num_action_samples=8"]),
    "DP-WGF, multi-goal, batch 128, eq. (9)": (
        "soft_q",
        ["trust_region.cost._target_=torchrl_stein.objectives.WGFPotential"],
    ),
    "DP-WGF, Swimmer-v5, batch 64": ("soft_q", ["task=swimmer"]),
    "DP-WGF-V, multi-goal, batch 128": ("dp_wgf_v", []),
    "DP-WGF-V, Swimmer-v5, batch 64": ("dp_wgf_v", ["task=swimmer"]),
}


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int = 1
) -> dict[str, float]:
    """Both in turn; their time over ours, median and quartiles."""
    device = torch.device("cpu")
    ours_ms, (peer,), _ = interleave(ours, {"theirs": theirs}, device, repeats=repeats)
    return {"ours_ms": ours_ms, "ratio": peer.ratio, "low": peer.low, "high": peer.high}


def setting() -> dict[str, str]:
    """When and where."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "torchrl": version("torchrl"),
    }


def off_policy(recipe: str, overrides: list[str]) -> dict[str, float]:
    """One update of the recipe's agent on a random batch."""
    cfg = compose_config(recipe, ["trust_region.weight=0.4", *overrides])
    env = make_task(cfg.env.name, (cfg.env.num_envs,), seed=0, options=cfg.env.options)
    agent: OffPolicyAgent = load_recipe(recipe).make_agent(cfg, env)
    size = cfg.training.batch_size
    batch = env.rollout(-(-size // env.batch_size[0]), break_when_any_done=False)
    batch = batch.reshape(-1)[:size].contiguous()
    plain = replace(agent, trust_region=None)
    return compare(lambda: plain.update(batch), lambda: agent.update(batch), repeats=10)


def population() -> dict[str, float]:
    """One iteration's update of recipes/svpg.py with the settings of the paper, 5000 rows each."""
    cfg = compose_config("ip_wgf", ["base=reinforce"])
    n, envs, steps = cfg.population.num_particles, 10, cfg.training.steps
    env = make_task(cfg.env, (n, envs), seed=0, options=cfg.env_options)
    agent = load_recipe("svpg").make_agent(cfg, env)
    with torch.no_grad():
        data = env.rollout(steps, agent.actor, break_when_any_done=False)
    data["next", "episode_reward"] = torch.zeros_like(data["next", "reward"])
    data["elapsed_steps"] = torch.arange(steps).view(1, 1, -1, 1).expand(n, envs, steps, 1)
    plain = replace(agent, trust_region=None)

    def update(which) -> Callable[[], object]:
        return lambda: which.update(data.copy())

    return compare(update(plain), update(agent))


def page(results: dict) -> str:
    """The results as Markdown."""
    where = ", ".join(f"{name} {value}" for name, value in results["setting"].items())
    lines = [
        "# What a trust region costs",
        "",
        "`python -m benchmarks.trust_region_speed`: CPU time of one whole update, one thread, with",
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
    torch.set_num_threads(1)
    torch.manual_seed(0)
    updates = {name: off_policy(*case) for name, case in OFF_POLICY.items()}
    updates["IP-WGF, swing-up, 16 x 5000 rows"] = population()
    results = {"setting": setting(), "updates": updates}
    RESULTS.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(page(results))
    print(page(results))


if __name__ == "__main__":
    main()
