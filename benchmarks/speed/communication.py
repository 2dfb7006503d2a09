"""What ShardedSteinPolicyLoss communicates per update, and how long that takes on one machine.

    python -m benchmarks.speed.communication

Two processes, gloo, one thread each. Bytes are counted where torch.distributed is called. Times are
CPU seconds of a process, gloo's own threads included, medians over updates; and, of the gathers,
the least by the clock, which other work on the machine can only lengthen. Writes
benchmarks/results/communication.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import ReinforceLoss

from benchmarks import RESULTS, ROOT
from torchrl_stein.modules import ParticleModule, shard_particles
from torchrl_stein.objectives import ShardedSteinPolicyLoss

OUT = RESULTS / "communication"
RANKS = 2
OBSERVATIONS, ACTIONS, ROWS = 17, 6, 500  # of a robot such as HalfCheetah; transitions per policy
WARM_UP, UPDATES = 2, 9
# n, hidden units of each of two layers: from the smallest policy of the recipes to a large one
SIZES = [(16, 16), (16, 64), (64, 64), (16, 256), (64, 256), (256, 64), (16, 512)]


def make_loss(n: int, cells: int, rank: int) -> tuple[ShardedSteinPolicyLoss, TensorDict]:
    """A rank's half of n Gaussian policies, and data of it."""

    def network() -> nn.Module:
        layers = [nn.Linear(OBSERVATIONS, cells), nn.Tanh(), nn.Linear(cells, cells), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(cells, 2 * ACTIONS), NormalParamExtractor())

    torch.manual_seed(0)
    actor = ProbabilisticActor(
        TensorDictModule(ParticleModule(network, n), ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
        return_log_prob=True,
    )
    actor = shard_particles(actor, rank, RANKS)
    critic = ValueOperator(ParticleModule(lambda: nn.Linear(OBSERVATIONS, 1), n // RANKS))
    torch.manual_seed(1 + rank)
    data = TensorDict(
        {"observation": torch.randn(n // RANKS, ROWS, OBSERVATIONS)}, [n // RANKS, ROWS]
    )
    with torch.no_grad():
        data = actor(data)
    data["advantage"] = data["value_target"] = torch.randn(n // RANKS, ROWS, 1)
    return ShardedSteinPolicyLoss(ReinforceLoss(actor, critic)), data


class Meter:
    """Counts the gathers: calls, bytes of the rows that come from others, seconds of two clocks."""

    def __init__(self) -> None:
        self.calls, self.received, self.seconds, self.cpu_seconds = 0, 0, 0.0, 0.0

    def wrap(self, gather: Callable[..., None]) -> Callable[..., None]:
        def call(rows: torch.Tensor, own: torch.Tensor, **options: object) -> None:
            dist.barrier()  # waiting for a slower rank is not communication
            begin, cpu = time.perf_counter(), time.process_time()
            gather(rows, own, **options)
            self.seconds += time.perf_counter() - begin
            self.cpu_seconds += time.process_time() - cpu
            self.calls += 1
            self.received += rows.nbytes - own.nbytes

        return call


@contextmanager
def metered() -> Iterator[Meter]:
    """Count what is gathered."""
    name = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
    original, meter = getattr(dist, name), Meter()
    setattr(dist, name, meter.wrap(original))
    try:
        yield meter
    finally:
        setattr(dist, name, original)


def measure(n: int, cells: int, rank: int) -> dict[str, float]:
    """Calls, bytes and milliseconds of one update; see the module."""
    loss, data = make_loss(n, cells, rank)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3, fused=True)
    gathers, clock, updates = [], [], []
    for _ in range(WARM_UP + UPDATES):
        dist.barrier()
        begin = time.process_time()
        with metered() as meter:
            losses = loss(data)
            sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
        optimizer.step()
        optimizer.zero_grad()
        updates.append(time.process_time() - begin)
        gathers.append(meter.cpu_seconds)
        clock.append(meter.seconds)
    d = loss.population.kernel_dim
    expected = 2 * (RANKS - 1) / RANKS * n * d * loss.particles.element_size()
    return {
        "n": n,
        "d": d,
        "calls": meter.calls,
        "received": meter.received,
        "formula": expected,
        "least_ms": 1e3 * min(clock[WARM_UP:]),
        "gathers_ms": 1e3 * median(gathers[WARM_UP:]),
        "update_ms": 1e3 * median(updates[WARM_UP:]),
    }


def work(rank: int, folder: str) -> None:
    """One of the processes; the first one writes what was found."""
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=RANKS)
    rows = [measure(n, cells, rank) for n, cells in SIZES]
    if rank == 0:
        Path(folder, "rows.json").write_text(json.dumps(rows))
    dist.destroy_process_group()


def describe() -> str:
    """Where and when."""
    return (
        f"date {datetime.now(UTC):%Y-%m-%d}, machine {platform.machine()} with {os.cpu_count()} "
        f"cores, {RANKS} processes with 1 thread each, gloo, torch {torch.__version__}"
    )


def table(rows: list[dict[str, float]]) -> str:
    """The measurements as a page."""
    lines = [
        "# Communication per update",
        "",
        f"`python -m benchmarks.speed.communication`: {describe()}.",
        f"ReinforceLoss, RBF kernel, median heuristic, Adam, {ROWS} transitions per policy.",
        "",
        "| n | d | gathers | received per process, MB | formula, MB | least by the clock, ms "
        "| gathers, CPU ms | update, CPU ms | share |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = row["gathers_ms"] / row["update_ms"]
        lines.append(
            f"| {row['n']} | {row['d']} | {row['calls']} | {row['received'] / 1e6:.3f} | "
            f"{row['formula'] / 1e6:.3f} | {row['least_ms']:.2f} | "
            f"{row['gathers_ms']:.2f} | {row['update_ms']:.1f} | "
            f"{100 * share:.0f} % |"
        )
    lines += [
        "",
        "The formula is 2 (R - 1) / R n d times the 4 bytes of a number, for R processes: the",
        "particles of the others before the forward pass, their gradients in the backward pass.",
        "A gather begins when both processes have come to it. By the clock it is the least of the",
        f"{UPDATES} updates, and still long where other work keeps one of both processes waiting.",
        "CPU time is the median, of gloo's threads too; the share is of it.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if sys.platform == "linux":
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.speed.communication"]
        started = [
            subprocess.Popen([*command, str(rank), folder], cwd=ROOT, env=environment)
            for rank in range(RANKS)
        ]
        codes = [process.wait() for process in started]
        if any(codes):
            sys.exit("communication: a process failed")
        rows = json.loads(Path(folder, "rows.json").read_text())
    OUT.with_suffix(".json").write_text(
        json.dumps({"setting": describe(), "rows": rows}, indent=2) + "\n"
    )
    OUT.with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        work(int(sys.argv[1]), sys.argv[2])
    else:
        main()
