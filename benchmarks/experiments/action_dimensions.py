"""How settings of soft Q-learning fare as actions get more dimensions, where the answer is known.

    python -m benchmarks.experiments.action_dimensions

Q(a) = -alpha abs(a)^2 / (2 c^2) in the box [-1, 1]^A with c = 0.3: exp(Q / alpha) is a Gaussian
whose standard deviation is c in every dimension (the box cuts off 1 in 1000). Two tables:

- the width of a sampler after 2000 updates of ``SoftQLoss.actor_loss``, the root mean square of its
  actions divided by c: 1 if it samples exp(Q / alpha), 0 if it has collapsed to the best action;
- the error of ``soft_value`` over uniform actions, root mean square over 2000 estimates, in units
  of alpha: how much of V(s') is noise.

Writes benchmarks/results/action_dimensions.md.
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator

from benchmarks import RESULTS
from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.functional import soft_value
from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.objectives import (
    BoxSquash,
    log_distance_force,
    repulsion_force,
)

WIDTH = 0.3
DIMENSIONS = (1, 2, 3, 6, 12)
COUNTS = (2, 4, 8, 16, 32)


def narrow(scale: float) -> RBFKernel:
    """The RBF kernel at a share of the median bandwidth."""
    return RBFKernel(MedianBandwidth(scale=scale))


FORCES: dict[str, Callable[[], dict[str, Any]]] = {
    "SVGD, median": dict,
    "SVGD, 0.3 of it": lambda: {"kernel": narrow(0.3)},
    "SVGD, 0.1 of it": lambda: {"kernel": narrow(0.1)},
    "own gradient, repulsion at 0.3": lambda: {"kernel": narrow(0.3), "force": repulsion_force},
    "own gradient, log-distance": lambda: {
        "force": log_distance_force,
        "squash": BoxSquash(barrier=False),
    },
}


class Quadratic(nn.Module):
    """Q(a) = -abs(a)^2 / (2 c^2), whatever the state; alpha is 1."""

    def forward(self, _: Tensor, action: Tensor) -> Tensor:
        """[..., A] to [..., 1]."""
        return -action.square().sum(-1, keepdim=True) / (2 * WIDTH**2)


def width_of_sampler(dimension: int, count: int, options: dict[str, Any], updates: int) -> float:
    """Root mean square of a trained sampler's actions, divided by c."""
    torch.manual_seed(0)
    actor = AmortizedSVGDActor(
        MLP(1 + dimension, dimension, num_cells=[64, 64], activation_class=nn.ReLU),
        action_spec=Bounded(-1.0, 1.0, shape=(dimension,)),
    )
    qvalue = ValueOperator(Quadratic(), in_keys=["observation", "action"])
    options = {"temperature": 1.0, "num_action_samples": count, **options}
    loss = SoftQLoss(actor, qvalue, delay_qvalue=False, **options)
    optim = torch.optim.Adam(loss.actor_network_params.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optim, 1.0, 0.01, total_iters=updates)
    states = TensorDict({"observation": torch.zeros(64, 1)}, [64])
    for _ in range(updates):
        loss.actor_loss(states)["loss_actor"].backward()
        optim.step()
        optim.zero_grad()
        schedule.step()
    with torch.no_grad():
        actions = loss.actor_network.sample(states, 200)
    return (actions.square().mean().sqrt() / WIDTH).item()


def error_of_value(dimension: int, count: int) -> float:
    """Root mean square error of the soft value of uniform actions, in units of alpha."""
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(2000, count, dimension, generator=generator, dtype=torch.float64) * 2 - 1
    values = -actions.square().sum(-1) / (2 * WIDTH**2)
    log_proposal = torch.full_like(values, -dimension * math.log(2.0))
    estimates = soft_value(values, log_proposal, temperature=1.0)
    inside = math.log(math.erf(1 / (WIDTH * math.sqrt(2))))
    exact = dimension * (math.log(WIDTH * math.sqrt(2 * math.pi)) + inside)
    return (estimates - exact).square().mean().sqrt().item()


def table(title: str, counts: tuple[int, ...], cell: Callable[[int, int], float]) -> list[str]:
    """A row for each number of dimensions."""
    lines = [
        f"| {title} | " + " | ".join(map(str, counts)) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    for dimension in DIMENSIONS:
        cells = [f"{cell(dimension, count):.2f}" for count in counts]
        lines.append(f"| A = {dimension} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return [*lines, ""]


def main() -> None:
    """Measure, print, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=2000)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="No target network updater")
    torch.set_num_threads(1)
    lines = ["# Settings of soft Q-learning by dimensions of the action", ""]
    command = "python -m benchmarks.experiments.action_dimensions"
    text = (__doc__ or "").strip().splitlines()
    lines += [text[0], "", f"`{command}`, {date.today()}, torch {torch.__version__}, one run each."]
    lines += ["", *text[4:-2], "", "## Width of the sampler, by K = M", ""]
    for name, options in FORCES.items():
        print(name)
        measure = partial(width_of_sampler, options=options(), updates=given.updates)
        lines += table(name, COUNTS, measure)
    lines += ["## Error of the soft value, by uniform actions", ""]
    lines += table("number", (1, 4, 16, 64, 256), error_of_value)
    (RESULTS / "action_dimensions.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
