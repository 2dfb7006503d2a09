"""What the trust region refuses, and what it warns of."""

import warnings

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import distributions as D
from torch import nn
from torchrl.modules import OneHotCategorical, ProbabilisticActor
from torchrl.objectives import SoftUpdate

from tests.objectives.builders import NO_UPDATER, make_actor
from tests.objectives.trust_region_builders import nudge, probabilistic, states
from torchrl_stein.objectives import SinkhornCost, WassersteinTrustRegionLoss, _predecessor_watch

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def test_bad_input():
    with pytest.raises(TypeError, match="cost must be a TransportCost, got the class Sink"):
        WassersteinTrustRegionLoss(make_actor(), cost=SinkhornCost)
    with pytest.raises(ValueError, match=r"weight must be >= 0, got -0\.1"):
        WassersteinTrustRegionLoss(make_actor(), weight=-0.1)
    with pytest.raises(TypeError, match="weight must be a number >= 0, got None"):
        WassersteinTrustRegionLoss(make_actor(), weight=None)
    with pytest.raises(ValueError, match="num_particles must be >= 1, got 0"):
        WassersteinTrustRegionLoss(make_actor(), num_particles=0)
    with pytest.raises(ValueError, match=r"space must be one of \['action', 'parameter'\].*'both'"):
        WassersteinTrustRegionLoss(make_actor(), space="both")
    with pytest.raises(ValueError, match="reduction must be one of"):
        WassersteinTrustRegionLoss(make_actor(), reduction="median")
    with pytest.raises(KeyError, match="lacks key 'observation', it holds pixels"):
        WassersteinTrustRegionLoss(make_actor())(TensorDict({"pixels": torch.zeros(2, 3)}, [2]))


def test_the_wrong_space_for_the_policy():
    with pytest.raises(ValueError, match="actor_network must contain one ParticleModule, found 0"):
        WassersteinTrustRegionLoss(make_actor(), space="parameter")
    discrete = ProbabilisticActor(
        TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=OneHotCategorical,
    )
    with pytest.raises(TypeError, match=r"OneHotCategorical, which is discrete.*space='parameter'"):
        WassersteinTrustRegionLoss(discrete)
    # Of a wrapper only an instance can tell.
    wrapped = ProbabilisticActor(
        TensorDictModule(nn.Linear(3, 2), ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=lambda logits: D.Independent(D.Bernoulli(logits=logits), 1),
    )
    region = WassersteinTrustRegionLoss(wrapped)
    with pytest.raises(TypeError, match=r"Independent, which is discrete.*space='parameter'"):
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
    monkeypatch.setitem(_predecessor_watch._PATIENCE, "action", 5)
    batch = states(2)

    def run(updated, learns):
        actor = make_actor()
        region = WassersteinTrustRegionLoss(actor, num_particles=2)
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
    region = WassersteinTrustRegionLoss(actor, space="parameter")
    for _ in range(99):
        region(TensorDict())
        nudge(actor)
    with pytest.warns(UserWarning, match="stood still for 100 calls"):
        region(TensorDict())
