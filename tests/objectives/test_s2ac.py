"""S2ACLoss: SAC without steps, its terms by hand, gradients through the steps, who climbs whom."""

import copy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss, SoftUpdate

from tests.objectives.builders import ACT, NO_UPDATER, OBS, make_actor, make_batch, run
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.modules import SVGDActor
from torchrl_stein.objectives import S2ACLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)
ALPHA, GAMMA = 0.3, 0.9
SPEC = Bounded(-1.0, 1.0, shape=(ACT,))


def smooth(inputs, outputs):
    return MLP(inputs, outputs, num_cells=[8, 8], activation_class=nn.SiLU)


def make(*, num_nets=2, spec=SPEC, delay_qvalue=True, reduction="mean", **options):
    network = nn.Sequential(smooth(OBS, 2 * ACT), NormalParamExtractor())
    qvalues = [
        ValueOperator(smooth(OBS + ACT, 1), in_keys=["observation", "action"])
        for _ in range(num_nets)
    ]
    options = {"num_action_samples": 4, "num_steps": 2, "temperature": ALPHA, **options}
    actor = SVGDActor(network, qvalues, action_spec=spec, **options)
    loss = S2ACLoss(actor, qvalues, delay_qvalue=delay_qvalue, reduction=reduction)
    return loss.make_value_estimator(gamma=GAMMA)


def gradients(loss, total, part):
    params = list(getattr(loss, f"{part}_network_params").parameters())
    return torch.autograd.grad(total, params, retain_graph=True, allow_unused=True)


class FixedNoise:
    """Replaces the noise of an actor, the same for every call."""

    def __init__(self, actor, data, num_samples):
        self.noise = actor.draw_noise(data, num_samples)
        actor.draw_noise = lambda *_: self.noise


