"""D4PGLoss: by hand, against a loop, by theory, and that it learns."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer
from torchrl.modules import MLP, ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate, ValueEstimators

from tests.objectives.builders import ACT, NO_UPDATER, OBS, gradients, make_batch, run
from tests.objectives.test_soft_q_prioritized import PINNED
from tests.oracles import categorical as oracle
from torchrl_stein.objectives import D4PGLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def make_actor():
    return TensorDictModule(
        nn.Sequential(MLP(OBS, ACT, num_cells=[8]), nn.Tanh()), ["observation"], ["action"]
    )


def make_critic(num_atoms=7):
    network = MLP(OBS + ACT, num_atoms, num_cells=[8])
    return ValueOperator(network, in_keys=["observation", "action"])


def make_loss(actor=None, critic=None, *, gamma=0.9, **options):
    options = {"v_min": -2.0, "v_max": 2.0, "num_atoms": 7, **options}
    loss = D4PGLoss(actor or make_actor(), critic or make_critic(options["num_atoms"]), **options)
    return loss.make_value_estimator(gamma=gamma)


class Table(nn.Module):
    """Logits of each state, which is a number, whatever the action."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.as_tensor(logits))

    def forward(self, state, action):
        return self.logits[state.squeeze(-1).long()] + 0 * action


def table_loss(logits, **options):
    actor = TensorDictModule(nn.Linear(1, 1), ["observation"], ["action"])
    critic = ValueOperator(Table(logits), in_keys=["observation", "action"])
    return make_loss(actor, critic, **options)


def transitions(states, rewards, following, terminated, steps=None, done=None):
    """Transitions of table problems, as columns."""
    columns = [
        torch.tensor(values).float().unsqueeze(-1) for values in (states, rewards, following)
    ]
    terminated = torch.tensor(terminated).bool().unsqueeze(-1)
    done = terminated if done is None else torch.tensor(done).bool().unsqueeze(-1)
    ends = {"done": done, "terminated": terminated}
    batch = TensorDict(
        {
            "observation": columns[0],
            "action": torch.zeros_like(columns[0]),
            "next": {"reward": columns[1], "observation": columns[2], **ends},
        },
        [len(states)],
    )
    return batch if steps is None else batch.set("steps_to_next_obs", torch.tensor(steps))


# by hand


