"""Soft Q-learning with discrete actions: its target, its fixed point, and its manners."""

import copy
import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded, Categorical, OneHot
from torchrl.modules import QValueActor
from torchrl.objectives import DQNLoss, HardUpdate, SoftUpdate, ValueEstimators

from tests.objectives.builders import NO_UPDATER
from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.envs import GridWorld
from torchrl_stein.functional import soft_value_iteration
from torchrl_stein.modules import BoltzmannActor, ParticleModule
from torchrl_stein.objectives import DiscreteSoftQLoss, EntropyTarget, LogDistanceTarget

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def table(values):
    """A network whose values in state i are row i; states are one-hot."""
    net = nn.Linear(len(values), len(values[0]), bias=False)
    net.weight.data.copy_(torch.tensor(values).mT)
    return TensorDictModule(net, ["observation"], ["action_value"])


def make(values=((1.0, 2.0), (0.0, 3.0)), *others, spec=None, actor=None, gamma=0.5, **options):
    networks = [table(own) for own in (values, *others)]
    actor = BoltzmannActor(networks, action_spec=spec or OneHot(2), **(actor or {}))
    return DiscreteSoftQLoss(actor, **options).make_value_estimator(gamma=gamma)


def batch(state=0, action=0, following=1, reward=1.0, *, spec=None, terminated=False, **more):
    """One transition, [1]."""
    observed = torch.eye(2)
    flag = torch.tensor([[terminated]])
    taken = torch.tensor([action])
    if not isinstance(spec, Categorical):
        taken = nn.functional.one_hot(taken, 2)
    after = {
        "observation": observed[[following]],
        "reward": torch.tensor([[reward]]),
        "done": flag,
        "terminated": flag.clone(),
        **more,
    }
    return TensorDict({"observation": observed[[state]], "action": taken, "next": after}, [1])