def test_without_steps_it_is_sac(monkeypatch):
    """Values and gradients of TorchRL's loss, under the same noise."""
    loss = make(num_steps=0, num_action_samples=1, scale_bounds=None, noise_bound=None)
    batch = make_batch(12)
    fixed = FixedNoise(loss.actor_network, batch, 1)
    theirs_actor = ProbabilisticActor(
        TensorDictModule(loss.actor_network.network, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        spec=SPEC,
        distribution_class=TanhNormal,
    )
    qvalues = [ValueOperator(smooth(OBS + ACT, 1), in_keys=["observation", "action"])] * 2
    qvalues = [copy.deepcopy(q) for q in qvalues]
    theirs = SACLoss(theirs_actor, qvalues, alpha_init=ALPHA, fixed_alpha=True, loss_function="l2")
    theirs.make_value_estimator(gamma=GAMMA)
    theirs.qvalue_network_params.data.update_(loss.qvalue_network_params.data)
    theirs.target_qvalue_network_params.data.update_(loss.target_qvalue_network_params.data)
    noise = fixed.noise.squeeze(-2)
    monkeypatch.setattr(
        torch.distributions.normal, "_standard_normal", lambda *args, **kwargs: noise
    )
    expected, losses = theirs(batch.clone()), loss(batch.clone())
    # TorchRL has no 1/2 in its squared error.
    assert_close(2 * losses["loss_qvalue"], expected["loss_qvalue"])
    assert_close(losses["loss_actor"], expected["loss_actor"], rtol=1e-4, atol=1e-5)
    assert_close(losses["entropy"], expected["entropy"], rtol=1e-4, atol=1e-5)
    assert_close(losses["alpha"], expected["alpha"])
    ours = gradients(loss, losses["loss_actor"], "actor")
    for own, other in zip(ours, gradients(theirs, expected["loss_actor"], "actor"), strict=True):
        assert_close(own, other, rtol=1e-3, atol=1e-5)
    named = loss.qvalue_network_params.flatten_keys(".")
    for key, other in theirs.qvalue_network_params.flatten_keys(".").items():
        (own,) = torch.autograd.grad(losses["loss_qvalue"], named[key], retain_graph=True)
        (other,) = torch.autograd.grad(expected["loss_qvalue"], other, retain_graph=True)
        assert_close(2 * own, other)


def test_the_terms_by_hand():
    loss, batch = make(), make_batch(9)
    with torch.no_grad():
        for p in loss.target_qvalue_network_params.values(True, True):
            p.mul_(1.5)
    torch.manual_seed(0)
    losses = loss(batch.clone())
    actor, nets = loss.actor_network, range(2)

    def q(params, states, actions):
        values = []
        for i in nets:
            with params[i].to_module(loss.qvalue_network):
                data = TensorDict({"observation": states, "action": actions})
                values.append(loss.qvalue_network(data)["state_action_value"][..., 0])
        return torch.stack(values)

    torch.manual_seed(0)
    next_actions, next_log_prob = actor.sample_with_log_prob(batch["next"], 4)
    actions, log_prob = actor.sample_with_log_prob(batch, 4)
    next_q = torch.stack(
        [
            q(loss.target_qvalue_network_params, batch["next", "observation"], next_actions[:, i])
            for i in range(4)
        ]
    ).amin(1)
    value = (next_q.T - ALPHA * next_log_prob).mean(-1)
    going_on = (~batch["next", "terminated"]).float().squeeze(-1)
    target = batch["next", "reward"].squeeze(-1) + GAMMA * going_on * value
    own = q(loss.qvalue_network_params, batch["observation"], batch["action"])
    assert_close(losses["loss_qvalue"], 0.5 * (target.detach() - own).square().sum(0).mean())
    of_actions = torch.stack(
        [
            q(loss.qvalue_network_params, batch["observation"], actions[:, i]).amin(0)
            for i in range(4)
        ]
    )
    assert_close(losses["loss_actor"], (ALPHA * log_prob - of_actions.T).mean())
    assert_close(losses["soft_value"], value.mean())
    assert_close(losses["entropy"], -log_prob.mean())
    assert_close(losses["q_value"], own.mean())


def test_who_gets_gradients():
    loss = make()
    losses = run(loss, make_batch(6))
    assert all(g is None for g in gradients(loss, losses["loss_actor"], "qvalue"))
    assert all(g is None for g in gradients(loss, losses["loss_qvalue"], "actor"))
    assert all(g.abs().sum() > 0 for g in gradients(loss, losses["loss_actor"], "actor"))
    assert all(g.abs().sum() > 0 for g in gradients(loss, losses["loss_qvalue"], "qvalue"))
    assert not any(losses[key].requires_grad for key in ("soft_value", "entropy", "alpha"))


def test_the_actor_is_differentiated_through_its_steps():
    """Against finite differences: the score moves with the particles, and so does the trace."""
    loss = make(kernel=RBFKernel(0.8), spec=SPEC.to(torch.float64)).double()
    batch = make_batch(5, dtype=torch.float64)
    FixedNoise(loss.actor_network, batch, 4)
    weight = loss.actor_network_params["network", "0", "0", "weight"]
    torch.manual_seed(3)
    way = torch.randn_like(weight)
    (own,) = torch.autograd.grad(loss(batch)["loss_actor"], weight)
    values = []
    for step in (1e-4, -1e-4):
        with torch.no_grad():
            weight.add_(step * way)
        values.append(loss(batch)["loss_actor"].item())
        with torch.no_grad():
            weight.sub_(step * way)
    slope = (own * way).sum().item()
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(slope, rel=1e-5)
    loss.actor_network.num_steps = 0
    (plain,) = torch.autograd.grad(loss(batch)["loss_actor"], weight)
    assert (plain * way).sum().item() != pytest.approx(slope, rel=0.05)


def test_losses_climb_the_present_critic_and_the_policy_that_of_the_last_call():
    loss, batch = make(), make_batch(6)
    actor = loss.actor_network

    def same():
        return (
            actor.critics[1]
            .module[0]
            .weight.equal(loss.qvalue_network_params["module", "0", "weight"][1])
        )

    assert same()  # before the first update
    before = run(loss, batch)["loss_actor"]
    with torch.no_grad():
        for p in loss.qvalue_network_params.parameters():
            p.mul_(1.5)
    loss.temperature = 0.2
    assert not same()
    assert run(loss, batch)["loss_actor"] != before
    assert same()
    assert actor.temperature == loss.temperature
    # A loss that was built with the present critic says the same as one that came to it.
    again = make()
    again.load_state_dict(loss.state_dict())
    assert run(again, batch)["loss_actor"] == run(loss, batch)["loss_actor"]
    twin = copy.deepcopy(loss)
    assert run(twin, batch)["loss_actor"] == run(loss, batch)["loss_actor"]


def test_two_calls_before_one_backward():
    loss = make()
    total = loss(make_batch(6))["loss_actor"] + loss(make_batch(6, seed=1))["loss_actor"]
    total.backward()


@pytest.mark.parametrize("num_nets", [1, 2])
def test_manners_of_a_loss(num_nets):
    loss = make(num_nets=num_nets)
    losses = run(loss, make_batch(2, 3))
    assert list(losses.keys()) == loss.out_keys
    assert all(value.shape == () for value in losses.values())
    data = make_batch(6)
    assert loss(data)["loss_actor"].isfinite()
    assert data["td_error"].shape == (6,)
    names = [name for name, _ in loss.named_parameters()]
    assert not any("critics" in name for name in names)
    target = SoftUpdate(loss, tau=0.5)
    torch.optim.SGD(loss.parameters(), lr=0.1)
    target.step()
    alone = loss.actor_loss(make_batch(6).exclude("next"))
    assert {"loss_actor", "entropy"} == set(alone.keys())
    each = make(num_nets=num_nets, reduction="none")
    assert run(each, make_batch(6))["loss_actor"].shape == (6,)
    wide = loss.double()
    assert run(wide, make_batch(6, dtype=torch.float64))["loss_actor"].dtype == torch.float64
    assert loss.actor_network.critics[0].module[0].weight.dtype == torch.float64


def test_it_learns_where_to_start():
    """Q = -10 (a - 0.6)^2: from loc 0, the Gaussian moves to where the steps need not."""
    peak = TensorDictModule(Peak(), ["observation", "action"], ["state_action_value"])
    network = nn.Sequential(nn.Linear(OBS, 2), NormalParamExtractor())
    spec = Bounded(-1.0, 1.0, shape=(1,))
    actor = SVGDActor(network, peak, action_spec=spec, temperature=0.3, step_size=0.01)
    loss = S2ACLoss(actor, peak, delay_qvalue=False).make_value_estimator(gamma=GAMMA)
    optim = torch.optim.Adam(loss.actor_network_params.parameters(), lr=0.06)
    values = []
    for _ in range(80):
        term = loss.actor_loss(make_batch(16, act=1))["loss_actor"]
        term.backward()
        optim.step()
        optim.zero_grad()
        values.append(term.item())
    # The least is -alpha log of the integral of exp(Q / alpha), about (pi alpha / 10)^(1/2).
    best = -0.3 * 0.5 * torch.tensor(torch.pi * 0.03).log().item()
    assert best - 0.02 < sum(values[-10:]) / 10 < best + 0.25
    assert sum(values[:10]) / 10 > best + 0.5


class Peak(nn.Module):
    """-10 (a - 0.6)^2, with a parameter that does nothing."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1))

    def forward(self, observation, action):
        return self.shift - 10 * (action - 0.6).square()


def test_errors():
    qvalue = ValueOperator(smooth(OBS + ACT, 1), in_keys=["observation", "action"])
    with pytest.raises(TypeError, match="actor_network must be an SVGDActor"):
        S2ACLoss(make_actor(), qvalue)
    actor = make().actor_network
    with pytest.raises(ValueError, match=r"the 2 network\(s\) of the actor, got 1"):
        S2ACLoss(actor, qvalue)
    with pytest.raises(ValueError, match="temperature must be > 0"):
        S2ACLoss(actor, [qvalue, copy.deepcopy(qvalue)], temperature=-1.0)
    with pytest.raises(ValueError, match=r"must be given .* temperatures of shape \[2, 1\]"):
        make(temperature=torch.ones(2, 1))


def test_it_compiles_without_breaks():
    loss, batch = make(num_steps=1, num_action_samples=2), make_batch(6)
    FixedNoise(loss.actor_network, batch, 2)
    expected = loss(batch)
    loss.compile(fullgraph=True, backend="aot_eager")  # real code takes minutes to make
    found = loss(batch)
    found["loss_actor"].backward()
    for key, value in expected.items():
        assert_close(found[key], value, rtol=1e-4, atol=1e-5)
