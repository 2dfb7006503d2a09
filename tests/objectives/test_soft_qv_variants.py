"""SoftQVLoss compiled, in double precision, saved and loaded, on a GPU."""

import pytest
import torch
from torch import nn
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives import SoftUpdate

from tests.objectives.builders import (
    NO_UPDATER,
    gradients,
    make_actor,
    make_batch,
    make_qvalue,
    run,
)
from torchrl_stein.objectives import ActionSpace, SoftQVLoss, WassersteinTrustRegionLoss

pytestmark = pytest.mark.filterwarnings(
    NO_UPDATER, "ignore:Using lock_:UserWarning", "ignore:torch._dynamo:FutureWarning"
)
TERMS = ("loss_actor", "loss_qvalue", "loss_value")


def make_loss(actor=None, value=None, **options):
    actor = make_actor() if actor is None else actor
    value = ValueOperator(MLP(3, 1, num_cells=[8])) if value is None else value
    return SoftQVLoss(
        actor, make_qvalue(), value, num_action_samples=(6, 4), num_value_samples=5, **options
    )


def test_compiled_without_a_graph_break():
    loss = make_loss()
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    batch = make_batch(6)
    torch.testing.assert_close(run(compiled, batch), run(loss, batch))
    want = gradients(loss, batch, *TERMS)
    losses = run(compiled, batch)
    sum(losses[term] for term in TERMS).backward()
    for name, parameter in loss.named_parameters():
        torch.testing.assert_close(parameter.grad, want[name])


def test_float64():
    losses = run(make_loss().double(), make_batch(6, dtype=torch.float64))
    assert all(value.dtype == torch.float64 for value in losses.values())


def test_state_dict_round_trip():
    loss, other, batch = make_loss(), make_loss(), make_batch(6)
    with torch.no_grad():  # targets that differ from what they follow
        loss.target_value_network_params.apply(lambda p: p.data.add_(1.0))
    other.load_state_dict(loss.state_dict())
    torch.testing.assert_close(run(other, batch), run(loss, batch), rtol=0, atol=0)


def test_keys_of_the_state_are_those_of_all_three_networks():
    value = ValueOperator(MLP(4, 1, num_cells=[8]), in_keys=["privileged"])
    loss = make_loss(value=value)
    assert loss.state_keys == ["observation", "privileged"]
    assert {"privileged", ("next", "privileged")} <= set(loss.in_keys)
    batch = make_batch(6)
    batch["privileged"], batch["next", "privileged"] = torch.randn(2, 6, 4)
    assert loss(batch)["loss_value"] > 0


def test_a_value_network_that_is_no_tensordict_module():
    with pytest.raises(TypeError, match=r"SoftQVLoss: value_network must be .*ValueOperator\(net"):
        make_loss(value=nn.Linear(3, 1))


def test_errors_name_the_class_that_was_called():
    with pytest.raises(ValueError, match="SoftQVLoss: temperature must be > 0"):
        make_loss(temperature=-1.0)
    with pytest.raises(KeyError, match="SoftQVLoss"):
        make_loss()(make_batch(6).exclude("action"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_update_with_a_trust_region_on_the_gpu_does_not_wait():
    actor = make_actor()
    loss = make_loss(actor).to("cuda")
    region = WassersteinTrustRegionLoss(actor, space=ActionSpace(8)).to("cuda")
    previous = SoftUpdate(region, tau=0.01)
    batch = make_batch(64).to("cuda")
    for attempt in range(2):  # the first call may set up libraries, and notes where it began
        torch.cuda.set_sync_debug_mode("error" if attempt else "default")
        try:
            losses = loss(batch)
            losses.update(region(batch))
            sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
            previous.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(p.grad.isfinite().all() for p in actor.parameters())
