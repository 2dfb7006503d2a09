"""Soft Q-learning, DP-WGF and DP-WGF-V on the multi-goal world, against the exact solution.

    python -m benchmarks.soft_q_multigoal --seeds 5 --workers 2

Trains the recipes as they are, one process per run, and writes
benchmarks/results/soft_q_multigoal.{json,md}. Runs that are already in the JSON file are not
repeated, so an interrupted benchmark goes on where it stopped; delete the file after a change.
"""

import argparse
import importlib
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "soft_q_multigoal"
TEMPERATURE = 10.0

METHODS = {
    "soft Q-learning": ("soft_q", []),
    "repulsion off": ("soft_q", ["loss.kernel._target_=benchmarks.controls.DriveOnlyKernel"]),
    "reference squash": ("soft_q", ["loss.squash=reference"]),
    "DP-WGF": ("soft_q", ["trust_region.weight=0.4"]),
    "DP-WGF, eq. (9)": (
        "soft_q",
        [
            "trust_region.weight=0.4",
            "trust_region.cost._target_=torchrl_stein.objectives.WGFPotential",
        ],
    ),
    "DP-WGF, Boltzmann target": (
        "soft_q",
        ["trust_region.weight=0.4", "loss.value_target=boltzmann"],
    ),
    "DP-WGF-V": ("dp_wgf_v", []),
    "DP-WGF-V, no trust region": ("dp_wgf_v", ["trust_region.weight=0"]),
    "SAC (TorchRL)": ("sac", []),
    "DDPG (TorchRL)": ("ddpg", []),
}


