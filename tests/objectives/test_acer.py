"""ACERLoss: by hand, by loops over sequences, its limits, TorchRL's conventions, bad input."""

import re

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torch.distributions import Categorical, kl_divergence
from torch.testing import assert_close
from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import (
    MLP,
    IndependentNormal,
    MaskedCategorical,
    OneHotCategorical,
    ProbabilisticActor,
    TanhNormal,
    ValueOperator,
)
from torchrl.objectives import SoftUpdate

from tests.objectives.builders import NO_UPDATER
from tests.oracles.retrace import retrace
from torchrl_stein.modules import StochasticDuelingNetwork
from torchrl_stein.objectives import ACERLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

B, T, A = 2, 4, 2
STATES = 2 * B * T  # of which each step and each next step has its own
OUTCOME = ("reward", "done", "terminated")


def discrete_actor(network, distribution_class=OneHotCategorical):
    return ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["logits"]),
        in_keys=["logits"],
        distribution_class=distribution_class,
    )


def gaussian_actor(network, distribution_class=IndependentNormal):
    return ProbabilisticActor(
        TensorDictModule(network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=distribution_class,
    )


def table(out):
    """A network that has a parameter for each of its outputs at each state, one-hot."""
    return nn.Linear(STATES, out, bias=False).double()


def table_of_gaussians():
    return nn.Sequential(table(2 * A), NormalParamExtractor())


def sequences(behaviour, ends=True):
    """Rows [B, T] of a behaviour, with episodes that end and are cut in between."""
    eye = torch.eye(STATES, dtype=torch.float64).view(2, B, T, STATES)
    with torch.no_grad(), set_exploration_type(ExplorationType.RANDOM):
        data = behaviour(TensorDict({"observation": eye[0]}, [B, T]))
    done, terminated = torch.zeros(2, B, T, 1, dtype=torch.bool)
    if ends:
        done[0, 1], done[1, 2] = True, True
        terminated[1, 2] = True
    reward = torch.randn(B, T, 1, dtype=torch.float64)
    outcome = dict(zip(OUTCOME, (reward, done, terminated), strict=True))
    return data.set("next", TensorDict({"observation": eye[1], **outcome}, [B, T]))


def discrete(**options):
    """A loss whose average policy is another, and sequences of a third."""
    critic = TensorDictModule(table(3), ["observation"], ["action_value"])
    loss = ACERLoss(discrete_actor(table(3)), critic, **options)
    return spread(loss), sequences(discrete_actor(spread(table(3))))


def continuous(**options):
    critic = StochasticDuelingNetwork(table(1), MLP(STATES + A, 1, num_cells=[4]).double())
    loss = ACERLoss(gaussian_actor(table_of_gaussians()), critic, **options)
    return spread(loss), sequences(gaussian_actor(spread(table_of_gaussians())))


def spread(module):
    """Draw all parameters anew, targets too."""
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.ndim > 1:
                tensor.copy_(torch.randn_like(tensor))
    return module


def both(**options):
    return pytest.mark.parametrize("make", [discrete, continuous], **options)


def total(losses):
    return sum(value for name, value in losses.items() if name.startswith("loss_"))


def bandit(logits, action, reward, behaviour, q, **options):
    """Rows of one step that ends, [rows, 1]: an action of each, under fixed logits and Q."""
    network = nn.Linear(1, 3, bias=False).double()
    critic = nn.Linear(1, 3, bias=False).double()
    for layer, values in ((network, logits), (critic, q)):
        layer.weight = nn.Parameter(torch.as_tensor(values, dtype=torch.float64).view(3, 1))
    actor = discrete_actor(network, Categorical)
    critic = TensorDictModule(critic, ["observation"], ["action_value"])
    rows = len(action)
    one, ends = torch.ones(rows, 1, 1, dtype=torch.float64), torch.ones(rows, 1, 1).bool()
    outcome = dict(
        zip(OUTCOME, (one * torch.as_tensor(reward).view(-1, 1, 1), ends, ends), strict=True)
    )
    data = TensorDict(
        {
            "observation": one,
            "action": torch.tensor(action).view(rows, 1),
            "logits": one * torch.as_tensor(behaviour, dtype=torch.float64),
            "next": {"observation": one, **outcome},
        },
        [rows, 1],
    )
    return ACERLoss(actor, critic, **options), data, network.weight


# By hand, and what theory says


def test_on_policy_in_a_wide_region_it_is_the_policy_gradient():
    """p = (.2, .3, .5), Q = (1, 2, 3): V = 2.3. Action 1 pays 5, so Q^ret - V = 2.7.

    The gradient of the loss is -2.7 (e_1 - p) = (.54, -1.89, 1.35); that of 1/2 (5 - Q_1)^2 is -3.
    """
    logits = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    wide = {"importance_bound": 1e6, "kl_bound": 1e6}
    loss, data, weight = bandit(logits, [1], [5.0], logits, [1, 2, 3], **wide)
    losses = loss(data)
    total(losses).backward()
    expected = torch.tensor([0.54, -1.89, 1.35], dtype=torch.float64)
    assert_close(weight.grad.flatten(), expected)
    q = loss.critic_network_params["module", "weight"]
    assert q.grad.flatten().tolist() == pytest.approx([0, -3, 0])
    assert losses["loss_qvalue"].item() == pytest.approx(4.5)
    assert (losses["kl"].item(), losses["projected"].item()) == (0, 0)


@pytest.mark.parametrize("bound", [0.3, 1.0, 3.0, 1e6])
def test_nothing_is_lost_by_the_bound(bound):
    """With exact Q, the mean over the behaviour is the policy gradient, whatever c is.

    The sum is over all actions; sum_a pi(a) (r_a - V) (e_a - p) = p (r - V).
    """
    logits, behaviour = torch.randn(2, 3, dtype=torch.float64) * 2
    reward = torch.randn(3, dtype=torch.float64)
    options = {"importance_bound": bound, "kl_bound": 1e6, "reduction": "none"}
    loss, data, weight = bandit(logits, [0, 1, 2], reward, behaviour, reward, **options)
    (behaviour.softmax(-1) * loss(data)["loss_actor"].flatten()).sum().backward()
    p = logits.softmax(-1)
    assert_close(-weight.grad.flatten(), p * (reward - (p * reward).sum()))


def softmax_gradient(p, action):
    return torch.eye(len(p), dtype=p.dtype)[action] - p


def project(g, k, bound):
    return g - max(0.0, (k @ g - bound) / (k @ k)) * k


@pytest.mark.parametrize("bound", [0.5, 5.0])
def test_discrete_sequences_against_loops(bound):
    gamma, delta, entropy = 0.9, 0.3, 0.05
    options = {"gamma": gamma, "kl_bound": delta, "entropy_coeff": entropy, "reduction": "none"}
    loss, data = discrete(importance_bound=bound, **options)
    losses = loss(data)
    of_actor = loss.actor_network_params["module", "0", "module", "weight"]
    of_critic = loss.critic_network_params["module", "weight"]
    average = loss.target_actor_network_params["module", "0", "module", "weight"].mT.softmax(-1)
    policy, q = of_actor.detach().mT.softmax(-1), of_critic.detach().mT  # [states, actions]
    value = (policy * q).sum(-1)
    losses["loss_actor"].sum().backward()
    gradient, projected = of_actor.grad.mT, 0
    for b in range(B):
        here, after = slice(b * T, b * T + T), slice((B + b) * T, (B + b) * T + T)
        actions = data["action"][b].argmax(-1)
        mu = data["logits"][b].softmax(-1)
        pi, q_here, v = policy[here], q[here], value[here]
        taken = q_here[torch.arange(T), actions]
        ratio = (pi / mu)[torch.arange(T), actions]
        rows = [data["next", key][b].flatten().tolist() for key in OUTCOME]
        trace = ratio.clamp_max(1).tolist()
        target = retrace(taken.tolist(), value[after].tolist(), *rows, trace, gamma)
        for t in range(T):
            error = target[t] - taken[t]
            assert_close(losses["loss_qvalue"][b, t], 0.5 * error**2)
            g = min(bound, ratio[t]) * (target[t] - v[t]) * softmax_gradient(pi[t], actions[t])
            for a in range(3):
                weight = max(0.0, 1 - bound * mu[t, a] / pi[t, a]) * pi[t, a]
                g = g + weight * (q_here[t, a] - v[t]) * softmax_gradient(pi[t], a)
            # H = -sum p log p: its gradient is -p (log p + H).
            h = -(pi[t] * pi[t].log()).sum()
            g = g - entropy * pi[t] * (pi[t].log() + h)
            k = pi[t] - average[b * T + t]  # of KL(average || pi)
            projected += bool(k @ g > delta)
            assert_close(-gradient[b * T + t], project(g, k, delta))
    assert 0 < projected < B * T
    assert losses["projected"].item() == pytest.approx(projected / (B * T))
    kl = (average * (average / policy).log()).sum(-1)[: B * T]
    assert losses["kl"].item() == pytest.approx(kl.mean().item())


def test_continuous_sequences_against_loops():
    gamma, delta, bound = 0.9, 0.3, 1.2
    loss, data = continuous(gamma=gamma, kl_bound=delta, importance_bound=bound, reduction="none")
    statistics = {}

    def keep(module, inputs, outputs):
        if outputs[0].requires_grad and not statistics:  # of the policy at the batch's states
            statistics.update(loc=outputs[0], scale=outputs[1])
            for each in outputs:
                each.retain_grad()

    loss.actor_network[0].module.register_forward_hook(keep)
    torch.manual_seed(1)
    losses = loss(data)
    losses["loss_actor"].sum().backward()
    loc, scale = (statistics[key].detach() for key in ("loc", "scale"))
    policy = IndependentNormal(loc, scale)
    torch.manual_seed(1)
    drawn = policy.sample((6,)).movedim(0, -2)
    other, sampled = drawn[..., 0, :], drawn[..., 1:, :]

    def ask(states, action):
        critic = loss.critic_network
        read = {"observation": states, "action": action, "sampled_action": sampled}
        with torch.no_grad(), loss.critic_network_params.to_module(critic):
            out = critic(TensorDict(read, [B, T]))
        return out["state_action_value"].squeeze(-1), out["state_value"].squeeze(-1)

    q, v = ask(data["observation"], data["action"])
    q_other, _ = ask(data["observation"], other)
    _, v_next = ask(data["next", "observation"], data["action"])
    mu = IndependentNormal(data["loc"], data["scale"])
    ratio = (policy.log_prob(data["action"]) - mu.log_prob(data["action"])).exp()
    ratio_other = (policy.log_prob(other) - mu.log_prob(other)).exp()
    with torch.no_grad(), loss.target_actor_network_params.to_module(loss.actor_network):
        average = loss.actor_network.get_dist_params(data.select("observation"))

    def score(a, m, s):
        return torch.cat([(a - m) / s**2, ((a - m) ** 2 - s**2) / s**3])

    projected = 0
    for b in range(B):
        rows = [data["next", key][b].flatten().tolist() for key in OUTCOME]
        values = q[b].tolist(), v_next[b].tolist()
        target = retrace(*values, *rows, ratio[b].pow(1 / A).clamp_max(1).tolist(), gamma)
        without = retrace(*values, *rows, [1.0] * T, gamma)  # Q^opc
        for t in range(T):
            error = target[t] - q[b, t]
            assert_close(losses["loss_qvalue"][b, t], 0.5 * error**2)
            corrected = min(1.0, ratio[b, t]) * error
            assert_close(losses["loss_value"][b, t], 0.5 * corrected**2)
            m, s = loc[b, t], scale[b, t]
            g = min(bound, ratio[b, t]) * (without[t] - v[b, t]) * score(data["action"][b, t], m, s)
            weight = max(0.0, 1 - bound / ratio_other[b, t])
            g = g + weight * (q_other[b, t] - v[b, t]) * score(other[b, t], m, s)
            m_a, s_a = average["loc"][b, t], average["scale"][b, t]
            k = torch.cat([(m - m_a) / s**2, 1 / s - (s_a**2 + (m - m_a) ** 2) / s**3])
            projected += bool(k @ g > delta)
            found = [statistics[key].grad[b, t] for key in ("loc", "scale")]
            assert_close(-torch.cat(found), project(g, k, delta))
    assert 0 < projected < B * T
    assert losses["projected"].item() == pytest.approx(projected / (B * T))


def test_a_fixed_scale_is_no_statistic():
    """It takes no part in the trust region: k is that of the mean alone."""

    class Mean(nn.Module):
        def __init__(self, loc, scale):
            super().__init__()
            self.loc, self.scale = nn.Parameter(torch.tensor([loc])), scale

        def forward(self, observation):
            loc = self.loc + 0 * observation
            return loc, torch.full_like(loc, self.scale)

    critic = StochasticDuelingNetwork(nn.Linear(1, 1), MLP(2, 1))
    loss = ACERLoss(gaussian_actor(Mean(0.0, 1.0)), critic, kl_bound=0.1, importance_bound=1e6)
    target = loss.target_actor_network_params["module", "0", "module", "loc"]
    target.fill_(-1.0)  # KL = loc^2 / 2 + ..., k = loc - target = 1
    one, ends = torch.ones(1, 1, 1), torch.ones(1, 1, 1).bool()
    data = TensorDict(
        {
            "observation": one,
            "action": 2 * one,
            "loc": 0 * one,
            "scale": one,
            "next": {"observation": one, "reward": 100 * one, "done": ends, "terminated": ends},
        },
        [1, 1],
    )
    loss(data)["loss_actor"].backward()
    # g = (2 - 0) (100 - V) is cut to delta = k z.
    gradient = loss.actor_network_params["module", "0", "module", "loc"].grad
    assert gradient.item() == pytest.approx(-0.1, abs=1e-4)


@pytest.mark.parametrize("kind", [IndependentNormal, TanhNormal, OneHotCategorical])
def test_the_divergence_is_that_of_torch(kind):
    """It goes ways of its own where torch's waits for an accelerator."""
    make = discrete if kind is OneHotCategorical else continuous
    loss, data = make(reduction="none")
    if kind is TanhNormal:
        data["action"] = data["action"].tanh()
        loss = ACERLoss(gaussian_actor(table_of_gaussians(), kind), loss.critic_network)
        spread(loss)
    states, actor, found = data.select("observation"), loss.actor_network, []
    for params in (loss.target_actor_network_params, loss.actor_network_params):
        with torch.no_grad(), params.to_module(actor):
            found.append(actor.get_dist(states))
    assert_close(loss(data)["kl"], kl_divergence(*found).mean())


# TorchRL's conventions


@both()
def test_every_term_reaches_its_own_networks(make):
    loss, data = make()
    names = {"loss_actor": ("actor",), "loss_qvalue": ("critic",), "loss_value": ("critic",)}
    losses = loss(data)
    assert list(losses.keys()) == loss.out_keys
    assert ("loss_value" in loss.out_keys) == (make is continuous)
    assert not any(losses[key].requires_grad for key in ("q_value", "kl", "projected"))
    parameters = dict(loss.named_parameters())
    assert not [name for name in parameters if name.startswith("target")]
    for name in (key for key in loss.out_keys if key.startswith("loss_")):
        loss.zero_grad()
        losses[name].backward(retain_graph=True)
        reached = {key for key, p in parameters.items() if p.grad is not None and p.grad.any()}
        expected = {key for key in parameters if key.startswith(names[name])}
        if name == "loss_value":
            expected = {key for key in expected if "value_network" in key}
        assert reached == expected


@both()
def test_calls(make):
    """By TensorDict, by keyword, without gradients; what is given stays as it was."""
    loss, data = make()
    before = data.clone()
    torch.manual_seed(3)
    losses = loss(data)
    assert (data == before).all()
    assert set(data.keys(True)) == set(before.keys(True))
    with torch.no_grad():
        torch.manual_seed(3)
        assert_close(loss(data).to_dict(), losses.detach().to_dict())
    given = {"_".join(k) if isinstance(k, tuple) else k: data[k] for k in loss.in_keys}
    torch.manual_seed(3)
    assert_close(dict(zip(loss.out_keys, loss(**given), strict=True)), losses.to_dict())
    batch = make(reduction="none")[0]
    batch.load_state_dict(loss.state_dict())
    torch.manual_seed(3)
    assert_close(batch(data)["loss_qvalue"].mean(), losses["loss_qvalue"])
    assert batch(data)["loss_actor"].shape == (B, T)


@both()
def test_it_compiles_without_a_break(make):
    loss, data = make()
    torch.manual_seed(3)
    expected = loss(data)
    loss.compile(fullgraph=True, backend="eager")
    torch.manual_seed(3)
    losses = loss(data)
    assert_close(losses.to_dict(), expected.to_dict())
    total(losses).backward()


@both()
def test_the_average_policy_follows_slowly(make):
    loss, _ = make()
    average = SoftUpdate(loss, eps=0.9)
    params, target = (
        {key: value.clone() for key, value in part.items(True, True)}
        for part in (loss.actor_network_params, loss.target_actor_network_params)
    )
    average.step()
    for key, value in loss.target_actor_network_params.items(True, True):
        assert_close(value, 0.9 * target[key] + 0.1 * params[key])


def test_two_ways_to_write_an_action():
    loss, data = discrete()
    other = ACERLoss(
        discrete_actor(table(3), Categorical),
        TensorDictModule(table(3), ["observation"], ["action_value"]),
    )
    other.load_state_dict(loss.state_dict())
    index = data.clone().set("action", data["action"].argmax(-1))
    assert_close(other(index).to_dict(), loss(data).to_dict())


@both()
def test_other_keys(make):
    loss, data = make()
    torch.manual_seed(3)
    expected = loss(data)
    if make is continuous:
        critic = StochasticDuelingNetwork(table(1), MLP(STATES + A, 1, num_cells=[4]).double())
        critic = StochasticDuelingNetwork(
            critic.value_network, critic.advantage_network, action_key="act"
        )
        other = ACERLoss(gaussian_actor(table_of_gaussians()), critic)
    else:
        critic = TensorDictModule(table(3), ["observation"], ["q"])
        other = ACERLoss(discrete_actor(table(3)), critic)
        other.set_keys(action_value="q")
    other.set_keys(action="act", reward="pay", done="end", terminated="term")
    other.load_state_dict(loss.state_dict())
    renamed = data.clone().rename_key_("action", "act")
    for old, new in zip(OUTCOME, ("pay", "end", "term"), strict=True):
        renamed.rename_key_(("next", old), ("next", new))
    assert {"act", ("next", "pay"), ("next", "end"), ("next", "term")} <= set(other.in_keys)
    torch.manual_seed(3)
    assert_close(other(renamed).to_dict(), expected.to_dict())


def test_hyperparameters_are_buffers():
    loss, data = discrete(gamma=0.5, entropy_coeff=0.1)
    names = ("gamma", "importance_bound", "kl_bound", "entropy_coeff")
    assert [loss.state_dict()[name].item() for name in names] == pytest.approx([0.5, 10, 1, 0.1])
    before = loss(data)["loss_qvalue"]
    loss.gamma = 0.9
    assert loss.gamma.item() == pytest.approx(0.9)
    assert loss(data)["loss_qvalue"] != before


def test_masked_steps_do_not_count():
    loss, data = discrete()
    each = discrete(reduction="none")[0]
    each.load_state_dict(loss.state_dict())
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[1, 2:] = False
    want = each(data)["loss_qvalue"][mask].mean()
    assert_close(loss(data.set(("collector", "mask"), mask))["loss_qvalue"], want)


def test_slices_of_a_slice_sampler():
    """Rows from one episode each, whatever else the buffer holds."""
    loss, _ = discrete()
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(100),
        sampler=SliceSampler(slice_len=T, end_key=("next", "done")),
        batch_size=3 * T,
    )
    data = sequences(discrete_actor(table(3)), ends=False)
    data["next", "done"][:, -1] = True
    data["row"] = torch.arange(B).unsqueeze(-1).expand(B, T).clone()
    buffer.extend(data.reshape(-1))
    rows = buffer.sample().reshape(3, T)
    assert (rows["row"] == rows["row"][:, :1]).all()
    loss(rows)


