"""Squashed Gaussians and their mixtures: densities by theory, strata, shapes, errors."""

import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import TanhNormal

from torchrl_stein.modules import (
    ParticleModule,
    SamplingActor,
    TanhGaussianActor,
    TanhGaussianMixtureActor,
)

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])
SPEC = Bounded(LOW, HIGH, shape=(2,))
N = 4


def network():
    return nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())


def single():
    return TanhGaussianActor(network(), action_spec=SPEC)


def mixture(n=N):
    return TanhGaussianMixtureActor(ParticleModule(network, n), action_spec=SPEC)


def states(*batch):
    return TensorDict({"observation": torch.randn(*batch, 3)}, batch)


@pytest.mark.parametrize("make", [single, mixture])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_shapes_and_gradients(make, batch):
    actor, data = make(), states(*batch)
    assert isinstance(actor, SamplingActor)
    actions, log_prob = actor.sample_with_log_prob(data, 6)
    assert actions.shape == (*batch, 6, 2)
    assert log_prob.shape == (*batch, 6)
    assert ((actions >= LOW) & (actions <= HIGH)).all()
    (actions.sum() + log_prob.sum()).backward()
    assert all(p.grad.abs().sum() > 0 for p in actor.parameters())
    assert actor(data)["action"].shape == (*batch, 2)


def test_density_is_that_of_tanh_normal():
    actor, data = single(), states(7)
    actions, log_prob = actor.sample_with_log_prob(data, 5)
    loc, scale = actor.network(data["observation"])
    theirs = TanhNormal(loc.unsqueeze(1), scale.unsqueeze(1), low=LOW, high=HIGH)
    assert_close(log_prob, theirs.log_prob(actions), rtol=1e-3, atol=1e-3)


