"""Every actor: which networks, shapes, dtypes, specs and numbers it takes, and what it refuses."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, check_env_specs, set_exploration_type
from torchrl.modules import MLP

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import (
    AmortizedSVGDActor,
    ParticleModule,
    SamplingActor,
    TanhGaussianActor,
    TanhGaussianMixtureActor,
)

ACT = 2
BOX = Bounded(-1.0, 1.0, (ACT,))
TWO = ["observation", ("agent", "state")]
AGENTS = [("agents", "observation")]


def sequential(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 6), nn.SiLU(), nn.Linear(6, outputs))


def gaussian(inputs=3):
    return nn.Sequential(sequential(inputs, 2 * ACT), NormalParamExtractor())


def amortized(inputs=3, **options):
    return AmortizedSVGDActor(sequential(inputs + ACT, ACT), **{"action_spec": BOX} | options)


def single(inputs=3, **options):
    return TanhGaussianActor(gaussian(inputs), **{"action_spec": BOX} | options)


def mixture(inputs=3, **options):
    population = ParticleModule(lambda: gaussian(inputs), 3)
    return TanhGaussianMixtureActor(population, **{"action_spec": BOX} | options)


every_actor = pytest.mark.parametrize("make", [amortized, single, mixture])


def states(*batch):
    return TensorDict({"observation": torch.randn(*batch, 3)}, batch)


def two_states(*batch):
    data = states(*batch)
    data["agent", "state"] = torch.randn(*batch, 2)
    return data


# Networks


@pytest.mark.parametrize("batch", [(), (5,), (2, 4)])
@every_actor
def test_a_network_of_one_input_reads_all(make, batch):
    """Its inputs are concatenated: the same as one observation that was."""
    torch.manual_seed(0)
    actor = make(5, in_keys=TWO)
    torch.manual_seed(0)
    alone = make(5)
    data = two_states(*batch)
    joined = torch.cat([data["observation"], data["agent", "state"]], -1)
    noise = actor.draw_noise(data, 4)
    want = alone.unsquashed(TensorDict({"observation": joined}, batch), noise)
    assert_close(actor.unsquashed(data, noise), want)
    assert actor(data)["action"].shape == (*batch, ACT)


def test_one_layer_is_a_network():
    actor = AmortizedSVGDActor(nn.Linear(3 + ACT, ACT), action_spec=BOX)
    assert actor.sample(states(5), 4).shape == (5, 4, ACT)


class OfOther(nn.Module):
    def forward(self, observation, noise, third):
        return noise


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            OfOther(),
            r"network must take 2 inputs \('observation', noise\) or .*got OfOther.forward",
        ),
        (MLP, "network must be a torch.nn.Module, got the class MLP"),
        (None, "network must be a torch.nn.Module, got None"),
    ],
)
def test_networks_of_another_kind(network, message):
    with pytest.raises(TypeError, match=f"AmortizedSVGDActor: {message}"):
        AmortizedSVGDActor(network, action_spec=BOX)


@pytest.mark.parametrize("outputs", [4, 2])
def test_loc_and_scale_are_a_pair(outputs):
    actor = TanhGaussianActor(nn.Linear(3, outputs), action_spec=BOX)
    # two rows: a tensor that could be taken apart
    with pytest.raises(ValueError, match=rf"return a pair, loc and scale, got \[2, {outputs}\]"):
        actor(states(2))


# Shapes


@every_actor
def test_a_dimension_of_agents(make):
    actor = make(in_keys=AGENTS, out_keys=[("agents", "action")])
    inner = TensorDict({"observation": torch.randn(4, 2, 3)}, [4, 2])
    owner = type(actor).__name__
    with pytest.raises(ValueError, match=rf"{owner}: .*'agents', 'observation'.*got .*4, 2, "):
        actor(TensorDict({"agents": inner}, [4]))
    # So it says of the environment's batched spec, which has that dimension too.
    with pytest.warns(UserWarning, match=r"action_spec should have shape \[A\], got \[4, 2, 2\]"):
        batched = make(in_keys=AGENTS, action_spec=BOX.expand(4, 2, ACT))
    with pytest.raises(ValueError, match=rf"{owner}: .*'agents', 'observation'.*got .*4, 2, "):
        batched(TensorDict({"agents": inner}, [4]))
    # As a part of the batch size it works.
    data = TensorDict({"agents": inner}, [4, 2])
    assert actor(data)["agents", "action"].shape == (4, 2, ACT)


class Sum(nn.Module):
    """Not known to concatenate."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3 + ACT, ACT)

    def forward(self, observation, noise):
        return self.layer(torch.cat([observation, noise], -1))


