"""Targets of SoftQLoss: V by hand, value estimators, truncation, target parameters."""

import math

import pytest
import torch
from torchrl.objectives import HardUpdate, SoftUpdate, ValueEstimators
from torchrl.objectives.value import TD0Estimator

from tests.objectives.builders import (
    NO_UPDATER,
    make_actor,
    make_batch,
    make_known_qvalue,
    make_loss,
    make_qvalue,
    run,
)
from torchrl_stein.functional import entropy_regularized_value, expected_value, soft_value
from torchrl_stein.objectives import (
    SoftQLoss,
    actor_proposal,
    actor_samples,
    log_distance_proposal,
    uniform_proposal,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

# By hand, in one dimension: Q(s, a) = w (s + a), alpha = 1/2, and two proposed actions -1/2 and
# +1/2 that count as uniform on [-1, 1], density 1/2. Then
#   V(s) = alpha log( 1/2 [e^(w (s - 1/2) / alpha) + e^(w (s + 1/2) / alpha)] / (1/2) )
#        = w s + 1/2 log(2 cosh w), and 1/2 log(2 cosh 1) = 0.5634640 for w = 1.
SPREAD, GAMMA = 0.5634640055214863, 0.9


def total(observation, action):
    return observation + action


def two_actions(actor, states, num_samples):
    assert num_samples == 2
    actions = torch.tensor([[-0.5], [0.5]], dtype=torch.float64).expand(*states.batch_size, 2, 1)
    return actions, torch.full(actions.shape[:-1], -math.log(2.0), dtype=torch.float64)


def make_by_hand(qvalue=None, **options):
    if qvalue is None:
        qvalue = make_known_qvalue(total)
    actor = make_actor(obs=1, act=1, dtype=torch.float64)
    options = {"temperature": 0.5, "num_value_samples": 2, "value_proposal": two_actions} | options
    return make_loss(actor, qvalue, gamma=GAMMA, **options)


def make_transitions(s, a, r, s_next, done, terminated):
    batch = make_batch(len(s), obs=1, act=1, dtype=torch.float64)
    for key, values in (
        ("observation", s),
        ("action", a),
        (("next", "reward"), r),
        (("next", "observation"), s_next),
    ):
        batch[key] = torch.tensor(values, dtype=torch.float64).unsqueeze(-1)
    batch["next", "done"] = torch.tensor(done).unsqueeze(-1)
    batch["next", "terminated"] = torch.tensor(terminated).unsqueeze(-1)
    return batch


def test_one_transition_by_hand():
    # s = 1, a = 0.2, r = 2, s' = 3: Q = 1.2, V(s') = 3.5634640, y = 2 + 0.9 V = 5.2071176,
    # loss = 1/2 (y - Q)^2 = 1/2 4.0071176^2 = 8.0284957, d/dw = -(y - Q)(s + a) = -4.8085411.
    loss = make_by_hand()
    batch = make_transitions([1.0], [0.2], [2.0], [3.0], [False], [False])
    losses = run(loss, batch)
    assert losses["soft_value"].item() == pytest.approx(3.0 + SPREAD, abs=1e-12)
    assert losses["q_value"].item() == pytest.approx(1.2)
    assert losses["loss_qvalue"].item() == pytest.approx(8.0284957, abs=1e-6)
    losses["loss_qvalue"].backward()
    assert loss.qvalue_network_params["module", "scale"].grad.item() == pytest.approx(
        -4.8085411, abs=1e-6
    )
    loss(batch)
    assert batch["td_error"].item() == pytest.approx(4.0071176**2, abs=1e-5)


def test_terminated_is_not_truncated():
    # As above with four endings; y = 2 where the episode terminated, and there
    # loss = 1/2 (2 - 1.2)^2 = 0.32. A time limit (done, not terminated) keeps the bootstrap.
    n = 4
    batch = make_transitions(
        [1.0] * n,
        [0.2] * n,
        [2.0] * n,
        [3.0] * n,
        done=[False, True, True, False],
        terminated=[False, False, True, True],
    )
    rows = run(make_by_hand(reduction="none"), batch)["loss_qvalue"]
    want = torch.tensor([8.0284957, 8.0284957, 0.32, 0.32], dtype=torch.float64)
    torch.testing.assert_close(rows, want, rtol=0.0, atol=1e-6)


def test_temperature_enters_the_value():
    # alpha = 2: V = s + 2 log(e^(-1/4) + e^(1/4)) = s + 2 log(2 cosh 1/4).
    batch = make_transitions([1.0], [0.2], [2.0], [3.0], [False], [False])
    loss = make_by_hand()
    loss.temperature = 2.0
    want = 3.0 + 2.0 * math.log(2.0 * math.cosh(0.25))
    losses = run(loss, batch)
    assert losses["soft_value"].item() == pytest.approx(want, abs=1e-12)
    assert losses["alpha"].item() == 2.0


@pytest.mark.parametrize("delay_qvalue", [True, False])
def test_value_comes_from_the_target_parameters(delay_qvalue):
    # Online w = 1, target w = 3: V = 3 s + 1/2 log(2 cosh 3).
    loss = make_by_hand(delay_qvalue=delay_qvalue)
    if delay_qvalue:
        loss.target_qvalue_network_params["module", "scale"].fill_(3.0)
    weight = 3.0 if delay_qvalue else 1.0
    losses = run(loss, make_transitions([1.0], [0.2], [2.0], [3.0], [False], [False]))
    want = weight * 3.0 + 0.5 * math.log(2.0 * math.cosh(weight))
    assert losses["soft_value"].item() == pytest.approx(want, abs=1e-12)
    assert losses["q_value"].item() == pytest.approx(1.2)


def test_minimum_over_the_ensemble_and_sum_of_errors():
    # w = 1 and 2 at s' = 3 and s' = -3: Q = w (s' + a) is smallest for w = 1 where s' > 0 and for
    # w = 2 where s' < 0, for both actions, so V = 3 + 1/2 log(2 cosh 1), -6 + 1/2 log(2 cosh 2).
    nets = [make_known_qvalue(total, scale=w) for w in (1.0, 2.0)]
    loss = make_by_hand(nets, reduction="none")
    batch = make_transitions(
        [1.0, 1.0], [0.2, 0.2], [2.0, 2.0], [3.0, -3.0], [False] * 2, [False] * 2
    )
    value = torch.tensor([3.0 + SPREAD, -6.0 + 0.5 * math.log(2.0 * math.cosh(2.0))]).double()
    target = 2.0 + GAMMA * value
    losses = run(loss, batch)
    want = 0.5 * (target - 1.2).square() + 0.5 * (target - 2.4).square()
    torch.testing.assert_close(losses["loss_qvalue"], want, rtol=1e-6, atol=1e-6)
    loss(batch)
    errors = torch.stack([(target - 1.2).square(), (target - 2.4).square()]).amax(0)
    torch.testing.assert_close(batch["td_error"], errors, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("lmbda", [0.3, 0.7, 1.0])
def test_td_lambda_against_a_loop(lmbda):
    # G_t = r_t + gamma V(s_{t+1}) at the end of an episode or of the data, 0 in place of V where
    # terminated; otherwise r_t + gamma [(1 - lambda) V(s_{t+1}) + lambda G_{t+1}].
    loss = make_by_hand(reduction="none")
    loss.make_value_estimator(ValueEstimators.TDLambda, gamma=GAMMA, lmbda=lmbda)
    batch = make_batch(2, 5, obs=1, act=1, dtype=torch.float64)
    done = torch.tensor([[0, 0, 1, 0, 0], [0, 1, 0, 0, 1]]).bool()
    terminated = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]).bool()
    batch["next", "done"], batch["next", "terminated"] = done[..., None], terminated[..., None]
    rows, following = run(loss, batch)["loss_qvalue"], math.nan
    for b in range(2):
        for t in reversed(range(5)):
            step = batch[b, t]
            value = step["next", "observation"].item() + SPREAD
            if done[b, t] or t == 4:
                ahead = 0.0 if terminated[b, t] else value
            else:
                ahead = (1.0 - lmbda) * value + lmbda * following
            following = step["next", "reward"].item() + GAMMA * ahead
            q = (step["observation"] + step["action"]).item()
            assert rows[b, t].item() == pytest.approx(0.5 * (following - q) ** 2, abs=1e-5)


