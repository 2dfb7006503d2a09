"""What it saves to give SoftQLoss an encoder of pixels, instead of one inside of each network.

    python -m benchmarks.speed.encoder

Losses and gradients of a batch of 128 pictures of 64 x 64 pixels, three convolutions, one thread,
CPU time, in turn in one process; the least of the rounds.
"""

from __future__ import annotations

import argparse
import time
import warnings

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ConvNet, ValueOperator

from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.runs.process import prepare_cpu, read_provenance

BATCH, PIXELS, FEATURES, ACTIONS = 128, 64, 50, 2
SPEC = Bounded(-1.0, 1.0, shape=(ACTIONS,))


def make_eye() -> nn.Sequential:
    """Features of pictures."""
    convolutions = ConvNet(in_features=3, num_cells=[16, 32, 32], kernel_sizes=3, strides=2)
    width = convolutions(torch.zeros(3, PIXELS, PIXELS)).shape[-1]
    return nn.Sequential(convolutions, nn.Linear(width, FEATURES), nn.Tanh())


def make_head(outputs: int) -> MLP:
    """What reads features and an action or noise."""
    return MLP(FEATURES + ACTIONS, outputs, num_cells=[64, 64])


class Whole(nn.Module):
    """Both in one network."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.eye, self.head = make_eye(), make_head(outputs)

    def forward(self, pixels: Tensor, other: Tensor) -> Tensor:
        """``[*B, outputs]``."""
        result: Tensor = self.head(torch.cat([self.eye(pixels), other], -1))
        return result


def make_losses(num_action_samples: int) -> dict[str, SoftQLoss]:
    """The same loss in both ways."""
    inside = SoftQLoss(
        AmortizedSVGDActor(Whole(ACTIONS), action_spec=SPEC, in_keys=["pixels"]),
        ValueOperator(Whole(1), in_keys=["pixels", "action"]),
        num_action_samples=num_action_samples,
    )
    before = SoftQLoss(
        AmortizedSVGDActor(make_head(ACTIONS), action_spec=SPEC, in_keys=["features"]),
        ValueOperator(make_head(1), in_keys=["features", "action"]),
        encoder=TensorDictModule(make_eye(), ["pixels"], ["features"]),
        num_action_samples=num_action_samples,
    )
    losses = {"inside of actor and Q-network": inside, "`encoder=`": before}
    return {name: loss.make_value_estimator(gamma=0.99) for name, loss in losses.items()}


def random_batch() -> TensorDict:
    """Random transitions."""
    shape, ends = (BATCH, 3, PIXELS, PIXELS), torch.zeros(BATCH, 1, dtype=torch.bool)
    following = {"pixels": torch.rand(shape), "reward": torch.randn(BATCH, 1)}
    following |= {"done": ends, "terminated": ends.clone()}
    states = {"pixels": torch.rand(shape), "action": torch.rand(BATCH, ACTIONS)}
    return TensorDict({**states, "next": following}, [BATCH])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    warnings.filterwarnings("ignore", message="No target network updater")
    prepare_cpu(1)
    torch.manual_seed(0)
    print(f"{read_provenance()['device']}, torch {torch.__version__}\n")
    print("| K | encoder | s |\n|---|---|---|")
    for num_action_samples in (4, 32):
        times: dict[str, list[float]] = {}
        losses = make_losses(num_action_samples)
        for _ in range(rounds):
            batch = random_batch()
            for name, loss in losses.items():
                start = time.process_time()
                out = loss(batch.copy())
                (out["loss_qvalue"] + out["loss_actor"]).backward()
                times.setdefault(name, []).append(time.process_time() - start)
        for name, seconds in times.items():
            print(f"| {num_action_samples} | {name} | {min(seconds):.3f} |", flush=True)


if __name__ == "__main__":
    main()
