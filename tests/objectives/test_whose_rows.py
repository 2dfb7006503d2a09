"""Rows that are not those of the particles: refused where the data say so, else warned of once."""

import re
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.data.replay_buffers import SamplerWithoutReplacement
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.modules import TanhNormal
from torchrl.objectives import A2CLoss, ClipPPOLoss, ValueEstimators

from tests.objectives.stein_builders import (
    LOSSES,
    NO_UPDATER,
    OBS,
    N,
    batch,
    coupled,
    gaussian,
    make_base,
    make_stein,
    run,
    value,
)
from tests.objectives.trpo_builders import actor_of, data_of
from torchrl_stein.envs import CartpoleEnv, ParticleEnv
from torchrl_stein.modules import EnsemblePolicy, ParticleModule
from torchrl_stein.modules.population import check_rows
from torchrl_stein.objectives import SteinPolicyLoss, TRPOLoss
from torchrl_stein.runs import WorldCollector, make_gaussian_actor

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

E, T = 2, 6


def numbered(data, dtype=torch.int64):
    """The data with the entry that says whose they are."""
    rows = torch.arange(len(data), dtype=dtype).view(-1, *(1,) * data.ndim)
    return data.set("particle", rows.expand(*data.shape, 1).clone())


# The entry "particle"


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
@pytest.mark.parametrize("shuffled", ["permuted", "stacked", "flattened", "one transition"])
def test_rows_that_say_to_be_of_others(shuffled, dtype):
    loss, data = make_stein()
    data = numbered(data, dtype)
    run(loss, data)
    if shuffled == "permuted":
        wrong, row, found = data[[0, 2, 1]], 1, [2]
    elif shuffled == "stacked":  # as many workers as particles, each with all particles
        wrong, row, found = torch.stack([data] * N), 0, [0, 1, 2]
    elif shuffled == "flattened":
        wrong, row, found = data.reshape(-1)[:N], 1, [0]
    else:
        wrong, row, found = data.clone(), 2, [0, 2]
        wrong["particle"][2, 1] = 0
    message = f"row {row} holds data of {found}; keep the leading dimension"
    with pytest.raises(ValueError, match=re.escape(message)):
        run(loss, wrong)


@pytest.mark.parametrize(
    "entry",
    [
        lambda data: torch.rand(*data.shape, 1),
        lambda data: torch.ones(*data.shape, 4, dtype=torch.int64),
        lambda data: torch.ones(*data.shape, 1, dtype=torch.bool),
        lambda data: data.select("observation"),
    ],
    ids=["numbers", "several", "flags", "tensordict"],
)
def test_another_thing_of_this_name(entry):
    loss, data = make_stein()
    run(loss, data.set("particle", entry(data)))


def test_a_part_of_a_larger_population_may_count_from_its_first():
    data = numbered(TensorDict(batch_size=[N, 4]))
    check_rows("me", data, torch.Size([N]), first=6)  # the simulators of this process alone
    data["particle"] += 6
    check_rows("me", data, torch.Size([N]), first=6)  # those of all processes
    for first in (None, 0, 3):
        with pytest.raises(ValueError, match=r"me: row i .* row 0 holds data of \[6\]"):
            check_rows("me", data, torch.Size([N]), first)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5), st.integers(1, 3), st.data())
def test_only_the_particles_in_their_order_pass(rows, steps, draw):
    """Row i may hold any particle, and in one step another; only i itself everywhere passes."""
    entry = torch.tensor(rows).view(-1, 1, 1).repeat(1, steps, 1)
    if draw.draw(st.booleans()):
        entry[-1, -1] = draw.draw(st.integers(-1, 6))
    data = TensorDict({"particle": entry}, [len(rows), steps])
    if entry.equal(of_particles(len(rows), steps)):
        check_rows("me", data, torch.Size([len(rows)]))
    else:
        with pytest.raises(ValueError, match="me: row i of the batch must hold data of particle i"):
            check_rows("me", data, torch.Size([len(rows)]))


def test_trpo_looks_too():
    actor = gaussian()
    data = numbered(data_of(actor, N, 4))
    TRPOLoss(actor)(data)
    with pytest.raises(ValueError, match=r"TRPOLoss: row i .* row 0 holds data of \[2\]"):
        TRPOLoss(actor)(data[[2, 1, 0]])


