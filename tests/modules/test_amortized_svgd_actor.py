"""AmortizedSVGDActor: shapes, exploration types, boxes, keys, environments."""

from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ConvNet

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import AmortizedSVGDActor

OBS, ACT = 3, 2
BATCHES = [(), (5,), (3, 4)]
BOX = Bounded(-1.0, 1.0, shape=(ACT,))


def make_actor(spec=BOX, *, noise_dim=None, **options):
    act = spec.shape[-1]
    net = MLP(in_features=OBS + (noise_dim or act), out_features=act, num_cells=[8])
    return AmortizedSVGDActor(net, action_spec=spec, noise_dim=noise_dim, **options)


def make_states(*batch):
    return TensorDict({"observation": torch.randn(*batch, OBS)}, batch)


class Constant(nn.Module):
    """u = c for every state and noise."""

    def __init__(self, *value):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, observation, noise):
        return self.value.expand(*noise.shape[:-1], -1)


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("noise_dim", [None, 1, 7])
def test_one_action_per_state_and_many_samples(batch, noise_dim):
    actor, states = make_actor(noise_dim=noise_dim), make_states(*batch)
    assert actor(states)["action"].shape == (*batch, ACT)
    assert actor.draw_noise(states, 6).shape == (*batch, 6, noise_dim or ACT)
    assert actor.sample(states.exclude("action"), 6).shape == (*batch, 6, ACT)


def test_forward_writes_the_action_and_nothing_else():
    actor, states = make_actor(), make_states(5)
    before = states.clone()
    assert actor(states) is states
    assert set(states.keys()) == {"observation", "action"}
    assert (states["observation"] == before["observation"]).all()
    actor.sample(before, 4)
    assert set(before.keys()) == {"observation"}


def test_samples_of_a_state_see_that_state_and_their_own_noise():
    # u = observation + xi, so each sample can be told from its state and its noise.
    net = nn.Module()
    net.forward = lambda observation, noise: observation[..., :ACT] + noise
    actor, states = AmortizedSVGDActor(net, action_spec=BOX), make_states(3, 4)
    noise = torch.randn(3, 4, 6, ACT)
    for i, j, k in ((0, 0, 0), (2, 1, 5), (1, 3, 2)):
        want = torch.tanh(states["observation"][i, j, :ACT] + noise[i, j, k])
        got = actor.squash(actor.unsquashed(states, noise))[i, j, k]
        torch.testing.assert_close(got, want)


def test_noise_is_standard_normal():
    noise = make_actor().draw_noise(make_states(50), 1000)
    # 1e5 numbers: standard errors 0.003 of the mean, 0.0045 of the variance; five of them.
    assert abs(noise.mean()) < 0.016
    assert abs(noise.var() - 1.0) < 0.023


def test_random_exploration_draws_anew():
    actor, states = make_actor(), make_states(5)
    for context in (set_exploration_type(ExplorationType.RANDOM), torch.no_grad()):
        with context:
            first, second = actor(states.clone())["action"], actor(states.clone())["action"]
        assert (first != second).all()


@pytest.mark.parametrize(
    "exploration", [ExplorationType.DETERMINISTIC, ExplorationType.MODE, ExplorationType.MEAN]
)
@pytest.mark.parametrize("batch", BATCHES)
def test_other_exploration_types_use_zero_noise(exploration, batch):
    actor, states = make_actor(noise_dim=5), make_states(*batch)
    zero = torch.zeros(*batch, 1, 5)
    want = actor.squash(actor.unsquashed(states, zero)).squeeze(-2)
    with set_exploration_type(exploration):
        for _ in range(2):
            torch.testing.assert_close(actor(states)["action"], want, rtol=0.0, atol=0.0)


def test_sample_draws_noise_in_any_exploration_type():
    actor, states = make_actor(), make_states(5)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert (actor.sample(states, 2)[:, 0] != actor.sample(states, 2)[:, 0]).all()


@pytest.mark.parametrize("u", [-1e4, -30.0, 0.0, 30.0, 1e4])
def test_actions_lie_in_the_box_also_at_saturation(u):
    low, high = torch.tensor([0.1, -5.0]), torch.tensor([0.3, 2.0])
    spec = Bounded(low, high, shape=(ACT,))
    action = AmortizedSVGDActor(Constant(u, -u), action_spec=spec)(make_states(5))["action"]
    assert spec.is_in(action[0])
    end = {-1: low, 0: (low + high) / 2, 1: high}[(u > 0) - (u < 0)]
    torch.testing.assert_close(action[:, 0], end[0].expand(5))
    other = {-1: high, 0: (low + high) / 2, 1: low}[(u > 0) - (u < 0)]
    torch.testing.assert_close(action[:, 1], other[1].expand(5))


