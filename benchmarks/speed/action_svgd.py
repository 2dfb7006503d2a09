"""SVGD between the action particles of a batch of states, as the loss of soft Q-learning does it.

K particles exert a force on M others in each of B states. The peer is the obvious code, written
here: a tensor of differences ``[B, K, M, A]`` and the bandwidth from ``torch.quantile``. Ours
is timed with the exact median, its default, and with the mean of the squared distances, which is
another, cheaper statistic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.speed.harness import Case, Roofline, interleave
from torchrl_stein.functional import squared_distances, svgd_direction
from torchrl_stein.kernels import BandwidthRule, MeanBandwidth, MedianBandwidth, RBFKernel

__all__ = ["cases"]

STATES, PUSHING, MOVED = 256, 32, 32
RULES = {
    "exact median (default)": (MedianBandwidth(), "plain code 3.5 (at A = 8)"),
    "mean in its place (cheap)": (MeanBandwidth(), ""),
}


def cases(device: torch.device, roofline: Roofline) -> Iterator[Case]:
    """A row for each dimension of the actions and each rule."""
    for dimension in (2, 8, 21):
        pushing = 2.0 * torch.rand(STATES, PUSHING, dimension, device=device) - 1.0
        moved = 2.0 * torch.rand(STATES, MOVED, dimension, device=device) - 1.0
        scores = torch.randn_like(pushing)
        _check_bandwidths(pushing, moved)
        for rule, (bandwidth, target) in RULES.items():
            yield _case(f"A = {dimension}, {rule}", bandwidth, (pushing, moved, scores), target)


def _case(
    name: str, rule: BandwidthRule, points: tuple[Tensor, Tensor, Tensor], target: str
) -> Case:
    pushing, moved, scores = points
    kernel = RBFKernel(rule)
    bandwidth = kernel.bandwidth(pushing, moved)
    expected = _plain_direction(
        pushing.double(), moved.double(), scores.double(), bandwidth.double()
    )
    for found in (
        _direction(kernel, pushing, moved, scores),
        _plain_direction(pushing, moved, scores, bandwidth),
    ):
        error = (found - expected).norm() / expected.norm()
        if not error < 1e-5:
            raise AssertionError(f"{name}: the direction is off by {error:.1e} of its norm")
    ours_ms, peers, memory = interleave(
        lambda: _direction(kernel, pushing, moved, scores),
        {"plain [B, K, M, A], quantile": lambda: _plain_direction(pushing, moved, scores)},
        pushing.device,
        memory=True,
    )
    return Case("SVGD in action space", name, ours_ms, peers, memory, target=target)


@torch.no_grad()
def _direction(kernel: RBFKernel, pushing: Tensor, moved: Tensor, scores: Tensor) -> Tensor:
    evaluation = kernel.evaluate(pushing, moved)
    return svgd_direction(evaluation.gram, evaluation.repulsion, scores).total


@torch.no_grad()
def _plain_direction(
    pushing: Tensor, moved: Tensor, scores: Tensor, bandwidth: Tensor | None = None
) -> Tensor:
    difference = pushing.unsqueeze(2) - moved.unsqueeze(1)
    square = difference.square().sum(-1)
    h = _quantile_bandwidth(square) if bandwidth is None else bandwidth
    h = h.view(-1, 1, 1)
    gram = torch.exp(-square / h).unsqueeze(-1)
    gradient = -2.0 / h.unsqueeze(-1) * difference * gram
    return (gram * scores.unsqueeze(2) + gradient).mean(1)


def _quantile_bandwidth(square: Tensor) -> Tensor:
    return torch.quantile(square.flatten(1), 0.5, dim=1) / math.log(square.shape[1] + 1)


def _check_bandwidths(pushing: Tensor, moved: Tensor) -> None:
    """Ours is the lower of the two middle distances, the quantile the mean of both."""
    square = squared_distances(pushing, moved)
    middle = (
        square.flatten(1).sort(-1).values[:, PUSHING * MOVED // 2 - 1 : PUSHING * MOVED // 2 + 1]
    )
    scale = math.log(PUSHING + 1)
    torch.testing.assert_close(MedianBandwidth()(square.flatten(1), PUSHING), middle[:, 0] / scale)
    torch.testing.assert_close(_quantile_bandwidth(square), middle.mean(-1) / scale)
