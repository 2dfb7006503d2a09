"""SoftQLoss as a LossModule: keys, dispatch, reductions, weights, masks, state."""

from copy import deepcopy

import pytest
import torch
from tensordict import unravel_key

from tests.objectives.builders import (
    NO_UPDATER,
    make_actor,
    make_batch,
    make_loss,
    make_qvalue,
    run,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

DEFAULTS = {
    "action": "action",
    "value": "state_value",
    "state_action_value": "state_action_value",
    "priority": "td_error",
    "priority_weight": "priority_weight",
    "reward": "reward",
    "done": "done",
    "terminated": "terminated",
}
RENAMED = {
    "action": ("agent", "move"),
    "value": ("agent", "v"),
    "state_action_value": ("agent", "q"),
    "priority": ("agent", "surprise"),
    "priority_weight": "importance",
    "reward": ("agent", "gain"),
    "done": ("agent", "over"),
    "terminated": ("agent", "dead"),
}
OUT_KEYS = [
    "loss_qvalue",
    "loss_actor",
    "q_value",
    "soft_value",
    "alpha",
    "kernel_offdiag",
    "repulsion_ratio",
    "kernel_bandwidth",
]


def make_renamed():
    """The loss and the batch of the defaults, every key renamed and most of them nested."""
    state = ("agent", "state")
    actor = make_actor(in_keys=[state], out_keys=[RENAMED["action"]])
    qvalue = make_qvalue(keys=[state, RENAMED["action"]])
    qvalue.out_keys = [RENAMED["state_action_value"]]
    batch = make_batch(6)
    batch.rename_key_("observation", state).rename_key_("action", RENAMED["action"])
    following = batch["next"]
    following.rename_key_("observation", state)
    for key in ("reward", "done", "terminated"):
        following.rename_key_(key, RENAMED[key])
    return actor, qvalue, batch


def test_default_keys():
    keys = make_loss().tensor_keys
    assert {name: getattr(keys, name) for name in DEFAULTS} == DEFAULTS
    assert set(vars(keys)) == set(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_set_and_reset_a_key(name):
    loss = make_loss()
    loss.set_keys(**{name: ("some", "other")})
    assert getattr(loss.tensor_keys, name) == ("some", "other")
    if name in ("value", "reward", "done", "terminated"):
        assert getattr(loss.value_estimator.tensor_keys, name) == ("some", "other")
    loss.set_keys(**{name: None})
    assert getattr(loss.tensor_keys, name) == DEFAULTS[name]


def test_unknown_key():
    with pytest.raises(ValueError, match="colour is not an accepted tensordict key"):
        make_loss().set_keys(colour="red")


@pytest.mark.parametrize("keys_first", [True, False])
def test_renamed_and_nested_keys_give_the_same_numbers(keys_first):
    reference, plain = make_loss(), make_batch(6)
    actor, qvalue, batch = make_renamed()
    loss = make_loss(actor, qvalue)
    loss.set_keys(**RENAMED)
    if keys_first:
        loss.make_value_estimator(gamma=0.9)
    loss.load_state_dict(reference.state_dict())
    plain["priority_weight"] = batch["importance"] = torch.rand(6)
    torch.manual_seed(0)
    want = reference(plain)
    torch.manual_seed(0)
    got = loss(batch)
    torch.testing.assert_close(dict(got.items()), dict(want.items()), rtol=0.0, atol=0.0)
    torch.testing.assert_close(batch[RENAMED["priority"]], plain["td_error"], rtol=0.0, atol=0.0)


def test_in_keys_are_what_is_read():
    loss, batch = make_loss(), make_batch(6)
    assert set(loss.in_keys) == {
        *("observation", "action"),
        *(("next", key) for key in ("observation", "reward", "done", "terminated")),
    }
    batch["unrelated"], batch["next", "unrelated"] = torch.zeros(6), torch.zeros(6)
    torch.testing.assert_close(run(loss, batch.select(*loss.in_keys)), run(loss, batch))
    for key in loss.in_keys:
        with pytest.raises(KeyError, match="SoftQLoss: the batch lacks key"):
            loss(batch.exclude(key))


def test_in_keys_follow_set_keys():
    actor, qvalue, batch = make_renamed()
    loss = make_loss(actor, qvalue)
    loss.set_keys(**RENAMED)
    assert {unravel_key(key) for key in loss.in_keys} == set(batch.keys(True, True))


def test_out_keys_are_what_is_written():
    loss = make_loss()
    assert loss.out_keys == OUT_KEYS
    losses = run(loss, make_batch(6))
    assert list(losses.keys()) == OUT_KEYS
    assert losses.batch_size == torch.Size([])


def test_keyword_call_and_select_out_keys():
    loss, batch = make_loss(), make_batch(6)
    want = run(loss, batch)
    arguments = {key if isinstance(key, str) else "_".join(key): batch[key] for key in loss.in_keys}
    torch.manual_seed(0)
    got = loss(**arguments)
    assert len(got) == len(OUT_KEYS)
    for key, value in zip(OUT_KEYS, got, strict=True):
        torch.testing.assert_close(value, want[key])
    loss.select_out_keys("loss_actor", "loss_qvalue")
    torch.manual_seed(0)
    actor_first = loss(**arguments)
    torch.testing.assert_close(actor_first, (want["loss_actor"], want["loss_qvalue"]))


def test_only_the_priority_is_written_to_the_batch():
    loss, batch = make_loss(), make_batch(6)
    before = batch.clone()
    loss(batch)
    assert set(batch.keys(True, True)) - set(before.keys(True, True)) == {"td_error"}
    assert (batch.exclude("td_error") == before).all()


@pytest.mark.parametrize("batch_size", [(), (6,), (2, 3), (1, 6, 1)])
def test_any_batch_shape(batch_size):
    loss = make_loss()
    flat, shaped = make_batch(6), make_batch(6).reshape(2, 3)
    n = torch.Size(batch_size).numel()
    flat, shaped = flat[:n], flat[:n].reshape(batch_size)
    # The generator fills [6, K, A] and [2, 3, K, A] in the same order.
    torch.testing.assert_close(run(loss, shaped), run(loss, flat))
    torch.manual_seed(0)
    loss(shaped)
    assert shaped["td_error"].shape == batch_size


@pytest.mark.parametrize("batch_size", [(6,), (2, 3)])
def test_reductions_agree(batch_size):
    losses = {}
    source = make_loss()
    for reduction in ("none", "mean", "sum", None):
        loss = make_loss(reduction=reduction)
        loss.load_state_dict(source.state_dict())
        losses[reduction] = run(loss, make_batch(*batch_size))
    for term in ("loss_qvalue", "loss_actor"):
        rows = losses["none"][term]
        assert rows.shape == batch_size
        torch.testing.assert_close(losses["mean"][term], rows.mean())
        torch.testing.assert_close(losses["sum"][term], rows.sum())
        torch.testing.assert_close(losses[None][term], rows.mean())
    diagnostics = set(OUT_KEYS) - {"loss_qvalue", "loss_actor"}
    for key in diagnostics:
        assert losses["none"][key].shape == ()
        torch.testing.assert_close(losses["none"][key], losses["mean"][key])


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_priority_weights(shape):
    source, batch = make_loss(reduction="none"), make_batch(6)
    rows = run(source, batch)
    weights = torch.linspace(0.1, 2.0, 6)
    batch["priority_weight"] = weights.reshape(shape)
    weighted = {}
    for reduction in ("none", "mean", "sum"):
        loss = make_loss(reduction=reduction)
        loss.load_state_dict(source.state_dict())
        weighted[reduction] = run(loss, batch)
    for term in ("loss_qvalue", "loss_actor"):
        want = rows[term] * weights
        torch.testing.assert_close(weighted["none"][term], want)
        torch.testing.assert_close(weighted["sum"][term], want.sum())
        torch.testing.assert_close(weighted["mean"][term], want.sum() / weights.sum())
    loss.use_prioritized_weights = False
    torch.testing.assert_close(run(loss, batch)["loss_qvalue"], rows["loss_qvalue"].sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_loss_mask(weighted):
    source, batch = make_loss(reduction="none"), make_batch(2, 3)
    rows = run(source, batch)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    batch["collector", "mask"] = mask.unsqueeze(-1)
    weights = torch.ones(2, 3)
    if weighted:
        batch["priority_weight"] = weights = torch.rand(2, 3)
    loss = make_loss()
    loss.load_state_dict(source.state_dict())
    masked = run(loss, batch)
    for term in ("loss_qvalue", "loss_actor"):
        want = (rows[term] * weights)[mask].sum() / weights[mask].sum()
        torch.testing.assert_close(masked[term], want)


def test_state_dict_round_trip():
    source, target = make_loss(num_qvalue_nets=2), make_loss(num_qvalue_nets=2)
    batch = make_batch(6)
    source.temperature = 0.3
    source.target_qvalue_network_params.apply(lambda p: p.data.mul_(0.5))
    target.load_state_dict(deepcopy(source.state_dict()))
    torch.testing.assert_close(run(target, batch), run(source, batch), rtol=0.0, atol=0.0)
    assert run(target, batch)["alpha"].item() == pytest.approx(0.3)


@pytest.mark.parametrize("nets", [1, 3])
def test_reset_parameters_recursive(nets):
    loss = make_loss(num_qvalue_nets=nets)
    for parameter in loss.parameters():
        parameter.data.fill_(7.0)
    loss.reset_parameters_recursive()
    for name, parameter in loss.named_parameters():
        assert (parameter != 7.0).all(), name


def test_actor_and_single_qvalue_network_are_trained_in_place():
    actor, qvalue = make_actor(), make_qvalue()
    loss = make_loss(actor, qvalue)
    theirs = {id(p) for net in (actor, qvalue) for p in net.parameters()}
    assert {id(p) for p in loss.parameters()} == theirs
    assert len(list(loss.parameters())) == 8
    torch.manual_seed(0)
    before = actor.sample(make_batch(6), 1)
    optimizer = torch.optim.SGD(loss.parameters(), 0.1)
    run(loss, make_batch(6))["loss_actor"].backward()
    optimizer.step()
    torch.manual_seed(0)
    assert (actor.sample(make_batch(6), 1) != before).any()
