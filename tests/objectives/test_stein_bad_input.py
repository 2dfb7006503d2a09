"""SteinPolicyLoss names the argument, what it expected and what came."""

import math
import re

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import IndependentNormal, ProbabilisticActor, ValueOperator
from torchrl.objectives import A2CLoss

from tests.objectives.stein_builders import (
    ACT,
    OBS,
    N,
    batch,
    gaussian,
    make_base,
    make_stein,
    run,
    value,
)
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import LinearSchedule, SteinPolicyLoss


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kernel": "rbf"}, TypeError, "kernel must be a Kernel, got 'rbf'"),
        ({"kernel": RBFKernel}, TypeError, "kernel must be a Kernel, got the class RBFK"),
        ({"temperature": "10"}, TypeError, "temperature must be a number >= 0, got '10'"),
        ({"temperature": True}, TypeError, "temperature must be a number >= 0, got True"),
        ({"temperature": None}, TypeError, "temperature must be a number >= 0, got None"),
        ({"temperature": -0.1}, ValueError, "temperature must be >= 0, got -0.1"),
        ({"temperature": math.nan}, ValueError, "temperature must be finite and >= 0, got nan"),
        ({"temperature": math.inf}, ValueError, "temperature must be finite and >= 0, got inf"),
        ({"temperature": lambda step: -1.0}, ValueError, "temperature must be >= 0, got -1.0"),
        ({"temperature": lambda step: "hot"}, TypeError, "temperature must be .*, got 'hot'"),
        ({"coupled": "actor"}, ValueError, "coupled='actor' names no .* of A2CLoss"),
        ({"coupled": "qvalue_network_params"}, ValueError, "coupled='qvalue_.* of A2CLoss"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=f"SteinPolicyLoss: {message}"):
        SteinPolicyLoss(make_base("A2CLoss")[0], **options)


def test_no_loss():
    with pytest.raises(TypeError, match="loss_module must be a TorchRL LossModule, got Linear"):
        SteinPolicyLoss(nn.Linear(2, 2))


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_loss_that_does_not_average(reduction):
    base = A2CLoss(gaussian(), value(), reduction=reduction)
    with pytest.raises(ValueError, match=f"must average .*got reduction='{reduction}'"):
        SteinPolicyLoss(base)


def test_a_loss_that_is_not_functional():
    base = A2CLoss(gaussian(), value(), functional=False)
    with pytest.raises(ValueError, match="coupled='actor_network_params' names no functional"):
        SteinPolicyLoss(base)


def actor_of(*modules):
    return ProbabilisticActor(
        TensorDictModule(nn.Sequential(*modules), ["observation"], ["loc"]),
        in_keys=["loc"],
        distribution_class=lambda loc: IndependentNormal(loc, torch.ones_like(loc)),
        return_log_prob=True,
    )


@pytest.mark.parametrize("count", [0, 2])
def test_not_one_population(count):
    layers = [ParticleModule(lambda: nn.Linear(OBS, OBS), N) for _ in range(count)]
    base = A2CLoss(actor_of(*layers, nn.Linear(OBS, ACT)), ValueOperator(nn.Linear(OBS, 1)))
    message = f"actor_network must contain one ParticleModule, found {count}"
    with pytest.raises(ValueError, match=f"SteinPolicyLoss: {message}"):
        SteinPolicyLoss(base)


@pytest.mark.parametrize("shape", [(), (4, N), (2 * N,)], ids=str)
def test_a_batch_of_other_particles(shape):
    loss, data = make_stein()
    wrong = data[0, 0].expand(shape).clone()
    with pytest.raises(
        ValueError, match=rf"leading dimension {N} .*got batch size {re.escape(str(list(shape)))}"
    ):
        run(loss, wrong)


def test_particles_that_are_not_finite():
    loss, data = make_stein()
    with torch.no_grad():
        loss.particles[1, 2] = math.nan
    with pytest.raises(ValueError, match="'particles' must be finite, got 1 non-finite of"):
        run(loss, data)


def test_a_schedule_that_becomes_negative():
    schedule = LinearSchedule(1.0, 0.0, num_steps=2)
    loss = make_stein(temperature=lambda step: schedule(step) - 0.5)[0]
    loss.step()
    with pytest.raises(ValueError, match=r"temperature must be >= 0, got -0\.5"):
        loss.step()


def test_a_non_particle_critic_is_fine():
    torch.manual_seed(0)
    actor = gaussian()
    base = A2CLoss(actor, ValueOperator(nn.Linear(OBS, 1).double()))
    assert run(SteinPolicyLoss(base), batch(actor))["loss_critic"].isfinite()