def test_two_states_by_hand():
    # Atoms 0, 1, 2. Z(s0) is uniform, Z(s1) has the masses 1/4, 1/4, 1/2.
    log = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 2.0]]).log()
    loss = table_loss(log, v_min=0.0, v_max=2.0, num_atoms=3, gamma=0.5, reduction="none")
    # s0 -> s1 with r = 0.5: atoms 0.5, 1, 1.5 with 1/4, 1/4, 1/2; the outer two are halved.
    # s1 -> the end with r = 1: all at 1. s0 -> s0, r = 2: atoms 2, 2.5, 3, all at 2.
    batch = transitions([0, 1, 0], [0.5, 1.0, 2.0], [1, 0, 0], [0, 1, 0])
    target = torch.tensor([[1 / 8, 5 / 8, 1 / 4], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert_close(loss.target_distribution(batch), target)
    losses = loss(batch)
    third, quarter = torch.log(torch.tensor(3.0)), torch.log(torch.tensor(4.0))
    entropy = -(target[0] * target[0].log()).sum()
    divergences = torch.stack([third - entropy, quarter, third])
    assert_close(losses["loss_value"], divergences)
    assert_close(batch["td_error"], divergences)
    # The means of Z are 1 in s0 and 5/4 in s1; two of three atoms of the last are beyond 2.
    assert_close(losses["loss_actor"], -torch.tensor([1.0, 1.25, 1.0]))
    assert_close(losses["q_value"], torch.tensor(3.25 / 3))
    assert_close(losses["clipped_mass"], torch.tensor(2 / 9))


def test_what_is_beyond_the_atoms_counts_as_the_last_one():
    loss = table_loss(torch.zeros(1, 3), v_min=-1.0, v_max=1.0, num_atoms=3, gamma=1.0)
    for reward, masses in ((-1.5, [5 / 6, 1 / 6, 0.0]), (1.5, [0.0, 1 / 6, 5 / 6])):
        batch = transitions([0], [reward], [0], [0])
        assert_close(loss.target_distribution(batch), torch.tensor([masses]))
        assert_close(loss(batch)["clipped_mass"], torch.tensor(2 / 3))


def test_over_n_steps_the_next_state_counts_gamma_to_the_n():
    logits = torch.zeros(2, 5)
    logits[1, 3] = 100.0  # Z(s1) is 1 for certain
    loss = table_loss(logits, v_min=-2.0, v_max=2.0, num_atoms=5, gamma=0.5)
    batch = transitions([0] * 4, [0.25] * 4, [1] * 4, [0, 0, 0, 1], steps=[1, 2, 3, 2])
    means = (loss.target_distribution(batch) * loss.support).sum(-1)
    assert_close(means, 0.25 + torch.tensor([0.5, 0.25, 0.125, 0.0]))
    column = batch.clone()
    column["steps_to_next_obs"] = column["steps_to_next_obs"].unsqueeze(-1)
    assert loss.target_distribution(column).equal(loss.target_distribution(batch))
    # Without the entry, one step. Where an episode is cut off its last state still has a value.
    batch = transitions([0] * 2, [0.25] * 2, [1] * 2, [0, 0], done=[0, 1])
    means = (loss.target_distribution(batch) * loss.support).sum(-1)
    assert_close(means, torch.tensor([0.75, 0.75]))


def test_targets_against_loop():
    loss = make_loss(gamma=0.8)
    for value in loss.state_dict().values():  # targets other than what learns
        value.copy_(torch.randn_like(value) if value.ndim else value)
    loss.support.copy_(torch.linspace(-2.0, 2.0, 7))
    batch = make_batch(4, 5).set("steps_to_next_obs", torch.randint(1, 4, (4, 5)))
    actor, critic = make_actor(), make_critic()
    loss.target_actor_network_params.to_module(actor)
    loss.target_value_network_params.to_module(critic)
    following = critic(actor(batch["next"].select("observation")))
    probabilities = following["state_action_value"].softmax(-1)
    got = loss.target_distribution(batch)
    support = loss.support.tolist()
    for index in torch.cartesian_prod(torch.arange(4), torch.arange(5)).tolist():
        step = batch[tuple(index)]
        discount = 0.8 ** step["steps_to_next_obs"].item()
        alive = 0.0 if step["next", "terminated"].item() else 1.0
        reward = step["next", "reward"].item()
        atoms = [reward + discount * alive * point for point in support]
        want = oracle.project(probabilities[tuple(index)].tolist(), atoms, support)
        assert_close(got[tuple(index)], torch.tensor(want), rtol=1e-4, atol=1e-5)


# theory


def test_gradients_are_those_of_the_cross_entropy_and_of_the_mean():
    loss, batch = make_loss(), make_batch(6)
    target = loss.target_distribution(batch)
    found = gradients(loss, batch, "loss_value", "loss_actor")

    def logits(states):
        with loss.value_network_params.to_module(loss.value_network):
            return loss.value_network(states)["state_action_value"]

    entropy = -(target * logits(batch.select("observation", "action")).log_softmax(-1)).sum(-1)
    critic = [name for name in found if name.startswith("value_network_params")]
    named = dict(loss.named_parameters())
    wanted = torch.autograd.grad(entropy.mean(), [named[name] for name in critic])
    assert len(critic) == 4
    for name, want in zip(critic, wanted, strict=True):
        assert_close(found[name], want)

    # Deterministic policy gradient: the gradient of the mean in the action, through the actor.
    with loss.actor_network_params.to_module(loss.actor_network):
        acted = loss.actor_network(batch.select("observation"))["action"]
    action = acted.detach().requires_grad_()
    states = batch.select("observation").set("action", action)
    mean = (logits(states).softmax(-1) * loss.support).sum()
    (slope,) = torch.autograd.grad(mean, action)
    actor = [name for name in found if name.startswith("actor_network_params")]
    wanted = torch.autograd.grad(-(acted * slope).sum() / 6, [named[name] for name in actor])
    assert len(actor) == 4
    for name, want in zip(actor, wanted, strict=True):
        assert_close(found[name], want)


def test_which_parameters_each_term_reaches():
    loss, batch = make_loss(), make_batch(6)
    for term, start in (("loss_value", "value_network"), ("loss_actor", "actor_network")):
        for name, gradient in gradients(loss, batch, term).items():
            assert bool(gradient.any()) == name.startswith(start), (term, name)
    found = run(loss, batch)
    assert not found["q_value"].requires_grad
    assert not found["clipped_mass"].requires_grad


def test_a_chain_whose_returns_are_known():
    """s0 -> s1 -> an end with +1 or -1: fair at s1, half as large at s0, by exact transitions."""
    loss = table_loss(torch.zeros(2, 5), v_min=-1.0, v_max=1.0, num_atoms=5, gamma=0.5)
    update = SoftUpdate(loss, tau=0.2)
    batch = transitions([0, 1, 1], [0.0, 1.0, -1.0], [1, 0, 0], [0, 1, 1])
    optimizer = torch.optim.Adam(loss.value_network_params.parameters(), 0.2)
    for _ in range(150):
        loss(batch)["loss_value"].backward()
        optimizer.step()
        optimizer.zero_grad()
        update.step()
    masses = loss.value_network_params["module", "logits"].softmax(-1)
    want = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0], [0.5, 0.0, 0.0, 0.0, 0.5]])
    assert_close(masses, want, atol=0.02, rtol=0.0)
    # A scalar critic would have seen nothing but zeros.
    assert_close((masses * loss.support).sum(-1), torch.zeros(2), atol=0.01, rtol=0.0)


