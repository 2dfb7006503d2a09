"""What an update of S2ACLoss costs beside those of SACLoss and SoftQLoss on robots.

    python -m benchmarks.speed.s2ac

Loss, gradients and step of Adam; two Q-networks, 2 x 128, a batch of 128, one thread, CPU time, in
turn in one process. A ratio is the median over the rounds. benchmarks/results/s2ac_speed.md has the
table, and what was tried by hand.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import LossModule, SACLoss

from benchmarks.speed.agents import Sizes, random_transitions
from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.functional import expected_value
from torchrl_stein.modules import SVGDActor
from torchrl_stein.objectives import S2ACLoss
from torchrl_stein.products import choose_float32_products
from torchrl_stein.runs.process import prepare_cpu, read_provenance

BATCH, WIDTH = 128, 128
SIZES = (Sizes("Hopper", 11, 3), Sizes("Walker2d", 17, 6))
# Particles m, steps L, probes of the trace, exact with as many as dimensions, and activation.
CASES: dict[str, tuple[int, int, int, type[nn.Module]]] = {
    "m = 4, L = 1, 1 probe": (4, 1, 1, nn.SiLU),
    "m = 4, L = 1, exact trace": (4, 1, 8, nn.SiLU),
    "m = 10, L = 3, 1 probe": (10, 3, 1, nn.SiLU),
    "m = 10, L = 3, 1 probe, tanh for SiLU": (10, 3, 1, nn.Tanh),
    "m = 10, L = 3, exact trace": (10, 3, 8, nn.SiLU),
}


def make_losses(observations: int, actions: int) -> dict[str, LossModule]:
    """SACLoss, SoftQLoss with the settings of the recipes on robots, and S2ACLoss in all cases."""
    spec = Bounded(-1.0, 1.0, shape=(actions,))

    def mlp(inputs: int, outputs: int, activation: type[nn.Module] = nn.ReLU) -> MLP:
        return MLP(inputs, outputs, num_cells=[WIDTH, WIDTH], activation_class=activation)

    def critics(activation: type[nn.Module] = nn.ReLU) -> list[ValueOperator]:
        nets = (mlp(observations + actions, 1, activation) for _ in range(2))
        return [ValueOperator(net, in_keys=["observation", "action"]) for net in nets]

    policy = ProbabilisticActor(
        TensorDictModule(
            nn.Sequential(mlp(observations, 2 * actions), NormalParamExtractor()),
            ["observation"],
            ["loc", "scale"],
        ),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
    )
    sampler = AmortizedSVGDActor(mlp(observations + actions, actions), action_spec=spec)
    losses: dict[str, LossModule] = {
        "SACLoss": SACLoss(policy, critics(), loss_function="l2", action_spec=spec),
        "SoftQLoss, K = M = 4": SoftQLoss(
            sampler,
            critics(),
            num_action_samples=4,
            num_value_samples=2,
            value_target=expected_value,
        ),
    }
    for name, (particles, steps, probes, activation) in CASES.items():
        qvalues = critics(activation)
        actor = SVGDActor(
            nn.Sequential(mlp(observations, 2 * actions, activation), NormalParamExtractor()),
            qvalues,
            action_spec=spec,
            temperature=0.2,
            num_action_samples=particles,
            num_steps=steps,
            num_probes=probes,
        )
        losses[f"S2ACLoss, {name}"] = S2ACLoss(actor, qvalues)
    for loss in losses.values():
        loss.make_value_estimator(gamma=0.99)
    return losses


def main() -> None:
    """Print a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=40)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="No target network updater")
    prepare_cpu(1)
    torch.manual_seed(0)
    products = choose_float32_products()
    print("# Time of an update of S2AC\n")
    print(
        f"`python -m benchmarks.speed.s2ac --updates {given.updates}`, torch {torch.__version__}, ",
        end="",
    )
    print(f"{read_provenance()['device']}, one thread,")
    print(f"CPU time, 2 x {WIDTH}, batch {BATCH}, median of {given.updates} updates.")
    print(f"{products}.\n")
    print("| sizes | loss | ms | times SACLoss | times SoftQLoss |")
    print("|---|---|---|---|---|")
    for sizes in SIZES:
        observations, actions = sizes.observation, sizes.action
        losses = make_losses(observations, actions)
        optims = {
            name: torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], fused=True)
            for name, loss in losses.items()
        }
        times: dict[str, list[float]] = {name: [] for name in losses}
        for _ in range(given.updates + 5):
            batch = random_transitions(BATCH, sizes, torch.device("cpu"))
            for name, loss in losses.items():
                begin = time.process_time()
                terms = loss(batch.clone())
                sum(v for key, v in terms.items() if key.startswith("loss_")).backward()
                optims[name].step()
                optims[name].zero_grad()
                times[name].append(time.process_time() - begin)
        kept = {name: own[5:] for name, own in times.items()}
        sac, soft_q, *_ = kept.values()
        for name, own in kept.items():
            ratios = f"{_ratio(own, sac):.1f} | {_ratio(own, soft_q):.1f}"
            row = f"{sizes.name} {observations} + {actions} | {name}"
            print(f"| {row} | {1e3 * statistics.median(own):.1f} | {ratios} |")


def _ratio(own: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(own, theirs, strict=True))


if __name__ == "__main__":
    main()