def test_nobody_looks_while_tracing():
    """Of a whole loss, in test_stein_contract.py."""

    def checked(data):
        check_rows("me", data, torch.Size([N]))
        return data["particle"] + 1

    compiled = torch.compile(checked, fullgraph=True, backend="eager")
    wrong = TensorDict({"particle": of_particles(N, 2)}, [N, 2])[[1, 0, 2]]
    assert compiled(wrong).equal(wrong["particle"] + 1)
    with pytest.raises(ValueError, match="me: row i of the batch must hold data of particle i"):
        checked(wrong)


# Who writes it


def cartpole_actor(n=N):
    env = CartpoleEnv((n, E), seed=0)
    return make_gaussian_actor(env, num_particles=n, num_cells=[8])


def simulators(n=N, horizon=4):
    return ParticleEnv(CartpoleEnv((n * E,), seed=0, horizon=horizon), n)


def of_particles(*shape):
    return torch.arange(shape[0]).view(-1, *(1,) * len(shape)).expand(*shape, 1)


def test_particle_env_writes_it_at_resets_and_steps():
    env = simulators()
    assert env.observation_spec["particle"].is_in(of_particles(N, E))
    assert env.reset()["particle"].equal(of_particles(N, E))
    assert env.rand_step(env.reset())["next", "particle"].equal(of_particles(N, E))
    data = env.rollout(10, cartpole_actor(), break_when_any_done=False)
    assert data["next", "done"].any()
    assert data["particle"].equal(of_particles(N, E, 10))
    assert data["next", "particle"].equal(of_particles(N, E, 10))


def test_an_entry_of_the_simulators_stays():
    class Physical(CartpoleEnv):
        def _make_specs(self):
            super()._make_specs()
            spec = self.observation_spec.clone()
            spec["particle"] = self._unbounded(3)
            self.observation_spec = spec

        def _reset(self, tensordict=None, **kwargs):
            return super()._reset(tensordict, **kwargs).set("particle", torch.ones(6, 3))

        def _step(self, tensordict):
            return super()._step(tensordict).set("particle", torch.ones(6, 3))

    data = ParticleEnv(Physical((N * E,), seed=0), N).rollout(3, break_when_any_done=False)
    assert data["particle"].equal(torch.ones(N, E, 3, 3))


def test_a_policy_that_knows_better_is_believed():
    """The particle that EnsemblePolicy drew for an episode plays it to its end."""
    env = TransformedEnv(simulators(), InitTracker())
    policy = EnsemblePolicy(cartpole_actor(), "random")
    data = env.rollout(12, policy, break_when_any_done=False)
    drawn, begins = data["particle"].squeeze(-1), data["is_init"].squeeze(-1)
    same = drawn[..., 1:] == drawn[..., :-1]
    assert same[~begins[..., 1:]].all()
    assert not drawn.equal(of_particles(N, E, 12).squeeze(-1))


def with_advantage(data):
    return data.set("advantage", torch.randn(*data.shape, 1))


@pytest.mark.parametrize("kind", ["torchrl", "world"])
def test_collected_data_carry_it_through_a_replay_buffer(kind):
    torch.manual_seed(0)
    actor = cartpole_actor()
    frames = N * E * T
    if kind == "torchrl":
        collector = Collector(
            simulators(),
            actor,
            frames_per_batch=frames,
            total_frames=frames,
            auto_register_policy_transforms=False,
        )
    else:
        env = CartpoleEnv((N, E), seed=0)
        collector = WorldCollector(env, actor, frames_per_batch=frames, total_frames=frames)
    data = with_advantage(next(iter(collector)))
    assert data["particle"].equal(of_particles(N, E, T))
    loss = SteinPolicyLoss(A2CLoss(actor, value(N, torch.float32), critic_coeff=None))
    loss(data)
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(T), batch_size=4, sampler=SamplerWithoutReplacement()
    )
    buffer.extend(data.permute(2, 0, 1))
    loss(buffer.sample().permute(1, 2, 0))
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(N * E * T), batch_size=N, sampler=SamplerWithoutReplacement()
    )
    buffer.extend(data.reshape(-1))
    with pytest.raises(ValueError, match="row i of the batch must hold data of particle i"):
        loss(buffer.sample())


def test_world_collector_without_a_population_does_not_write_it():
    env = CartpoleEnv((3,), seed=0)
    flat = make_gaussian_actor(CartpoleEnv((1, 3), seed=0), num_particles=1, num_cells=[8])
    plain = flat[0].module.particle(0)
    flat[0].module = plain
    data = next(iter(WorldCollector(env, flat, frames_per_batch=6, total_frames=6)))
    assert "particle" not in data


# The first ratio