def test_it_learns():
    """One step each, reward -|a - s|^2: the actor becomes the identity."""
    observation, action = torch.rand(2048, 1) * 1.6 - 0.8, torch.rand(2048, 1) * 2 - 1
    ends = torch.ones(2048, 1).bool()
    following = {"observation": observation, "done": ends, "terminated": ends}
    following["reward"] = -(action - observation).square()
    data = TensorDict({"observation": observation, "action": action, "next": following}, [2048])
    network = nn.Sequential(MLP(1, 1, num_cells=[16]), nn.Tanh())
    actor = TensorDictModule(network, ["observation"], ["action"])
    critic = ValueOperator(MLP(2, 21, num_cells=[32, 32]), in_keys=["observation", "action"])
    loss = make_loss(actor, critic, v_min=-4.0, v_max=0.0, num_atoms=21)
    HardUpdate(loss, value_network_update_interval=50)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)

    def miss():
        return (actor(data.select("observation"))["action"] - observation).abs().mean().item()

    assert miss() > 0.3
    for _ in range(200):
        losses = loss(data[torch.randint(2048, (128,))])
        (losses["loss_value"] + losses["loss_actor"]).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert miss() < 0.08


# priorities


def test_priorities_are_divergences_and_weights_are_of_the_critic():
    loss, batch = make_loss(), make_batch(6)
    rows = make_loss(loss.actor_network, loss.value_network, reduction="none")
    rows.load_state_dict(loss.state_dict())
    each = rows(batch)
    assert_close(batch["td_error"], each["loss_value"].detach())
    weights = torch.tensor([1.0, 0.0, 0.5, 2.0, 1.0, 0.25])
    weighed = run(loss, batch.clone().set("priority_weight", weights))
    assert_close(weighed["loss_value"], (weights * each["loss_value"]).sum() / weights.sum())
    assert_close(weighed["loss_actor"], each["loss_actor"].mean())


def test_a_critic_that_fits_has_no_priority():
    logits = torch.tensor([[0.3, -0.2, 0.9]])
    loss = table_loss(logits, v_min=-1.0, v_max=1.0, num_atoms=3, gamma=1.0)
    batch = transitions([0] * 2, [0.0, 0.0], [0, 0], [0, 0])
    assert_close(loss(batch)["loss_value"], torch.tensor(0.0))
    assert (batch["td_error"] >= 0).all()
    assert batch["td_error"].max() < 1e-6


