"""SimulatorEnv beside gymnasium's environments, stepped by hand, and TorchRL's own resets."""

from functools import partial
from itertools import cycle

import gymnasium
import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs import EnvBase, InitTracker, StepCounter, TransformedEnv
from torchrl.envs.utils import RandomPolicy, check_env_specs

from torchrl_stein.envs import SimulatorEnv
from torchrl_stein.runs import make_task


class Countdown(gymnasium.Env):
    """Ends by itself after as many steps as its seed, or by time after five; a as it came."""

    action_space = gymnasium.spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 1.0]), dtype=float)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,))
    length = 100
    closed = False

    def reset(self, *, seed=None, options=None):
        if seed is not None:
            self.length = seed
        self.steps, self.given = 0, np.zeros(2)
        return self.observe(), self.info()

    def step(self, action):
        self.steps, self.given = self.steps + 1, action
        ended = self.steps >= self.length, self.steps >= 5
        return self.observe(), 0.5 * self.steps, *ended, self.info()

    def observe(self):
        return np.array([self.length, *self.given])

    def info(self):
        return {"steps": self.steps, "place": np.array([self.steps, 0.1])}

    def close(self):
        self.closed = True


def make(*batch, seed=2, **options):
    return SimulatorEnv(Countdown, batch, seed=seed, **options)


def play(env, steps, action=0.0):
    data = env.reset()
    for _ in range(steps):
        data["action"] = torch.full(env.action_spec.shape, action)
        data, following = env.step_and_maybe_reset(data)
        yield data
        data = following


def test_every_simulator_by_hand():
    env = make(2, 3, info=["steps", "place"])
    check_env_specs(env)
    env = make(2, 3, info=["steps", "place"])
    lengths = torch.tensor([[2, 3, 4], [5, 6, 7]])  # seed + i
    elapsed, total = torch.zeros(2, 3), torch.zeros(2, 3)
    for data in play(env, 12):
        after = data["next"]
        assert data["elapsed_steps"][..., 0].equal(elapsed.long())
        assert data["steps"].equal(elapsed)
        elapsed += 1
        total += 0.5 * elapsed
        assert after["observation"].dtype == after["reward"].dtype == torch.float32
        assert after["observation"][..., 0].equal(lengths.float())
        assert after["reward"][..., 0].equal(0.5 * elapsed)
        assert after["episode_reward"][..., 0].equal(total)
        assert after["place"].equal(torch.stack([elapsed, torch.full((2, 3), 0.1)], -1))
        terminated, truncated = elapsed >= lengths, elapsed >= 5
        assert after["terminated"][..., 0].equal(terminated)
        assert after["truncated"][..., 0].equal(truncated)
        assert after["done"][..., 0].equal(terminated | truncated)
        assert after["particle"][..., 0].tolist() == [[0] * 3, [1] * 3]
        elapsed[terminated | truncated] = total[terminated | truncated] = 0


@pytest.mark.parametrize(
    ("action", "given"), [(0.0, [1.0, 0.5]), (0.5, [2.5, 0.75]), (-9.0, [-2.0, 0.0])]
)
def test_actions_are_clipped_and_scaled(action, given):
    [data] = play(make(2), 1, action)
    assert data["next", "observation"][0, 1:].tolist() == given


@pytest.mark.parametrize("batch", [(3,), (3, 2)])
def test_resets_are_those_of_torchrl(batch):
    ours, theirs = make(*batch, info=["place"]), make(*batch, info=["place"])
    theirs.maybe_reset = lambda data: EnvBase.maybe_reset(theirs, data)
    for found, expected in zip(play(ours, 12), play(theirs, 12), strict=True):
        assert set(found.keys(True, True)) == set(expected.keys(True, True))
        assert_close(found.to_dict(), expected.to_dict())


def test_transforms_and_collectors_step_it():
    env = TransformedEnv(make(2, 2), StepCounter())
    env.append_transform(InitTracker())
    collector = Collector(
        env,
        RandomPolicy(env.action_spec),
        frames_per_batch=48,
        total_frames=48,
        max_frames_per_traj=0,
    )
    [data] = collector
    collector.shutdown()
    assert data["step_count"].equal(data["elapsed_steps"])
    assert data["is_init"].equal(data["elapsed_steps"] == 0)
    assert data["is_init"].sum() > 8


def test_what_a_policy_says_of_particles_stays():
    env = make(2, 3)
    data = env.reset().set("particle", torch.full((2, 3, 1), 1))
    data["action"] = torch.zeros(2, 3, 2)
    assert (env.step(data)["next", "particle"] == 1).all()
    assert "particle" not in make(4).reset().keys()  # noqa: SIM118


def test_data_of_a_step_are_not_those_of_the_next():
    env = make(3)
    data = [step.clone(False) for step in play(env, 2)]
    assert data[0]["next", "reward"].flatten().tolist() == [0.5] * 3
    assert data[1]["next", "reward"].flatten().tolist() == [1.0] * 3


def test_a_seed_is_that_of_each_simulator():
    env = make(3, seed=7)
    assert env.reset()["observation"][:, 0].tolist() == [7, 8, 9]
    env.set_seed(1)
    assert env.reset()["observation"][:, 0].tolist() == [1, 2, 3]
    unseeded = SimulatorEnv(Countdown, (2,))
    assert unseeded.reset()["observation"][:, 0].tolist() == [100, 100]


def test_closing():
    env = make(2)
    env.close()
    assert [simulator.closed for simulator in env.simulators] == [True, True]