def random_batch(size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def states():
        return torch.rand(size, 2, generator=generator)

    never = torch.zeros(size, 1, dtype=torch.bool)
    after = {"observation": states(), "reward": states()[:, :1], "done": never, "terminated": never}
    action = nn.functional.one_hot(torch.randint(2, (size,), generator=generator), 2)
    return TensorDict({"observation": states(), "action": action, "next": after}, [size])


# values


@pytest.mark.parametrize("spec", [OneHot(2), Categorical(2)])
def test_by_hand(spec):
    # alpha = 2: V(1) = 2 log(e^0 + e^1.5), target = 1 + V / 2, Q(0, a=1) = 2.
    value = 2 * math.log(1 + math.exp(1.5))
    data = batch(action=1, spec=spec)
    losses = make(spec=spec, temperature=2.0)(data)
    error = 1 + value / 2 - 2
    assert losses["loss_qvalue"].item() == pytest.approx(0.5 * error**2)
    assert losses["soft_value"].item() == pytest.approx(value)
    assert losses["q_value"].item() == 2.0
    assert data["td_error"].tolist() == [pytest.approx(error**2)]
    # At state 0 the logits are 1/2 and 1.
    p = 1 / (1 + math.exp(-0.5))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert losses["entropy"].item() == pytest.approx(entropy)
    assert losses["alpha"].item() == 2.0


def test_the_end_has_no_value():
    losses = make()(batch(terminated=True))
    assert losses["loss_qvalue"].item() == 0.0  # r = 1 = Q(0, 0)


def test_it_sums_over_actions_without_weights():
    losses = make([[0.0, 0.0], [3.0, 3.0]], temperature=0.7)(batch())
    assert losses["soft_value"].item() == pytest.approx(3 + 0.7 * math.log(2))


@pytest.mark.parametrize(("reduction", "of"), [(torch.amin, [0.0, 1.0]), (torch.mean, [2.0, 2.0])])
def test_double_q(reduction, of):
    """V is that of the reduced ensemble, and each network regresses on it."""
    first, second = [[1.0, 2.0], [0.0, 3.0]], [[5.0, 6.0], [4.0, 1.0]]
    loss = make(first, second, actor={"ensemble_reduction": reduction, "temperature": 1.0})
    losses = loss(batch())
    value = math.log(sum(map(math.exp, of)))
    assert losses["soft_value"].item() == pytest.approx(value)
    errors = [1 + value / 2 - q for q in (1.0, 5.0)]
    assert losses["loss_qvalue"].item() == pytest.approx(sum(0.5 * e**2 for e in errors))


def test_the_limit_of_a_low_temperature_is_dqn():
    data = random_batch()
    loss, spec = make(temperature=1e-6), OneHot(2)
    network = loss.actor_network.qvalue_network.networks[0]
    dqn = DQNLoss(QValueActor(network.module, in_keys=["observation"], spec=spec))
    dqn.make_value_estimator(gamma=0.5)
    ours, theirs = loss(data.clone())["loss_qvalue"], dqn(data.clone())["loss"]
    assert_close(2 * ours, theirs)


def test_the_limit_of_a_high_temperature_is_uniform():
    losses = make(temperature=1e4)(random_batch())
    assert losses["entropy"].item() == pytest.approx(math.log(2))
    # V is the mean of Q and what uniform actions have in entropy.
    mean = (random_batch()["next", "observation"] @ torch.tensor([1.5, 1.5])).mean()
    assert losses["soft_value"].item() - 1e4 * math.log(2) == pytest.approx(mean.item(), abs=2e-3)


@pytest.mark.parametrize(
    ("mask", "value"), [([True, False], 0.0), ([False, True], 3.0), ([False, False], 0.0)]
)
def test_masked_actions_have_no_value(mask, value):
    mask = torch.tensor([mask])
    data = batch(action_mask=mask).set("action_mask", torch.tensor([[True, False]]))
    losses = make(actor={"mask_key": "action_mask"})(data)
    assert losses["soft_value"].item() == pytest.approx(value)
    assert losses["entropy"].item() == 0.0
    assert losses["loss_qvalue"].isfinite()
    losses["loss_qvalue"].backward()
    with pytest.raises(KeyError, match="lacks key 'action_mask'"):
        make(actor={"mask_key": "action_mask"})(batch())


# the fixed point


def grid(gamma=0.9):
    """A small grid as a batch of all its transitions, and its soft optimum at alpha = 0.5."""
    found = GridWorld(("..#", ".G.", "...")).transitions()
    states, rewards, following, terminated = found
    one_hot = torch.eye(len(states), dtype=torch.float64)
    s, a = torch.meshgrid(torch.arange(len(states)), torch.arange(4), indexing="ij")
    flag = terminated.reshape(-1, 1)
    after = {
        "observation": one_hot[following].flatten(0, 1),
        "reward": rewards.reshape(-1, 1),
        "done": flag,
        "terminated": flag.clone(),
    }
    entries = {
        "observation": one_hot[s].flatten(0, 1),
        "action": torch.eye(4, dtype=torch.int64)[a].flatten(0, 1),
        "next": after,
    }
    return TensorDict(entries, [s.numel()]), soft_value_iteration(
        rewards, following, gamma * ~terminated, 0.5
    )


def test_the_fixed_point_is_that_of_soft_value_iteration():
    data, optimum = grid()
    loss = make(optimum.tolist(), spec=OneHot(4), temperature=0.5, gamma=0.9).double()
    network = loss.actor_network.qvalue_network.networks[0].module
    with torch.no_grad():  # a list of floats made it float32
        for params in (loss.qvalue_network_params, loss.target_qvalue_network_params):
            params.get(("networks", "0", "module", "weight")).copy_(optimum.mT)
    assert network.weight.equal(optimum.mT)
    assert loss(data)["loss_qvalue"].item() < 1e-16
    policy = loss.actor_network.get_dist(data[::4]).probs
    assert_close(policy, (optimum / 0.5).softmax(-1))


def test_it_learns_the_soft_optimum_of_a_grid():
    data, optimum = grid()
    loss = make(torch.zeros_like(optimum).tolist(), spec=OneHot(4), temperature=0.5, gamma=0.9)
    loss.double()
    target = HardUpdate(loss, value_network_update_interval=1)
    optim = torch.optim.SGD(loss.parameters(), lr=len(data) / 2)
    for _ in range(150):
        loss(data)["loss_qvalue"].backward()
        optim.step()
        optim.zero_grad()
        target.step()
    learnt = loss.actor_network.qvalue_network.networks[0].module.weight.mT
    assert_close(learnt.detach(), optimum, rtol=0, atol=1e-4)


# gradients, targets and temperature


def test_gradients_reach_the_critics_alone():
    loss = make(((1.0, 2.0), (0.0, 3.0)), ((1.0, 2.0), (1.0, 2.0)))
    loss(random_batch())["loss_qvalue"].backward()
    assert [p.grad.abs().sum() > 0 for p in loss.parameters()] == [True, True]
    assert {id(p) for p in loss.parameters()} == {id(p) for p in loss.actor_network.parameters()}
    assert all(not t.requires_grad for t in loss.target_qvalue_network_params.values(True, True))


def test_the_value_comes_from_targets():
    delayed, present = make(), make(delay_qvalue=False)
    update = SoftUpdate(delayed, tau=0.25)
    before = delayed(batch())["soft_value"]
    for loss in (delayed, present):
        loss.actor_network.qvalue_network.networks[0].module.weight.data += 1.0
    assert delayed(batch())["soft_value"] == before
    assert present(batch())["soft_value"].item() == pytest.approx(before.item() + 1)
    update.step()
    assert delayed(batch())["soft_value"].item() == pytest.approx(before.item() + 0.25)


def test_a_learnt_temperature_holds_an_entropy():
    # Of Q = (1, 2) at alpha = 1.5: 0.64 nats. Above 0.2, so alpha falls; below 0.65, so it grows.
    for wanted, sign in ((0.2, 1), (0.65, -1)):
        loss = make(temperature=EntropyTarget(wanted, alpha_init=1.5))
        losses = loss(batch())
        expected = math.log(1.5) * (losses["entropy"].item() - wanted)
        assert losses["loss_alpha"].item() == pytest.approx(expected, abs=1e-6)
        losses["loss_alpha"].backward()
        assert loss.log_alpha.grad.sign() == sign
        with torch.no_grad():
            loss.log_alpha.fill_(math.log(0.3))
        loss(batch())
        assert loss.actor_network.temperature.item() == pytest.approx(0.3)
        with pytest.raises(AttributeError, match="temperature is learnt"):
            loss.temperature = 1.0


def test_the_actor_follows_the_temperature():
    loss = make(actor={"temperature": 0.25})
    assert loss.temperature.item() == 0.25
    assert make(actor={"temperature": 0.25}, temperature=3.0).actor_network.temperature.item() == 3
    for changed in (loss, copy.deepcopy(loss).double()):
        changed.temperature = 0.75
        assert changed.actor_network.temperature.item() == 0.75
    assert changed.actor_network.temperature.dtype == torch.float64
    other = make(actor={"temperature": 5.0})
    other.load_state_dict(loss.state_dict())
    assert other.actor_network.temperature.item() == 0.75
    assert other(batch())["loss_qvalue"] == loss(batch())["loss_qvalue"]


def test_seeds_learn_side_by_side():
    nets = ParticleModule(lambda: nn.Linear(2, 2), 3)
    network = TensorDictModule(nets, ["observation"], ["action_value"])
    target = EntropyTarget(0.3, alpha_init=torch.tensor([[0.5], [1.0], [2.0]]))
    loss = DiscreteSoftQLoss(BoltzmannActor(network, action_spec=OneHot(2)), temperature=target)
    rows = [random_batch(seed=s) for s in range(3)]
    together = loss(torch.stack(rows))
    values = []
    for s, data in enumerate(rows):
        own = TensorDictModule(nets.particle(s), ["observation"], ["action_value"])
        alone = EntropyTarget(0.3, alpha_init=float(target.alpha_init[s]))
        actor = BoltzmannActor(own, action_spec=OneHot(2))
        values.append(DiscreteSoftQLoss(actor, temperature=alone)(data))
    for name in ("loss_qvalue", "loss_alpha", "entropy", "soft_value"):
        assert_close(together[name], torch.stack([v[name] for v in values]).mean())


# manners


def test_calls_by_keyword_and_keys():
    data = batch()
    loss = make()
    by_keyword = loss(
        observation=data["observation"],
        action=data["action"],
        next_observation=data["next", "observation"],
        next_reward=data["next", "reward"],
        next_done=data["next", "done"],
        next_terminated=data["next", "terminated"],
    )
    assert by_keyword[0] == loss(data.clone())["loss_qvalue"]
    loss.set_keys(action="act", reward="paid", priority="error")
    moved = data.rename_key_("action", "act").rename_key_(("next", "reward"), ("next", "paid"))
    loss(moved)
    assert {"act", ("next", "paid")} <= set(loss.in_keys)
    assert "error" in moved.keys()  # noqa: SIM118 - of a TensorDict
    assert loss.out_keys == ["loss_qvalue", "q_value", "soft_value", "entropy", "alpha"]


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_reductions(reduction):
    data = random_batch()
    found = make(reduction=reduction)(data.clone())["loss_qvalue"]
    each = torch.stack([make()(row)["loss_qvalue"] for row in data.clone().split(1)])
    assert_close(found, each if reduction == "none" else each.sum())


def test_other_estimators():
    data = torch.stack([random_batch(), random_batch()])
    loss = make().make_value_estimator(ValueEstimators.TDLambda, gamma=0.5, lmbda=0.9)
    assert loss(data)["loss_qvalue"].isfinite()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"actor_network": table([[0.0]])}, TypeError, "actor_network must be a BoltzmannActor"),
        ({"temperature": 0.0}, ValueError, "temperature must be > 0, got 0.0"),
        ({"temperature": "auto"}, TypeError, "temperature must be a number or an EntropyTarget"),
        ({"temperature": LogDistanceTarget()}, TypeError, "temperature must be a number or an Ent"),
        ({"temperature": EntropyTarget()}, ValueError, "between 0 and .* 0.693, got auto"),
        (
            {"temperature": EntropyTarget(0.7)},
            ValueError,
            "target_entropy between 0 and.*, got 0.7",
        ),
        (
            {"temperature": EntropyTarget(0.0)},
            ValueError,
            "target_entropy between 0 and.*, got 0.0",
        ),
        ({"reduction": "average"}, ValueError, r"reduction must be one of \['mean', 'none', 'sum'"),
    ],
)
def test_what_it_refuses(options, error, message):
    actor = BoltzmannActor(table([[0.0, 0.0]]), action_spec=OneHot(2))
    with pytest.raises(error, match=f"DiscreteSoftQLoss: {message}|{message}"):
        DiscreteSoftQLoss(**{"actor_network": actor, **options})


