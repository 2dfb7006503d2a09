"""Q-networks called as functions of tensors do what they do in a TensorDict."""

import copy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.modules import MLP, ValueOperator

from torchrl_stein.modules import AmortizedSVGDActor, ParticleModule
from torchrl_stein.objectives import SoftQLoss, soft_actor_critic
from torchrl_stein.objectives._q_ensemble import can_skip_tensordict, make_ensemble

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
    return SoftQLoss(actor, networks if size > 1 else networks[0], num_action_samples=4, **options)


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
    assert can_skip_tensordict(loss.qvalue_network, KEY)
    plain = values_and_gradients(loss, rows)
    monkeypatch.setattr(soft_actor_critic, "can_skip_tensordict", lambda *_: False)
    assert_close(plain, values_and_gradients(loss, rows))
    assert plain[0].shape == ((size, 3, 5) if rows > 1 else (size, 3))


def test_hooks_are_called():
    network = mlp_network()
    loss, calls = make_loss(lambda: network, 1), []
    values_and_gradients(loss, 5)
    network.module[0].register_forward_hook(lambda *_: calls.append("inside"))
    network.register_forward_hook(lambda *_: calls.append("outside"))
    assert not can_skip_tensordict(loss.qvalue_network, KEY)
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
    assert not can_skip_tensordict(network, KEY)


def test_a_loop_is_a_loop(monkeypatch):
    loss = make_loss(mlp_network, 2, deactivate_vmap=True)
    monkeypatch.setattr(soft_actor_critic, "values_as_function", None)
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
    monkeypatch.setattr(soft_actor_critic, "can_skip_tensordict", lambda *_: False)
    assert_close(found, values_and_gradients(loss, 5))


