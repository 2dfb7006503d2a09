"""What an update of SoftQLoss costs beside one of TorchRL's SACLoss, by numbers of actions.

    python -m benchmarks.speed.defaults

Two Q-networks, a batch of 256, 17 observations and 6 actions, one thread; in turn in one process.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import LossModule, SACLoss

from benchmarks.speed.agents import HALF_CHEETAH, random_transitions
from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.functional import soft_value
from torchrl_stein.products import choose_float32_products

OBSERVATIONS, ACTIONS, BATCH = HALF_CHEETAH.observation, HALF_CHEETAH.action, 256
CASES = {
    "defaults": {},
    "K = M = 3, 2 values": {"num_action_samples": 3, "num_value_samples": 2},
    "K = M = 4, 2 values": {"num_action_samples": 4, "num_value_samples": 2},
    "K = 2, M = 4, 2 values": {"num_action_samples": (2, 4), "num_value_samples": 2},
    "K = M = 8, 4 values": {"num_action_samples": 8, "num_value_samples": 4},
    "K = M = 4, 8 values, soft": {"num_value_samples": 8, "value_target": soft_value},
}


def make_mlp(inputs: int, outputs: int, width: int) -> MLP:
    """Two hidden layers."""
    return MLP(inputs, outputs, num_cells=[width, width], activation_class=nn.ReLU)


def make_losses(width: int) -> dict[str, LossModule]:
    """SACLoss and SoftQLoss in all cases."""
    spec = Bounded(-1.0, 1.0, shape=(ACTIONS,))

    def critics() -> list[ValueOperator]:
        nets = (make_mlp(OBSERVATIONS + ACTIONS, 1, width) for _ in range(2))
        return [ValueOperator(net, in_keys=["observation", "action"]) for net in nets]

    gaussian = nn.Sequential(make_mlp(OBSERVATIONS, 2 * ACTIONS, width), NormalParamExtractor())
    policy = ProbabilisticActor(
        TensorDictModule(gaussian, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=spec,
        distribution_class=TanhNormal,
    )
    losses = {"SACLoss": SACLoss(policy, critics(), loss_function="l2", action_spec=spec)}
    for name, options in CASES.items():
        sampler = make_mlp(OBSERVATIONS + ACTIONS, ACTIONS, width)
        actor = AmortizedSVGDActor(sampler, action_spec=spec)
        losses[name] = SoftQLoss(actor, critics(), **options)
    for loss in losses.values():
        loss.make_value_estimator(gamma=0.99)
    return losses


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=40)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message="No target network updater")
    torch.set_num_threads(1)
    print(choose_float32_products())
    for width in (128, 256):
        losses = make_losses(width)
        optims = {
            name: torch.optim.Adam([p for p in loss.parameters() if p.requires_grad], fused=True)
            for name, loss in losses.items()
        }
        times: dict[str, list[float]] = {name: [] for name in losses}
        for _ in range(given.updates + 5):
            batch = random_transitions(BATCH, HALF_CHEETAH, torch.device("cpu"))
            for name, loss in losses.items():
                begin = time.process_time()
                terms = loss(batch.clone())
                sum(v for key, v in terms.items() if key.startswith("loss_")).backward()
                optims[name].step()
                optims[name].zero_grad()
                times[name].append(time.process_time() - begin)
        medians = {name: sorted(own[5:])[len(own[5:]) // 2] for name, own in times.items()}
        for name, median in medians.items():
            ratio = median / medians["SACLoss"]
            print(f"2 x {width}  {name:<26}{1e3 * median:7.1f} ms  {ratio:5.2f}")


if __name__ == "__main__":
    main()