ONES = torch.ones(1, 2)


@pytest.mark.parametrize(
    ("spec", "key", "value", "error", "message"),
    [
        (OneHot(2), "action", torch.rand(1, 2), ValueError, "must be one-hot, one of 2; for a box"),
        (OneHot(2), "action", ONES, ValueError, "'action' of the batch must be one-hot, one of 2"),
        (
            OneHot(2),
            "action",
            torch.ones(1, 3),
            ValueError,
            r"shape \[\*B, n\] = \[1, 2\], got.*3\]",
        ),
        (Categorical(2), "action", ONES, TypeError, "must be integers from 0 to 1, got .*float32"),
        (Categorical(2), "action", ONES.long(), ValueError, r"integers of shape \[\*B\] = \[1\]"),
        (Categorical(2), "action", ONES[0, :1].long() * 2, ValueError, "0 to 1, got from 2 to 2"),
        (OneHot(2), "observation", ONES * math.nan, ValueError, "'observation' must be finite"),
        (OneHot(2), ("next", "reward"), torch.ones(1), ValueError, "must have shape .* = "),
        (OneHot(2), "action", None, KeyError, "the batch lacks key 'action'"),
    ],
)
def test_batches_that_it_refuses(spec, key, value, error, message):
    data = batch(spec=spec)
    data = data.exclude(key) if value is None else data.set(key, value)
    with pytest.raises(error, match=f"DiscreteSoftQLoss: .*{message}"):
        make(spec=spec)(data)


def test_discounts_out_of_range():
    with pytest.raises(ValueError, match=r"gamma must be >= 0 and <= 1, got 1\.5"):
        make(gamma=1.5)


def test_the_continuous_loss_names_it():
    actor = BoltzmannActor(table([[0.0, 0.0]]), action_spec=OneHot(2))
    qvalue = TensorDictModule(nn.Linear(2, 1), ["observation"], ["state_action_value"])
    with pytest.raises(TypeError, match=r"SoftQLoss: .*\(DiscreteSoftQLoss is for discrete"):
        SoftQLoss(actor, qvalue)
    with pytest.raises(TypeError, match="for discrete actions take BoltzmannActor and DiscreteSo"):
        AmortizedSVGDActor(nn.Linear(4, 2), action_spec=OneHot(2))
    with pytest.raises(TypeError, match="for a box of actions take SoftQLoss"):
        BoltzmannActor(table([[0.0, 0.0]]), action_spec=Bounded(-1.0, 1.0, (2,)))