def test_a_dimension_of_agents_in_a_network_of_ones_own():
    actor = AmortizedSVGDActor(Sum(), action_spec=BOX)
    data = TensorDict({"observation": torch.randn(4, 2, 3)}, [4])
    message = r"network must take inputs \[4, 1, 2, 3\] of torch.float32, \[4, 1, 2\] of .*, got "
    with pytest.raises(ValueError, match=message):
        actor(data)


def test_another_number_of_features():
    with pytest.raises(ValueError, match=r"network must take inputs \[6, 1, 7\] of .*, got mat1"):
        AmortizedSVGDActor(Sum(), action_spec=BOX, in_keys=["x"])(x=torch.zeros(6, 7))


@pytest.mark.parametrize("other", [(1,), (4,), (5, 1), ()])
@every_actor
def test_observations_do_not_broadcast(make, other):
    actor = make(5, in_keys=TWO)
    with pytest.raises(ValueError, match=r"observation .* must have shape \[\*B, F\] for batch"):
        actor(observation=torch.randn(5, 3), agent_state=torch.randn(*other, 2))


# Dtypes


class DoubleEnv(EnvBase):
    """As dm_control through DoubleToFloat(in_keys=["observation"]): actions stay float64."""

    def __init__(self):
        super().__init__()
        self.observation_spec = Composite(observation=Unbounded((3,)))
        self.action_spec = Bounded(-0.3, 0.1, (ACT,), dtype=torch.float64)
        self.reward_spec = Unbounded((1,))

    def _reset(self, tensordict, **options):
        return TensorDict(self.full_observation_spec.rand()).update(self.full_done_spec.zero())

    def _step(self, tensordict):
        assert self.action_spec.is_in(tensordict["action"])
        return self._reset(None).set("reward", torch.zeros(1))

    def _set_seed(self, seed):
        pass