class Numbered(Countdown):
    """Actions 5, 6 and 7."""

    action_space = gymnasium.spaces.Discrete(3, start=5)

    def step(self, action):
        return super().step(np.array([action, 0]))


def test_discrete_actions_are_one_hot():
    env = SimulatorEnv(Numbered, (3,), seed=4)
    check_env_specs(env)
    data = env.reset()
    data["action"] = torch.eye(3, dtype=torch.int64).flip(0)
    assert env.step(data)["next", "observation"][:, 1].tolist() == [7, 6, 5]
    actions = torch.cat([env.action_spec.rand() for _ in range(10)])
    assert (actions.sum(-1) == 1).all()
    assert actions.shape == (30, 3)
    with pytest.raises(ValueError, match=r"action must have shape \[3, 3\], got \[3, 1\]"):
        env.step(data.set("action", torch.ones(3, 1, dtype=torch.int64)))
    for wrong in (torch.zeros(3, 3), torch.ones(3, 3)):
        with pytest.raises(ValueError, match="action must be one-hot, got a row that is not"):
            env.step(data.set("action", wrong.long()))


def switches():
    env = Countdown()
    env.action_space = gymnasium.spaces.MultiBinary(3)
    return env


def unbounded():
    env = Countdown()
    env.action_space = gymnasium.spaces.Box(-np.inf, 1.0, (2,))
    return env


def pictures():
    env = Countdown()
    env.observation_space = gymnasium.spaces.Box(0, 1, (8, 8))
    return env


@pytest.mark.parametrize(
    ("make", "batch", "options", "kind", "message"),
    [
        (
            switches,
            (2,),
            {},
            ValueError,
            r"simulators must have a vector of cont.* or choices, got MultiBinary\(3\)",
        ),
        (unbounded, (2,), {}, ValueError, "simulators must have a finite box of actions, got Box"),
        (pictures, (2,), {}, ValueError, "simulators must have a vector as observation, got Box"),
        (
            Countdown,
            (2,),
            {"info": ["x"]},
            ValueError,
            r"simulators must report 'x' in .*\['place', 'steps'\]",
        ),
        (Countdown, (2,), {"info": ["reward"]}, ValueError, "info must not name 'reward'"),
        (Countdown, (2,), {"info": "steps"}, TypeError, "info must be a list of names, got 'st"),
        (lambda: None, (2,), {}, TypeError, "make must be an environment of gymnasium, got None"),
        (
            iter([Countdown(), unbounded()]).__next__,
            (2,),
            {},
            ValueError,
            "simulators must have one",
        ),
        (cycle([Countdown()]).__next__, (2,), {}, ValueError, "make must return another simulator"),
        (Countdown, (0,), {}, ValueError, "batch_size must be >= 1, got 0"),
        (Countdown, 3, {}, TypeError, "batch_size must be a sequence of integers >= 1, got 3"),
        (Countdown(), (2,), {}, TypeError, "make must be a function that makes an environment"),
        (Countdown, (2,), {"seed": -1}, ValueError, "seed must be >= 0, got -1"),
    ],
)
def test_what_is_refused(make, batch, options, kind, message):
    with pytest.raises(kind, match=f"SimulatorEnv: {message}"):
        SimulatorEnv(make, batch, **options)


def test_an_action_of_another_shape():
    with pytest.raises(ValueError, match=r"action must have shape \[2, 2\], got \[2, 1\]"):
        make(2).step(TensorDict({"action": torch.zeros(2, 1)}, [2]))


def test_a_task_may_have_choices_where_it_says_so():
    task = partial(make_task, "CartPole-v1", (3,), seed=0)
    for discrete in (True, None):
        assert task(discrete=discrete).action_spec.shape == (3, 2)
    with pytest.raises(ValueError, match="'Pendulum-v1' must have one-hot actions, got Bounded"):
        make_task("Pendulum-v1", (3,), seed=0, discrete=True)
    with pytest.raises(ValueError, match="env: 'CartPole-v1' must have a finite box of actions"):
        task()


def test_rows_that_wait():
    env = make(3, info=["steps"])
    data = env.reset().set("action", torch.zeros(3, 2))
    first = env.step(data.clone())["next"]
    assert first["reward"].flatten().tolist() == [0.5] * 3
    after = env.step(data.set("_step", torch.tensor([True, False, True])))["next"]
    for key in ("steps", "elapsed_steps"):
        assert after[key].flatten().tolist() == [2, 1, 2]
    assert after["reward"].flatten().tolist() == [1.0, 0.0, 1.0]
    assert after["episode_reward"].flatten().tolist() == [1.5, 0.5, 1.5]


@pytest.mark.parametrize(
    ("name", "value", "got"), [("lost", None, "nothing"), ("wide", np.zeros(2), r"\[2\]")]
)
def test_info_that_changes(name, value, got):
    class Changing(Countdown):
        def info(self):
            known = {"lost": 1.0, "wide": 1.0, "half": 0.5 if self.steps else 0}
            if self.steps:
                known[name] = value
            return {key: value for key, value in known.items() if value is not None}

    env = SimulatorEnv(Changing, (2,), info=["half"])
    [data] = play(env, 1)
    assert data["next", "half"].tolist() == [0.5, 0.5]
    env = SimulatorEnv(Changing, (2,), info=[name])
    with pytest.raises(ValueError, match=rf"report '{name}' of shape \[\] after .*, got {got}"):
        next(play(env, 1))