def test_spec_with_batch_dimensions():
    spec = Bounded(torch.tensor([0.1, -5.0]).expand(4, 2), torch.tensor([0.3, 2.0]).expand(4, 2))
    with pytest.warns(UserWarning, match="action_spec should have shape"):
        actor = make_actor(spec)
    assert actor.low.tolist() == pytest.approx([0.1, -5.0])
    assert actor.high.tolist() == pytest.approx([0.3, 2.0])
    assert spec.is_in(actor(make_states(4))["action"])
    with pytest.warns(UserWarning, match="action_spec should have shape"):
        assert make_actor(BOX.expand(3, 4, ACT)).action_dim == ACT


def test_the_spec_is_copied():
    low = torch.zeros(ACT)
    actor = make_actor(Bounded(low, torch.ones(ACT)))
    low.fill_(9.0)
    assert actor.low.tolist() == [0.0, 0.0]


def test_several_inputs_and_pixels():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = ConvNet(in_features=1, num_cells=[4], kernel_sizes=3, strides=2)
            self.head = MLP(in_features=4 * 3 * 3 + OBS + ACT, out_features=ACT, num_cells=[8])

        def forward(self, pixels, vector, noise):
            return self.head(self.encoder(pixels), vector, noise)

    actor = AmortizedSVGDActor(Net(), action_spec=BOX, in_keys=["pixels", "vector"])
    states = TensorDict(
        {"pixels": torch.rand(5, 1, 8, 8), "vector": torch.randn(5, OBS)}, batch_size=[5]
    )
    assert actor(states)["action"].shape == (5, ACT)
    assert actor.sample(states, 6).shape == (5, 6, ACT)
    other = states.clone()
    other["pixels"][0] += 1.0
    noise = actor.draw_noise(states, 1)
    moved = (actor.unsquashed(states, noise) != actor.unsquashed(other, noise)).any(-1).squeeze(-1)
    assert moved.tolist() == [True, False, False, False, False]


def test_nested_keys():
    keys = {"in_keys": [("agent", "state")], "out_keys": [("agent", "move")]}
    actor = make_actor(**keys)
    states = TensorDict({"agent": {"state": torch.randn(5, OBS)}}, [5])
    with set_exploration_type(ExplorationType.MODE):
        action = actor(states)["agent", "move"]
        torch.testing.assert_close(actor(agent_state=states["agent", "state"][2]), action[2])
    assert action.shape == (5, ACT)


@pytest.mark.parametrize("batch", BATCHES)
def test_keyword_call_takes_one_state(batch):
    actor, states = make_actor(), make_states(*batch)
    with set_exploration_type(ExplorationType.MODE):
        want = actor(states)["action"].reshape(-1, ACT)[0]
        observation = states["observation"].reshape(-1, OBS)[0]
        torch.testing.assert_close(actor(observation=observation), want)
        torch.testing.assert_close(actor(observation), want)


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_rollout_in_the_multi_goal_world(batch):
    env = MultiGoalEnv(batch_size=batch, seed=0)
    net = MLP(in_features=2 + ACT, out_features=ACT, num_cells=[8])
    data = env.rollout(5, AmortizedSVGDActor(net, action_spec=env.action_spec_unbatched))
    assert data["action"].shape == (*batch, 5, ACT)
    assert env.action_spec.is_in(data["action"][..., 0, :])


def test_collector():
    class NoiseOnly(nn.Module):
        def forward(self, observation, noise):
            return noise

    env = MultiGoalEnv(batch_size=(4,), seed=0)
    net = NoiseOnly()
    actor = AmortizedSVGDActor(net, action_spec=env.action_spec_unbatched)
    collector = Collector(env, actor, frames_per_batch=40, total_frames=80)
    actions = torch.cat([data["action"] for data in collector], 1)
    collector.shutdown()
    assert actions.shape == (4, 20, ACT)
    assert actions.unique().numel() == actions.numel()  # noise of its own at every step


def test_state_dict_round_trip():
    wide = Bounded(-2.0, 3.0, shape=(ACT,))
    source, target = make_actor(wide), make_actor(wide)
    target.load_state_dict(deepcopy(source.state_dict()))
    states, noise = make_states(5), torch.randn(5, 6, ACT)
    torch.testing.assert_close(
        target.unsquashed(states, noise), source.unsquashed(states, noise), rtol=0.0, atol=0.0
    )
    assert {"low", "high"} < set(source.state_dict())


def test_float64():
    actor = make_actor(Bounded(-1.0, 1.0, shape=(ACT,), dtype=torch.float64)).double()
    states = make_states(5).double()
    sample, log_prob = actor.sample_with_log_prob(states, 6)
    assert sample.dtype == log_prob.dtype == actor(states)["action"].dtype == torch.float64
    assert make_actor().double().sample(states, 2).dtype == torch.float64


def test_compiled_sample_gives_the_same_numbers():
    actor, states = make_actor(), make_states(5)
    torch.compiler.reset()
    compiled = torch.compile(actor.sample, fullgraph=True, backend="aot_eager")
    for seed in range(2):
        torch.manual_seed(seed)
        want = actor.sample(states, 6)
        torch.manual_seed(seed)
        torch.testing.assert_close(compiled(states, 6), want)
