"""Several agents as rows of one batch: what moves where, who sees whom, and who acts."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

from torchrl_stein.envs import SimpleSpreadEnv
from torchrl_stein.modules import (
    AgentsActor,
    AmortizedSVGDActor,
    ParticleModule,
    add_others,
    agent_rows,
)
from torchrl_stein.runs import make_explorer

ENV = SimpleSpreadEnv((4,), seed=0)
BOX = ENV.full_action_spec_unbatched["agents", "action"][0]


def linear(seeds=3):
    """u = 14 numbers of the observation to two; of each agent another map."""
    make = lambda: nn.Linear(14, 2)  # noqa: E731
    return TensorDictModule(ParticleModule(make, seeds), ["observation"], ["action"])


@pytest.mark.parametrize("plain", [False, True])
def test_agents_stand_before_the_batch(plain):
    """Also where the batch size of the agents got lost, as in what a checkpoint restores."""
    data = ENV.rollout(3, break_when_any_done=False)
    before = data.clone()
    rows = agent_rows(TensorDict(data.to_dict(), data.shape) if plain else data)
    assert rows.batch_size == rows["next"].batch_size == (3, 4, 3)
    for i in range(3):
        for key in ("observation", "action"):
            assert rows[key][i].equal(data["agents", key][..., i, :])
        assert rows["next", "observation"][i].equal(
            data["next", "agents", "observation"][..., i, :]
        )
        for key in ("reward", "done", "terminated", "state"):
            assert rows["next", key][i].equal(data["next", key])
    assert "agents" not in rows.keys() | rows["next"].keys()
    rows["action"] = rows["action"] + 1
    rows["next", "others"] = rows["action"]
    assert (data == before).all()
    assert set(data.keys(True, True)) == set(before.keys(True, True))


def test_rows_of_a_replay_buffer():
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(100), batch_size=5)
    buffer.extend(ENV.rollout(3, break_when_any_done=False).reshape(-1))
    assert agent_rows(buffer.sample())["next", "reward"].shape == (3, 5, 1)


def test_what_belongs_to_an_agent_goes_before_what_belongs_to_all():
    own = torch.arange(6.0).reshape(2, 3, 1)
    data = TensorDict({"reward": torch.ones(2, 1), "agents": {"reward": own}}, [2])
    assert agent_rows(data)["reward"].squeeze(-1).tolist() == [[0, 3], [1, 4], [2, 5]]
    one = TensorDict({"group": {"x": torch.zeros(3, 1)}}, [])  # no batch at all
    assert agent_rows(one, "group")["x"].shape == (3, 1)


def test_others_follow_in_a_circle():
    """Of agents 0, 1, 2 with observation i and action 10 i: 1 sees 2, then 0."""
    numbers = torch.arange(3.0).reshape(3, 1, 1).expand(3, 2, 1)
    rows = add_others(TensorDict({"observation": numbers, "action": 10 * numbers}, [3, 2]))
    expected = [[1, 10, 2, 20], [2, 20, 0, 0], [0, 0, 1, 10]]
    assert rows["others"].tolist() == [[row] * 2 for row in expected]
    alone = TensorDict({"observation": torch.ones(1, 2, 4), "action": torch.ones(1, 2, 1)}, [1, 2])
    assert add_others(alone)["others"].shape == (1, 2, 0)


def test_the_policy_of_each_agent_sees_its_own_observation_alone():
    torch.manual_seed(0)
    networks = linear()
    policy = AgentsActor(networks)
    assert policy.in_keys == [("agents", "observation")]
    assert policy.out_keys == [("agents", "action")]
    data = ENV.reset()
    seen = data["agents", "observation"].clone().requires_grad_()
    action = policy(data.clone().set(("agents", "observation"), seen))["agents", "action"]
    weights = networks.module.particles  # [3, 30], weight and bias
    for i, own in enumerate(weights):
        weight, bias = own[:28].reshape(2, 14), own[28:]
        assert_close(action[:, i], seen[:, i] @ weight.T + bias)
        (gradient,) = torch.autograd.grad(action[:, i].sum(), seen, retain_graph=True)
        assert (gradient[:, i] != 0).all()
        assert (gradient[:, torch.arange(3) != i] == 0).all()


def test_a_network_may_be_shared():
    actor = AmortizedSVGDActor(nn.Linear(16, 2), action_spec=BOX)
    data = ENV.rollout(5, AgentsActor(actor))
    assert data["agents", "action"].shape == (4, 5, 3, 2)
    # Noise is drawn for each agent by itself.
    assert data["agents", "action"].unique().numel() == 4 * 5 * 3 * 2
    assert set(data["agents"].keys()) == {"observation", "action"}


def test_noise_for_exploration_goes_to_the_agents():
    torch.manual_seed(0)
    policy, spec = AgentsActor(linear()), ENV.full_action_spec["agents", "action"]
    for options in ({"noise": 0.1}, {"noise": 0.1, "theta": 0.5}, {"uniform_fraction": 1.0}):
        explorer = make_explorer(policy, spec, action_key=("agents", "action"), **options)
        data = ENV.reset()
        noisy = explorer(data.clone())["agents", "action"]
        assert noisy.shape == (4, 3, 2)
        assert (noisy.abs() <= 1).all()
        assert not noisy.equal(policy(data)["agents", "action"])


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(KeyError, match=r"agent_rows: the batch lacks key 'agents', it holds .*"):
        agent_rows(TensorDict({"observation": torch.zeros(4, 3)}, [4]))
    with pytest.raises(TypeError, match="agent_rows: agents must be a tensordict, got a tensor"):
        agent_rows(TensorDict({"agents": torch.zeros(4, 3)}, [4]))
    shapes = r"'agents' must have shape \[\*B, n, ...\] for B = \[4\], got 'x' \[4\]"
    with pytest.raises(ValueError, match=f"agent_rows: entries of {shapes}"):
        agent_rows(TensorDict({"agents": {"x": torch.zeros(4)}}, [4]))
    entries = {"x": torch.zeros(4, 3, 1), "y": torch.zeros(4, 2, 1)}
    with pytest.raises(ValueError, match=r"got 'x' \[4, 3, 1\], 'y' \[4, 2, 1\]"):
        agent_rows(TensorDict({"agents": entries}, [4]))
    with pytest.raises(ValueError, match="got none"):
        agent_rows(TensorDict({"agents": {}}, [4]))
    with pytest.raises(KeyError, match="lacks key 'action'"):
        add_others(TensorDict({"observation": torch.zeros(3, 4, 1)}, [3, 4]))
    with pytest.raises(TypeError, match="AgentsActor: actor must be a TensorDictModule, such as"):
        AgentsActor(nn.Linear(3, 2))
    with pytest.raises(TypeError, match="AgentsActor: group must be a str, got None"):
        AgentsActor(linear(), None)
    with pytest.raises(KeyError, match=r"AgentsActor: the batch lacks key \('others', 'observ"):
        AgentsActor(linear(), "others")(ENV.reset())
