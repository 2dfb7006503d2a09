"""EvolutionStrategiesLoss: what it leaves alone, its seed and state, errors."""

from copy import deepcopy

import pytest
import torch
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn

from tests.objectives.evolution_builders import (
    K,
    N,
    Quadratic,
    estimate,
    make_actor,
    make_loss,
    particles_of,
)
from torchrl_stein.modules import ParticleModule


def test_buffers_of_a_particle_go_to_its_perturbed_copies():
    def make():
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    actor = TensorDictModule(ParticleModule(make, N), ["observation"], ["action"])
    seen = {}

    def evaluate(policy, num_policies):
        seen["mean"] = policy.module.get_buffer("buffer/1/running_mean").clone()
        return torch.zeros(num_policies)

    loss = make_loss(evaluate, actor)
    mean = torch.arange(2.0 * N).view(N, 2)
    actor.module.get_buffer("buffer/1/running_mean").copy_(mean)
    loss()
    torch.testing.assert_close(seen["mean"], mean.repeat_interleave(2 * K, 0))


def test_the_particles_are_not_touched_even_if_evaluate_throws():
    def broken(policy, num_policies):
        raise RuntimeError("the simulator died")

    loss = make_loss(broken)
    before = particles_of(loss).detach().clone()
    with pytest.raises(RuntimeError, match="the simulator died"):
        loss()
    torch.testing.assert_close(particles_of(loss).detach(), before, rtol=0, atol=0)
    loss.evaluate = Quadratic()
    loss()["loss_actor"].backward()
    torch.testing.assert_close(particles_of(loss).detach(), before, rtol=0, atol=0)
    assert [name for name, _ in loss.named_parameters()] == [
        "actor_network_params.module.particles"
    ]


def test_the_policy_is_the_same_object_and_follows_the_particles():
    seen = []

    def evaluate(policy, num_policies):
        seen.append((policy, policy.module.particles.clone()))
        return torch.zeros(num_policies)

    loss = make_loss(evaluate)
    loss()
    with torch.no_grad():
        particles_of(loss).add_(100.0)
    loss()
    assert seen[0][0] is seen[1][0]
    moved = (seen[1][1] - seen[0][1]).mean().item()
    assert moved == pytest.approx(100, abs=0.1)


def test_reproducible_under_its_seed_alone():
    actor = make_actor()
    a, b, c = (make_loss(actor=deepcopy(actor), seed=seed) for seed in (1, 1, 2))
    state = torch.get_rng_state()
    first = estimate(a)
    assert torch.equal(torch.get_rng_state(), state)  # draws from its own generator only
    torch.manual_seed(99)
    torch.testing.assert_close(first, estimate(b), rtol=0, atol=0)
    assert not torch.equal(first, estimate(c))
    assert not torch.equal(first, estimate(a))  # new directions at every call


def test_without_a_seed_torch_governs():
    actor = make_actor()
    estimates = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        estimates.append(estimate(make_loss(actor=deepcopy(actor), seed=None)))
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.equal(estimates[0], estimates[2])


def test_a_state_dict_resumes_particles_and_directions():
    loss, other = make_loss(), make_loss(seed=5)
    loss()
    other.load_state_dict(deepcopy(loss.state_dict()))
    torch.testing.assert_close(estimate(loss), estimate(other), rtol=0, atol=0)


def test_casting_takes_the_perturbed_policies_along():
    dtypes = []

    def evaluate(policy, num_policies):
        dtypes.append(policy.module.particles.dtype)
        return torch.zeros(num_policies)

    assert make_loss(evaluate).float()()["loss_actor"].dtype == torch.float32
    assert dtypes == [torch.float32]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_same_directions_on_the_gpu():
    actor = make_actor()
    quadratic = Quadratic()
    want = estimate(make_loss(quadratic, deepcopy(actor)))
    quadratic.weights = quadratic.weights.cuda()
    got = estimate(make_loss(quadratic, actor).to("cuda"))
    torch.testing.assert_close(got.cpu(), want)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_directions": 0}, ValueError, "num_directions must be >= 1, got 0"),
        ({"num_directions": 2.0}, TypeError, "num_directions must be an integer >= 1, got 2.0"),
        ({"num_directions": True}, TypeError, "num_directions must be an integer >= 1, got True"),
        ({"scale": 0.0}, ValueError, "scale must be > 0, got 0.0"),
        ({"scale": -1.0}, ValueError, "scale must be > 0, got -1.0"),
        (
            {"shaping": "rank"},
            TypeError,
            "shaping must be a function of returns, got 'rank'",
        ),
        ({"evaluate": 3}, TypeError, "evaluate must be a function of a policy and N, got 3"),
        ({"actor": nn.Linear(3, 2)}, TypeError, "actor_network must be a Tensor.*got Linear"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=f"EvolutionStrategiesLoss: {message}"):
        make_loss(**options)


def test_an_actor_without_a_population():
    actor = TensorDictModule(nn.Linear(3, 2), ["observation"], ["action"])
    with pytest.raises(ValueError, match="actor_network must contain one ParticleModule, found 0"):
        make_loss(actor=actor)


def test_shared_parts_are_refused():
    with pytest.raises(ValueError, match=r"no parameters but the particles.*\['module.shared'\]"):
        make_loss(actor=make_actor(shared=["bias"]))


def test_other_parameters_are_refused():
    trunk = TensorDictModule(nn.Linear(3, 3), ["pixels"], ["observation"])
    with pytest.raises(ValueError, match=r"got also \['module.0.module.weight', "):
        make_loss(actor=TensorDictSequential(trunk, make_actor(dtype=torch.float32)))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (torch.zeros(23), ValueError, r"one number per policy, shape \[24\], got \[23\]"),
        (torch.zeros(24, 1), ValueError, r"one number per policy, shape \[24\], got \[24, 1\]"),
        (torch.full((24,), torch.nan), ValueError, "finite numbers, got 24 non-finite of 24"),
        ([0.0] * 24, TypeError, "a tensor, got list"),
    ],
)
def test_bad_returns(result, error, message):
    loss = make_loss(lambda policy, num_policies: result)
    with pytest.raises(error, match=f"EvolutionStrategiesLoss: evaluate must return .*{message}"):
        loss()
