"""No public name of objectives takes a number that it cannot mean, or lets one pass later."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict.nn import TensorDictModule
from torch import nn

from tests.objectives.builders import (
    NO_UPDATER,
    make_actor,
    make_batch,
    make_loss,
    make_qvalue,
    run,
)
from tests.objectives.stein_builders import N, batch, gaussian, make_base, make_stein, value
from tests.objectives.stein_builders import run as run_stein
from tests.objectives.test_soft_qv import make_loss as make_value_loss
from tests.objectives.trpo_builders import data_of
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import (
    ActionSpace,
    EvolutionStrategiesLoss,
    GaussianPrior,
    LinearSchedule,
    LogLinearSchedule,
    NaturalGradientStep,
    SinkhornCost,
    SoftQLoss,
    SteinPolicyLoss,
    TransportCost,
    TRPOLoss,
    WassersteinTrustRegionLoss,
    WGFPotential,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

WORDS = ["1", [1.0], {}, True, False, torch.ones(2), 1j]
NOT_FINITE = [math.nan, math.inf, -math.inf, np.float32("nan"), torch.tensor(math.inf)]
BAD = {
    "positive": [*WORDS, *NOT_FINITE, 0.0, -1.0, -1e-300],
    "non-negative": [*WORDS, *NOT_FINITE, -1e-9, -1],
    "fraction": [*WORDS, *NOT_FINITE, 0.0, 1.0, 2],
    "discount": [*WORDS[:1], *WORDS[2:5], *NOT_FINITE, -0.01, 1.01],
    "count": [*WORDS, *NOT_FINITE, 0, -1, 2.5, 2.0],
    "seed": [*WORDS, *NOT_FINITE, -1, 2.5],
    "number": [*WORDS[:1], *WORDS[2:5], *NOT_FINITE],
}
NONE_IS_A_CHOICE = {"critic_coeff", "regularization", "seed", "SoftQLoss num_value_samples"}


def strategies(**options):
    net = ParticleModule(lambda: nn.Linear(2, 1), 2)
    actor = TensorDictModule(net, ["observation"], ["action"])
    return EvolutionStrategiesLoss(actor, lambda policy, count: torch.zeros(count), **options)


def natural(**options):
    return NaturalGradientStep(TRPOLoss(gaussian()), **options)


def region(**options):
    return WassersteinTrustRegionLoss(make_actor(), **options)


def soft_q_ensemble(num_qvalue_nets):
    return SoftQLoss(make_actor(), make_qvalue(), num_qvalue_nets=num_qvalue_nets)


def stein(**options):
    return SteinPolicyLoss(make_base("A2CLoss")[0], **options)


def assign(make, name):
    return lambda **given: setattr(make(), name, given[name])


def estimate(make):
    return lambda **given: make().make_value_estimator(**given)


# What is called, the argument, what kind of number it takes.
DOORS = {
    "LinearSchedule start": (lambda start: LinearSchedule(start, 1.0, 5), "non-negative"),
    "LinearSchedule end": (lambda end: LinearSchedule(1.0, end, 5), "non-negative"),
    "LinearSchedule num_steps": (lambda num_steps: LinearSchedule(1.0, 0.0, num_steps), "count"),
    "LogLinearSchedule start": (lambda start: LogLinearSchedule(start, 1.0, 5), "positive"),
    "LogLinearSchedule end": (lambda end: LogLinearSchedule(1.0, end, 5), "positive"),
    "LogLinearSchedule num_steps": (
        lambda num_steps: LogLinearSchedule(1.0, 2.0, num_steps),
        "count",
    ),
    "GaussianPrior std": (lambda std: GaussianPrior(std), "positive"),
    "GaussianPrior mean": (lambda mean: GaussianPrior(1.0, mean), "number"),
    "GaussianPrior.around std": (
        lambda std: GaussianPrior.around(ParticleModule(lambda: nn.Linear(1, 1), 2), std),
        "positive",
    ),
    "TransportCost regularization": (TransportCost, "positive"),
    "WGFPotential regularization": (WGFPotential, "positive"),
    "SinkhornCost regularization": (SinkhornCost, "positive"),
    "SinkhornCost num_iterations": (SinkhornCost, "count"),
    "EvolutionStrategiesLoss num_directions": (strategies, "count"),
    "EvolutionStrategiesLoss scale": (strategies, "positive"),
    "EvolutionStrategiesLoss seed": (strategies, "seed"),
    "NaturalGradientStep max_kl": (natural, "positive"),
    "NaturalGradientStep damping": (natural, "non-negative"),
    "NaturalGradientStep iterations": (natural, "count"),
    "NaturalGradientStep shrinkage": (natural, "fraction"),
    "NaturalGradientStep num_candidates": (natural, "count"),
    "NaturalGradientStep fisher_stride": (natural, "count"),
    "TRPOLoss critic_coeff": (
        lambda critic_coeff: TRPOLoss(gaussian(), value(), critic_coeff=critic_coeff),
        "non-negative",
    ),
    "TRPOLoss gamma": (estimate(lambda: TRPOLoss(gaussian(), value())), "discount"),
    "TRPOLoss lmbda": (estimate(lambda: TRPOLoss(gaussian(), value())), "discount"),
    "WassersteinTrustRegionLoss weight": (region, "non-negative"),
    "WassersteinTrustRegionLoss.weight": (assign(region, "weight"), "non-negative"),
    "ActionSpace num_action_samples": (ActionSpace, "count"),
    "SoftQLoss temperature": (make_loss, "positive"),
    "SoftQLoss.temperature": (assign(make_loss, "temperature"), "positive"),
    "SoftQLoss num_action_samples": (make_loss, "count"),
    "SoftQLoss num_value_samples": (make_loss, "count"),
    "SoftQLoss num_qvalue_nets": (soft_q_ensemble, "count"),
    "SoftQLoss gamma": (estimate(make_loss), "discount"),
    "SoftQVLoss temperature": (make_value_loss, "positive"),
    "SoftQVLoss.temperature": (assign(make_value_loss, "temperature"), "positive"),
    "SoftQVLoss num_action_samples": (make_value_loss, "count"),
    "SoftQVLoss num_value_samples": (make_value_loss, "count"),
    "SteinPolicyLoss temperature": (stein, "non-negative"),
    "SteinPolicyLoss.temperature": (assign(stein, "temperature"), "non-negative"),
    "SteinPolicyLoss gamma": (estimate(stein), "discount"),
}
CASES = [
    pytest.param(door, bad, id=f"{door}={bad!r}")
    for door, (_, kind) in DOORS.items()
    for bad in [*BAD[kind], None]
    if not (bad is None and {door, re.split(r"[ .]", door)[-1]} & NONE_IS_A_CHOICE)
]


@pytest.mark.parametrize(("door", "bad"), CASES)
def test_a_number_that_cannot_be_meant(door, bad):
    call, _ = DOORS[door]
    *_, argument = re.split(r"[ .]", door)
    if argument == "gamma" and bad is None:
        return  # TorchRL's way to leave it out
    owner = door.split(" ")[0].split(".")[0]
    with pytest.raises((TypeError, ValueError)) as error:
        call(**{argument: bad})
    words = str(error.value)
    assert re.match(rf"{owner}: {argument} must be ", words), words
    assert ", got " in words
    wrong_kind = isinstance(bad, (str, dict, bool, complex, type(None)))
    assert wrong_kind <= (error.type is TypeError)


GOOD = {
    "positive": [1, 0.5, np.float32(0.5), np.int64(2), torch.tensor(0.5)],
    "non-negative": [0, 0.0, 1, np.float64(0.5), torch.tensor(0)],
    "fraction": [0.5, np.float32(0.25)],
    "discount": [0.0, 1.0, 0.9, 1],
    "count": [1, 2, np.int64(2)],
    "seed": [0, 3, np.int64(2)],
    "number": [0, -1.5, torch.zeros(3), [0.0, 1.0], np.zeros(3)],
}


@pytest.mark.parametrize("door", DOORS)
def test_numbers_of_any_kind_that_can(door):
    call, kind = DOORS[door]
    argument = re.split(r"[ .]", door)[-1]
    for good in GOOD[kind]:
        if argument != "start" or door.startswith("Linear") or good != 0:
            call(**{argument: good})


# Later


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, "0.1", None])
def test_a_step_size_assigned_later(bad):
    actor = gaussian()
    step = NaturalGradientStep(TRPOLoss(actor))
    step.max_kl = bad
    with pytest.raises((TypeError, ValueError), match="NaturalGradientStep: max_kl must be"):
        step.step(data_of(actor, N, 4))


@pytest.mark.parametrize("bad", [-1.0, math.nan, "hot", None])
def test_what_a_schedule_returns_later(bad):
    loss = stein(temperature=lambda step: bad if step else 1.0)
    with pytest.raises((TypeError, ValueError), match="SteinPolicyLoss: temperature must be"):
        loss.step()
    assert loss.temperature == 1.0


def test_an_assigned_temperature_keeps_its_place():
    for loss in (make_loss(), stein()):
        buffer = loss.temperature
        for value_of in (0.25, torch.tensor(0.25, dtype=torch.float64), np.float32(0.25)):
            loss.temperature = value_of
            assert loss.temperature == 0.25
            assert loss.temperature.dtype == buffer.dtype
            assert "temperature" in loss.state_dict()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(number=st.one_of(st.floats(), st.integers(), st.text(max_size=3), st.booleans(), st.none()))
def test_a_schedule_is_finite_for_whatever_it_took(number):
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if is_number and 0 < number < math.inf:
        schedule = LogLinearSchedule(number, 1.0, 5)
        assert all(math.isfinite(schedule(step)) for step in range(8))
    else:
        with pytest.raises((TypeError, ValueError), match="LogLinearSchedule: start must be"):
            LogLinearSchedule(number, 1.0, 5)


# Numbers in a batch: every entry that a loss reads, on the CPU.


def poisoned(data, key, bad):
    data = data.clone()
    entry = data[key]
    entry.view(-1)[entry.numel() // 2] = bad
    return data


bad_numbers = pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
TRANSITION = ["observation", "action", ("next", "observation"), ("next", "reward")]


@bad_numbers
@pytest.mark.parametrize("key", TRANSITION, ids=str)
@pytest.mark.parametrize(
    ("make", "owner"), [(make_loss, "SoftQLoss"), (make_value_loss, "SoftQVL")]
)
def test_soft_q_learning_of_numbers_that_are_none(make, owner, key, bad):
    with pytest.raises(ValueError, match=rf"{owner}.*{re.escape(repr(key))} must be finite"):
        run(make(), poisoned(make_batch(6), key, bad))


@bad_numbers
def test_the_samplers_own_loss(bad):
    with pytest.raises(ValueError, match="SoftQLoss: 'observation' must be finite"):
        make_loss().actor_loss(poisoned(make_batch(6), "observation", bad))


@bad_numbers
@pytest.mark.parametrize(
    "key", ["observation", "action", "advantage", "action_log_prob", "loc", "scale"]
)
def test_trpo_of_numbers_that_are_none(key, bad):
    actor = gaussian()
    with pytest.raises(ValueError, match=f"TRPOLoss: '{key}' must be finite, got 1 non-finite"):
        TRPOLoss(actor)(poisoned(data_of(actor, N, 4), key, bad))


@bad_numbers
@pytest.mark.parametrize("name", ["A2CLoss", "ClipPPOLoss", "SACLoss", "TD3Loss", "IQLLoss"])
def test_wrapped_losses_of_numbers_that_are_none(name, bad):
    loss, data = make_stein(name)
    keys = ["observation", "action"]
    if name in ("A2CLoss", "ClipPPOLoss"):
        keys += ["advantage", "value_target"]
    else:
        keys += TRANSITION[2:]
    run_stein(loss, data)
    for key in keys:
        message = rf"SteinPolicyLoss: {re.escape(repr(key))} must be finite, got 1 non-finite"
        with pytest.raises(ValueError, match=message):
            run_stein(loss, poisoned(data, key, bad))


def test_what_no_loss_reads_may_be_anything():
    """TorchRL fills successors of rows that did not end with NaN, and advantages replace them."""
    loss, data = make_stein("A2CLoss")
    run_stein(loss, poisoned(data, ("next", "observation"), math.nan))
    actor = gaussian()
    data = batch(actor).exclude("advantage", "value_target")
    estimating = SteinPolicyLoss(TRPOLoss(actor, value()))
    run_stein(estimating, data)
    with pytest.raises(ValueError, match=r"'reward'\) must be finite"):
        run_stein(estimating, poisoned(data, ("next", "reward"), math.nan))
