"""The suite's results as JSON and as a page."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import RESULTS
from benchmarks.speed.harness import Case, Roofline

__all__ = ["forget", "keep", "page", "setting"]

PACKAGES = (
    "torch",
    "torchrl",
    "tensordict",
    "blackjax",
    "numpyro",
    "jax",
    "optax",
    "pyro-ppl",
    "svgd",
    "pot",
    "stable-baselines3",
)


def setting(device: torch.device, roofline: Roofline) -> dict[str, Any]:
    """When, where, with what."""
    return {
        "date": date.today().isoformat(),
        "device": _name(device),
        "gemm_gflops": round(roofline.gflops, 1),
        "copy_gbytes": round(roofline.gbytes, 1),
        "versions": {name: v for name in PACKAGES if (v := _version(name))},
    }


def forget(device: torch.device) -> None:
    """Begin anew."""
    (RESULTS / f"bench_{device.type}.json").unlink(missing_ok=True)


def keep(case: Case, where: dict[str, Any]) -> None:
    """Put a case in the place of its former self, and write the page anew."""
    kind = "cpu" if where["device"].startswith("cpu") else "cuda"
    path = RESULTS / f"bench_{kind}.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    row = _rounded(asdict(case)) | {"setting": where}
    same = [
        i for i, old in enumerate(rows) if (old["group"], old["name"]) == (case.group, case.name)
    ]
    if same:
        rows[same[0]] = row
    else:
        rows.append(row)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(rows, kind))


def page(rows: list[dict[str, Any]], kind: str) -> str:
    """Markdown, a table for each group."""
    groups = list(dict.fromkeys(row["group"] for row in rows))
    command = "make bench" if kind == "cpu" else "make bench DEVICE=cuda"
    clock = "CPU time, one thread" if kind == "cpu" else "time between two synchronisations"
    size = "1024 x 1024" if kind == "cpu" else "8192 x 8192"
    lines = [
        f"# Ours beside its peers, on {'a CPU' if kind == 'cpu' else 'CUDA'}",
        "",
        f"`{command}`: {clock}, all programs of a row in turn in one process after a check that",
        "they compute the same. A ratio is their time over ours in one round: the median, and the",
        "quartiles in brackets; above 1 ours is faster. Memory is the peak beyond what was there",
        "before the call. Roofline: our time over the least the machine could take, by the rates",
        f"of a product of {size} matrices and of a copy, measured just before.",
    ]
    for group in groups:
        lines += ["", f"## {group}", "", *_table([row for row in rows if row["group"] == group])]
    return "\n".join(lines) + "\n"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    where = rows[-1]["setting"]
    versions = ", ".join(f"{name} {v}" for name, v in where["versions"].items())
    lines = [
        f"{where['date']}, {where['device']}, product {where['gemm_gflops']} GFLOP/s, copy "
        f"{where['copy_gbytes']} GB/s; {versions}.",
        *([f"{where['products']}."] if where.get("products") else []),
        "",
        "| case | ours, ms | memory, MiB | roofline | peers: time / ours | figures | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        peers = "<br>".join(
            f"{p['name']} {p['ratio']:.3g} [{p['low']:.3g}, {p['high']:.3g}]" + _memory_of(p)
            for p in row["peers"]
        )
        figures = "<br>".join(f"{name} {value:.4g}" for name, value in row["figures"].items())
        cells = [
            row["name"],
            f"{row['ours_ms']:.3g}",
            _number(row["memory_mb"]),
            _number(row["roofline"]),
            peers,
            figures,
            row["target"],
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _memory_of(peer: dict[str, Any]) -> str:
    return "" if peer["memory_mb"] is None else f", {peer['memory_mb']:.3g} MiB"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"cpu {names[0].split(':')[1].strip()}" if names else f"cpu {platform.machine()}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