# Bad input


def refuse(kind, message, actor=None, critic=None, **options):
    actor = discrete_actor(nn.Linear(3, 2)) if actor is None else actor
    if critic is None:
        critic = TensorDictModule(nn.Linear(3, 2), ["observation"], ["action_value"])
    with pytest.raises(kind, match=f"ACERLoss: {re.escape(message)}"):
        ACERLoss(actor, critic, **options)


def test_what_is_refused_at_once():
    dueling = StochasticDuelingNetwork(nn.Linear(3, 1), MLP(5, 1))
    network = nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())
    of_box, squashed = gaussian_actor(network), gaussian_actor(network, TanhNormal)
    refuse(TypeError, "actor_network must be a ProbabilisticActor, got Linear", nn.Linear(3, 2))
    refuse(TypeError, "critic_network must be a TensorDictModule or", critic=nn.Linear(3, 2))
    message = "critic_network must be StochasticDuelingNetwork for a IndependentNormal, got Value"
    refuse(TypeError, message, of_box, ValueOperator(nn.Linear(3, 1)))
    message = "critic_network must be a TensorDictModule of action values for a OneHotCategorical"
    refuse(TypeError, message, critic=dueling)
    masked = discrete_actor(nn.Linear(3, 2), MaskedCategorical)
    refuse(TypeError, "actor_network must have a Categorical, a OneHotCategorical or a c", masked)
    message = "entropy_coeff must be None for a TanhNormal, whose entropy has no formula"
    refuse(TypeError, message, squashed, dueling, entropy_coeff=0.1)
    refuse(ValueError, "gamma must be >= 0 and <= 1, got 1.5", gamma=1.5)
    refuse(ValueError, "importance_bound must be > 0, got 0", importance_bound=0)
    refuse(ValueError, "kl_bound must be > 0, got -1", kl_bound=-1)
    refuse(ValueError, "num_action_samples must be >= 1, got 0", num_action_samples=0)
    refuse(ValueError, "reduction must be one of", reduction="average")


