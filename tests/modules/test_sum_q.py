"""The sum of Q-functions."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator

from torchrl_stein.modules import AmortizedSVGDActor, SumQ
from torchrl_stein.objectives import SoftQLoss


def make_networks(count):
    torch.manual_seed(0)
    keys = ["observation", "action"]
    return [ValueOperator(MLP(5, 1, num_cells=[7]), in_keys=keys) for _ in range(count)]


def make_data(*batch):
    return TensorDict(
        {"observation": torch.randn(*batch, 3), "action": torch.randn(*batch, 2)}, batch
    )


@pytest.mark.parametrize("batch", [(), (4,), (4, 6)])
@pytest.mark.parametrize("count", [1, 3])
def test_it_is_the_sum(count, batch):
    networks, data = make_networks(count), make_data(*batch)
    expected = sum(network(data.clone())["state_action_value"] for network in networks)
    before = data.clone()
    out = SumQ(networks)(data)
    assert out["state_action_value"].shape == (*batch, 1)
    assert_close(out["state_action_value"], expected)
    assert (data.exclude("state_action_value") == before).all()


def test_other_keys_and_networks_that_read_different_things():
    first = TensorDictModule(lambda a: a.sum(-1, keepdim=True), ["action"], [("q", "value")])
    second = TensorDictModule(lambda s, a: s[..., :1], ["observation", "action"], [("q", "value")])
    total = SumQ([first, second], out_key=("q", "value"))
    assert total.in_keys == ["action", "observation"]
    data = make_data(4)
    expected = data["action"].sum(-1, keepdim=True) + data["observation"][:, :1]
    assert_close(total(data)["q", "value"], expected)


def test_what_each_network_writes_stays_with_it():
    noisy = TensorDictModule(
        lambda a: (a[..., :1], a + 9.0), ["action"], ["state_action_value", "action"]
    )
    data = make_data(4)
    action = data["action"].clone()
    total = SumQ([noisy, *make_networks(1)])(data)
    assert data["action"].equal(action)
    expected = action[:, :1] + make_networks(1)[0](data.clone())["state_action_value"]
    assert_close(total["state_action_value"], expected)


@pytest.mark.parametrize(
    ("networks", "error", "message"),
    [
        ([], ValueError, "networks must hold at least one Q-function, got none"),
        ([nn.Linear(2, 1)], TypeError, "networks must hold TensorDict modules, got Linear"),
        (
            make_networks(1)[0],
            TypeError,
            "networks must be a list of TensorDict modules, got Value",
        ),
        (
            [ValueOperator(nn.Sequential(nn.Linear(5, 1)), in_keys=["observation", "action"])],
            TypeError,
            r"networks must take 2 inputs \['observation', 'action'\], got an nn.Sequential",
        ),
        (
            [TensorDictModule(nn.Linear(2, 1), ["action"], ["value"])],
            ValueError,
            r"every network must write 'state_action_value', one writes \['value'\]",
        ),
    ],
)
def test_bad_input(networks, error, message):
    with pytest.raises(error, match=f"SumQ: {message}"):
        SumQ(networks)


def test_values_of_other_shapes_do_not_broadcast():
    flat = TensorDictModule(lambda a: a[..., 0], ["action"], ["state_action_value"])
    message = r"must write 'state_action_value' of one shape, got \[4, 1\] and \[4\]"
    with pytest.raises(ValueError, match=f"SumQ: all networks {message}"):
        SumQ([*make_networks(1), flat])(make_data(4))


def test_by_keyword():
    networks, data = make_networks(2), make_data(4)
    total = SumQ(networks)
    value = total(observation=data["observation"], action=data["action"])
    assert value.equal(total(data)["state_action_value"])


def test_a_sampler_of_the_sum_leaves_the_networks_alone():
    networks = make_networks(2)
    total = SumQ(networks).requires_grad_(False)
    actor = AmortizedSVGDActor(MLP(5, 2, num_cells=[8]), action_spec=Bounded(-1.0, 1.0, shape=(2,)))
    loss = SoftQLoss(actor, total, num_action_samples=4, delay_qvalue=False)
    loss.actor_loss(make_data(6))["loss_actor"].backward()
    assert all(parameter.grad is not None for parameter in actor.parameters())
    assert all(parameter.grad is None for parameter in total.parameters())
    # The values of the loss are those of the sum.
    data = make_data(6)
    assert_close(loss.qvalue(data, data["action"]), total(data)["state_action_value"].squeeze(-1))
