"""A flat vector of simulators seen as [n, E]: rows keep their simulator, ends and transforms."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs import (
    Compose,
    GymWrapper,
    InitTracker,
    RewardSum,
    SerialEnv,
    StepCounter,
    TransformedEnv,
)
from torchrl.envs.utils import check_env_specs

from torchrl_stein.envs import CartpoleEnv, MountainCarEnv, MultiGoalEnv, ParticleEnv
from torchrl_stein.modules import ParticleModule

N, E = 3, 2


class Walk(gym.Env):
    """Observes its position and its number; ends beyond 3 or, by time, after 5 steps."""

    observation_space = gym.spaces.Box(-100, 100, (2,), np.float32)
    action_space = gym.spaces.Box(-10, 10, (1,), np.float32)

    def __init__(self, number):
        self.number = number

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps = 0.0, 0
        return self.observe(), {}

    def step(self, action):
        self.position += float(action[0])
        self.steps += 1
        return self.observe(), self.position, self.position > 3, self.steps == 5, {}

    def observe(self):
        return np.array([self.position, self.number], np.float32)


def walks():
    makers = [partial(Walk, number) for number in range(N * E)]
    return ParticleEnv(GymWrapper(SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)), N)


def policy(function):
    return TensorDictModule(function, ["observation"], ["action"])


# Simulator k goes k steps at once.
pace = policy(lambda observation: torch.arange(float(N * E)).view(N, E, 1))


def counted(env):
    counters = Compose(InitTracker(), StepCounter(), RewardSum())
    return TransformedEnv(env, counters)


def test_rows_are_ordered_particle_by_particle():
    data = walks().rollout(1, pace)
    numbers = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    assert data["observation"][:, :, 0, 1].tolist() == numbers
    assert data["next", "observation"][:, :, 0, 1].tolist() == numbers
    # Each simulator got its own action and its own row tells so.
    assert data["next", "observation"][:, :, 0, 0].tolist() == numbers
    assert data["next", "reward"].squeeze().tolist() == numbers


def test_an_ended_row_shows_its_last_observation_and_begins_again_alone():
    data = counted(walks()).rollout(4, pace, break_when_any_done=False)
    positions = data["next", "observation"][..., 0].flatten(0, 1).tolist()
    # By hand: beyond 3 an episode ends, and the next begins at 0.
    assert positions == [
        [0, 0, 0, 0],
        [1, 2, 3, 4],
        [2, 4, 2, 4],
        [3, 6, 3, 6],
        [4, 4, 4, 4],
        [5, 5, 5, 5],
    ]
    before = data["observation"][..., 0].flatten(0, 1)
    assert before[:, 0].tolist() == [0] * 6
    assert before[3].tolist() == [0, 3, 0, 3]
    terminated = data["next", "terminated"].squeeze(-1).flatten(0, 1)
    assert terminated.equal(torch.tensor(positions) > 3)
    assert data["next", "step_count"].flatten(0, 1)[2].flatten().tolist() == [1, 2, 1, 2]
    assert data["next", "episode_reward"].flatten(0, 1)[3].flatten().tolist() == [3, 9, 3, 9]
    assert data["is_init"].flatten(0, 1)[3].flatten().tolist() == [True, False, True, False]


def test_the_end_by_time_is_no_termination():
    data = counted(walks()).rollout(6, pace, break_when_any_done=False)[0, 0]
    assert data["next", "truncated"].flatten().tolist() == [False] * 4 + [True, False]
    assert not data["next", "terminated"].any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ParticleEnv(MultiGoalEnv((N * E,), seed=0), N),
        lambda: ParticleEnv(CartpoleEnv((N * E,), seed=0), N),
        lambda: ParticleEnv(SerialEnv(N * E, partial(MultiGoalEnv, seed=0)), N),
        walks,
        lambda: counted(walks()),
    ],
    ids=["multigoal", "cartpole", "serial", "gymnasium", "transformed"],
)
def test_specs_hold(make):
    env = make()
    check_env_specs(env, break_when_any_done="both")
    assert env.batch_size == (N, E)


def test_equals_the_flat_environment():
    act = policy(lambda s: 3 * s[..., :1].sin() + s[..., 3:])

    flat, viewed = (
        counted(env).rollout(40, act, break_when_any_done=False)
        for env in (
            CartpoleEnv((N * E,), seed=0, horizon=9),
            ParticleEnv(CartpoleEnv((N * E,), seed=0, horizon=9), N),
        )
    )
    flat = flat.unflatten(0, (N, E))
    added = set(viewed.keys(True, True)) - set(flat.keys(True, True))
    assert added == {"particle", ("next", "particle")}
    for key in flat.keys(True, True):
        assert_close(viewed[key], flat[key])
    assert viewed["next", "terminated"].any()
    assert viewed["next", "truncated"].any()


# with a population


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def test_row_i_is_played_by_particle_i():
    population = ParticleModule(network, N)
    actor = policy(population)
    env = counted(ParticleEnv(CartpoleEnv((N * E,), seed=0, horizon=9), N))
    collector = Collector(
        env,
        actor,
        frames_per_batch=N * E * 20,
        total_frames=N * E * 40,
        auto_register_policy_transforms=False,
    )
    for data in collector:
        assert data.shape == (N, E, 20)
        for i in range(N):
            action = population.particle(i)(data["observation"][i])
            assert_close(data["action"][i], action.detach())
    assert (data["next", "step_count"] <= 9).all()  # and goes on over the end of a batch


def test_a_flat_population_on_a_flat_environment_is_the_same():
    population = ParticleModule(network, N)
    flat = ParticleModule(network, N, layout="flat")
    flat.load_state_dict(population.state_dict())
    data, viewed = (
        env.rollout(30, policy(net))
        for net, env in (
            (flat, CartpoleEnv((N * E,), seed=0)),
            (population, ParticleEnv(CartpoleEnv((N * E,), seed=0), N)),
        )
    )
    assert_close(data.unflatten(0, (N, E))["next", "state"], viewed["next", "state"])


def test_a_seed_fixes_the_starts():
    env = ParticleEnv(MultiGoalEnv((N * E,)), N)
    starts = []
    for seed in (1, 1, 2):
        env.set_seed(seed)
        starts.append(env.reset()["observation"])
    assert starts[0].equal(starts[1])
    assert not starts[0].equal(starts[2])


def test_closing_closes_the_simulators():
    env = walks()
    env.close()
    assert env.env.is_closed


@pytest.mark.parametrize(
    ("batch", "n", "message"),
    [
        ((6,), 4, "num_particles must divide the 6 rows of env, got 4"),
        ((6,), 0, "num_particles must be >= 1, got 0"),
        ((), 1, r"env must have one .*, got batch size \[\]; wrap .* in SerialEnv or ParallelEnv$"),
        ((3, 2), 3, r"env must have one batch dimension, got batch size \[3, 2\]$"),
    ],
)
def test_what_cannot_be_viewed_so(batch, n, message):
    with pytest.raises(ValueError, match=f"ParticleEnv: {message}"):
        ParticleEnv(MultiGoalEnv(batch), n)


def test_arguments_of_another_kind():
    with pytest.raises(TypeError, match=r"ParticleEnv: env must be a TorchRL .*, got Walk"):
        ParticleEnv(Walk(0), 1)
    for n in (2.0, True, "2", None):
        with pytest.raises(TypeError, match=r"ParticleEnv: num_particles must be an integer >= 1"):
            ParticleEnv(MultiGoalEnv((6,)), n)


def _differing(name):
    if name == "bound of a count":
        return [lambda k=k: MultiGoalEnv((), horizon=3 + k) for k in range(4)]
    if name == "bound in pairs":
        return [lambda k=k: MultiGoalEnv((), horizon=3 + k // 2) for k in range(4)]
    if name == "bound of a position":
        return [lambda k=k: MultiGoalEnv((), position_limit=7.0 + k) for k in range(4)]
    if name == "shape":
        return [CartpoleEnv, MountainCarEnv] * 2
    counted = partial(TransformedEnv, MultiGoalEnv(()), StepCounter(step_count_key="count"))
    return [MultiGoalEnv, MultiGoalEnv, MultiGoalEnv, counted]


@pytest.mark.parametrize("n", [1, 2, 4])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("bound of a count", "'elapsed_steps'"),
        ("bound in pairs", "'elapsed_steps'"),
        ("bound of a position", "'observation'"),
        ("shape", "'observation', 'state'"),
        ("entry", "'count'"),
    ],
)
def test_simulators_that_differ(name, keys, n):
    env = SerialEnv(4, _differing(name))
    words = r"ParticleEnv: env must have simulators of equal specs, got observation_spec that "
    with pytest.raises(ValueError, match=rf"^{words}differs in {keys}$"):
        ParticleEnv(env, n)