@both()
def test_what_is_refused_at_the_call(make):
    loss, data = make()
    for key in loss.in_keys:
        with pytest.raises(KeyError, match="ACERLoss: the batch lacks key"):
            loss(data.exclude(key))
    for key in OUTCOME:
        spoilt = data.clone()
        spoilt["next"].set(key, spoilt["next", key].expand(B, T, 2))
        with pytest.raises(ValueError, match=rf"'{key}'\) must have shape \[\*B, 1\]"):
            loss(spoilt)
    spoilt = data.clone()
    spoilt["next", "reward"][0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"'reward'\)'? must be finite"):
        loss(spoilt)
    with pytest.raises(ValueError, match=r"must be \[\*B, T\] with time last, got shape \[\]"):
        loss(data[0, 0])


def test_critics_of_other_shapes():
    loss, data = discrete()
    wrong = ACERLoss(
        discrete_actor(table(3)), TensorDictModule(table(2), ["observation"], ["action_value"])
    )
    message = (
        r"critic_network must write 'action_value', of every action, of shape \[2, 4, 3\], got"
    )
    with pytest.raises(ValueError, match=message):
        wrong(data)
    loss.set_keys(action_value="q")
    with pytest.raises(ValueError, match=r"must write 'q', of every action, .* got none"):
        loss(data)


