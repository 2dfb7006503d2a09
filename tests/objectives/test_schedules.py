"""Schedules of the temperature, and SteinPolicyLoss.step, which advances them."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.objectives.stein_builders import make_stein, run
from torchrl_stein.objectives import LinearSchedule, LogLinearSchedule


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (LinearSchedule(10.0, 2.0, num_steps=4), {0: 10.0, 1: 8.0, 3: 4.0, 4: 2.0, 99: 2.0}),
        (LinearSchedule(0.0, 1.0, num_steps=2), {0: 0.0, 1: 0.5, 2: 1.0}),
        (LogLinearSchedule(100.0, 1.0, num_steps=4), {0: 100.0, 2: 10.0, 4: 1.0, 99: 1.0}),
        (LogLinearSchedule(1.0, 8.0, num_steps=3), {1: 2.0, 2: 4.0, 3: 8.0}),
    ],
)
def test_values_by_hand(schedule, values):
    for step, want in values.items():
        assert schedule(step) == pytest.approx(want)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LinearSchedule(-1.0, 0.0, 5), "LinearSchedule: start must be >= 0, got -1.0"),
        (
            lambda: LinearSchedule(1.0, math.inf, 5),
            "LinearSchedule: end must be finite and >= 0, got inf",
        ),
        (lambda: LinearSchedule(1.0, 0.0, 0), "LinearSchedule: num_steps must be >= 1, got 0"),
        (lambda: LogLinearSchedule(0.0, 1.0, 5), "LogLinearSchedule: start must be > 0, got 0.0"),
        (lambda: LogLinearSchedule(1.0, 0.0, 5), "LogLinearSchedule: end must be > 0, got 0.0"),
        (lambda: LogLinearSchedule(1.0, 2.0, -3), "LogLinearSchedule: num_steps must be >= 1"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "schedule", [LinearSchedule(4.0, 0.0, num_steps=4), lambda step: max(4 - step, 0)]
)
def test_step_advances_the_temperature(schedule):
    loss, data = make_stein(temperature=schedule)
    seen = [run(loss, data)["temperature"].item()]
    for _ in range(5):
        loss.step()
        seen.append(run(loss, data)["temperature"].item())
    assert seen == [4.0, 3.0, 2.0, 1.0, 0.0, 0.0]


NUMBERS = [
    int,
    np.float32,
    np.int64,
    Fraction,
    torch.tensor,
    lambda value: torch.tensor(float(value), requires_grad=True),
]


@pytest.mark.parametrize("number", NUMBERS)
def test_temperatures_are_numbers_of_any_kind(number):
    schedule = lambda step: number(3 + step)  # noqa: E731
    loss = make_stein(temperature=schedule)[0]
    assert loss.temperature.item() == 3.0
    loss.step()
    assert loss.temperature.item() == 4.0
    assert not loss.temperature.requires_grad
    assert make_stein(temperature=number(3))[0].temperature.item() == 3.0


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (np.bool_(True), TypeError),
        (torch.tensor(True), TypeError),
        (torch.tensor(1j), TypeError),
        (torch.ones(1), TypeError),
        (np.float32("nan"), ValueError),
        (torch.tensor(-1.0), ValueError),
        (torch.tensor(math.inf), ValueError),
    ],
    ids=repr,
)
def test_what_is_no_temperature(value, error):
    for temperature in (value, lambda step: value):
        with pytest.raises(error, match=r"SteinPolicyLoss: temperature must be .*, got "):
            make_stein(temperature=temperature)


def test_a_constant_stays():
    loss = make_stein(temperature=0.3)[0]
    loss.step()
    assert loss.temperature.item() == 0.3
    loss.temperature = 3.0
    loss.step()
    assert loss.temperature.item() == 3.0
    assert loss.iteration.item() == 2