class Core(nn.Module):
    """Of the state and the action side by side."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(5, 4), nn.Linear(4, 1)

    def hidden(self, observation, action):
        return self.first(torch.cat([observation, action], -1)).tanh()

    def forward(self, observation, action):
        return self.last(self.hidden(observation, action))


class Attention(Core):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, observation, action):
        hidden = self.hidden(observation, action)
        return self.last(self.layer(hidden.reshape(-1, 1, 4)).view_as(hidden))


class Spectral(Core):
    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.spectral_norm(self.first)


class Branches(Core):
    def forward(self, observation, action):
        q = super().forward(observation, action)
        return q if q.sum() > 0 else -q


class Averages(Core):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, observation, action):
        hidden = self.hidden(observation, action)
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * hidden.detach().reshape(-1, 4).mean(0)
        return self.last(hidden - self.mean)


class InADict(Core):
    def forward(self, observation, action):
        return {KEY: super().forward(observation, action), "more": observation}


class Hooked(Core):
    def __init__(self):
        super().__init__()
        self.last.register_forward_hook(lambda _, args, out: 2 * out)


def one_activation():
    activation = nn.Tanh()
    layers = [nn.Linear(5, 4), activation, nn.Linear(4, 4), activation, nn.Linear(4, 1)]
    mlp = MLP(5, 1, num_cells=[4, 4])
    for place, layer in enumerate(layers):
        mlp[place] = layer
    return mlp


UNUSUAL = [Attention, Spectral, Branches, Averages, InADict, Hooked, Tied, InATuple]


@pytest.mark.parametrize("deactivate_vmap", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("make", [*UNUSUAL, one_activation])
def test_an_ensemble_gives_what_separate_networks_give(make, training, deactivate_vmap):
    if make is Averages and deactivate_vmap:
        pytest.skip("TorchRL's functional calls drop buffers that a network replaces")
    modules = [make().train(training) for _ in range(2)]
    networks = [ValueOperator(copy.deepcopy(m), in_keys=["observation", "action"]) for m in modules]
    it = iter(networks)
    loss = make_loss(lambda: next(it), 2, deactivate_vmap=deactivate_vmap)
    copies = [ValueOperator(module, in_keys=["observation", "action"]) for module in modules]
    alone = [make_loss(lambda n=n: n, 1, deactivate_vmap=deactivate_vmap) for n in copies]
    for _ in range(2):
        q, (slope, *gradients) = values_and_gradients(loss, 5)
        expected = [values_and_gradients(one, 5) for one in alone]
        assert_close(q, torch.cat([one[0] for one in expected]))
        assert_close(slope, expected[0][1][0] + expected[1][1][0])
        for i, (_, (_, *own)) in enumerate(expected):
            assert_close([gradient[i] for gradient in gradients], own)
    buffers = dict(loss.qvalue_network_params.named_buffers())
    for i, one in enumerate(alone):
        own = dict(one.qvalue_network_params.named_buffers())
        assert_close({name: buffer[i] for name, buffer in buffers.items()}, own)


@pytest.mark.parametrize("size", [1, 2])
def test_tied_weights_stay_tied(size):
    loss = make_loss(lambda: ValueOperator(Tied(), in_keys=["observation", "action"]), size)
    params = loss.qvalue_network_params
    assert params["module", "first", "weight"] is params["module", "second", "weight"]
    assert len(list(params.parameters())) == 5
    states = TensorDict({"observation": torch.randn(3, 3)}, [3])
    q = loss._qvalues(params, states, torch.randn(3, 2))
    optimizer = torch.optim.SGD(params.parameters(), lr=0.1)
    q.square().sum().backward()
    optimizer.step()
    assert torch.equal(params["module", "first", "weight"], params["module", "second", "weight"])


class Nothing(Core):
    def forward(self, observation, action):
        super().forward(observation, action)


class Two(Core):
    def forward(self, observation, action):
        return super().forward(observation, action), observation


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("module", [Nothing, Two])
def test_results_that_are_no_value(module, size):
    loss = make_loss(lambda: ValueOperator(module(), in_keys=["observation", "action"]), size)
    with pytest.raises(
        TypeError, match=r"qvalue_network must be a network of one|Nothing: .*tensors"
    ):
        values_and_gradients(loss, 5)


@pytest.mark.parametrize("size", [1, 2])
def test_several_inputs_into_a_sequential_are_refused(size):
    def make():
        return ValueOperator(nn.Sequential(nn.Linear(5, 1)), in_keys=["observation", "action"])

    message = (
        r"SoftQLoss: qvalue_network reads \['observation', 'action'\], but Sequential takes one"
    )
    with pytest.raises(ValueError, match=message):
        make_loss(make, size)


def test_networks_of_a_list_must_be_alike():
    keys = {"in_keys": ["observation", "action"]}
    relu = ValueOperator(MLP(5, 1, num_cells=[8], activation_class=nn.ReLU), **keys)
    turned = ValueOperator(MLP(5, 1, num_cells=[8]), in_keys=["action", "observation"])
    wide = ValueOperator(MLP(5, 1, num_cells=[9]), **keys)
    for other, message in (
        (relu, "activation_class of layer module is .*Tanh.*ReLU"),
        (turned, r"in_keys of the network is \['observation', 'action'\] in one and \['action'"),
        (wide, r"num_cells of layer module is \[8\] in one and \[9\]"),
    ):
        networks = iter([mlp_network(), other])
        with pytest.raises(
            ValueError, match=f"SoftQLoss: .* must have one architecture, but {message}"
        ):
            make_loss(lambda networks=networks: next(networks), 2)


@pytest.mark.parametrize(
    ("networks", "size", "error", "message"),
    [
        ([], 1, ValueError, "qvalue_network must hold at least one network, got none"),
        (None, 1, TypeError, "qvalue_network must be a TensorDictModule, .*got None"),
        ([mlp_network(), nn.Linear(5, 1)], 2, TypeError, "qvalue_network must be .*got Linear"),
        (mlp_network(), 2.0, TypeError, "num_qvalue_nets must be an integer >= 1, got 2.0"),
        (mlp_network(), True, TypeError, "num_qvalue_nets must be an integer >= 1, got True"),
        (mlp_network(), 0, ValueError, "num_qvalue_nets must be >= 1, got 0"),
    ],
)
def test_ensembles_that_cannot_be(networks, size, error, message):
    with pytest.raises(error, match=f"SoftQLoss: {message}"):
        make_ensemble("SoftQLoss", networks, size)


def test_an_ensemble_of_populations_is_drawn_anew():
    n = 3
    critic = ValueOperator(
        ParticleModule(lambda: MLP(5, 1, num_cells=[4]), n), in_keys=["observation", "action"]
    )
    actor = AmortizedSVGDActor(MLP(5, 2, num_cells=[8]), action_spec=Bounded(-1, 1, shape=(2,)))
    loss = SoftQLoss(actor, critic, num_qvalue_nets=2, num_action_samples=4)
    weights = loss.qvalue_network_params["module", "particles"]
    assert (weights[0] == critic.module.particles).all()
    assert (weights[0] != weights[1]).all()
    states = TensorDict({"observation": torch.randn(n, 4, 3)}, [n, 4])
    actions = torch.randn(n, 4, 2)
    x = torch.cat([states["observation"], actions], -1)
    want = torch.stack([critic.module.particle(i)(x[i]) for i in range(n)]).squeeze(-1)
    assert_close(loss._qvalues(loss.qvalue_network_params, states, actions)[0], want)
