"""Run the suite, or some groups of it, and write its table.

python -m benchmarks.speed
python -m benchmarks.speed --device cuda --only svgd_step collection

Needs the extra ``bench``; a peer that is not installed is left out with one line. One thread.
Writes benchmarks/results/bench_DEVICE.{json,md}, where groups that were not run stay as they were.
"""

from __future__ import annotations

import argparse
import importlib
import os

# JAX: one thread, as torch. Before it is imported.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import torch

from benchmarks.speed.harness import measure_roofline
from benchmarks.speed.table import forget, keep, setting
from torchrl_stein.products import choose_float32_products

# Each is a module of benchmarks.speed with `cases(device, roofline)`, an iterator of Case. The
# first four are functions of tensors, timed as a process is by default. Updates are timed as
# recipes run them, with prepare_cpu: peers gain by it too, and it cannot be taken back, so they
# come last.
GROUPS = (
    "float32_products",
    "svgd_step",
    "action_svgd",
    "transport",
    "svpg_update",
    "off_policy",
    "dp_wgf_v",
    "profile_update",
    "collection",
    "simulators",
    "replay",
)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="+", choices=GROUPS, default=GROUPS)
    given = parser.parse_args()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("benchmarks.speed: no CUDA device here; nothing was measured")
    torch.set_num_threads(1)
    # For peers too: they are other programs, not other settings. Rows that gain show both.
    products = str(choose_float32_products()) if device.type == "cpu" else ""
    print(products, flush=True)
    if set(given.only) == set(GROUPS):
        forget(device)  # rows of cases that are no more
    for group in (name for name in GROUPS if name in given.only):
        torch.manual_seed(0)
        roofline = measure_roofline(device)  # of this minute: the machine may be shared
        module = importlib.import_module(f"benchmarks.speed.{group}")
        for case in module.cases(device, roofline):
            peers = ", ".join(f"{p.ratio:.2f} x {p.name}" for p in case.peers)
            print(f"{case.group}: {case.name}: {case.ours_ms:.3g} ms; {peers}", flush=True)
            keep(case, setting(device, roofline) | {"products": products})


if __name__ == "__main__":
    main()
