"""AmortizedSVGDActor: every bad input gives one error that names the culprit."""

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded, Categorical, Composite, OneHot, Unbounded
from torchrl.modules import MLP

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import AmortizedSVGDActor

OBS, ACT = 3, 2
BOX = Bounded(-1.0, 1.0, shape=(ACT,))


def make_actor():
    return AmortizedSVGDActor(MLP(in_features=OBS + ACT, out_features=ACT), action_spec=BOX)


def make_states(*batch):
    return TensorDict({"observation": torch.randn(*batch, OBS)}, batch)


LOOSE = Bounded(torch.tensor([[-1.0, -1.0], [-1.0, -2.0]]), torch.ones(2, 2))
NAN = Bounded(torch.tensor([torch.nan, -1.0]), torch.ones(2))
HALF_LINE = Bounded(torch.tensor([-1.0, -1.0]), torch.tensor([1.0, torch.inf]))


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (Unbounded(shape=(2,)), TypeError, "action_spec must be a floating-point Bounded .*Unb"),
        (OneHot(4), TypeError, "action_spec .*got OneHot.*; for discrete .*ProbabilisticActor"),
        (Categorical(4), TypeError, "action_spec must be .*got Categorical of dtype torch.int64"),
        (
            Bounded(0, 3, (2,), dtype=torch.int64),
            TypeError,
            "action_spec must be .*got Bounded.* of dtype .*int",
        ),
        (Composite(action=BOX), TypeError, "action_spec must be .*got Composite.*action_spec_unb"),
        (HALF_LINE, ValueError, r"action_spec must have finite bounds, .*high=\[1.0, inf\]"),
        (LOOSE, ValueError, "action_spec must have one set of bounds .* its 2 entries"),
        (Bounded(-1.0, 1.0, shape=()), ValueError, "action_spec must have a last dimension A"),
        (Bounded(-1.0, 1.0, shape=(0,)), ValueError, r"none of size 0, got shape \[0\]"),
        (Bounded(-1.0, 1.0, shape=(0, 2)), ValueError, r"none of size 0, got shape \[0, 2\]"),
        (NAN, ValueError, r"action_spec must have finite bounds, got low=\[nan, -1.0\]"),
        (
            Bounded(1.0, 1.0, shape=(2,)),
            ValueError,
            r"action_spec must have low < high, got low=\[1.0, 1.0\]",
        ),
    ],
)
def test_specs_that_are_no_box(spec, error, message):
    with pytest.raises(error, match=f"AmortizedSVGDActor: .*{message}"):
        AmortizedSVGDActor(nn.Identity(), action_spec=spec)


def test_environment_gives_a_composite_or_its_leaf():
    env = MultiGoalEnv(batch_size=(4,))
    with pytest.raises(TypeError, match="got Composite"):
        AmortizedSVGDActor(nn.Identity(), action_spec=env.full_action_spec)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_dim": 0}, "noise_dim must be >= 1, got 0"),
        ({"noise_dim": -2}, "noise_dim must be >= 1, got -2"),
        ({"out_keys": ["action", "log_prob"]}, r"one action key, got \['action', 'log_prob'\]"),
        ({"out_keys": []}, r"one action key, got \[\]"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=f"AmortizedSVGDActor: .*{message}"):
        AmortizedSVGDActor(nn.Identity(), action_spec=BOX, **options)


def test_missing_observation_key():
    message = "AmortizedSVGDActor: the batch lacks key 'observation', it holds pixels"
    states = TensorDict({"pixels": torch.zeros(5, OBS)}, [5])
    with pytest.raises(KeyError, match=message):
        make_actor()(states)
    with pytest.raises(KeyError, match=message):
        make_actor().sample(states, 3)


@pytest.mark.parametrize("outputs", [1, 3])
def test_network_of_another_action_dimension(outputs):
    actor = AmortizedSVGDActor(MLP(in_features=OBS + ACT, out_features=outputs), action_spec=BOX)
    with pytest.raises(ValueError, match=rf"network must return .*\[5, 1, 2\].*\[5, 1, {outputs}]"):
        actor(make_states(5))


@pytest.mark.parametrize("count", [0, -1])
def test_no_samples(count):
    with pytest.raises(ValueError, match=f"num_samples must be >= 1, got {count}"):
        make_actor().sample(make_states(5), count)


@pytest.mark.parametrize("name", ["in_keys", "out_keys"])
def test_one_key_is_not_a_list_of_keys(name):
    with pytest.raises(TypeError, match=f"{name} must be a list of keys, got 'observation'"):
        AmortizedSVGDActor(
            MLP(in_features=5, out_features=2), action_spec=BOX, **{name: "observation"}
        )


def test_no_spec():
    with pytest.raises(TypeError, match=r"action_spec must be .*got NoneType of dtype None"):
        AmortizedSVGDActor(MLP(in_features=5, out_features=2), action_spec=None)
