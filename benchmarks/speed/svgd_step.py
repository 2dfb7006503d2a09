"""One SVGD direction of n particles in d dimensions, bandwidth included, beside other libraries.

Ours writes phi into a given buffer. Before anything is timed, the formula of every program is
compared with a float64 sum on a small problem, and at the size itself with ours at the bandwidth
that the program chose, because conventions for it differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from benchmarks.speed.harness import Case, Roofline, interleave, ours_without_fast_products
from benchmarks.speed.svgd_peers import Step, steps
from torchrl_stein.kernels import RBFKernel

__all__ = ["cases"]

ON_JAX = ("blackjax", "numpyro")
SIZES = ((16, 10**4), (16, 10**5), (64, 10**4), (64, 10**5), (256, 10**4), (16, 10**6))
# On CUDA the tensor [n, n, d] of this one has 16 GiB.
CUDA_SIZES = (*SIZES, (64, 10**6))


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """A row for each size."""
    small = torch.randn(8, 3, device=device)
    for peer in steps(small):
        _check_formula(peer, small)
    for n, d in CUDA_SIZES if device.type == "cuda" else SIZES:
        yield _case(torch.randn(n, d, device=device), roofline)


def _case(x: Tensor, roofline: Roofline) -> Case:
    n, d = x.shape
    # A clone: memory that nothing has been written to would count as used by the step.
    kernel, scores, out = RBFKernel(), -x, x.clone()
    _check_ours(x, scores)
    peers = steps(x)
    for peer in peers:
        _check_beside_ours(peer, x, scores)

    def ours() -> Tensor:
        return kernel.svgd_direction(x, scores, out=out)

    ours_ms, rows, memory = interleave(
        ours,
        {peer.name: peer.run for peer in peers},
        x.device,
        memory=True,
        warm=True,
        budget=5.0,
    )
    # JAX keeps memory of its own between calls, so that what the process gains says nothing.
    rows = tuple(replace(p, memory_mb=None) if p.name in ON_JAX else p for p in rows)
    rows = (*rows, *ours_without_fast_products(ours, x.device))
    # Products: n^2 d multiplications and additions for the distances, twice that for the sums.
    # Memory: x for the distances, x and the scores for the sums, phi.
    least = roofline.least_ms(6.0 * n * n * d, 4.0 * n * d * x.element_size())
    libraries = 18 if d >= 10**5 else 7
    target = f"blackjax and numpyro {libraries}, [n, n, d] 9, no memory"
    target += ", roofline 1.6" if n >= 64 else ""
    name = f"n = {n}, d = {d}"
    return Case("SVGD step", name, ours_ms, rows, memory, ours_ms / least, target)


def _exact(x: Tensor, scores: Tensor, bandwidth: float | Tensor, count: int = 4) -> Tensor:
    """phi of the first particles by its definition in float64, ``[count, d]``."""
    x, scores = x.double(), scores.double()
    directions = []
    for point in x[:count]:
        away = (point - x) / bandwidth
        gram = torch.exp(-((point - x) * away).sum(-1, keepdim=True))
        directions.append((gram * (scores + 2.0 * away)).mean(0))
    return torch.stack(directions)


def _check_formula(peer: Step, x: Tensor) -> None:
    found = peer.direction(peer.run())
    _require_close(f"{peer.name}, small", found, _exact(x, -x, peer.bandwidth, len(x)))


def _check_beside_ours(peer: Step, x: Tensor, scores: Tensor) -> None:
    found = peer.direction(peer.run())
    if isinstance(peer.bandwidth, float):
        ours = RBFKernel(peer.bandwidth).svgd_direction(x, scores)
        _require_close(peer.name, found, ours)
    else:  # another kernel
        _require_close(peer.name, found[:4], _exact(x, scores, peer.bandwidth))


def _check_ours(x: Tensor, scores: Tensor) -> None:
    """With the bandwidth of our own rule, from distances in float64."""
    bandwidth = torch.pdist(x.double()).square().median().item() / math.log(len(x) + 1)
    ours = RBFKernel().svgd_direction(x, scores)
    _require_close("ours", ours[:4], _exact(x, scores, bandwidth))


def _require_close(name: str, found: Tensor, expected: Tensor) -> None:
    error = ((found - expected).norm() / expected.norm()).item()
    if not error < 1e-4:
        raise AssertionError(f"{name}: the direction is off by {error:.1e} of its norm")
