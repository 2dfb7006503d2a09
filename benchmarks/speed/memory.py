"""What an update of soft Q-learning needs at its peak, and whether a long run of a recipe grows.

    python -m benchmarks.speed.memory                     # both
    python -m benchmarks.speed.memory --only update
    python -m benchmarks.speed.memory --only run --settings compile.compile=true
    python -m benchmarks.speed.memory --only run --minutes 60   # as far as it comes

The peak is the sum of all tensors that live at one time within an update, networks and optimizer
aside: operations below autograd are watched, and the storages that they return. The run is a
process of recipes/soft_q.py whose resident memory is read every two seconds. Writes
benchmarks/results/memory.{json,md}, where the part that was not measured stays as it was.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from math import nan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks import RESULTS
from benchmarks.recipes import RECIPES
from benchmarks.speed.agents import HALF_CHEETAH, make_agent, random_transitions
from benchmarks.speed.harness import Call, peak_memory
from torchrl_stein.runs.process import prepare_cpu, read_provenance

__all__ = ["Ledger", "growth", "make_update", "peak_of_tensors"]

OUT = RESULTS / "memory"
CPU = torch.device("cpu")
# B, K, M, actions for V: one grows at a time, then K and M together.
SIZES = [(b, 16, 16, 16) for b in (64, 128, 256, 512, 1024)]
SIZES += [(256, k, 16, 16) for k in (4, 8, 32, 64, 128)]
SIZES += [(256, 16, m, 16) for m in (4, 8, 32, 64, 128)]
SIZES += [(256, k, k, k) for k in (4, 8, 32, 64, 128)]

# The multi-goal world with networks so small that an update takes milliseconds, ten of them for a
# step, as data would take as long. The buffer no longer grows after 5000 updates.
RUN = ["network.num_cells=[16,16]", "env.num_envs=4", "training.updates_per_step=10"]
RUN += ["training.batch_size=32", "training.warmup_frames=40", "training.buffer_size=2000"]
RUN += ["training.log_interval=10", "training.eval_interval=2000", "eval.episodes=16"]
RUN += ["training.checkpoint_interval=5000"]
RUN += ["loss.num_action_samples=4", "loss.num_value_samples=4"]
WARMUP, UPDATES_PER_FRAME = 40, 10 / 4
EVERY_S = 2.0
BLOCK = 2500  # updates, of which the readings are averaged
SETTLED = 10_000  # updates after which buffer and allocator no longer grow


class Ledger(TorchDispatchMode):
    """Adds up the tensors that operations make while it is entered, and finds the peak.

    What was there before counts nothing, and neither does what an operation needs inside.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._bytes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any | None = None
    ) -> Any:
        # An argument that nobody returned was there before.
        self._enter((args, kwargs), counts=False)
        result = func(*args, **(kwargs or {}))
        self._enter(result, counts=True)
        return result

    def _enter(self, tensors: Any, *, counts: bool) -> None:
        for leaf in tree_leaves(tensors):
            if not isinstance(leaf, Tensor):
                continue
            storage = leaf.untyped_storage()
            key = id(storage)
            if key not in self._bytes:
                self._bytes[key] = storage.nbytes() if counts else 0
                weakref.finalize(storage, self._leave, key)
                self.now += self._bytes[key]
        self.peak = max(self.peak, self.now)

    def _leave(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


def peak_of_tensors(call: Call) -> int:
    """Bytes of the tensors that a call holds at its peak."""
    with Ledger() as ledger:
        call()
    return ledger.peak


def make_update(batch: int, pushing: int, moved: int, values: int, cells: int = 128) -> Call:
    """An update of recipes/soft_q.py that has run once, when the optimizer made its moments."""
    words = [f"network.num_cells=[{cells},{cells}]", f"loss.num_value_samples={values}"]
    agent = make_agent("soft_q", HALF_CHEETAH, CPU, words)
    agent.loss.num_pushing, agent.loss.num_moved = pushing, moved
    data = random_transitions(batch, HALF_CHEETAH, CPU)
    agent.update(data.copy())
    return lambda: agent.update(data.copy())


def measure_updates() -> Iterator[dict[str, Any]]:
    """Peaks in MiB: of the tensors, and of the resident memory of this process."""
    prepare_cpu(1)
    torch.manual_seed(0)
    for batch, pushing, moved, values in SIZES:
        update = make_update(batch, pushing, moved, values)
        row = {"B": batch, "K": pushing, "M": moved, "K'": values}
        row["tensors"] = round(peak_of_tensors(update) / 2**20, 2)
        row["resident"] = max(round(peak_memory(update, CPU) or 0.0, 1) for _ in range(3))
        print(row, flush=True)
        yield row


# A long run.


def watch(updates: int, overrides: Sequence[str], minutes: float) -> list[tuple[float, float]]:
    """(Updates done, MiB resident) of a run of recipes/soft_q.py, which ends after so long."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "run"
        frames = WARMUP + round(updates / UPDATES_PER_FRAME)
        command = [sys.executable, str(RECIPES / "soft_q.py"), *RUN, *overrides]
        command += [f"training.total_frames={frames}", f"run_dir={place}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (Path(folder) / "log").open("w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            points, end = [], time.monotonic() + 60 * minutes
            while process.poll() is None and time.monotonic() < end:
                time.sleep(EVERY_S)
                done = _updates_of(place)
                if done:
                    points.append((done, _resident(process.pid)))
            process.terminate()
            if process.wait() not in (0, 128 + signal.SIGTERM):
                log.seek(0)
                raise RuntimeError(f"soft_q.py ended with {process.returncode}:\n{log.read()}")
    return [(done, mib) for done, mib in points if mib]


def _updates_of(place: Path) -> float:
    logged = place / "metrics" / "scalars" / "train" / "loss_qvalue.csv"
    lines = logged.read_text().splitlines() if logged.exists() else []
    frames = int(lines[-1].split(",")[0]) if lines else WARMUP
    return (frames - WARMUP) * UPDATES_PER_FRAME


def _resident(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def growth(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """MiB per 10 000 updates after the first 10 000, by least squares, and the error of that.

    The standard error takes the means of blocks of 2500 updates for independent, since readings
    seconds apart are not. NaN where there are fewer than three blocks.
    """
    blocks: dict[int, list[float]] = {}
    for done, mib in points:
        blocks.setdefault(int(done // BLOCK), []).append(mib)
    means = {BLOCK * index: statistics.fmean(own) for index, own in sorted(blocks.items())}
    found = {"updates": points[-1][0], "readings": len(points), "slope": nan, "error": nan}
    found |= {"blocks": [[at, round(mib, 2)] for at, mib in means.items()]}
    later = [(at / 10_000, mib) for at, mib in means.items() if at >= SETTLED]
    if len(later) < 3:
        return found
    x, y = zip(*later, strict=True)
    slope, intercept = statistics.linear_regression(x, y)
    spread = sum((mib - slope * at - intercept) ** 2 for at, mib in later)
    width = sum((at - statistics.fmean(x)) ** 2 for at in x)
    return found | {"slope": slope, "error": (spread / (len(x) - 2) / width) ** 0.5}


def page(kept: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["# Memory", "", f"`python -m benchmarks.speed.memory`: {kept['setting']}."]
    if "update" in kept:
        lines += ["", "## An update", ""]
        lines += [
            f"SoftQLoss as in recipes/soft_q.py, forward, backward and Adam, {HALF_CHEETAH.name},",
            "2 x 128 units. K actions push, M are moved, K' are drawn for V(s'). Peaks beyond",
            "networks, optimizer and data: the sum of all tensors alive, which is exact, and the",
            "resident memory, which includes what operations need inside.",
            "",
            "| B | K | M | K' | tensors, MiB | resident, MiB |",
            "|---|---|---|---|---|---|",
        ]
        lines += ["| " + " | ".join(str(v) for v in row.values()) + " |" for row in kept["update"]]
    for name, row in kept.get("runs", {}).items():
        lines += ["", f"## A run of {row['updates']:,.0f} updates, {name}", ""]
        lines += [
            "recipes/soft_q.py on the multi-goal world, "
            f"`{' '.join(RUN)}`; {row['readings']} readings.",
            "",
            f"Growth per 10 000 updates after the first {SETTLED:,}: {1024 * row['slope']:.0f} +- "
            f"{1024 * row['error']:.0f} KiB (standard error), of {row['blocks'][-1][1]:.0f} MiB.",
            "",
            f"Means of {BLOCK} updates each, MiB: "
            + ", ".join(f"{v:.1f}" for _, v in row["blocks"]),
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("update", "run"))
    parser.add_argument("--updates", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--settings", nargs="*", default=[], help="of recipes/soft_q.py")
    given = parser.parse_args()
    where = read_provenance()
    setting = f"{where['device']}, torch {torch.__version__}, {where['started'][:10]}"
    found: dict[str, Any] = {"setting": setting}
    if given.only != "run":
        found["update"] = list(measure_updates())
    if given.only != "update":
        row = growth(watch(given.updates, given.settings, given.minutes))
        found["runs"] = {" ".join(given.settings) or "defaults": row}
    path = OUT.with_suffix(".json")
    kept = json.loads(path.read_text()) if path.exists() else {}
    runs = {**kept.get("runs", {}), **found.get("runs", {})}
    kept |= found | ({"runs": runs} if runs else {})
    path.write_text(json.dumps(kept, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(page(kept))
    print(page(kept))


if __name__ == "__main__":
    main()
