"""BehaviourKernel: what it must not touch, its memory, and what it refuses."""

import copy
import math

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.envs.utils import ExplorationType, set_exploration_type

from tests.kernels.policies import ACTORS, N, batch, gaussian_actor, make_kernel, population
from torchrl_stein.kernels import BehaviourKernel
from torchrl_stein.testing import LargestTensor


def test_leaves_the_actor_the_gradients_and_the_seed_alone():
    actor = ACTORS["gaussian"](shared=["0"])
    net = population(actor)
    kernel = BehaviourKernel(actor, num_states=6)
    assert list(kernel.parameters()) == []  # the loss owns them
    assert kernel.state_dict() == {}
    before = {name: p.detach().clone() for name, p in actor.named_parameters()}
    objects = [id(p) for p in actor.parameters()]
    net.particles.grad = torch.ones_like(net.particles)
    random = torch.get_rng_state()
    kernel.observe(batch(N, 10))
    with set_exploration_type(ExplorationType.RANDOM):  # no action is drawn even then
        gram, repulsion = kernel.gram_and_repulsion(net.particles.detach() + 0.1)
    assert torch.equal(torch.get_rng_state(), random)
    assert not gram.requires_grad
    assert not repulsion.requires_grad
    assert [id(p) for p in actor.parameters()] == objects
    for name, parameter in actor.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad
    assert torch.equal(net.particles.grad, torch.ones_like(net.particles))
    assert net.shared.grad is None


class Fails(nn.Module):
    """Random in training mode; may break."""

    def __init__(self):
        super().__init__()
        self.particles = nn.Parameter(torch.randn(N, 3).double())
        self.dropout = nn.Dropout(0.5)
        self.broken = False

    def forward(self, observation):
        if self.broken:
            raise OSError("no")
        return self.dropout(observation.new_ones(1) * self.particles[:, None] * observation)


def test_a_network_that_throws_is_left_as_it_was():
    net = Fails()
    kernel = BehaviourKernel(TensorDictModule(net, ["observation"], ["logits"]))
    kernel.observe(batch(N, 3))
    particles, net.broken = net.particles, True
    with pytest.raises(OSError, match="no"):
        kernel(torch.zeros(N, 3).double())
    assert net.particles is particles
    assert net.training
    assert net.dropout.training


def test_dropout_is_off():
    net = Fails()
    kernel = BehaviourKernel(TensorDictModule(net, ["observation"], ["logits"]))
    kernel.observe(batch(N, 3))
    random, x = torch.get_rng_state(), net.particles.detach()
    assert torch.equal(kernel(x), kernel(x))
    assert torch.equal(torch.get_rng_state(), random)
    net.dropout.eval()  # each module gets its own mode back
    kernel(x)
    assert net.training
    assert not net.dropout.training


def test_memory():
    # n = 16, d = 20 002: [n, d] is 2.6 MB and [n, n, d] would be 41 MB.
    actor = gaussian_actor(16, inputs=10_000)
    kernel = BehaviourKernel(actor, num_states=4)
    kernel.observe(batch(16, 2, inputs=10_000))
    x = population(actor).particles.detach()
    with LargestTensor() as largest:
        kernel.gram_and_repulsion(x)
    # Inputs of 4 states for 16 particles are twice [n, d] here, an artefact of so wide a layer.
    assert largest.bytes <= 4 * x.nbytes


def test_copies_are_independent():
    kernel, net, x = make_kernel(outside_kernel=["2"])
    twin = copy.deepcopy(kernel)
    before = kernel(x)
    with torch.no_grad():
        net.particles += 1.0
    assert torch.equal(twin(x), before)
    assert not torch.equal(kernel(x), before)


def test_errors():
    actor = ACTORS["gaussian"]()
    x = population(actor).particles.detach()
    with pytest.raises(TypeError, match=r"BehaviourKernel: actor must be a Prob.*, got Linear"):
        BehaviourKernel(nn.Linear(1, 1))
    for options, message in (
        ({"divergence": "kl"}, r"divergence must be one of \['jensen_shannon', 'symmetric_kl'\]"),
        ({"scale": 0.0}, "scale must be > 0, got 0.0"),
        ({"scale": math.nan}, "scale must be finite and > 0, got nan"),
        ({"num_states": 0}, "num_states must be >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=rf"BehaviourKernel: {message}"):
            BehaviourKernel(actor, **options)
    plain = TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"])
    with pytest.raises(ValueError, match=r"exactly one population .* found \[\]"):
        BehaviourKernel(plain)
    kernel = BehaviourKernel(actor)
    with pytest.raises(RuntimeError, match=r"BehaviourKernel: no states .*call observe\(batch\)"):
        kernel(x)
    with pytest.raises(ValueError, match=r"observe needs at least one state, got .* \[4, 0\]"):
        kernel.observe(batch(N, 10)[:, :0])
    with pytest.raises(KeyError, match="observation"):
        kernel.observe(batch(N, 10).exclude("observation"))
    kernel.observe(batch(N, 10))
    with pytest.raises(ValueError, match=r"must have 26 columns .* got shape \[4, 25\]"):
        kernel(x[:, :-1])
    strange = TensorDictModule(population(actor), ["observation"], ["mean", "scale"])
    kernel = BehaviourKernel(strange)
    kernel.observe(batch(N, 10))
    with pytest.raises(ValueError, match=r"must write 'loc' and .* got \['mean', 'scale'\]"):
        kernel(x)
