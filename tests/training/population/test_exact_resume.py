"""A population that is resumed has the numbers of an uninterrupted one, to the bit."""

import pytest
import torch
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, TransformedEnv

from tests.training.population_builders import E, N, build_population, collect, make_env
from tests.training.resuming import check_the_rest, interrupt_at
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.training import (
    OnPolicySettings,
    Run,
    WorldCollector,
    make_trust_region,
    train_on_policy,
)
from torchrl_stein.training.population import loop as on_policy

FRAMES = N * E * 10


def in_trust_region(env):
    agent = build_population(env)
    agent.trust_region = make_trust_region(
        agent.actor, weight=0.5, tau=None, cost=SinkhornCost(), space="parameter"
    )
    return agent


POPULATIONS = {
    "a2c": lambda env: build_population(env, base="a2c"),
    "ppo": lambda env: build_population(env, base="ppo", num_epochs=2, num_minibatches=2),
    "birth_death": lambda env: build_population(env, birth_death={}, birth_death_interval=2),
    "trust_region": in_trust_region,
}


@pytest.fixture
def train_population(tmp_path):
    def run(name, population="a2c", resume=None, collector=None):
        env = make_env(horizon=17)  # episodes last longer than the 10 steps of an iteration
        agent = POPULATIONS[population](env)
        batches = (collector or collect)(env, agent, batches=7)
        results = Run(tmp_path / name, {})
        if resume is not None:
            torch.manual_seed(77)
        complete = train_on_policy(
            agent, batches, OnPolicySettings(7), results, lambda: torch.zeros(N), resume
        )
        return results.directory, complete

    return run


@pytest.mark.parametrize("population", POPULATIONS)
def test_on_policy(train_population, monkeypatch, population):
    straight, _ = train_population("straight", population)
    with monkeypatch.context() as patch:
        interrupt_at(patch, on_policy._Loop, "iterate", 5)
        stopped, complete = train_population("stopped", population)
    assert not complete
    resumed, _ = train_population("resumed", population, resume=stopped)
    check_the_rest(straight, resumed, FRAMES * 5)


def test_the_collector_of_torchrl(train_population, monkeypatch):
    def torchrls(env, agent, batches):
        return Collector(
            TransformedEnv(env, RewardSum()),
            agent.actor,
            frames_per_batch=FRAMES,
            total_frames=batches * FRAMES,
            auto_register_policy_transforms=False,
        )

    straight, _ = train_population("straight", collector=torchrls)
    with monkeypatch.context() as patch:
        interrupt_at(patch, on_policy._Loop, "iterate", 5)
        stopped, _ = train_population("stopped", collector=torchrls)
    resumed, _ = train_population("resumed", collector=torchrls, resume=stopped)
    check_the_rest(straight, resumed, FRAMES * 5)


def test_a_population_goes_on_in_the_middle_of_its_episodes(train_population, monkeypatch):
    straight, _ = train_population("straight")
    interrupted = pytest.MonkeyPatch()
    interrupt_at(interrupted, on_policy._Loop, "iterate", 5)
    stopped, _ = train_population("stopped")
    interrupted.undo()
    monkeypatch.setattr(WorldCollector, "load_state_dict", lambda *_: None)
    resumed, _ = train_population("resumed", resume=stopped)
    with pytest.raises(AssertionError):
        check_the_rest(straight, resumed, FRAMES * 5)
