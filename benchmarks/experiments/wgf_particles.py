"""Which sign of eq. (9), and which transport cost: particles on a mixture of four Gaussians.

    python -m benchmarks.experiments.wgf_particles

Moves M = 50 particles by the Stein force of Zhang et al. 2018 (arXiv:1808.03030), eq. (7), alone
and with a Wasserstein term between the present and the previous particles, ten seeds as one batch.
Writes benchmarks/results/wgf_particles.{json,md} and docs/pictures/wgf_particles.png, in half a
minute.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from datetime import date

import torch
from torch import Tensor

from benchmarks import RESULTS, ROOT
from torchrl_stein.functional import mmd_squared, squared_distances, svgd_direction
from torchrl_stein.kernels import MedianBandwidth, RBFKernel
from torchrl_stein.objectives import SinkhornCost, TransportCost, WGFPotential, WGFPotentialDescent

OUT = RESULTS / "wgf_particles"
PICTURE = ROOT / "docs" / "pictures" / "wgf_particles.png"

CENTRES = torch.tensor([[-3.0, -3.0], [-3.0, 3.0], [3.0, -3.0], [3.0, 3.0]])
SIGMA, WEIGHTS = 0.7, torch.tensor([0.1, 0.2, 0.3, 0.4])
SEEDS, PARTICLES, STEPS, SAMPLES = 10, 50, 300, 4000

# Name, cost and weight; the cost is a mean over particles, and each is moved by M times its share.
METHODS: dict[str, tuple[TransportCost | None, float]] = {
    "SVGD, eq. (7) alone": (None, 0.0),
    "+ eq. (9) / M, force": (WGFPotential(), 0.4),
    "+ eq. (9) / M, force, weight 0.04": (WGFPotential(), 0.04),
    "+ eq. (9), force, plain sum": (WGFPotential(), 0.4 * PARTICLES),
    "- eq. (9) / M, descent": (WGFPotentialDescent(), 0.4),
    "- eq. (9) / M, descent, weight 0.04": (WGFPotentialDescent(), 0.04),
    "Sinkhorn, debiased (default)": (SinkhornCost(), 0.4),
    "Sinkhorn, debiased, weight 4": (SinkhornCost(), 4.0),
    "Sinkhorn, not debiased": (SinkhornCost(debiased=False), 0.4),
}
OPTIMIZERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "Adam 0.05": lambda parameters: torch.optim.Adam(parameters, lr=0.05),
    "SGD 0.5": lambda parameters: torch.optim.SGD(parameters, lr=0.5),
}


def log_density(x: Tensor) -> Tensor:
    """Of the mixture, up to a constant, [...] for points [..., 2]."""
    exponents = -squared_distances(x, CENTRES) / (2 * SIGMA**2) + WEIGHTS.log()
    return torch.logsumexp(exponents, -1)


def draw(count: int, generator: torch.Generator) -> Tensor:
    """Samples of the mixture, [count, 2]."""
    mode = torch.multinomial(WEIGHTS, count, replacement=True, generator=generator)
    return CENTRES[mode] + SIGMA * torch.randn(count, 2, generator=generator)


def move(cost: TransportCost | None, weight: float, optimizer: str) -> tuple[Tensor, float]:
    """Particles [SEEDS, M, 2] after all steps, and |Wasserstein force| / |Stein force|."""
    generator = torch.Generator().manual_seed(0)
    x = 2.0 * torch.randn(SEEDS, PARTICLES, 2, generator=generator)
    x.requires_grad_()
    kernel, stepper = RBFKernel(MedianBandwidth("log(n)")), OPTIMIZERS[optimizer]([x])
    previous, ratios = x.detach().clone(), []
    for _ in range(STEPS):
        (scores,) = torch.autograd.grad(log_density(x).sum(), x)
        evaluation = kernel.evaluate(x.detach())
        stein = svgd_direction(evaluation.gram, evaluation.repulsion, scores).total
        force = torch.zeros_like(stein)
        if cost is not None:
            (gradient,) = torch.autograd.grad(cost(x, previous).sum(), x)
            force = -weight * PARTICLES * gradient
        ratios.append((force.norm() / stein.norm()).item())
        x.grad = -(stein + force)
        previous = x.detach().clone()  # of the last iteration: before the step
        stepper.step()
    return x.detach(), sum(ratios) / len(ratios)


def describe(x: Tensor, samples: Tensor) -> dict[str, list]:
    """MMD^2, mode weights and within-mode variance relative to the truth, for each seed."""

    def unit(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-squared_distances(a, b))

    mode = squared_distances(x, CENTRES).argmin(-1)
    share = torch.stack([(mode == k).float().mean(-1) for k in range(4)], -1)
    variance = []
    for particles, modes in zip(x, mode, strict=True):
        groups = [particles[modes == k] for k in range(4)]
        spreads = [group.var(0).mean().item() for group in groups if len(group) > 2]
        variance.append(sum(spreads) / len(spreads) / SIGMA**2)
    mmd = [mmd_squared(particles, samples, unit).item() for particles in x]
    return {"mmd": mmd, "variance": variance, "share": share.tolist()}


def measure() -> tuple[dict[str, dict], dict[str, Tensor]]:
    """All methods with all optimizers; the particles of the first optimizer for the picture."""
    samples = draw(SAMPLES, torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    exact = torch.stack([draw(PARTICLES, generator) for _ in range(SEEDS)])
    rows = {"exact samples | none": {**describe(exact, samples), "ratio": 0.0}}
    pictures = {"exact samples": exact[0]}
    for name, (cost, weight) in METHODS.items():
        for optimizer in OPTIMIZERS:
            x, ratio = move(cost, weight, optimizer)
            rows[f"{name} | {optimizer}"] = {**describe(x, samples), "ratio": ratio}
            if optimizer == next(iter(OPTIMIZERS)):
                pictures[name] = x[0]
        print(name, flush=True)
    return rows, pictures


def summary(values: list[float]) -> str:
    """Mean and standard deviation over seeds."""
    mean = sum(values) / len(values)
    if math.isnan(mean):
        return "diverges"
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{mean:.3f} ± {spread:.3f}"


def page(rows: dict[str, dict]) -> str:
    """The results as Markdown."""
    shares = ", ".join(f"{w:.1f}" for w in WEIGHTS.tolist())
    lines = [
        "# Particles on a mixture: the sign of eq. (9) and the choice of the cost",
        "",
        f"`python -m benchmarks.experiments.wgf_particles`, {date.today().isoformat()}, torch "
        f"{torch.__version__}: {PARTICLES} particles,",
        f"{STEPS} steps, {SEEDS} seeds, mean ± standard deviation. Target: four Gaussians at",
        f"(±3, ±3), standard deviation 0.7, weights {shares}. MMD² against {SAMPLES} exact",
        "samples (unit kernel; smaller is better). Variance: within modes, relative to the truth",
        "(1 is right). Force: Wasserstein over Stein, mean over the steps. Previous particles: the",
        "last iterate.",
        "",
        "![Particles after all steps](../../docs/pictures/wgf_particles.png)",
        "",
        "| method | optimizer | MMD² | variance | mode weights | force |",
        "|---|---|---|---|---|---|",
    ]
    for key, row in rows.items():
        name, optimizer = key.split(" | ")
        share = torch.tensor(row["share"]).mean(0).tolist()
        lines.append(
            f"| {name} | {optimizer} | {summary(row['mmd'])} | {summary(row['variance'])} | "
            f"{', '.join(f'{s:.2f}' for s in share)} | {row['ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def picture(pictures: dict[str, Tensor]) -> None:
    """The particles of seed 0 over the level curves of the target."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.8), layout="constrained", dpi=140)
    axis = torch.linspace(-6, 6, 120)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
    level = log_density(grid.reshape(-1, 2)).exp().reshape(120, 120)
    for axes, (name, x) in zip(figure.subplots(2, 5).flat, pictures.items(), strict=True):
        axes.contour(axis, axis, level, levels=6, colors="#c3c7cf", linewidths=0.8)
        axes.plot(
            *x.T, ".", color="#9aa0a6" if name == "exact samples" else "#4269d0", markersize=4
        )
        axes.set(title=name, xticks=[], yticks=[], aspect="equal", xlim=(-6, 6), ylim=(-6, 6))
        axes.title.set_fontsize(7.5)
    figure.savefig(PICTURE)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    torch.set_num_threads(1)
    measured, particles = measure()
    OUT.with_suffix(".json").write_text(json.dumps(measured) + "\n")
    OUT.with_suffix(".md").write_text(page(measured))
    picture(particles)
    print(page(measured))
