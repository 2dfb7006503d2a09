"""Entropic optimal transport of a batch of point sets beside POT, by as many iterations.

Ours is compared with POT's solver for batches on the same tensors, and with its log-domain solver
in a loop over the batch, on arrays, which it is faster with. The plans must agree and, for the
divergence, the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.harness import Call, Case, Roofline, interleave
from benchmarks.speed.peers import available
from torchrl_stein.functional import entropic_plan, sinkhorn_divergence, squared_distances

__all__ = ["cases"]

SIZES = ((64, 32), (64, 64), (8, 256))  # problems, points in each set
DIMENSION = 8
ITERATIONS = 100
# In units of the mean cost; all programs are converged after so many iterations.
REGULARIZATION = 0.2


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """Plans of three sizes, then divergences of one."""
    if not available("ot"):
        return
    for batch, points in SIZES:
        yield _plans(*_sets(batch, points, device))
    yield _divergences(*_sets(*SIZES[1], device))


def _sets(batch: int, points: int, device: torch.device) -> tuple[Tensor, Tensor]:
    x, y = 2.0 * torch.rand(2, batch, points, DIMENSION, device=device) - 1.0
    return x, y


def _plans(x: Tensor, y: Tensor) -> Case:
    cost = squared_distances(x, y)
    scale = REGULARIZATION * cost.mean().item()

    def ours() -> Tensor:
        return entropic_plan(cost, scale, tolerance=None, max_iterations=ITERATIONS).plan

    def batched() -> Tensor:
        return _solve_batch(cost, scale).plan

    peers: dict[str, Call] = {"POT solve_batch": batched}
    _require_close("POT solve_batch", batched(), ours())
    if x.device.type == "cpu":
        peers["POT sinkhorn_log in a loop"] = looped = _Loop(cost, scale)
        _require_close("POT in a loop", looped(), ours())
    return _case(f"plan, B = {len(x)}, n = {x.shape[1]}", ours, peers, x.device)


def _divergences(x: Tensor, y: Tensor) -> Case:
    from ot.batch import dist_batch

    scale = REGULARIZATION * squared_distances(x, y).mean().item()

    def ours() -> Tensor:
        return sinkhorn_divergence(x, y, scale, tolerance=None, max_iterations=ITERATIONS)

    def batched() -> Tensor:
        across, within_x, within_y = (
            _solve_batch(dist_batch(*sets), scale).value for sets in ((x, y), (x, x), (y, y))
        )
        return across - 0.5 * (within_x + within_y)

    _require_close("POT, divergence", batched(), ours())
    name = f"Sinkhorn divergence, B = {len(x)}, n = {x.shape[1]}"
    return _case(name, ours, {"POT solve_batch, three times": batched}, x.device)


def _case(name: str, ours: Call, peers: dict[str, Call], device: torch.device) -> Case:
    ours_ms, rows, memory = interleave(ours, peers, device, memory=True, warm=True, budget=5.0)
    figures = {"ms per iteration": ours_ms / ITERATIONS}
    return Case("Entropic transport", name, ours_ms, rows, memory, figures=figures)


def _solve_batch(cost: Tensor, scale: float) -> Any:
    from ot.batch import solve_batch

    # tol=0: it never stops early.
    return solve_batch(
        cost,
        scale,
        max_iter=ITERATIONS,
        tol=0.0,
        method="log_sinkhorn",
        reg_type="kl",
        grad="detach",
    )


class _Loop:
    """One problem after the other."""

    def __init__(self, cost: Tensor, scale: float) -> None:
        self.costs, self.scale = cost.numpy(), scale
        self.rows, self.columns = (np.full(n, 1 / n, np.float32) for n in cost.shape[1:])

    def __call__(self) -> Tensor:
        import ot

        plans = [
            ot.sinkhorn(
                self.rows,
                self.columns,
                cost,
                self.scale,
                method="sinkhorn_log",
                numItermax=ITERATIONS,
                stopThr=0.0,
                warn=False,
            )
            for cost in self.costs
        ]
        return torch.from_numpy(np.stack(plans))


def _require_close(name: str, found: Tensor, expected: Tensor) -> None:
    error = ((found - expected).norm() / expected.norm()).item()
    if not error < 1e-3 or math.isnan(error):
        raise AssertionError(f"{name}: off by {error:.1e} of the norm")
