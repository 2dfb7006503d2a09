"""What an update of several seeds costs beside one of a single seed, with SAC and soft Q-learning.

    python -m benchmarks.speed.seeds

Loss, gradients and step of Adam on the simple maze, 2 x 128, batches of 128, one thread; in turn
in one process.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from tensordict import TensorDict

from benchmarks.recipes import load_recipe, settings_of
from torchrl_stein.products import choose_float32_products
from torchrl_stein.runs import make_configured_task

OVERRIDES = {
    "sac": ["loss.fixed_alpha=false"],
    "soft_q": [
        "loss.fixed_alpha=false",
        "loss.value_target=expected",
        "loss.num_action_samples=4",
        "loss.num_value_samples=2",
        "loss.num_qvalue_nets=2",
    ],
}


def make_batch(shape: tuple[int, ...]) -> TensorDict:
    """Random transitions of the maze."""
    never = torch.zeros(*shape, 1, dtype=torch.bool)
    following = {"observation": torch.randn(*shape, 4), "reward": torch.randn(*shape, 1)}
    following |= {"done": never, "terminated": never}
    action = torch.rand(*shape, 2) * 2 - 1
    values = {"observation": torch.randn(*shape, 4), "action": action, "next": following}
    return TensorDict(values, shape)


def main() -> None:
    """Print a line for each recipe and number of seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--updates", type=int, default=60)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="No target network updater")
    torch.set_num_threads(1)
    print(choose_float32_products())
    for recipe, overrides in OVERRIDES.items():
        cases = {}
        for seeds in (1, given.seeds):
            cfg = settings_of(recipe, "task=goal_maze_simple", f"seeds={seeds}", *overrides)
            env = make_configured_task(cfg.env, (*cfg.leading, 1), seed=0)
            loss = load_recipe(recipe).make_loss(cfg, env)
            learnt = [p for p in loss.parameters() if p.requires_grad]
            cases[seeds] = cfg.leading, loss, torch.optim.Adam(learnt, fused=True)
        times: dict[int, list[float]] = {seeds: [] for seeds in cases}
        for _ in range(given.updates + 5):
            for seeds, (leading, loss, optim) in cases.items():
                batch = make_batch((*leading, 128))
                begin = time.process_time()
                losses = loss(batch)
                sum(v for name, v in losses.items() if name.startswith("loss_")).backward()
                optim.step()
                optim.zero_grad()
                times[seeds].append(time.process_time() - begin)
        medians = {seeds: sorted(own[5:])[given.updates // 2] for seeds, own in times.items()}
        for seeds, median in medians.items():
            print(f"{recipe:<8}{seeds:>3} seeds{1e3 * median:8.1f} ms {median / medians[1]:6.2f}")


if __name__ == "__main__":
    main()