# It learns


def test_it_learns_from_the_data_of_another():
    """Two states and two actions, rows of a uniform policy: go on twice, then take the prize.

    In state 0 action 1 leads to state 1 without pay and action 0 ends with 0.3; in state 1 action
    1 ends with 1 and action 0 with 0.
    """
    generator = torch.Generator().manual_seed(0)
    rows, steps = 64, 6
    state = torch.zeros(rows, dtype=torch.long)
    columns = []
    for _ in range(steps):
        action = torch.randint(0, 2, (rows,), generator=generator)
        onward = (state == 0) & (action == 1)
        pay = torch.where(state == 0, 0.3 * (action == 0), 1.0 * (action == 1))
        columns.append((state, action, pay, ~onward))
        state = onward.long()
    state, action, pay, ends = (torch.stack(x, 1) for x in zip(*columns, strict=True))
    seen, ends = nn.functional.one_hot(state, 2).float(), ends.unsqueeze(-1)
    following = nn.functional.one_hot((~ends.squeeze(-1)).long(), 2).float()
    outcome = {"reward": pay.unsqueeze(-1), "done": ends, "terminated": ends}
    data = TensorDict(
        {
            "observation": seen,
            "action": nn.functional.one_hot(action, 2),
            "logits": torch.zeros(rows, steps, 2),
            "next": {"observation": following, **outcome},
        },
        [rows, steps],
    )
    actor = discrete_actor(nn.Linear(2, 2))
    loss = ACERLoss(actor, TensorDictModule(nn.Linear(2, 2), ["observation"], ["action_value"]))
    train(loss, data, updates=150, lr=0.05)
    policy = actor(TensorDict({"observation": torch.eye(2)}, [2]))["logits"].softmax(-1)
    assert (policy[:, 1] > 0.9).all()


