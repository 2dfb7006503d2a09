"""What an update of several seeds costs beside one of a single seed, of off-policy recipes.

    python -m benchmarks.speed.seeds
    python -m benchmarks.speed.seeds --seeds 3 --cases sac dp_wgf_v dp_wgf_v_plain
    python -m benchmarks.speed.seeds --compile --cases sac soft_q

With ``--compile`` each case has a compiled twin, and the seconds that its first call takes. Loss,
gradients and step of Adam on the simple maze, 2 x 128, batches of 128, one thread; all in turn in
one process.
"""

from __future__ import annotations

import argparse
import itertools
import time
import warnings
from collections.abc import Callable

import torch

from benchmarks.recipes import load_recipe, settings_of
from benchmarks.speed.agents import Sizes, random_transitions
from torchrl_stein.objectives import ActionSpace
from torchrl_stein.products import choose_float32_products
from torchrl_stein.runs import compiled, make_configured_task, make_trust_region

MAZE = Sizes("maze sizes", 4, 2)
LEARNT = ["loss.fixed_alpha=false"]
FOUR = [*LEARNT, "loss.num_action_samples=4", "loss.num_qvalue_nets=2"]
SOFT_Q = [*FOUR, "loss.value_target=expected", "loss.num_value_samples=2"]
SOFT_QV = [*FOUR, "loss.value_target=soft", "loss.num_value_samples=4", "actor.num_particles=4"]
CASES = {
    "sac": ("sac", LEARNT),
    "soft_q": ("soft_q", SOFT_Q),
    "dp_wgf": ("soft_q", [*SOFT_Q, "trust_region.weight=0.4", "trust_region.num_action_samples=4"]),
    "dp_wgf_v": ("soft_qv", [*SOFT_QV, "trust_region.num_action_samples=4"]),
    "dp_wgf_v_plain": ("soft_qv", [*SOFT_QV, "trust_region.weight=0"]),
    "s2ac": ("s2ac", [*LEARNT, "loss.num_action_samples=4", "loss.num_steps=1"]),
}


def make_update(name: str, seeds: int, way: str) -> Callable[[], object]:
    """An update of a recipe with data of its own."""
    recipe, overrides = CASES[name]
    overrides = [*overrides, f"compile.compile={str(way == 'compiled').lower()}"]
    cfg = settings_of(recipe, "task=goal_maze_simple", f"seeds={seeds}", *overrides)
    env = make_configured_task(cfg.env, (*cfg.leading, 1), seed=0)
    loss = load_recipe(recipe).make_loss(cfg, env)
    region, previous = None, None
    if hasattr(cfg, "trust_region"):
        space = ActionSpace(cfg.trust_region.num_action_samples)
        region, previous = make_trust_region(cfg.trust_region, loss.actor_network, space)
    optim = torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], fused=True)
    data = random_transitions(128, MAZE, torch.device("cpu"), *cfg.leading)

    def update() -> None:
        batch = data.copy()  # losses write to it; one that was written to is traced anew
        losses = loss(batch)
        if region is not None:
            losses.update(region(batch))
        sum(v for name, v in losses.items() if name.startswith("loss_")).backward()
        if previous is not None:
            previous.step()
        optim.step()
        optim.zero_grad()

    return compiled(update, cfg.compile, optim, losses=[loss, region])


def main() -> None:
    """Print a line for each case and number of seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--compile", action="store_true")
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="No target network updater")
    torch.set_num_threads(1)
    print(choose_float32_products())
    ways = ["eager", "compiled"] if given.compile else ["eager"]
    updates, first = {}, {}
    for key in itertools.product(given.cases, sorted({1, given.seeds}), ways):
        updates[key] = make_update(*key)
        begin = time.perf_counter()
        updates[key]()
        first[key] = time.perf_counter() - begin
    times: dict[tuple[str, int, str], list[float]] = {key: [] for key in updates}
    for _ in range(given.updates + 5):
        for key, update in updates.items():
            begin = time.process_time()
            update()
            times[key].append(time.process_time() - begin)
    medians = {key: sorted(own[5:])[given.updates // 2] for key, own in times.items()}
    for (name, seeds, way), median in medians.items():
        ratio = median / medians[name, 1, "eager"]
        start = f"{first[name, seeds, way]:8.1f} s at first" if way == "compiled" else ""
        print(f"{name:<15}{seeds:>3} seeds, {way:<9}{1e3 * median:8.1f} ms {ratio:6.2f}{start}")


if __name__ == "__main__":
    main()
