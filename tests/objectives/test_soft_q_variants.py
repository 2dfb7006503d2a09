"""SoftQLoss compiled, in double precision, and with a scheduled temperature."""

import pytest
import torch

from tests.objectives.builders import (
    NO_UPDATER,
    PROPOSALS,
    SQUASHES,
    gradients,
    make_batch,
    make_loss,
    run,
)

pytestmark = pytest.mark.filterwarnings(
    NO_UPDATER, "ignore:Using lock_:UserWarning", "ignore:torch._dynamo:FutureWarning"
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "num_qvalue_nets": 2,
            "value_proposal": PROPOSALS["actor"],
            "squash": SQUASHES["reference"],
        },
    ],
)
def test_compiled_without_a_graph_break(options):
    loss = make_loss(**options)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.compiler.reset()
    terms, batch = ("loss_actor", "loss_qvalue"), make_batch(6)
    torch.testing.assert_close(run(compiled, batch), run(loss, batch))
    with torch.compiler.set_stance("fail_on_recompile"):
        batch = make_batch(6, seed=1)
        loss.temperature = 0.25  # a buffer: annealing does not compile anew
        torch.testing.assert_close(run(compiled, batch), run(loss, batch))
        want = gradients(loss, batch, *terms)
        losses = run(compiled, batch)
        sum(losses[term] for term in terms).backward()
    for name, parameter in loss.named_parameters():
        torch.testing.assert_close(parameter.grad, want[name])


@pytest.mark.parametrize("nets", [1, 2])
@pytest.mark.parametrize("value_proposal", ["uniform", "actor"])
def test_float64(nets, value_proposal):
    options = {
        "num_qvalue_nets": nets,
        "value_proposal": PROPOSALS[value_proposal],
        "temperature": 0.1,
    }
    loss = make_loss(dtype=torch.float64, **options)
    losses = run(loss, make_batch(6, dtype=torch.float64))
    assert all(value.dtype == torch.float64 for value in losses.values())
    assert losses["alpha"].item() == 0.1  # not rounded to float32
    converted = make_loss(**options).double()
    assert run(converted, make_batch(6, dtype=torch.float64))["loss_actor"].dtype == torch.float64


@pytest.mark.parametrize("nets", [1, 2])
@pytest.mark.parametrize("looped", [False, True])
def test_actions_of_the_dtype_of_a_spec(nets, looped):
    # The actor writes actions of its spec's dtype, float64 for many simulators of float32 networks.
    loss = make_loss(num_qvalue_nets=nets, deactivate_vmap=looped)
    batch = make_batch(6)
    wide = batch.clone().set("action", batch["action"].double())
    torch.testing.assert_close(run(loss, wide), run(loss, batch), rtol=0, atol=0)
    assert wide["action"].dtype == torch.float64


@pytest.mark.parametrize("value", [3, 0.2, torch.tensor(0.2), torch.tensor([0.2]).double()[0]])
def test_temperature_is_a_buffer_that_takes_any_number(value):
    loss = make_loss()
    buffer = loss.temperature
    loss.temperature = value
    assert loss.temperature is buffer
    assert buffer.dtype == torch.float32
    assert buffer.item() == pytest.approx(float(value))
    assert loss.state_dict()["temperature"].item() == pytest.approx(float(value))


def test_scheduled_temperature():
    loss, batch = make_loss(temperature=10.0), make_batch(6)
    alphas, values = [], []
    for step in range(3):
        loss.temperature = 10.0 * 0.1**step
        losses = run(loss, batch)
        alphas.append(losses["alpha"].item())
        values.append(losses["soft_value"].item())
    assert alphas == pytest.approx([10.0, 1.0, 0.1])
    # V falls with alpha: entropy, at most log of the volume 4, counts less and less.
    assert values[0] > values[1] > values[2]
