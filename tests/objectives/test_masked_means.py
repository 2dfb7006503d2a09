"""Steps that a mask excludes count for nothing: in no loss, no diagnostic, no standardisation."""

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close

from tests.objectives.builders import NO_UPDATER, make_actor, make_batch, make_loss, run
from tests.objectives.stein_builders import N, gaussian
from tests.objectives.test_soft_qv import make_loss as make_value_loss
from tests.objectives.trpo_builders import alone, data_of, flat
from tests.objectives.trust_region_builders import nudge, probabilistic, states
from torchrl_stein.objectives import (
    ActionSpace,
    NaturalGradientStep,
    ParameterSpace,
    TRPOLoss,
    WassersteinTrustRegionLoss,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

MASKS = ["shifted_valid", ("collector", "mask"), "valid"]
all_masks = pytest.mark.parametrize("key", MASKS, ids=str)


def mark(loss, data, kept, key):
    """The data with a mask, and the loss told of it where TorchRL does not look by itself."""
    if key == "valid":
        loss.loss_mask_key = "valid"
    return data.set(key, kept.unsqueeze(-1))


# TRPO


@all_masks
@pytest.mark.parametrize("worth", [100.0, -1e6])
def test_advantages_of_excluded_steps_do_not_matter(key, worth):
    """Policies keep 6, 2 and 4 of 6 steps: each is standardised over its own."""
    actor = gaussian()
    data = data_of(actor, N, 6)
    nudge(actor, 0.1)
    kept = torch.arange(6) < torch.tensor([[6], [2], [4]])
    loss = TRPOLoss(actor)
    padded = mark(loss, data.clone(), kept, key)
    padded["advantage"][~kept] = worth
    surrogate, kl = loss.surrogate_and_kl(padded)
    for j in range(N):
        only = data[j, kept[j]]
        own = TRPOLoss(alone(actor, j))(only)
        assert_close(-surrogate[j], own["loss_objective"])
        assert_close(kl[j], own["kl"])


def test_advantages_by_hand():
    """1 and 3 are -1 / sqrt 2 and 1 / sqrt 2, whatever is in the padding; ratios are 1."""
    actor = gaussian(1)
    data = data_of(actor, 1, 3)
    data["advantage"] = torch.tensor([[[1.0], [3.0], [50.0]]]).double()
    data["shifted_valid"] = torch.tensor([[[True], [True], [False]]])
    got = TRPOLoss(actor)._standardize_advantage(data["advantage"], data)
    assert_close(got.flatten(), torch.tensor([-(0.5**0.5), 0.5**0.5, 0.0]).double())


def test_a_policy_without_steps_stays():
    actor = gaussian()
    data = data_of(actor, N, 6)
    kept = torch.ones(N, 6, dtype=torch.bool)
    kept[1] = False
    before = flat(actor).view(N, -1).clone()
    figures = NaturalGradientStep(TRPOLoss(actor)).step(data.set("shifted_valid", kept))
    moved = (flat(actor).view(N, -1) != before).any(1)
    assert moved.tolist() == [True, False, True]
    assert figures["step_fraction"][1] == 0


def test_the_natural_gradient_of_the_kept_steps():
    actor = gaussian()
    data = data_of(actor, N, 8)
    kept = torch.arange(8) < 5
    twin = gaussian()
    twin.load_state_dict(actor.state_dict())
    padded = data.clone().set("shifted_valid", kept.expand(N, 8).unsqueeze(-1))
    padded["advantage"][:, 5:] = 1e3
    NaturalGradientStep(TRPOLoss(actor)).step(padded)
    NaturalGradientStep(TRPOLoss(twin)).step(data[:, :5])
    assert_close(flat(actor), flat(twin))


# Soft Q-learning and trust regions: the same numbers are drawn, whatever excluded rows hold.


@all_masks
@pytest.mark.parametrize("make", [make_loss, make_value_loss])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_no_figure_of_soft_q_learning_sees_them(make, reduction, key):
    loss, data = make(reduction=reduction), make_batch(8)
    data = mark(loss, data, torch.arange(8) < 5, key)
    other = data.clone()
    for name in ("observation", ("next", "observation"), ("next", "reward"), "action"):
        other[name][5:] = 0.3
    first, second = run(loss, data), run(loss, other)
    for name, figure in first.items():
        assert_close(figure, second[name], msg=name)


def test_figures_are_means_of_what_is_kept():
    loss, data = make_loss(), make_batch(8)
    data["shifted_valid"] = torch.ones(8, 1, dtype=torch.bool)
    all_kept, plain = run(loss, data), run(loss, make_batch(8))
    for name, figure in plain.items():
        assert_close(figure, all_kept[name], msg=name)


@all_masks
def test_no_figure_of_a_trust_region_sees_them(key):
    actor = make_actor()
    region = WassersteinTrustRegionLoss(actor, space=ActionSpace(4))
    nudge(actor, 0.3)
    data = mark(region, states(8), torch.arange(8) < 5, key)
    other = data.clone()
    other["observation"][5:] = 7.0
    first, second = run(region, data), run(region, other)
    assert first["transport_cost"] > 0
    for name, figure in first.items():
        assert_close(figure, second[name], msg=name)


def test_a_mask_says_nothing_of_parameters():
    actor = probabilistic(particles=4)
    region = WassersteinTrustRegionLoss(actor, space=ParameterSpace())
    nudge(actor)
    masked = TensorDict({"shifted_valid": torch.zeros(3, 1, dtype=torch.bool)}, [3])
    assert_close(region(masked)["transport_cost"], region(TensorDict())["transport_cost"])