def test_density_of_a_mixture_is_the_mean_of_its_particles():
    actor, data = mixture(), states(7)
    actions, log_prob = actor.sample_with_log_prob(data, 5)
    densities = []
    for i in range(N):
        loc, scale = actor.network.particle(i)(data["observation"])
        each = TanhNormal(loc.unsqueeze(1), scale.unsqueeze(1), low=LOW, high=HIGH)
        densities.append(each.log_prob(actions).exp())
    assert_close(log_prob, torch.stack(densities).mean(0).log(), rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("make", [single, mixture])
def test_densities_integrate_to_one(make):
    """E[1 / p] over samples of p is the volume of the box, 8."""
    actor = make().double()
    _, log_prob = actor.sample_with_log_prob(states().double(), 400_000)
    inverse = (-log_prob).exp()
    # heavy-tailed towards the faces, where the density vanishes: 5 standard errors and a floor
    error = 5 * inverse.std() / math.sqrt(len(inverse)) + 0.1
    assert abs(inverse.mean() - 8.0) < error < 1.5


def test_a_mixture_of_one_is_a_single_gaussian():
    actor, data = mixture(1), states(6)
    alone = TanhGaussianActor(actor.network.particle(0), action_spec=SPEC)
    noise = actor.draw_noise(data, 5)
    assert (noise[..., -1] == 0).all()
    assert_close(actor.unsquashed(data, noise), alone.unsquashed(data, noise[..., :-1]))


def test_samples_of_a_state_are_stratified_over_particles():
    actor = mixture()
    numbers = actor.draw_noise(states(200), 2 * N)[..., -1]
    counts = torch.stack([(numbers == i).sum(-1) for i in range(N)])
    assert (counts == 2).all()
    # and one draw per state comes from each particle equally often
    first = actor.draw_noise(states(4000), 1)[..., 0, -1]
    frequency = torch.bincount(first.long(), minlength=N) / 4000
    assert (frequency - 1 / N).abs().max() < 5 * math.sqrt(0.25 * 0.75 / 4000)


@pytest.mark.parametrize("sizes", [[3, 3], [N, 2], [5, 7]])
def test_sets_of_noise_are_independent(sizes):
    """The second set says nothing of the first, also where n divides neither size."""
    first, second = mixture().draw_noise_sets(states(4000), sizes)
    assert [first.shape[-2], second.shape[-2]] == sizes
    same = (first[:, 0, -1] == second[:, 0, -1]).float().mean()
    assert abs(same - 1 / N) < 5 * math.sqrt(1 / N * (1 - 1 / N) / 4000)
    numbers = torch.stack([(first[..., -1] == i).sum(-1) for i in range(N)])
    assert numbers.amax() - numbers.amin() <= 1  # stratified each


def test_noise_names_the_particle_that_acts():
    actor, data = mixture(), states(6)
    noise = actor.draw_noise(data, 9)
    u = actor.unsquashed(data, noise)
    for k in range(9):
        for b in range(6):
            net = actor.network.particle(int(noise[b, k, -1]))
            loc, scale = net(data["observation"][b])
            assert_close(u[b, k], loc + scale * noise[b, k, :-1])


@pytest.mark.parametrize("make", [single, mixture])
def test_deterministic_exploration_is_the_mean_of_the_first(make):
    actor, data = make(), states(5)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        one, two = actor(data.clone())["action"], actor(data.clone())["action"]
    assert_close(one, two, rtol=0, atol=0)
    net = actor.network if make is single else actor.network.particle(0)
    loc, _ = net(data["observation"])
    assert_close(one, actor.squash(loc))


def test_bad_input():
    with pytest.raises(TypeError, match="network must be a ParticleModule, got Sequential"):
        TanhGaussianMixtureActor(network(), action_spec=SPEC)
    wide = nn.Sequential(nn.Linear(3, 6), NormalParamExtractor())
    with pytest.raises(ValueError, match=r"must return loc of shape \[5, 2\] .*, got \[5, 3\]"):
        TanhGaussianActor(wide, action_spec=SPEC)(states(5))
    wide = ParticleModule(lambda: nn.Sequential(nn.Linear(3, 6), NormalParamExtractor()), 2)
    with pytest.raises(ValueError, match=r"must return loc of shape \[2, 5, 2\] .*got \[2, 5, 3\]"):
        TanhGaussianMixtureActor(wide, action_spec=SPEC)(states(5))
    for make in (single, mixture):
        with pytest.raises(KeyError, match="the batch lacks key 'observation'"):
            make()(TensorDict({"pixels": torch.zeros(2, 3)}, [2]))
        with pytest.raises(ValueError, match="num_samples must be >= 1, got 0"):
            make().sample(states(2), 0)
    with pytest.raises(TypeError, match=r"TanhGaussianActor: action_spec must be .* Bounded"):
        TanhGaussianActor(network(), action_spec=None)


def test_several_seeds():
    two = ParticleModule(network, (2, 3))
    actor, data = TanhGaussianActor(two, action_spec=SPEC), states(2, 3, 5)
    actions, log_prob = actor.sample_with_log_prob(data, 4)
    assert (actions.shape, log_prob.shape) == ((2, 3, 5, 4, 2), (2, 3, 5, 4))
    loc, scale = two.particle(1, 2)(data["observation"][1, 2])
    noise = torch.zeros(2, 3, 5, 1, 2)
    assert_close(actor.unsquashed(data, noise)[1, 2, :, 0], loc)
    assert_close(actor.unsquashed(data, noise + 1)[1, 2, :, 0], loc + scale)


def test_a_mixture_of_each_seed():
    two = ParticleModule(network, (2, 3))
    actor, data = TanhGaussianMixtureActor(two, action_spec=SPEC), states(2, 5)
    noise = actor.draw_noise(data, 4)
    actor.draw_noise = lambda *_: noise
    actions, log_prob = actor.sample_with_log_prob(data, 4)
    assert (actions.shape, log_prob.shape) == ((2, 5, 4, 2), (2, 5, 4))
    for s in range(2):
        alone = TanhGaussianMixtureActor(two.seed(s), action_spec=SPEC)
        alone.draw_noise = lambda *_, s=s: noise[s]
        own_actions, own_log_prob = alone.sample_with_log_prob(data[s], 4)
        assert_close(actions[s], own_actions)
        assert_close(log_prob[s], own_log_prob)
    with pytest.raises(ValueError, match=r"must begin with \[2\], for .* \(2, 3\), got \[5\]"):
        actor.sample(data[0], 4)
