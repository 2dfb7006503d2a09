"""Q-networks called as functions of tensors do what they do in a TensorDict."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator

from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import SoftQLoss
from torchrl_stein.objectives._plain_network import PlainNetwork

KEY = "state_action_value"


class Product(nn.Module):
    """A network that torch.vmap runs, with the inputs in its own order."""

    def __init__(self):
        super().__init__()
        self.of_state, self.of_action = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, action, observation):
        return (self.of_state(observation) * self.of_action(action)).sum(-1, keepdim=True)


def mlp_network():
    return ValueOperator(MLP(5, 1, num_cells=[8]), in_keys=["observation", "action"])


def product_network():
    return TensorDictModule(Product(), ["action", "observation"], [KEY])


def make_loss(make, size, **options):
    actor = AmortizedSVGDActor(MLP(5, 2, num_cells=[8]), action_spec=Bounded(-1, 1, shape=(2,)))
    networks = [make() for _ in range(size)]
    return SoftQLoss(actor, networks if size > 1 else networks[0], num_particles=4, **options)


def values_and_gradients(loss, rows):
    states = TensorDict({"observation": torch.arange(9.0).view(3, 3) / 9}, [3])
    actions = torch.linspace(-1, 1, 3 * rows * 2).view(3, *([rows] if rows > 1 else []), 2)
    actions.requires_grad_()
    q = loss._qvalues(loss.qvalue_network_params, states, actions)
    parameters = list(loss.qvalue_network_params.parameters())
    return q, torch.autograd.grad(q.square().sum(), [actions, *parameters])


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("make", [mlp_network, product_network])
def test_same_values_and_gradients(monkeypatch, make, size, rows):
    loss = make_loss(make, size)
    assert PlainNetwork.suits(loss.qvalue_network, KEY)
    plain = values_and_gradients(loss, rows)
    monkeypatch.setattr(PlainNetwork, "suits", staticmethod(lambda *_: False))
    assert_close(plain, values_and_gradients(loss, rows))
    assert plain[0].shape == ((size, 3, 5) if rows > 1 else (size, 3))


def test_hooks_are_called():
    network = mlp_network()
    loss, calls = make_loss(lambda: network, 1), []
    values_and_gradients(loss, 5)
    network.module[0].register_forward_hook(lambda *_: calls.append("inside"))
    network.register_forward_hook(lambda *_: calls.append("outside"))
    assert not PlainNetwork.suits(loss.qvalue_network, KEY)
    values_and_gradients(loss, 5)
    assert calls == ["inside", "outside"]


@pytest.mark.parametrize(
    "network",
    [
        TensorDictModule(Product(), {"action": "action", "observation": "observation"}, [KEY]),
        TensorDictModule(Product(), ["action", "observation"], ["another"]),
        TensorDictModule(lambda a, s: a, ["action", "observation"], [KEY]),
    ],
)
def test_what_is_left_to_the_tensordict(network):
    assert not PlainNetwork.suits(network, KEY)


def test_a_loop_is_a_loop(monkeypatch):
    loss = make_loss(mlp_network, 2, deactivate_vmap=True)
    monkeypatch.setattr(PlainNetwork, "__call__", None)
    values_and_gradients(loss, 5)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.last = nn.Linear(5, 1)

    def forward(self, observation, action):
        x = torch.cat([observation, action], -1)
        return self.last(self.second(self.first(x).tanh()).tanh())


class InATuple(nn.Module):
    """A network of one result that returns it in a tuple."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 1)

    def forward(self, observation, action):
        return (self.layer(torch.cat([observation, action], -1)),)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("module", [Tied, InATuple])
def test_unusual_networks(monkeypatch, module, size):
    loss = make_loss(lambda: ValueOperator(module(), in_keys=["observation", "action"]), size)
    found = values_and_gradients(loss, 5)
    monkeypatch.setattr(PlainNetwork, "suits", staticmethod(lambda *_: False))
    assert_close(found, values_and_gradients(loss, 5))