def test_td1_is_td_lambda_with_lambda_one():
    loss, batch = make_by_hand(), make_batch(2, 5, obs=1, act=1, dtype=torch.float64)
    loss.make_value_estimator(ValueEstimators.TDLambda, gamma=GAMMA, lmbda=1.0)
    want = run(loss, batch)["loss_qvalue"]
    loss.make_value_estimator(ValueEstimators.TD1, gamma=GAMMA)
    torch.testing.assert_close(run(loss, batch)["loss_qvalue"], want)


def test_make_value_estimator_returns_the_loss():
    loss = make_by_hand()
    assert loss.make_value_estimator() is loss
    assert loss.value_type is ValueEstimators.TD0
    assert loss.make_value_estimator(ValueEstimators.TD1, gamma=0.5) is loss
    assert loss.make_value_estimator(TD0Estimator, gamma=GAMMA, value_network=None) is loss
    batch = make_transitions([1.0], [0.2], [2.0], [3.0], [False], [False])
    assert run(loss, batch)["loss_qvalue"].item() == pytest.approx(8.0284957, abs=1e-6)


@pytest.mark.parametrize("kind", [ValueEstimators.GAE, ValueEstimators.VTrace])
def test_unsupported_estimators(kind):
    with pytest.raises(NotImplementedError, match=kind.name):
        make_by_hand().make_value_estimator(kind)


