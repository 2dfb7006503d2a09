"""Soft Q-learning, DP-WGF and DP-WGF-V on the multi-goal world, against the exact solution.

    python -m benchmarks.experiments.soft_q_multigoal --seeds 5 --workers 2

Trains the recipes as they are, one process per run, and writes
benchmarks/results/soft_q_multigoal.{json,md}. Runs that are already in the JSON file are not
repeated, so an interrupted benchmark goes on where it stopped; delete the file after a change.
"""

import argparse
import json
import math
import multiprocessing
import platform
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from tensordict import TensorDict
from torch import Tensor

from benchmarks import RESULTS
from benchmarks.recipes import load_recipe, settings_of
from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.functional import normalized_entropy
from torchrl_stein.kernels import Evaluation, RBFKernel
from torchrl_stein.objectives import SoftQLoss
from torchrl_stein.runs import load_loss, play_episodes
from torchrl_stein.runs.evaluation import multigoal_metrics
from torchrl_stein.runs.pictures import PROBE_STATES
from torchrl_stein.runs.settings import OffPolicySettings
from torchrl_stein.runs.targets import trust_all_targets
from torchrl_stein.testing import solve_multigoal

OUT = RESULTS / "soft_q_multigoal"
TEMPERATURE = 10.0

NO_REPULSION = "loss.kernel._target_=benchmarks.experiments.soft_q_multigoal.DriveOnlyKernel"
EQ_9 = "trust_region.cost._target_=torchrl_stein.objectives.WGFPotential"
REGION = "trust_region.weight=0.4"
METHODS = {
    "soft Q-learning": ("soft_q", []),
    "repulsion off": ("soft_q", [NO_REPULSION]),
    "own gradient, repulsion": ("soft_q", ["loss.force=repulsion"]),
    "own gradient, log-distance": ("soft_q", ["loss.force=log_distance", "loss.squash=none"]),
    "reference squash": ("soft_q", ["loss.squash=reference"]),
    "DP-WGF": ("soft_q", [REGION]),
    "DP-WGF, eq. (9)": ("soft_q", [REGION, EQ_9]),
    "DP-WGF, Boltzmann target": ("soft_q", [REGION, "loss.value_target=boltzmann"]),
    "DP-WGF-V": ("soft_qv", []),
    "DP-WGF-V, no trust region": ("soft_qv", ["trust_region.weight=0"]),
    "SAC (TorchRL)": ("sac", ["loss.loss_function=smooth_l1"]),
    "DDPG (TorchRL)": ("ddpg", []),
}


class DriveOnlyKernel(RBFKernel):
    """The RBF kernel without its gradient: particles share scores but do not repel."""

    def evaluate(self, x: Tensor, y: Tensor | None = None) -> Evaluation:
        full = super().evaluate(x, y)
        return Evaluation(
            full.gram,
            lambda weights: full.weighted_repulsion(weights).zero_(),
            full.bandwidth,
        )


def train(method: str, seed: int, *changes: str) -> dict:
    """One run of one recipe; returns its final metrics."""
    name, overrides = METHODS[method]
    trust_all_targets()  # DriveOnlyKernel is not the library's
    with tempfile.TemporaryDirectory() as directory:
        run_dir = f"{directory}/run"
        settings = settings_of(name, f"seed={seed}", f"run_dir={run_dir}", *overrides, *changes)
        start, cpu = time.perf_counter(), time.process_time()
        load_recipe(name).main(settings)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        metrics = json.loads(Path(run_dir, "summary.json").read_text())
        loss, _ = load_loss(run_dir)
    metrics |= {"method": method, "seed": seed, "wall_s": wall, "cpu_s": cpu}
    metrics |= {"updates": settings.num_updates, "frames": settings.training.total_frames}
    metrics["entropy_one_start"] = one_start_entropy(loss.actor_network, settings)
    if name in ("soft_q", "soft_qv"):
        metrics |= sampler_fit(loss)
    return metrics


def one_start_entropy(policy, settings: OffPolicySettings) -> float:
    """Entropy of the goal histogram if every rollout starts at the origin exactly.

    A policy that is deterministic in each state may still reach all goals from random starts.
    """
    episodes, max_steps = settings.eval.final_episodes, settings.eval.max_steps
    env = MultiGoalEnv((episodes,), horizon=max_steps, init_sigma=0.0, seed=0)
    return multigoal_metrics(env, play_episodes(env, policy, max_steps))["entropy"]


def sampler_fit(loss: SoftQLoss, samples: int = 4000, cells: int = 10, fine: int = 8) -> dict:
    """How well the sampler follows the Boltzmann density of the learnt Q at the probe states.

    Both are histograms on a cells x cells grid of the action square; that of the density is
    integrated on a grid `fine` times finer. Returns ``kl``, KL(sampler || density), and ``width``,
    exp(entropy of the sampler - entropy of the density): 1 if both fill as many cells.
    """
    states = TensorDict({"observation": torch.tensor(PROBE_STATES)}, [len(PROBE_STATES)])
    n = cells * fine
    axis = (torch.arange(n) + 0.5) / n * 2 - 1
    mesh = torch.cartesian_prod(axis, axis).expand(len(PROBE_STATES), -1, -1)
    log_density = loss.qvalue(states, mesh) / loss.temperature
    density = torch.softmax(log_density, -1).reshape(-1, cells, fine, cells, fine).sum((2, 4))
    with torch.no_grad():
        actions = loss.actor_network.sample(states, samples)
    index = ((actions + 1) / 2 * cells).long().clamp(0, cells - 1)
    flat = index[..., 0] * cells + index[..., 1]
    counts = torch.stack([torch.bincount(row, minlength=cells**2) for row in flat])
    p, q = counts / samples, density.flatten(1)
    kl = torch.special.xlogy(p, p / q).sum(1)
    width = (torch.special.entr(p).sum(1) - torch.special.entr(q).sum(1)).exp()
    return {"kl": kl.tolist(), "width": width.tolist()}


def exact_reference() -> dict:
    """The soft-optimal policy at the same temperature, by value iteration."""
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
        f"`python -m benchmarks.experiments.soft_q_multigoal --seeds {seeds}`, {date.today()}, "
        f"{platform.machine()}, {multiprocessing.cpu_count()} CPU cores, one thread per run, "
        f"Python {platform.python_version()}, torch {version('torch')}, "
        f"torchrl {version('torchrl')}.",
        "",
        f"{runs[0]['frames']} environment steps and {runs[0]['updates']} updates per run, alpha = "
        f"{TEMPERATURE:g}; 500 rollouts of at most 20 steps after training, actions sampled (DDPG: "
        "its deterministic actions). Entropy of the goal histogram divided by log 4. "
        "Mean ± standard deviation over the seeds. CPU seconds are of several days and loads (own "
        "gradients: torch 2.14.1, all others 2.13.0): "
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
    results = OUT.with_suffix(".json")
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
    OUT.with_suffix(".md").write_text(table(runs, exact))
    print(table(runs, exact))


if __name__ == "__main__":
    main()