ON_POLICY = [
    "ReinforceLoss",
    "A2CLoss",
    "A2CLoss, discrete",
    "PPOLoss",
    "ClipPPOLoss",
    "KLPENPPOLoss",
    "MAPPOLoss",
]


def said(call):
    """Our warnings about ratios."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if "ratios pi(a | s)" in str(w.message)]


@pytest.mark.parametrize("name", ON_POLICY)
def test_shuffled_rows_are_warned_of_once(name):
    loss, data = make_stein(name)
    wrong = data[[1, 2, 0]]
    found = said(lambda: [run(loss, wrong) for _ in range(3)])
    assert len(found) == 1
    assert "its policy did not choose them" in found[0]


@pytest.mark.parametrize("name", ON_POLICY)
def test_fresh_data_and_all_that_comes_later_are_quiet(name):
    loss, data = make_stein(name)

    def train():
        run(loss, data)
        with torch.no_grad():
            loss.particles.add_(torch.randn_like(loss.particles))
        run(loss, data)  # an old batch, as in every epoch but the first

    assert said(train) == []


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(ON_POLICY)))
def test_other_losses_learn_from_anybodys_data(name):
    """Off-policy data are of other policies by their nature; advantages they have all the same."""
    if name in ("ClipPPOLoss, delayed", "A2CLoss, actor only", "IPPOLoss"):
        return
    base, data = make_base(name)
    loss = SteinPolicyLoss(base, coupled=coupled(name))
    assert said(lambda: run(loss, data[[1, 2, 0]])) == []


def minibatch_of_transitions(data):
    return data.reshape(-1)[torch.tensor([5, 0, 2])]


def test_single_transitions_of_a_flattened_batch():
    loss, data = make_stein("ClipPPOLoss")
    assert len(said(lambda: run(loss, minibatch_of_transitions(data)))) == 1


def test_rounding_and_the_ends_of_tanh_are_no_other_policy():
    net = ParticleModule(lambda: nn.Sequential(nn.Linear(OBS, 4), _Wide()), N)
    actor = actor_of(net, distribution_class=TanhNormal)
    data = batch(actor, dtype=torch.float32, m=200)
    assert data["action"].abs().max() > 0.999
    loss = SteinPolicyLoss(ClipPPOLoss(actor, value(dtype=torch.float32)))
    assert said(lambda: loss(data)) == []


class _Wide(nn.Module):
    def forward(self, x):
        loc, scale = x.chunk(2, -1)
        return loc, nn.functional.softplus(scale) + 1.5


def test_masked_steps_are_not_asked():
    loss, data = make_stein("PPOLoss")
    padded = data.clone()
    padded["action"][:, 2:] = 0.0  # half of them are padding
    padded["shifted_valid"] = (torch.arange(4) < 2).expand(N, 4).unsqueeze(-1)
    assert said(lambda: run(loss, padded)) == []
    assert len(said(lambda: run(make_stein("PPOLoss")[0], padded.exclude("shifted_valid")))) == 1


def test_not_where_other_policies_are_meant():
    base, data = make_base("A2CLoss")
    loss = SteinPolicyLoss(base)
    loss.make_value_estimator(ValueEstimators.VTrace, actor_network=base.actor_network)
    assert said(lambda: run(loss, data[[1, 2, 0]])) == []
    stepped, data = make_stein("A2CLoss")
    stepped.step()  # not the first iteration any more
    assert said(lambda: run(stepped, data[[1, 2, 0]])) == []
    lean = data.exclude("action_log_prob")[[1, 2, 0]]
    assert said(lambda: run(make_stein("A2CLoss")[0], lean)) == []


def test_looking_draws_no_random_numbers():
    """A network with dropout draws at every call; the first one draws no more than the others."""

    def make():
        return nn.Sequential(nn.Linear(OBS, 4), nn.Dropout(0.5), _Wide())

    actor = actor_of(ParticleModule(make, N))
    data = batch(actor, dtype=torch.float32)
    loss, after = SteinPolicyLoss(A2CLoss(actor, value(dtype=torch.float32))), []
    for _ in range(2):
        torch.manual_seed(3)
        loss(data)
        after.append(torch.rand(()))
    assert after[0] == after[1]


def test_an_error_inside_leaves_the_policy_as_it_was():
    loss, data = make_stein("A2CLoss")
    wide = data.clone()
    wide["observation"] = torch.randn(N, 4, OBS + 1).double()
    with pytest.raises(RuntimeError):
        run(loss, wide)
    losses = run(loss, data)
    sum(v for k, v in losses.items() if k.startswith("loss_")).backward()
    assert loss.particles.grad.abs().sum() > 0
