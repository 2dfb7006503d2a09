"""What the trust region refuses, and what it warns of."""

import warnings
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import distributions as D
from torch import nn
from torchrl.modules import OneHotCategorical, ProbabilisticActor
from torchrl.objectives import HardUpdate, SoftUpdate

from tests.objectives.builders import NO_UPDATER, make_actor
from tests.objectives.trust_region_builders import nudge, probabilistic, states
from torchrl_stein.objectives import (
    ActionSpace,
    ParameterSpace,
    SinkhornCost,
    WassersteinTrustRegionLoss,
    wasserstein,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def test_bad_input():
    with pytest.raises(TypeError, match="cost must be a TransportCost, got the class Sink"):
        WassersteinTrustRegionLoss(make_actor(), cost=SinkhornCost)
    with pytest.raises(ValueError, match=r"weight must be >= 0, got -0\.1"):
        WassersteinTrustRegionLoss(make_actor(), weight=-0.1)
    with pytest.raises(TypeError, match="weight must be a number >= 0, got None"):
        WassersteinTrustRegionLoss(make_actor(), weight=None)
    with pytest.raises(ValueError, match="ActionSpace: num_action_samples must be >= 1, got 0"):
        ActionSpace(0)
    for space in ("action", ActionSpace):
        with pytest.raises(
            TypeError, match=r"space must be an ActionSpace or a ParameterSpace, got"
        ):
            WassersteinTrustRegionLoss(make_actor(), space=space)
    with pytest.raises(ValueError, match="reduction must be one of"):
        WassersteinTrustRegionLoss(make_actor(), reduction="median")
    with pytest.raises(KeyError, match="lacks key 'observation', it holds pixels"):
        WassersteinTrustRegionLoss(make_actor())(TensorDict({"pixels": torch.zeros(2, 3)}, [2]))


def test_the_wrong_space_for_the_policy():
    with pytest.raises(ValueError, match="actor_network must contain one ParticleModule, found 0"):
        WassersteinTrustRegionLoss(make_actor(), space=ParameterSpace())
    discrete = ProbabilisticActor(
        TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
    )
    with pytest.raises(TypeError, match=r"OneHotCategorical, which is discrete.*ParameterSpace"):
        WassersteinTrustRegionLoss(discrete)
    # Of a wrapper only an instance can tell.
    wrapped = ProbabilisticActor(
        TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=lambda logits: D.Independent(D.Bernoulli(logits=logits), 1),
    )
    region = WassersteinTrustRegionLoss(wrapped)
    with pytest.raises(TypeError, match=r"Independent, which is discrete.*ParameterSpace"):
        region(TensorDict({"observation": torch.zeros(2, 3)}, [2]))
    # Straight-through samples have a gradient and are discrete all the same.
    through = ProbabilisticActor(
        TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=D.OneHotCategoricalStraightThrough,
    )
    with pytest.raises(TypeError, match="OneHotCategoricalStraightThrough, which is discrete"):
        WassersteinTrustRegionLoss(through)(TensorDict({"observation": torch.zeros(2, 3)}, [2]))
    plain = TensorDictModule(nn.Linear(3, 2), ["observation"], ["action"])
    with pytest.raises(TypeError, match=r"a SamplingActor or a ProbabilisticActor.*TensorDictM"):
        WassersteinTrustRegionLoss(plain)


def test_warns_once_if_the_previous_policy_never_moves(monkeypatch):
    monkeypatch.setattr(wasserstein, "_ACTION_PATIENCE", 5)
    batch = states(2)

    def run(updated, learns):
        actor = make_actor()
        region = WassersteinTrustRegionLoss(actor, space=ActionSpace(2))
        previous = SoftUpdate(region, tau=0.5)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(12):
                region(batch)
                if learns:
                    nudge(actor)
                if updated:
                    previous.step()
        return [str(w.message) for w in caught if "stood still" in str(w.message)]

    assert len(run(updated=False, learns=True)) == 1
    assert "SoftUpdate or HardUpdate" in run(updated=False, learns=True)[0]
    assert run(updated=True, learns=True) == []
    assert run(updated=False, learns=False) == []  # nothing to follow


def test_a_population_is_warned_within_a_run():
    """Whole runs of recipes/svpg.py have a few hundred updates."""
    actor = probabilistic(particles=3)
    region = WassersteinTrustRegionLoss(actor, space=ParameterSpace())
    for _ in range(99):
        region(TensorDict())
        nudge(actor)
    with pytest.warns(UserWarning, match="stood still for 100 calls"):
        region(TensorDict())


# The order of the updater and the optimizer


TWO_ACTIONS = ActionSpace(2)


def order(when, *, space=TWO_ACTIONS, learns=True, updater=None, calls=60, weight=0.4, start=0):
    """What is said in a run that updates the previous policy ``when`` the policy has learnt."""
    of_actions = isinstance(space, ActionSpace)
    actor = make_actor() if of_actions else probabilistic(particles=3)
    region = WassersteinTrustRegionLoss(actor, space=space, weight=weight)
    previous = (updater or partial(HardUpdate, value_network_update_interval=0))(region)
    batch = states(3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for call in range(calls):
            region(batch)
            if when == "before":
                previous.step()
            if learns and call >= start:
                nudge(actor)
            if when == "after" or (when == "sometimes" and call % 5 == 0):
                previous.step()
    return [str(w.message) for w in caught if "Wasserstein" in str(w.message)]


@pytest.mark.parametrize("space", [TWO_ACTIONS, ParameterSpace()])
def test_an_updater_after_the_optimizer_is_warned_of_once(space):
    (said,) = order("after", space=space, calls=200)
    assert "equal to the present one at each of 5 looks during 55 calls" in said
    assert "between backward() and the optimizer's step, not after it" in said


def test_a_moving_average_that_is_none_is_the_same_fault():
    assert len(order("after", updater=partial(SoftUpdate, tau=1.0))) == 1


@pytest.mark.parametrize(
    ("when", "options"),
    [
        ("before", {}),
        ("after", {"learns": False}),
        ("after", {"weight": 0.0}),
        ("after", {"updater": partial(SoftUpdate, tau=0.1)}),
        ("sometimes", {}),
        ("before", {"start": 40}),  # the policy waits for its critic
    ],
)
def test_what_is_right_in_its_order_is_quiet(when, options):
    assert order(when, **options) == []


@pytest.mark.parametrize("interval", [1, 2, 3, 5, 7, 12, 13, 20, 33])
def test_no_interval_between_copies_meets_all_looks(interval):
    """HardUpdate after the optimizer, but at every k + 1st call only: right after it cost is 0."""
    hard = partial(HardUpdate, value_network_update_interval=interval)
    assert order("after", updater=hard) == []


def test_looks_are_few():
    actor = make_actor()
    region = WassersteinTrustRegionLoss(actor, space=ActionSpace(2))
    count = 0
    look = wasserstein._fingerprint

    def counting(params):
        nonlocal count
        count += 1
        return look(params)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wasserstein, "_fingerprint", counting)
        for _ in range(300):
            region(states(1))
    assert count == 2 * (1 + 5)  # both policies at the first call and at five looks


def test_an_observation_that_is_not_finite():
    batch = states(3)
    batch["observation"][1, 2] = float("nan")
    message = "WassersteinTrustRegionLoss: 'observation' must be finite, got 1 non-finite of 9"
    with pytest.raises(ValueError, match=message):
        WassersteinTrustRegionLoss(make_actor())(batch)