def train(loss, data, updates, lr):
    optim, average = torch.optim.Adam(loss.parameters(), lr=lr), SoftUpdate(loss, eps=0.99)
    for _ in range(updates):
        total(loss(data)).backward()
        optim.step()
        optim.zero_grad()
        average.step()


def test_it_learns_a_box_of_actions_from_the_data_of_another():
    """One step of a standard normal policy: the reward -(a - s / 2)^2 is best at s / 2."""
    state, action = torch.randn(2, 256, 1, 1)
    ends = torch.ones(256, 1, 1, dtype=torch.bool)
    reward = -(action - 0.5 * state).square()
    outcome = {"reward": reward, "done": ends, "terminated": ends}
    behaviour = {"loc": torch.zeros(256, 1, 1), "scale": torch.ones(256, 1, 1)}
    following = {"observation": state, **outcome}
    data = TensorDict(
        {"observation": state, "action": action, **behaviour, "next": following}, [256, 1]
    )
    actor = gaussian_actor(nn.Sequential(nn.Linear(1, 2), NormalParamExtractor()))
    critic = StochasticDuelingNetwork(MLP(1, 1, num_cells=[32]), MLP(2, 1, num_cells=[32]))
    train(ACERLoss(actor, critic, importance_bound=5.0), data, updates=250, lr=0.02)
    states = torch.tensor([[-1.0], [0.0], [1.0]])
    policy = actor(TensorDict({"observation": states}, [3]))
    assert_close(policy["loc"], 0.5 * states, rtol=0, atol=0.2)
    assert (policy["scale"] < 0.7).all()
