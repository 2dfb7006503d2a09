"""Losses of one policy over rows of agents: MADDPG, and soft Q-learning with several samplers."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.testing import assert_close
from torchrl.modules import MLP, MultiAgentMLP, TanhModule, ValueOperator
from torchrl.objectives import DDPGLoss

from torchrl_stein import AmortizedSVGDActor, SoftQLoss
from torchrl_stein.envs import SimpleSpreadEnv
from torchrl_stein.modules import AgentsActor, ParticleModule, add_others, agent_rows

pytestmark = pytest.mark.filterwarnings("ignore:No target network updater")
N, SEEN, ACT = 3, 14, 2
ENV = SimpleSpreadEnv((6,), seed=0)
SPEC = ENV.full_action_spec_unbatched["agents", "action"]
OWN, JOINT = ["observation", "action"], ["observation", "action", "others"]


def networks(inputs, outputs, shared=False):
    def make():
        return MLP(inputs, outputs, num_cells=[16])

    return make() if shared else ParticleModule(make, N)


def maddpg():
    torch.manual_seed(0)
    actor = TensorDictSequential(
        TensorDictModule(networks(SEEN, ACT), ["observation"], ["raw"]),
        TanhModule(in_keys=["raw"], out_keys=["action"], spec=SPEC[0]),
    )
    qvalue = ValueOperator(networks(N * (SEEN + ACT), 1), in_keys=JOINT)
    loss = DDPGLoss(actor, qvalue, delay_actor=True, reduction="none")
    loss.make_value_estimator(gamma=0.9)
    for target in (loss.target_actor_network_params, loss.target_value_network_params):
        target.apply_(lambda x: x.add_(0.1))
    return loss


def acts(loss, params, seen):
    """Actions [B, N, A] of observations [B, N, O], one agent after the other."""
    rows = TensorDict({"observation": seen.movedim(1, 0)}, [N, len(seen)])
    with params.to_module(loss.actor_network):
        return loss.actor_network(rows)["action"].movedim(0, 1)


def critic(loss, params, i, seen, actions):
    """Q_i of all observations [B, N, O] and actions [B, N, A], [B]."""
    order = [(i + k) % N for k in range(N)]
    parts = [seen[:, i], actions[:, i]]
    for j in order[1:]:
        parts += [seen[:, j], actions[:, j]]
    inputs = torch.cat(parts, -1).expand(N, -1, -1)
    with params.to_module(loss.value_network):
        return loss.value_network.module(inputs)[i].squeeze(-1)


@pytest.fixture(scope="module")
def data():
    return ENV.rollout(4, break_when_any_done=False).reshape(-1)


def rows_of(loss, data):
    """As in recipes/maddpg.py."""
    rows = agent_rows(data)
    with torch.no_grad(), loss.target_actor_network_params.to_module(loss.actor_network):
        loss.actor_network(rows["next"])
    add_others(rows)
    add_others(rows["next"])
    return rows


def test_the_losses_of_maddpg_against_a_loop(data):
    """Lowe et al. 2017, eqs. (5), (6): targets of target policies, others from the buffer."""
    loss = maddpg()
    losses = loss(rows_of(loss, data))
    seen, actions = data["agents", "observation"], data["agents", "action"]
    after, reward = data["next", "agents", "observation"], data["next", "reward"].squeeze(-1)
    with torch.no_grad():
        following = acts(loss, loss.target_actor_network_params, after)
        mine = acts(loss, loss.actor_network_params, seen)
        for i in range(N):
            q_next = critic(loss, loss.target_value_network_params, i, after, following)
            q = critic(loss, loss.value_network_params, i, seen, actions)
            assert_close(losses["loss_value"][i], (q - (reward + 0.9 * q_next)).square())
            joint = actions.clone()
            joint[:, i] = mine[:, i]
            q = critic(loss, loss.value_network_params, i, seen, joint)
            assert_close(losses["loss_actor"][i], -q)


def test_an_actor_learns_from_its_own_critic_alone(data):
    loss = maddpg()
    losses = loss(rows_of(loss, data))
    # The weights of all agents' networks are one parameter, [N, D].
    (actors,), (critics,) = (
        list(params.parameters())
        for params in (loss.actor_network_params, loss.value_network_params)
    )
    for i in range(N):
        others = torch.arange(N) != i
        of_actor = torch.autograd.grad(
            losses["loss_actor"][i].sum(), [actors, critics], retain_graph=True, allow_unused=True
        )
        assert (of_actor[0][i] != 0).any()
        assert (of_actor[0][others] == 0).all()
        assert of_actor[1] is None
        of_critic = torch.autograd.grad(
            losses["loss_value"][i].sum(), [actors, critics], retain_graph=True, allow_unused=True
        )
        assert of_critic[0] is None
        assert (of_critic[1][i] != 0).any()
        assert (of_critic[1][others] == 0).all()
    # It is the gradient of Q_i: of other critics it does not depend.
    before = losses["loss_actor"][0].detach().clone()
    with torch.no_grad():
        critics[1:] += 1.0
    assert_close(loss(rows_of(loss, data))["loss_actor"][0], before)


def test_what_torchrl_alone_would_do(data):
    """DDPGLoss with TorchRL's centralised MultiAgentMLP: every critic pulls at every actor."""
    torch.manual_seed(0)
    options = {"n_agents": N, "share_params": False, "num_cells": [16]}
    seen, action, value = (
        ("agents", key) for key in ("observation", "action", "state_action_value")
    )
    actor = TensorDictModule(
        MultiAgentMLP(SEEN, ACT, centralized=False, **options), [seen], [action]
    )
    qvalue = ValueOperator(
        MultiAgentMLP(SEEN + ACT, 1, centralized=True, **options), [seen, action], [value]
    )
    loss = DDPGLoss(actor, qvalue, reduction="none")
    loss.set_keys(state_action_value=value)
    of_first = loss.loss_actor(data)[0][:, 0].sum()
    for weight in loss.actor_network_params.parameters():
        (gradient,) = torch.autograd.grad(of_first, weight, retain_graph=True)
        assert (gradient[1:] != 0).any()  # of agents 1 and 2, by the critic of agent 0


