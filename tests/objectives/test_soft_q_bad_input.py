"""Every bad input to SoftQLoss gives one error that names the culprit."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import MLP

from tests.objectives.builders import (
    NO_UPDATER,
    make_actor,
    make_batch,
    make_known_qvalue,
    make_loss,
    make_qvalue,
    run,
)
from torchrl_stein.functional import entropy_regularized_value
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.objectives import SoftQLoss, uniform_proposal

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_action_samples": 0}, "num_action_samples must be >= 1, got 0"),
        ({"num_action_samples": (8, 0)}, "num_action_samples must be >= 1, got 0"),
        ({"num_action_samples": (-3, 8)}, "num_action_samples must be >= 1, got -3"),
        ({"num_value_samples": 0}, "num_value_samples must be >= 1, got 0"),
        ({"num_qvalue_nets": 0}, "num_qvalue_nets must be >= 1, got 0"),
        ({"temperature": 0.0}, "temperature must be > 0, got 0.0"),
        ({"temperature": -1}, "temperature must be > 0, got -1"),
        ({"temperature": float("nan")}, "temperature must be finite and > 0, got nan"),
        ({"reduction": "median"}, r"reduction must be one of \['mean', .*got 'median'"),
        (
            {"value_target": entropy_regularized_value, "value_proposal": uniform_proposal},
            "value_target=.* got uniform_proposal",
        ),
    ],
)
def test_options(options, message):
    with pytest.raises(ValueError, match=f"SoftQLoss: {message}"):
        make_loss(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"squash": "tanh"}, r"squash must be a Squash such as TanhSquash\(\), got 'tanh'"),
        ({"value_proposal": "uniform"}, "value_proposal must be a function .*, got 'uniform'"),
        ({"value_target": "soft"}, "value_target must be a function .*, got 'soft'"),
    ],
)
def test_strategies_are_objects(options, message):
    with pytest.raises(TypeError, match=f"SoftQLoss: {message}"):
        make_loss(**options)


@pytest.mark.parametrize("value", [0.0, -1, float("nan"), torch.tensor(-0.5)])
def test_temperature_assigned_later(value):
    loss = make_loss()
    with pytest.raises(ValueError, match=r"SoftQLoss: temperature must be .*> 0, got"):
        loss.temperature = value
    assert loss.temperature.item() == 1.0


def test_actor_of_another_kind():
    policy = TensorDictModule(nn.Linear(3, 2), in_keys=["observation"], out_keys=["action"])
    with pytest.raises(TypeError, match=r"actor_network must be a SamplingActor.*got Tensor"):
        make_loss(policy)


@pytest.mark.parametrize(
    "key",
    ["observation", "action", *(("next", k) for k in ("observation", "reward", "terminated"))],
)
def test_missing_key(key):
    with pytest.raises(KeyError) as error:
        run(make_loss(), make_batch(6).exclude(key))
    # args, because str() of a KeyError escapes the quotes
    assert f"SoftQLoss: the batch lacks key {key!r}, it holds" in error.value.args[0]


def test_missing_next():
    with pytest.raises(KeyError, match=r"SoftQLoss: the batch lacks key .*next"):
        run(make_loss(), make_batch(6).exclude("next"))


@pytest.mark.parametrize("act", [1, 3])
def test_action_dimension_of_the_batch(act):
    message = f"SoftQLoss: 'action' of the batch must have the 2 dimensions .*got {act}"
    with pytest.raises(ValueError, match=message):
        run(make_loss(), make_batch(6, act=act))


@pytest.mark.parametrize("shape", [(6, 4, 2), (2, 3, 2), (1, 2)])
def test_actions_that_are_matrices(shape):
    batch = make_batch(6)
    batch = batch.to_dict() | {"action": torch.zeros(shape)}
    batch = TensorDict(batch, [6] if shape[0] == 6 else [])
    with pytest.raises(ValueError, match=r"SoftQLoss: 'action' .* must have shape \[\*B, A\]"):
        run(make_loss(), batch)


def test_action_dimension_of_the_actor():
    with pytest.raises(ValueError, match="'action' of the batch must have the 3 dimensions"):
        run(make_loss(make_actor(act=3), make_qvalue(act=3)), make_batch(6))


@pytest.mark.parametrize("nets", [1, 2])
def test_qvalue_network_without_a_last_dimension(nets):
    class Flat(MLP):
        def forward(self, *inputs):
            return super().forward(*inputs).squeeze(-1)

    def make():
        return TensorDictModule(
            Flat(in_features=5, out_features=1, num_cells=[8]),
            in_keys=["observation", "action"],
            out_keys=["state_action_value"],
        )

    message = (
        r"SoftQLoss: qvalue_network must return 'state_action_value' of shape \[6, 5, 1\] "
        r".*got \[6, 5\]"
    )
    with pytest.raises(ValueError, match=message):
        run(make_loss(qvalue=make(), num_qvalue_nets=nets), make_batch(6))


def test_qvalue_network_with_several_values():
    several = make_qvalue(MLP(in_features=5, out_features=4))
    with pytest.raises(ValueError, match=r"of shape \[6, 5, 1\] .*got \[6, 5, 4\]"):
        run(make_loss(qvalue=several), make_batch(6))


def test_qvalue_network_that_writes_another_key():
    other = make_known_qvalue(lambda s, a: a[..., :1], dtype=torch.float32, out_key="q")
    message = r"qvalue_network must write 'state_action_value', it writes \['q'\]"
    with pytest.raises(KeyError, match=message):
        run(make_loss(qvalue=other), make_batch(6))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_reward_that_is_not_finite(value):
    batch = make_batch(6)
    batch["next", "reward"][4] = value
    message = rf"SoftQLoss: \('next', 'reward'\) must be finite, got 1 non-finite of 6 .*{value}"
    with pytest.raises(ValueError, match=message):
        run(make_loss(), batch)


def test_the_loss_survives_an_error():
    # Functional parameters are swapped into the networks while they run; an exception in the
    # middle must not leave them there.
    for nets in (1, 2):
        actor = make_actor()
        loss, batch = make_loss(actor, num_qvalue_nets=nets), make_batch(6)
        want = run(loss, batch)
        wide = batch.clone()
        wide["observation"] = torch.randn(6, 4)
        wide["next", "observation"] = torch.randn(6, 4)
        for broken in (wide, batch.exclude(("next", "observation")), wide.exclude("action")):
            with pytest.raises((RuntimeError, KeyError)):
                run(loss, broken)
        torch.testing.assert_close(run(loss, batch), want)
        assert len(list(actor.parameters())) == 4
        run(loss, batch)["loss_actor"].backward()
        assert all(p.grad is not None for p in actor.parameters())


@pytest.mark.parametrize("key", ["reward", "done", "terminated"])
def test_outcome_without_last_dimension(key):
    batch = make_batch(4)
    batch["next", key] = batch["next", key].squeeze(-1)
    with pytest.raises(
        ValueError, match=rf"'{key}'\) must have shape \[\*B, 1\] = \[4, 1\], got \[4\]"
    ):
        make_loss()(batch)


@pytest.mark.parametrize("kernel", ["rbf", RBFKernel])
def test_a_kernel_that_is_none(kernel):
    with pytest.raises(TypeError, match=r"kernel must be a Kernel, got ('rbf'|the class RBF)"):
        make_loss(kernel=kernel)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2.5, "num_action_samples must be an integer >= 1, got 2.5"),
        (
            (1, 2, 3),
            r"num_action_samples must be an integer or a pair of .*, got \(1, 2, 3\)",
        ),
        ((4, 2.5), "num_action_samples must be an integer >= 1, got 2.5"),
    ],
)
def test_particles_that_are_no_numbers(value, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make_loss(num_action_samples=value)


def test_infinite_temperature():
    with pytest.raises(ValueError, match="temperature must be finite and > 0, got inf"):
        make_loss(temperature=float("inf"))


def test_one_network_twice():
    qvalue = make_qvalue()
    with pytest.raises(ValueError, match="qvalue_network must not share parameters"):
        make_loss(qvalue=[qvalue, qvalue])


@pytest.mark.parametrize("network", [nn.Linear(5, 1), [nn.Linear(5, 1), nn.Linear(5, 1)]])
def test_a_network_that_is_no_tensordict_module(network):
    with pytest.raises(TypeError, match=r"qvalue_network must be a TensorDictModule, .*got Linear"):
        SoftQLoss(make_actor(), network)