def train(method: str, seed: int) -> dict:
    """One run of one recipe; returns its final metrics."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from torchrl_stein.training.off_policy.recipe import train_off_policy_run

    name, overrides = METHODS[method]
    sys.path.insert(0, str(ROOT / "benchmarks" / "first_recipes"))
    recipe = importlib.import_module(name)
    with tempfile.TemporaryDirectory() as directory:
        run_dir = f"{directory}/run"
        with initialize_config_dir(
            str(ROOT / "benchmarks" / "first_recipes" / "conf"), version_base="1.3"
        ):
            cfg = compose(name, [f"seed={seed}", f"run_dir={run_dir}", *overrides])
        config = OmegaConf.to_container(cfg, resolve=True)
        start, cpu = time.perf_counter(), time.process_time()
        _, agent, _ = train_off_policy_run(config, lambda env: recipe.make_agent(cfg, env))
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        metrics = json.loads(Path(run_dir, "summary.json").read_text())
    metrics |= {"method": method, "seed": seed, "wall_s": wall, "cpu_s": cpu}
    metrics["updates"] = agent.scheduler.last_epoch
    metrics["frames"] = config["training"]["total_frames"]
    metrics["entropy_one_start"] = one_start_entropy(agent, config["eval"])
    if name in ("soft_q", "dp_wgf_v"):
        metrics |= sampler_fit(agent)
    return metrics


def one_start_entropy(agent, settings: dict) -> float:
    """Entropy of the goal histogram if every rollout starts at the origin exactly.

    A policy that is deterministic in each state may still reach all goals from random starts.
    """
    from torchrl_stein.envs import MultiGoalEnv
    from torchrl_stein.training import multigoal_metrics, play_episodes

    episodes, max_steps = settings["final_episodes"], settings["max_steps"]
    env = MultiGoalEnv((episodes,), horizon=max_steps, init_sigma=0.0, seed=0)
    return multigoal_metrics(env, play_episodes(env, agent.policy, max_steps))["entropy"]


def sampler_fit(agent, samples: int = 4000, cells: int = 10, fine: int = 8) -> dict:
    """How well the sampler follows the Boltzmann density of the learnt Q at the probe states.

    Both are histograms on a cells x cells grid of the action square; that of the density is
    integrated on a grid `fine` times finer. Returns ``kl``, KL(sampler || density), and ``width``,
    exp(entropy of the sampler - entropy of the density): 1 if both fill as many cells.
    """
    import torch
    from tensordict import TensorDict

    from torchrl_stein.training import PROBE_STATES

    states = TensorDict({"observation": torch.tensor(PROBE_STATES)}, [len(PROBE_STATES)])
    n = cells * fine
    axis = (torch.arange(n) + 0.5) / n * 2 - 1
    mesh = torch.cartesian_prod(axis, axis).expand(len(PROBE_STATES), -1, -1)
    log_density = agent.loss.qvalue(states, mesh) / agent.loss.temperature
    density = torch.softmax(log_density, -1).reshape(-1, cells, fine, cells, fine).sum((2, 4))
    with torch.no_grad():
        actions = agent.policy.sample(states, samples)
    index = ((actions + 1) / 2 * cells).long().clamp(0, cells - 1)
    flat = index[..., 0] * cells + index[..., 1]
    counts = torch.stack([torch.bincount(row, minlength=cells**2) for row in flat])
    p, q = counts / samples, density.flatten(1)
    kl = torch.special.xlogy(p, p / q).sum(1)
    width = (torch.special.entr(p).sum(1) - torch.special.entr(q).sum(1)).exp()
    return {"kl": kl.tolist(), "width": width.tolist()}


def exact_reference() -> dict:
    """The soft-optimal policy at the same temperature, by value iteration."""
    import torch

    from torchrl_stein.functional import normalized_entropy
    from torchrl_stein.testing import solve_multigoal

    generator = torch.Generator().manual_seed(0)
    exact = solve_multigoal(TEMPERATURE).rollout(4000, generator, horizon=20)
    goals = list(exact.goal_frequencies)
    return {
        "return": exact.mean_return,
        "success": exact.success,
        "length": exact.mean_length,
        "entropy": normalized_entropy(torch.tensor(goals)).item(),
    } | {f"goal_{i}": frequency for i, frequency in enumerate(goals)}


def spread(values: list[float], digits: int = 3) -> str:
    """mean +- standard deviation over seeds."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def table(runs: list[dict], exact: dict) -> str:
    """The Markdown page."""
    seeds = len({run["seed"] for run in runs})
    lines = [
        "# Soft Q-learning, DP-WGF and DP-WGF-V on the multi-goal world",
        "",
        f"`python -m benchmarks.soft_q_multigoal --seeds {seeds}`, {date.today()}, "
        f"{platform.machine()}, {multiprocessing.cpu_count()} CPU cores, one thread per run, "
        f"Python {platform.python_version()}, torch {version('torch')}, "
        f"torchrl {version('torchrl')}.",
        "",
        f"{runs[0]['frames']} environment steps and {runs[0]['updates']} updates per run, alpha = "
        f"{TEMPERATURE:g}; 500 rollouts of at most 20 steps after training, actions sampled (DDPG: "
        "its deterministic actions). Entropy of the goal histogram divided by log 4. "
        "Mean ± standard deviation over the seeds. CPU seconds are of several days and loads: "
        "[trust_region_speed.md](trust_region_speed.md) has the cost of a trust region.",
        "",
        "| method | seeds | success | smallest frequency | entropy | entropy, one start | return "
        "| length | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| exact soft-optimal policy | | {exact['success']:.3f} | "
        f"{min(exact[f'goal_{i}'] for i in range(4)):.3f} | {exact['entropy']:.3f} | | "
        f"{exact['return']:.1f} | {exact['length']:.1f} | |",
    ]
    for method in METHODS:
        rows = [run for run in runs if run["method"] == method]
        if rows:
            smallest = [min(run[f"goal_{i}"] for i in range(4)) for run in rows]
            cells = [
                method,
                str(len(rows)),
                spread([run["success"] for run in rows]),
                spread(smallest),
                spread([run["entropy"] for run in rows]),
                spread([run["entropy_one_start"] for run in rows]),
                spread([run["return"] for run in rows], 1),
                spread([run["length"] for run in rows], 1),
                spread([run["cpu_s"] for run in rows], 0),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        '"One start": every rollout begins at the origin exactly. A policy that is deterministic '
        "in each state reaches several goals from random starts, but only one from one start.",
        "",
        "KL(sampler || Boltzmann density of the learnt Q), 4000 actions in 10 x 10 cells "
        "(about 0.012 for a perfect sampler, from the finite sample), and the sampler's width, "
        "exp(entropy of its histogram - entropy of the density's), 1 at best:",
        "",
        "| method | | s = (-2.5, 0) | s = (0, 0) | s = (2.5, 2.5) |",
        "|---|---|---|---|---|",
    ]
    for method in METHODS:
        rows = [run for run in runs if run["method"] == method and "kl" in run]
        for name, key in (("KL", "kl"), ("width", "width")) if rows else ():
            columns = zip(*[run[key] for run in rows], strict=True)
            cells = [spread(list(column)) for column in columns]
            lines.append("| " + " | ".join([method, name, *cells]) + " |")
    lines += [
        "",
        "Every run:",
        "",
        "| method | seed | goals | success | entropy | one start | return | KL |",
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    for run in runs:
        goals = " ".join(f"{run[f'goal_{i}']:.3f}" for i in range(4))
        kl = " ".join(f"{value:.3f}" for value in run.get("kl", []))
        lines.append(
            f"| {run['method']} | {run['seed']} | {goals} | {run['success']:.3f} | "
            f"{run['entropy']:.3f} | {run['entropy_one_start']:.3f} | {run['return']:.1f} | {kl} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    results = RESULTS.with_suffix(".json")
    results.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(results.read_text())["runs"] if results.exists() else []
    done = {(run["method"], run["seed"]) for run in runs}
    todo = [(m, s) for m in METHODS for s in range(arguments.seeds) if (m, s) not in done]
    print(f"{len(todo)} runs of about one minute each on {arguments.workers} workers")
    exact = exact_reference()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.workers, mp_context=context) as pool:
        futures = [pool.submit(train, method, seed) for method, seed in todo]
        for future in as_completed(futures):
            runs.append(future.result())
            runs.sort(key=lambda run: (list(METHODS).index(run["method"]), run["seed"]))
            results.write_text(json.dumps({"exact": exact, "runs": runs}, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(runs, exact))
    print(table(runs, exact))


if __name__ == "__main__":
    main()
