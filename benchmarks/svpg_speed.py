"""How fast populations and their worlds are, each beside what it replaces.

    python -m benchmarks.svpg_speed

Ours and theirs take turns in one process; medians of their ratio in CPU time are quoted, with the
quartiles. Both sides are checked to compute the same before they are timed. Writes
benchmarks/results/svpg_speed.{json,md}.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("RL_LOGGING_LEVEL", "WARNING")  # read when torchrl is imported

import torch
from torch import nn
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.objectives import A2CLoss

from torchrl_stein.envs import (
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    MountainCarEnv,
)
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import SteinPolicyLoss
from torchrl_stein.training import WorldCollector, make_gaussian_actor, make_linear_critic

RESULTS = Path(__file__).parent / "results" / "svpg_speed"
CELLS = [100, 50, 25]
N = 16


def cpu(call: Callable[[], object], repeats: int) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def compare(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int = 9, repeats: int = 1
) -> dict[str, float]:
    """Both in turn; their time over ours, median and quartiles."""
    ours(), theirs()
    pairs = [(cpu(ours, repeats), cpu(theirs, repeats)) for _ in range(rounds)]
    ratios = [theirs_s / ours_s for ours_s, theirs_s in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    ours_ms = 1e3 * statistics.median(ours_s for ours_s, _ in pairs)
    return {"ours_ms": ours_ms, "ratio": middle, "low": low, "high": high}


def world_rates(rows: int) -> dict[str, float]:
    """Raw steps per CPU second of every world, best of five."""
    rates = {}
    for env in (CartpoleEnv, CartpoleSwingUpEnv, DoublePendulumEnv, MountainCarEnv):
        world = env((rows,), seed=0).world
        state, action = world.sample_state((rows,)), torch.rand(rows, world.action_dim) * 2 - 1
        rates[type(world).__name__] = rows / min(
            cpu(lambda w=world, s=state, a=action: w.step(s, a), 50) for _ in range(5)
        )
    return rates


def population_forward(rows: int) -> dict[str, float]:
    """Forward and backward of n networks at once against a loop over n plain networks."""
    from torchrl.modules import MLP

    net = ParticleModule(
        lambda: MLP(in_features=20, out_features=6, num_cells=CELLS, activation_class=nn.Tanh), N
    )
    plain = [net.particle(i) for i in range(N)]
    x = torch.randn(N, rows, 20)
    torch.testing.assert_close(
        net(x), torch.stack([p(row) for p, row in zip(plain, x, strict=True)])
    )

    def ours() -> None:
        net(x).square().mean().backward()
        net.particles.grad = None

    def loop() -> None:
        for p, row in zip(plain, x, strict=True):
            p(row).square().mean().backward()
            p.zero_grad()

    return compare(ours, loop, repeats=max(1, 2000 // rows))


def optimizer_step() -> dict[str, float]:
    """One fused Adam on the flat parameter against one Adam per network."""
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(20, 100), nn.Linear(100, 50)), N)
    plain = [net.particle(i) for i in range(N)]
    for module in (net, *plain):
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
    one = torch.optim.Adam(net.parameters(), fused=True)
    many = [torch.optim.Adam(p.parameters()) for p in plain]
    return compare(one.step, lambda: [optimizer.step() for optimizer in many], repeats=20)


def collection(envs: int) -> dict[str, float]:
    """WorldCollector against TorchRL's Collector, 100 steps of n x E swing-ups."""
    frames = N * envs * 100
    env = CartpoleSwingUpEnv((N, envs), seed=0)
    actor = make_gaussian_actor(env, N, CELLS)
    kwargs = {"frames_per_batch": frames, "total_frames": frames * 10**6}
    fused = WorldCollector(env, actor, **kwargs)
    usual = iter(
        Collector(
            TransformedEnv(CartpoleSwingUpEnv((N, envs), seed=0), RewardSum()),
            actor,
            auto_register_policy_transforms=False,
            **kwargs,
        )
    )
    return compare(fused.collect, lambda: next(usual), rounds=5)


def coupling(rows: int) -> dict[str, float]:
    """The update of a wrapped A2C loss against the bare one."""
    env = CartpoleSwingUpEnv((N, 10), seed=0)
    actor, critic = make_gaussian_actor(env, N, CELLS), make_linear_critic(env, N)
    collector = WorldCollector(env, actor, frames_per_batch=N * rows, total_frames=N * rows)
    data = collector.collect()
    data["advantage"] = torch.randn_like(data["next", "reward"])
    base = A2CLoss(actor, critic, entropy_bonus=False, critic_coeff=None)
    stein = SteinPolicyLoss(base)

    def update(loss: nn.Module) -> None:
        losses = loss(data)
        sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
        actor[0].module.particles.grad = None

    return compare(lambda: update(stein), lambda: update(base), repeats=3)


def measure() -> dict[str, dict]:
    """All cases."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return {
        "steps_per_s": {str(rows): world_rates(rows) for rows in (160, 1024)},
        "population": {str(rows): population_forward(rows) for rows in (1, 50, 1000, 10_000)},
        "adam": {"d = 7150": optimizer_step()},
        "collection": {str(envs): collection(envs) for envs in (1, 10, 64)},
        "coupling": {str(rows): coupling(rows) for rows in (1000, 10_000)},
    }


def setting() -> dict[str, str]:
    """When and where."""
    return {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, 1 thread",
        "torch": torch.__version__,
        "torchrl": version("torchrl"),
    }


def page(results: dict[str, dict]) -> str:
    """The results as Markdown."""
    where = ", ".join(f"{name} {value}" for name, value in results["setting"].items())
    lines = [
        "# Speed of populations and their worlds",
        "",
        "`python -m benchmarks.svpg_speed`: CPU time, one thread, ours and theirs in turn in one",
        f"process; {where}. The machine is shared: read ratios.",
        "",
        "| raw steps/s | B = 160 | B = 1024 |",
        "|---|---|---|",
    ]
    for world, rate in results["steps_per_s"]["160"].items():
        lines.append(f"| {world} | {rate:.3g} | {results['steps_per_s']['1024'][world]:.3g} |")
    lines += [
        "",
        "| case | ours, ms | their time / ours | quartiles |",
        "|---|---|---|---|",
    ]
    titles = {
        "population": "forward and backward of 16 networks 20-100-50-25-6, {} rows each, vs. loop",
        "adam": "fused Adam on the flat parameter, {}, vs. 16 Adams",
        "collection": "WorldCollector (eager), 16 x {} swing-ups, vs. TorchRL's Collector",
        "coupling": "SteinPolicyLoss(A2CLoss) update, {} rows each, vs. A2CLoss alone",
    }
    for name, title in titles.items():
        for case, row in results[name].items():
            lines.append(
                f"| {title.format(case)} | {row['ours_ms']:.2f} | {row['ratio']:.2f} | "
                f"{row['low']:.2f} - {row['high']:.2f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    measured = measure() | {"setting": setting()}
    RESULTS.with_suffix(".json").write_text(json.dumps(measured, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(page(measured))