@pytest.mark.skipif(
    not torch.__version__.startswith(f"{PINNED}."), reason="TorchRL's compiled extension"
)
def test_prioritized_replay_draws_by_them():
    loss, data = make_loss(), make_batch(64)
    buffer = TensorDictPrioritizedReplayBuffer(
        alpha=0.8, beta=0.6, storage=LazyTensorStorage(64), batch_size=64,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    data["index"] = buffer.extend(data)
    loss(data)
    buffer.update_tensordict_priority(data)
    samples = [buffer.sample() for _ in range(300)]
    counts = torch.bincount(torch.cat([s["index"] for s in samples]), minlength=64) / (300 * 64)
    expected = data["td_error"].pow(0.8) / data["td_error"].pow(0.8).sum()
    # Four standard deviations of a frequency.
    assert ((counts - expected).abs() < 4 * (expected / (300 * 64)).sqrt() + 1e-4).all()
    smallest = expected.min()
    assert_close(samples[0]["priority_weight"], (expected[samples[0]["index"]] / smallest) ** -0.6)


# the contract of a loss


def test_it_comes_back_from_its_state():
    loss, batch = make_loss(), make_batch(6)
    other = make_loss(v_min=-9.0, v_max=1.0)
    other.load_state_dict(loss.state_dict())
    assert run(loss, batch)["loss_value"].equal(run(other, batch)["loss_value"])


def test_keys_can_be_others():
    loss, batch = make_loss(), make_batch(6)
    want = run(loss, batch.clone().set("steps_to_next_obs", torch.full((6,), 2)))
    names = {"reward": "gain", "done": "over", "terminated": "dead"}
    loss.set_keys(priority="surprise", steps_to_next_obs="m", **names)
    renamed = batch.clone().set("m", torch.full((6,), 2))
    for old, new in names.items():
        renamed.rename_key_(("next", old), ("next", new))
    assert loss(renamed)["loss_value"].equal(want["loss_value"])
    assert "surprise" in renamed.keys()  # noqa: SIM118
    assert {"m", ("next", "gain"), ("next", "observation")} <= set(loss.in_keys)


def test_by_keyword():
    loss, batch = make_loss(), make_batch(6)
    flat = {"_".join(k) if isinstance(k, tuple) else k: v for k, v in batch.items(True, True)}
    values = dict(zip(loss.out_keys, loss(**flat), strict=True))
    for name, value in run(loss, batch).items():
        assert_close(values[name], value)


def test_the_actor_climbs_the_critic_of_now():
    """A cast replaces parameters; detached ones of before must not linger."""
    loss, double = make_loss(), make_batch(6, dtype=torch.float64)
    run(loss, make_batch(6))
    loss.double()
    with torch.no_grad():
        for parameter in loss.value_network_params.parameters():
            parameter.add_(0.5)
    want = make_loss().double()
    want.load_state_dict(loss.state_dict())
    got = run(loss, double)
    assert got["loss_actor"].dtype == torch.float64
    assert_close(got["loss_actor"], run(want, double)["loss_actor"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"v_min": 2.0}, "v_max must be > 2.0, got 2.0"),
        ({"v_max": float("nan")}, "v_max must be finite and > -2.0, got nan"),
        ({"v_min": "low"}, "v_min must be a number, got 'low'"),
        ({"num_atoms": 1}, "num_atoms must be >= 2, got 1"),
        ({"reduction": "average"}, "reduction must be one of"),
    ],
)
def test_arguments_out_of_range(options, words):
    with pytest.raises((TypeError, ValueError), match=f"D4PGLoss: {words}"):
        make_loss(make_actor(), make_critic(), **options)


def test_networks_that_are_none():
    for name in ("actor_network", "value_network"):
        networks = {"actor_network": make_actor(), "value_network": make_critic()}
        with pytest.raises(TypeError, match=f"D4PGLoss: {name} must be a TensorDictModule"):
            D4PGLoss(**networks | {name: nn.Linear(3, 3)}, v_min=0.0, v_max=1.0)
    with pytest.raises(ValueError, match=r"shape \[6, 9\], a logit for each of the 9 atoms, got"):
        run(make_loss(make_actor(), make_critic(7), num_atoms=9), make_batch(6))
    other = TensorDictModule(MLP(OBS + ACT, 7), ["observation", "action"], ["logits"])
    with pytest.raises(KeyError, match="value_network must write 'state_action_value', it writes"):
        run(D4PGLoss(make_actor(), other, v_min=0.0, v_max=1.0), make_batch(6))


def test_discounts_and_estimators():
    with pytest.raises(ValueError, match=r"D4PGLoss: gamma must be >= 0 and <= 1, got 1\.5"):
        make_loss(gamma=1.5)
    with pytest.raises(NotImplementedError, match=r"TD\(lambda\).* is not implemented for .*D4PG"):
        make_loss().make_value_estimator(ValueEstimators.TDLambda, gamma=0.9, lmbda=0.9)


@pytest.mark.parametrize("key", ["observation", "action", ("next", "reward"), ("next", "done")])
def test_batches_that_lack_something(key):
    with pytest.raises(KeyError, match="D4PGLoss: the batch lacks key"):
        make_loss()(make_batch(6).exclude(key))


def test_batches_that_do_not_fit():
    loss = make_loss()
    for name, value, words in (
        (("next", "reward"), torch.zeros(6), r"must have shape \[\*B, 1\] = \[6, 1\]"),
        (("next", "reward"), torch.full((6, 1), torch.nan), "must be finite, got 6 non-finite"),
        ("steps_to_next_obs", torch.ones(6, 2), r"must have shape \[\*B\] = \[6\], got \[6, 2\]"),
    ):
        with pytest.raises(ValueError, match=f"D4PGLoss: .*{words}"):
            loss(make_batch(6).set(name, value))
