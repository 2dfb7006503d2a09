"""Losses see the present numbers, whatever was cast, moved, loaded, frozen or copied in between."""

import copy
import warnings

import pytest
import torch

from tests.objectives.builders import NO_UPDATER, make_actor, make_batch, make_loss, make_qvalue
from tests.objectives.stein_builders import gaussian, make_stein, value
from tests.objectives.trpo_builders import data_of
from torchrl_stein.objectives import ActionSpace, TRPOLoss, WassersteinTrustRegionLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def dtype_of(loss):
    return next(p for name, p in loss.named_parameters() if "actor" in name).dtype


def load(loss):
    state = {
        key: value + 0.1 if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in loss.state_dict().items()
    }
    loss.load_state_dict(state)
    return loss


def change_data(loss):
    for parameter in loss.parameters():
        parameter.data = parameter.data + 0.1
    return loss


def other_dtype(loss):
    return loss.to(torch.float32 if dtype_of(loss) == torch.float64 else torch.float64)


def there_and_back(loss):
    dtype = dtype_of(loss)
    return other_dtype(loss).to(dtype)


OPERATIONS = {
    "nothing": lambda loss: loss,
    "another dtype": other_dtype,
    "there and back": there_and_back,
    "half": lambda loss: loss.half().float(),
    "to a device": lambda loss: loss.to("cpu"),
    "loaded": load,
    "other data": change_data,
    "frozen and not": lambda loss: loss.requires_grad_(False).requires_grad_(True),
    "copied": copy.deepcopy,
    "twice": lambda loss: load(there_and_back(copy.deepcopy(loss))),
}


CASTS = {"another dtype", "there and back", "half", "twice"}


def soft_q(**options):
    return lambda: (make_loss(**options), make_batch(6))


def soft_q_of_two(**options):
    return lambda: (make_loss(qvalue=[make_qvalue(), make_qvalue()], **options), make_batch(6))


def stein(name):
    return lambda: make_stein(name)


def trpo():
    actor, critic = gaussian(), value()
    loss = TRPOLoss(actor, critic)
    data = data_of(actor, 3, 5).exclude("advantage", "value_target")
    ends = torch.zeros(3, 5, 1, dtype=torch.bool)
    data["next"] = data.select("observation")
    data["next", "reward"] = torch.randn(3, 5, 1, dtype=torch.float64)
    data["next", "done"], data["next", "terminated"] = ends, ends
    return loss, data


def region():
    actor = make_actor()
    loss = WassersteinTrustRegionLoss(actor, space=ActionSpace(4))
    return loss, make_batch(6).select("observation")


MAKE = {
    "one Q-network": soft_q(),
    "two": soft_q(num_qvalue_nets=2),
    "a list of two": soft_q_of_two(),
    "two, in a loop": soft_q(num_qvalue_nets=2, deactivate_vmap=True),
    "not delayed": soft_q(num_qvalue_nets=2, delay_qvalue=False),
    "trpo": trpo,
    "region": region,
    **{f"stein {name}": stein(name) for name in ("A2CLoss", "SACLoss", "TD3Loss", "IQLLoss")},
}


def trajectory(loss, data, steps=3):
    """Losses and final parameters of some steps of training."""
    optimizer = torch.optim.SGD(loss.parameters(), lr=0.1)
    dtype = dtype_of(loss)
    data = data.apply(lambda value: value.to(dtype) if value.is_floating_point() else value)
    seen = []
    for step in range(steps):
        torch.manual_seed(step)
        losses = loss(data.clone())
        total = sum(v for k, v in losses.items() if k.startswith("loss_"))
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen.append(losses.detach())
    return seen, {name: p.detach() for name, p in loss.named_parameters()}


def make(name):
    loss, data = MAKE[name]()
    if loss.default_value_estimator is not None:
        assert loss.value_estimator is not None  # made when first asked for
    return loss, data


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", MAKE)
def test_training_goes_on_as_with_a_fresh_loss(name, operation):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss, data = make(name)
        trajectory(loss, data)  # whatever is remembered, is remembered now
        loss = OPERATIONS[operation](loss)
        fresh = make(name)[0]
        if operation in CASTS:
            fresh = fresh.to(dtype_of(loss))
        fresh.load_state_dict(loss.state_dict())
        torch.testing.assert_close(trajectory(loss, data), trajectory(fresh, data))


@pytest.mark.parametrize("size", [1, 2])
def test_the_actor_sees_the_present_critics(size):
    loss, data = make_loss(num_qvalue_nets=size), make_batch(6)
    loss(data)
    for operation in (there_and_back, load, change_data):
        operation(loss)
        seen, present = loss._cached_detached_qvalue_network_params, loss.qvalue_network_params
        for key, leaf in present.items(True, True):
            assert seen[key].data_ptr() == leaf.data_ptr()
            assert not seen[key].requires_grad
