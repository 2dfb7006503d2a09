"""How time and memory grow with the number of particles, their size, action samples and the batch.

    python -m benchmarks.speed.scaling
    python -m benchmarks.speed.scaling --device cuda

One curve is one size that grows while the others stay. Memory is the peak beyond the inputs and the
result. Writes benchmarks/results/scaling_DEVICE.{json,md} and docs/pictures/scaling_DEVICE.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import log
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from benchmarks import RESULTS, ROOT
from benchmarks.speed.harness import cost, measure_roofline, peak_memory
from benchmarks.speed.table import setting
from torchrl_stein.functional import svgd_direction
from torchrl_stein.kernels import RBFKernel


@dataclass(frozen=True)
class Point:
    """One measurement: which curve, the size that grows, median ms and MiB."""

    curve: str
    size: int
    ms: float
    mib: float | None


CURVES = {
    "n": "particles n, d = 10 000",
    "d": "dimensions d, n = 16",
    "K = M": "action samples K = M, B = 256, A = 8",
    "B": "batch B, K = M = 32, A = 8",
}


def particle_step(n: int, d: int, device: torch.device) -> Callable[[], object]:
    """The SVGD direction of n particles into memory that is there already."""
    x, scores = (torch.randn(n, d, device=device) for _ in range(2))
    out, kernel = torch.empty_like(x), RBFKernel()
    return lambda: kernel.svgd_direction(x, scores, out=out)


def action_step(batch: int, samples: int, device: torch.device) -> Callable[[], object]:
    """What SoftQLoss does with K = M actions of 8 dimensions for each of B states."""
    pushing, moved, scores = (torch.randn(batch, samples, 8, device=device) for _ in range(3))
    kernel = RBFKernel()

    def step() -> object:
        evaluation = kernel.evaluate(pushing, moved)
        return svgd_direction(evaluation.gram, evaluation.repulsion, scores).total

    return step


def sizes() -> Iterator[tuple[str, int, Callable[[torch.device], Callable[[], object]]]]:
    """All points: curve, size, and what makes the program."""
    for n in (1, 4, 16, 64, 256, 1024):
        yield "n", n, lambda device, n=n: particle_step(n, 10_000, device)
    for exponent in range(3, 8):
        d = 10**exponent
        yield "d", d, lambda device, d=d: particle_step(16, d, device)
    for samples in (4, 8, 16, 32, 64, 128):
        yield "K = M", samples, lambda device, k=samples: action_step(256, k, device)
    for batch in (16, 64, 256, 1024, 4096):
        yield "B", batch, lambda device, b=batch: action_step(b, 32, device)


def measure(device: torch.device) -> Iterator[Point]:
    """Every point, five rounds of some tens of milliseconds each."""
    for curve, size, make in sizes():
        step = make(device)
        step()
        once = cost(step, device)
        repeats = max(1, min(100, int(0.03 / max(once, 1e-5))))
        ms = 1e3 * statistics.median(cost(step, device, repeats) for _ in range(5))
        yield Point(curve, size, ms, peak_memory(step, device))


def slopes(points: list[Point], value: str) -> list[float]:
    """Exponents between neighbours: 1 is linear, 2 quadratic; none where memory reads as 0."""
    pairs = [(p.size, getattr(p, value)) for p in points if getattr(p, value)]
    return [log(b[1] / a[1]) / log(b[0] / a[0]) for a, b in pairwise(pairs)]


def draw(points: list[Point], path: Path, where: str) -> None:
    """Time above, memory below, against each size, with lines of slope 1 and 2."""
    figure, axes = plt.subplots(2, len(CURVES), figsize=(14, 6), sharex="col")
    for column, (curve, title) in enumerate(CURVES.items()):
        line = [p for p in points if p.curve == curve]
        for axis, value, unit in zip(axes[:, column], ("ms", "mib"), ("ms", "MiB"), strict=True):
            pairs = [(p.size, getattr(p, value)) for p in line if getattr(p, value)]
            if pairs:
                x, y = zip(*pairs, strict=True)
                axis.loglog(x, y, "o-", label="measured")
                for power, style in ((1, "--"), (2, ":")):
                    guide = [y[-1] * (s / x[-1]) ** power for s in x]
                    axis.loglog(x, guide, style, color="grey", label=f"slope {power}")
            axis.set_ylabel(unit)
        axes[1, column].set_xlabel(title)
    axes[0, 0].legend()
    figure.suptitle(f"SVGD direction, {where}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def page(points: list[Point], where: dict, command: str) -> str:
    """The table, with the exponents."""
    lines = [
        "# How cost grows",
        "",
        f"`{command}`, {where['date']}, {where['device']}, one thread. Medians of five; memory is",
        "the peak beyond inputs and result. The exponent is that between a row and the row above",
        "it: 1 is linear, 2 quadratic.",
    ]
    for curve, title in CURVES.items():
        line = [p for p in points if p.curve == curve]
        lines += ["", f"## {title}", "", "| size | ms | exponent | MiB | exponent |"]
        lines += ["|---|---|---|---|---|"]
        before: Point | None = None
        for point in line:
            time_slope = memory_slope = ""
            if before is not None:
                time_slope = f"{slopes([before, point], 'ms')[0]:.2f}"
                memory = slopes([before, point], "mib")
                memory_slope = f"{memory[0]:.2f}" if memory else ""
            mib = "" if point.mib is None else f"{point.mib:.3g}"
            row = (f"{point.size:,}", f"{point.ms:.3g}", time_slope, mib, memory_slope)
            lines.append("| " + " | ".join(row) + " |")
            before = point
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    points = []
    for point in measure(device):
        print(point, flush=True)
        points.append(point)
    where = setting(device, measure_roofline(device))
    name = f"scaling_{device.type}"
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"setting": where, "points": [asdict(p) for p in points]}, indent=1) + "\n"
    )
    command = f"python -m benchmarks.speed.scaling --device {device.type}"
    (RESULTS / f"{name}.md").write_text(page(points, where, command))
    draw(points, ROOT / "docs" / "pictures" / f"{name}.png", where["device"])


if __name__ == "__main__":
    main()