# Soft Q-learning


def soft_q(shared=False, keys=JOINT, **options):
    torch.manual_seed(0)
    samplers = networks(SEEN + ACT, ACT, shared)
    actor = AmortizedSVGDActor(samplers, action_spec=SPEC[0])
    inputs = N * (SEEN + ACT) if "others" in keys else SEEN + ACT
    qvalue = ValueOperator(networks(inputs, 1, shared), in_keys=keys)
    loss = SoftQLoss(actor, qvalue, reduction="none", delay_qvalue=False, **options)
    loss.make_value_estimator(gamma=0.9)
    return loss


def soft_rows(loss, data):
    rows = agent_rows(data)
    with torch.no_grad():
        loss.actor_network(rows["next"])
    add_others(rows)
    add_others(rows["next"])
    return rows


@pytest.mark.parametrize("keys", [OWN, JOINT])
@pytest.mark.parametrize("shared", [False, True])
def test_soft_q_learning_of_agents_is_that_of_each_alone(data, shared, keys):
    """The kernel compares actions of one agent at one state; draws are those of a generator."""
    loss = soft_q(shared, keys)
    rows = soft_rows(loss, data)
    torch.manual_seed(1)
    losses = loss(rows.clone())
    assert losses["loss_actor"].shape == losses["loss_qvalue"].shape == (N, 24)
    assert AgentsActor(loss.actor_network)(ENV.reset())["agents", "action"].shape == (6, N, ACT)
    params = [p for p in loss.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(losses["loss_actor"][0].sum(), params, allow_unused=True)
    reached = [g for g in gradients if g is not None and (g != 0).any()]
    assert reached
    if not shared:  # of the sampler of agent 0 alone
        (gradient,) = reached
        assert (gradient[0] != 0).any()
        assert (gradient[1:] == 0).all()


def test_the_value_of_an_agent_depends_on_what_the_others_do(data):
    loss, values = soft_q(), []
    for change in (0.0, 1.0):
        rows = soft_rows(loss, data)
        rows["others"] = rows["others"] + change
        torch.manual_seed(1)
        values.append(loss(rows)["loss_qvalue"])
    assert not values[0].allclose(values[1])


def test_agents_behind_the_batch_are_refused_with_what_to_do_instead(data):
    keys = [("agents", "observation"), ("agents", "action")]
    actor = AmortizedSVGDActor(
        nn.Linear(SEEN + ACT, ACT), action_spec=SPEC[0], in_keys=keys[:1], out_keys=keys[1:]
    )
    loss = SoftQLoss(actor, ValueOperator(nn.Linear(SEEN + ACT, 1), in_keys=keys[:1]))
    loss.set_keys(action=keys[1])
    loss.make_value_estimator(gamma=0.9)
    with pytest.raises(ValueError, match=r"SoftQLoss: .*agents.*agent_rows"):
        loss(data)
    with pytest.raises(ValueError, match=r"AmortizedSVGDActor: .*agents.*agent_rows.*AgentsActor"):
        actor(data)
    with pytest.raises(TypeError, match=r'unbatched\["agents", "action"\]\[0\]'):
        AmortizedSVGDActor(nn.Linear(SEEN + ACT, ACT), action_spec=ENV.action_spec)