@every_actor
def test_float32_networks_act_on_float64_specs(make):
    env = DoubleEnv()
    check_env_specs(env)
    actor = make(action_spec=env.action_spec)
    data = env.rollout(20, actor)
    assert data["action"].dtype == torch.float64
    # Losses see the network's dtype, which is that of Q-functions.
    assert actor.sample(data, 5).dtype == torch.float32


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("of_network", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("of_spec", [torch.float32, torch.float64])
def test_actions_have_the_dtype_of_the_spec_and_lie_inside(of_spec, of_network, late):
    low, high = torch.tensor([-0.3, 0.1]), torch.tensor([0.7, 0.3])  # exact in none of them
    spec = Bounded(low.to(of_spec), high.to(of_spec), dtype=of_spec)
    network = Sum().requires_grad_(False)
    if late:
        actor = AmortizedSVGDActor(network, action_spec=spec).to(of_network)
    else:
        actor = AmortizedSVGDActor(network.to(of_network), action_spec=spec)
    data = TensorDict({"observation": 300.0 * torch.randn(50, 3, dtype=of_network)}, [50])
    for action in (actor(data)["action"], actor(observation=data["observation"])):
        assert action.dtype == of_spec
        assert all(spec.is_in(row) for row in action)
    assert actor.sample(data, 3).dtype == of_network


def test_bounds_are_as_near_as_the_dtype_allows():
    low, high = torch.tensor([-0.3, 0.1]), torch.tensor([0.7, 0.3])
    actor = AmortizedSVGDActor(Sum().bfloat16(), action_spec=Bounded(low, high))
    for bound, exact in ((actor.low, low), (actor.high, high)):
        assert_close(bound.float(), exact, rtol=2**-7, atol=0.0)
    assert (actor.low.float() >= low).all()
    assert (actor.high.float() <= high).all()
    with pytest.raises(ValueError, match=r"must have low < high in torch\.bfloat16"):
        AmortizedSVGDActor(Sum().bfloat16(), action_spec=Bounded(0.3, 0.3001, (ACT,)))


def test_another_dtype_of_observations_is_one_sentence():
    with pytest.raises(ValueError, match=r"network must take inputs .* of torch.float64, .*, got"):
        amortized()(observation=torch.zeros(4, 3, dtype=torch.float64))


# Specs


@every_actor
def test_an_action_that_is_a_matrix(make):
    with pytest.warns(UserWarning, match=r"action_spec should .*\[A\], got \[3, 2\].*_unbatched"):
        actor = make(action_spec=Bounded(-1.0, 1.0, (3, ACT)))
    message = r"must have shape \[A\] for states of batch size \[\], got \[3, 2\]; pass env.action_"
    with pytest.raises(ValueError, match=f"{type(actor).__name__}: action_spec {message}"):
        actor(states())
    with pytest.raises(ValueError, match=message):
        actor(observation=torch.zeros(3))


def test_the_spec_of_a_batched_environment():
    env = MultiGoalEnv(batch_size=(4,), seed=0)
    with pytest.warns(UserWarning, match=r"\[4\] is taken for the batch size"):
        actor = amortized(2, action_spec=env.action_spec)
    assert env.rollout(3, actor)["action"].shape == (4, 3, ACT)
    assert actor(states(7).set("observation", torch.randn(7, 2)))["action"].shape == (7, ACT)


@pytest.mark.filterwarnings("error")
def test_the_unbatched_spec_is_taken_without_a_word():
    env = MultiGoalEnv(batch_size=(4,), seed=0)
    actor = amortized(2, action_spec=env.action_spec_unbatched)
    assert env.rollout(3, actor)["action"].shape == (4, 3, ACT)
    assert MultiGoalEnv(seed=0).rollout(3, actor)["action"].shape == (3, ACT)


# Numbers and keys


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, True, "2", float("nan"), [2]])
@pytest.mark.parametrize("name", ["noise_dim", "noise_set_size", "observation_dims"])
def test_counts_at_construction(name, value):
    error = ValueError if type(value) is int else TypeError
    with pytest.raises(error, match=rf"AmortizedSVGDActor: {name} must be .*>= 1, got "):
        amortized(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 2.5, True, "2", None])
@every_actor
def test_counts_at_the_call(make, value):
    actor, data = make(), states(4)
    error = ValueError if type(value) is int else TypeError
    for call in (actor.draw_noise, actor.sample, actor.sample_with_log_prob):
        with pytest.raises(error, match=rf"{type(actor).__name__}: num_samples must be .*, got "):
            call(data, value)


@pytest.mark.parametrize("keys", ["observation", None, 3, {"observation"}, [3], [("a", 1)], [()]])
@pytest.mark.parametrize("name", ["in_keys", "out_keys"])
@every_actor
def test_keys_are_lists_of_keys(make, name, keys):
    with pytest.raises(TypeError, match=rf"{name} must (be a list of|hold) keys.*, got "):
        make(**{name: keys})


# Actors of one's own


def test_an_actor_without_a_network():
    class Uniform(SamplingActor):
        def unsquashed(self, tensordict, noise):
            return noise

    actor = Uniform(BOX, None, ["observation"], ["action"])
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert torch.equal(actor(observation=torch.zeros(5, 3)), torch.zeros(5, ACT))
    blind = Uniform(BOX, None, [], ["action"])
    assert blind(TensorDict({}, [5]))["action"].shape == (5, ACT)