def targets(loss):
    return loss.target_qvalue_network_params["module", "scale"].item()


def move(loss, value):
    loss.qvalue_network_params["module", "scale"].data.fill_(value)


def test_hard_update_copies_every_so_many_steps():
    loss = make_by_hand()
    updater = HardUpdate(loss, value_network_update_interval=2)
    move(loss, 5.0)
    seen = []
    for _ in range(4):
        updater.step()
        seen.append(targets(loss))
    assert seen == [1.0, 1.0, 5.0, 5.0]  # TorchRL lets the interval pass, then copies


def test_soft_update_moves_by_a_fraction():
    loss = make_by_hand()
    updater = SoftUpdate(loss, tau=0.1)
    move(loss, 5.0)
    updater.step()
    assert targets(loss) == pytest.approx(0.9 * 1.0 + 0.1 * 5.0)  # 1.4
    updater.step()
    assert targets(loss) == pytest.approx(0.9 * 1.4 + 0.1 * 5.0)


def test_updates_reach_every_network_of_an_ensemble():
    loss = make_by_hand([make_known_qvalue(total, scale=w) for w in (1.0, 2.0)])
    updater = HardUpdate(loss, value_network_update_interval=0)
    loss.qvalue_network_params["module", "scale"].data.mul_(10.0)
    updater.step()
    assert loss.target_qvalue_network_params["module", "scale"].tolist() == [10.0, 20.0]


def test_without_delay_there_are_no_target_parameters():
    with pytest.raises(RuntimeError, match="Did not find any target parameters"):
        SoftUpdate(make_by_hand(delay_qvalue=False), tau=0.1)


def test_the_ensemble_may_be_averaged():
    """In V, in the score and in ``qvalue``: here Q = 1 and 3 for every action."""
    nets = [
        make_known_qvalue(lambda s, a: 1 + 0 * a[..., :1], c, torch.float32) for c in (1.0, 3.0)
    ]
    batch = make_batch(6)
    for reduction, expected in ((torch.amin, 1.0), (torch.mean, 2.0)):
        options = {"value_target": expected_value, "ensemble_reduction": reduction}
        loss = make_loss(qvalue=nets, **options)
        assert run(loss, batch)["soft_value"].item() == pytest.approx(expected)
        q = loss.qvalue(batch.select("observation"), batch["action"])
        torch.testing.assert_close(q, torch.full((6,), expected))


def test_defaults_follow_the_target():
    loss = SoftQLoss(make_actor(), make_qvalue())
    assert (loss.value_target, loss.value_proposal) == (expected_value, actor_samples)
    assert (loss.num_value_samples, loss.num_pushing, loss.num_moved) == (1, 4, 4)
    of_target = {entropy_regularized_value: (actor_proposal, 1), soft_value: (uniform_proposal, 16)}
    for target, expected in of_target.items():
        loss = SoftQLoss(make_actor(), make_qvalue(), value_target=target)
        assert (loss.value_proposal, loss.num_value_samples) == expected


def test_a_diversity_in_the_place_of_the_entropy():
    """V = mean Q + alpha R, R a slow loop over pairs of two sets, in units of half the box."""
    actor, batch = make_actor(low=-4.0, high=2.0), make_batch(5)
    loss = make_loss(
        actor,
        value_target=entropy_regularized_value,
        value_proposal=log_distance_proposal,
        num_value_samples=3,
        temperature=0.5,
    )
    torch.manual_seed(0)
    found = loss.qvalue_loss(batch.clone())["soft_value"].item()
    torch.manual_seed(0)
    with torch.no_grad():
        actions = actor.sample(batch["next"].select("observation"), 6)
        q = loss.qvalue(batch["next"].select("observation"), actions[:, :3])
    values = []
    for row in range(5):
        pairs = [(actions[row, j], actions[row, 3 + k]) for j in range(3) for k in range(3)]
        distances = [((x - y) / 3.0).norm().item() for x, y in pairs]
        diversity = sum(math.log(distance + 1e-5) for distance in distances) / 9
        values.append(q[row].mean().item() + 0.5 * diversity)
    assert found == pytest.approx(sum(values) / 5, rel=1e-5)
    with pytest.raises(
        ValueError, match="must go with value_target=entropy_regularized_value, got"
    ):
        make_loss(value_target=soft_value, value_proposal=log_distance_proposal)


def test_critics_alone_learn_what_they_learn_with_the_actor():
    loss, batch = make_loss(value_target=expected_value), make_batch(6)
    torch.manual_seed(0)
    alone = loss.qvalue_loss(batch.clone())
    torch.testing.assert_close(alone["loss_qvalue"], run(loss, batch)["loss_qvalue"])
    assert "loss_actor" not in alone
