"""Moving and casting a loss takes the policy along; updates on a GPU never wait for the host."""

import pytest
import torch
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import ConvNet, ValueOperator

from tests.objectives.builders import NO_UPDATER, make_actor, make_batch, make_loss
from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import SoftQLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def test_casting_the_loss_casts_the_policy():
    actor = make_actor()
    loss = make_loss(actor).double()
    assert actor.low.dtype == loss.actor_network_params["low"].dtype == torch.float64
    batch = make_batch(6, dtype=torch.float64)
    assert actor.sample(batch, 3).dtype == torch.float64
    losses = loss(batch)
    assert losses["loss_actor"].dtype == losses["loss_qvalue"].dtype == torch.float64


class Pixels(nn.Module):
    """Reads pixels [*B, K, 3, 12, 12] and a vector [*B, K, 2]."""

    def __init__(self, out_features):
        super().__init__()
        self.encoder = ConvNet(in_features=3, num_cells=[4], kernel_sizes=3)
        self.head = nn.Linear(4 * 10 * 10 + 2, out_features)

    def forward(self, pixels, vector):
        return self.head(torch.cat([self.encoder(pixels), vector], -1))


def test_pixel_observations():
    spec = Bounded(-1.0, 1.0, shape=(2,))
    actor = AmortizedSVGDActor(Pixels(2), action_spec=spec, in_keys=["pixels"])
    qvalue = ValueOperator(Pixels(1), in_keys=["pixels", "action"])
    loss = SoftQLoss(actor, qvalue, num_action_samples=3, num_value_samples=2)
    batch = make_batch(5, act=2)
    batch["pixels"], batch["next", "pixels"] = torch.rand(2, 5, 3, 12, 12)
    losses = loss(batch)
    (losses["loss_qvalue"] + losses["loss_actor"]).backward()
    assert all(p.grad.abs().max() > 0 for p in [*actor.parameters(), *qvalue.parameters()])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_update_on_the_gpu_does_not_wait():
    actor = make_actor()
    loss = make_loss(actor).to("cuda")
    batch = make_batch(64).to("cuda")
    for attempt in range(2):  # the first call may set up libraries
        torch.cuda.set_sync_debug_mode("error" if attempt else "default")
        try:
            losses = loss(batch)
            (losses["loss_qvalue"] + losses["loss_actor"]).backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert actor.sample(batch, 3).device.type == "cuda"
