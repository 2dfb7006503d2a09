"""Settings that do something else than they seem to: each is said once, or refused."""

import warnings

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import CompositeDistribution, NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.modules import IndependentNormal, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss, IPPOLoss, MAPPOLoss, PPOLoss

from tests.objectives.builders import NO_UPDATER, make_batch, make_loss, run
from tests.objectives.stein_builders import (
    OBS,
    batch,
    discrete,
    gaussian,
    make_stein,
    qvalue,
    value,
)
from tests.objectives.stein_builders import run as run_stein
from torchrl_stein.kernels import (
    BehaviourKernel,
    IMQKernel,
    Kernel,
    LayerwiseKernel,
    LinearKernel,
    RBFKernel,
)
from torchrl_stein.objectives import (
    LinearSchedule,
    LogLinearSchedule,
    SoftQLoss,
    SteinPolicyLoss,
    TRPOLoss,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def said(call, words):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if words in str(w.message)]


# A schedule that nobody advances


def calls(count, *, step_every=None, no_grad=False, schedule=None):
    loss, data = make_stein(temperature=schedule or LinearSchedule(1.0, 0.1, 10))

    def train():
        with torch.set_grad_enabled(not no_grad):
            for i in range(1, count + 1):
                loss(data)
                if step_every and i % step_every == 0:
                    loss.step()

    return said(train, "step() was not called")


@pytest.mark.parametrize(
    "schedule", [LogLinearSchedule(1.0, 0.1, 10), lambda step: 1.0 / (1 + step)]
)
def test_a_schedule_that_stands_still_is_said_once(schedule):
    (found,) = calls(520, schedule=schedule)
    assert "during 250 calls of the loss, so the schedule of the temperature is where it" in found


@pytest.mark.parametrize(
    "options",
    [{"count": 200}, {"count": 300, "step_every": 100}, {"count": 300, "no_grad": True}],
    ids=str,
)
def test_a_schedule_that_moves_or_may_yet(options):
    assert calls(**options) == []


def test_a_long_schedule_has_as_many_calls():
    """Many epochs of minibatches come before the first step of a run of a thousand iterations."""
    assert calls(400, schedule=LinearSchedule(1.0, 0.1, 1000)) == []


def test_a_constant_needs_no_step():
    loss, data = make_stein(temperature=1.0)
    assert said(lambda: [loss(data) for _ in range(260)], "step()") == []


# Advantages standardised together


@pytest.mark.parametrize("kind", [PPOLoss, ClipPPOLoss, MAPPOLoss, IPPOLoss])
def test_a_loss_that_pools_the_advantages_of_all_particles(kind):
    def build(**options):
        base = kind(gaussian(), value(), **options)
        return said(lambda: SteinPolicyLoss(base), "advantages of all particles together")

    (found,) = build(normalize_advantage=True)
    assert f"{kind.__name__}(normalize_advantage=True)" in found
    assert "normalize_advantage_exclude_dims=(0,)" in found
    assert build(normalize_advantage=True, normalize_advantage_exclude_dims=(0,)) == []
    assert build(normalize_advantage=False) == []


def test_trpo_keeps_them_apart():
    base = TRPOLoss(gaussian(), value())
    assert said(lambda: SteinPolicyLoss(base), "advantages") == []


# Bandwidths


class Custom(Kernel):
    def forward(self, x, y=None):
        return x @ (x if y is None else y).mT


KERNELS = {
    "rbf": RBFKernel,
    "fixed": lambda: RBFKernel(2.0),
    "scaled": lambda: 0.5 * RBFKernel(),
    "scaled twice": lambda: 2 * (0.5 * IMQKernel()),
    "sum": lambda: RBFKernel() + IMQKernel(),
    "product": lambda: RBFKernel() * LinearKernel(),
    "layers": lambda: LayerwiseKernel([slice(0, 1), slice(1, 2)]),
    "custom": Custom,
}


@pytest.mark.parametrize("name", KERNELS)
def test_both_losses_report_the_same_bandwidths(name):
    soft_q = make_loss(kernel=KERNELS[name]())
    actor = gaussian()
    dim = actor[0].module.kernel_dim
    kernel = KERNELS[name]()
    if name == "layers":
        kernel = LayerwiseKernel([slice(0, 2), slice(2, dim)])
    stein = SteinPolicyLoss(PPOLoss(actor, value()), kernel=kernel)
    reported = {
        "kernel_bandwidth" in run(soft_q, make_batch(6)),
        "kernel_bandwidth" in soft_q.out_keys,
        "kernel_bandwidth" in run_stein(stein, batch(actor)),
        "kernel_bandwidth" in stein.out_keys,
    }
    assert reported == {kernel.has_bandwidth}


@pytest.mark.parametrize("factor", [1, 0.5])
def test_a_kernel_of_policies_cannot_compare_actions(factor):
    kernel = factor * BehaviourKernel(gaussian())
    with pytest.raises(ValueError, match=r"SoftQLoss: kernel must compare actions .* BehaviourK"):
        make_loss(kernel=kernel)


# Actions of several parts


def composite(heads, wrapped=False):
    names = [f"part{i}" for i in range(heads)]
    keys = [("params", name, entry) for name in names for entry in ("loc", "scale")]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Linear(OBS, 4), NormalParamExtractor()) for _ in names
            )

        def forward(self, x):
            return tuple(part for layer in self.layers for part in layer(x))

    options = {
        "distribution_map": dict.fromkeys(names, IndependentNormal),
        "name_map": {name: ("action", name) for name in names},
    }
    kind = (lambda params, **kwargs: CompositeDistribution(params, **kwargs)) if wrapped else None
    return ProbabilisticActor(
        TensorDictModule(Net(), ["observation"], keys),
        in_keys=["params"],
        out_keys=[("action", name) for name in names],
        distribution_class=kind or CompositeDistribution,
        distribution_kwargs=options,
        return_log_prob=True,
    )


@pytest.mark.parametrize("heads", [1, 2])
def test_trpo_of_composite_actions(heads):
    message = r"TRPOLoss: .* must know the KL .* got CompositeDistribution, an action of several"
    with pytest.raises(TypeError, match=message):
        TRPOLoss(composite(heads))
    if heads == 1:  # of a function only the first call tells what it makes
        actor = composite(heads, wrapped=True)
        with torch.no_grad():
            data = actor(TensorDict({"observation": torch.randn(5, OBS)}, [5]))
        data["advantage"] = torch.randn(5, 1)
        with pytest.raises(TypeError, match=message):
            TRPOLoss(actor)(data)


# Words where numbers belong


def test_an_automatic_temperature_is_another_methods():
    with pytest.raises(TypeError, match="SoftQLoss: temperature must be a number > 0, got 'auto'"):
        make_loss(temperature="auto")
    message = "SteinPolicyLoss: temperature must be a number >= 0, got 'auto'"
    with pytest.raises(TypeError, match=message):
        make_stein(temperature="auto")


def test_soft_q_learning_needs_a_sampler_and_so_continuous_actions():
    message = "SoftQLoss: actor_network must be a SamplingActor .*, got ProbabilisticActor"
    with pytest.raises(TypeError, match=message):
        SoftQLoss(discrete(), qvalue())
