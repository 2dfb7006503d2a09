"""Whole runs and what is made of them: the best particle, every particle's return."""

import json
import math

import gymnasium
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from torch import nn
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType

from tests.training.population_builders import build_population
from torchrl_stein.envs import BatchedEnv, CartpoleEnv
from torchrl_stein.training import (
    Checkpoints,
    best_particle,
    evaluate_particles,
    load_actor,
    make_task,
    play_episodes,
    read_metadata,
    return_metrics,
    spawn_seeds,
    train_population,
)

CONFIG = {
    "recipe": "svpg",
    "mode": "svpg",
    "base": "a2c",
    "env": "cartpole",
    "env_options": {"horizon": 10},
    "seed": 0,
    "device": "cpu",
    "threads": 1,
    "logger": "csv",
    "resume": None,
    "loss": {"temperature": 10.0},
    "population": {"num_particles": 3, "envs_per_particle": 2, "num_cells": [4]},
    "training": {
        "iterations": 2,
        "steps": 12,
        "num_epochs": 1,
        "num_minibatches": 1,
        "log_interval": 1,
        "eval_interval": 1,
        "checkpoint_interval": 1,
    },
    "eval": {"episodes": 2, "final_episodes": 3, "max_steps": 8, "video_steps": 0},
    "compile": False,
}


def config(folder, *, training=None, **changes):
    training = {**CONFIG["training"], **(training or {})}
    return {**CONFIG, "run_dir": str(folder / "run"), **changes, "training": training}


def train(config):
    agents = []

    def make_agent(env):
        agents.append((env, build_population(env)))
        return agents[0][1]

    run, complete = train_population(config, make_agent)
    run.close()
    assert complete
    return run, *agents[0]


def scalars(run, name):
    lines = (run.directory / "metrics" / "scalars" / f"{name}.csv").read_text().split()
    return {int(step): float(value) for step, value in (line.split(",") for line in lines)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(config(tmp_path_factory.mktemp("trained")))


# training


def test_counts_frames_of_all_environments(trained):
    run, env, _ = trained
    assert env.batch_size == (3, 2)
    assert list(scalars(run, "test/return_max")) == [3 * 2 * 12, 2 * 3 * 2 * 12]


def test_the_summary_is_an_evaluation_on_starts_of_its_own(trained, capsys):
    run, *_ = trained
    summary = json.loads((run.directory / "summary.json").read_text())
    last = {name: list(scalars(run, f"test/return_{name}").values())[-1] for name in summary}
    assert summary != pytest.approx(last)
    *_, final_seed = spawn_seeds(run.config["seed"], 3)
    returns = evaluate_particles(run.directory, episodes=3, seed=final_seed).mean(1)
    assert summary == pytest.approx(return_metrics(returns))
    assert set(summary) == {"max", "mean", "top4", "particle_0", "particle_1", "particle_2"}


def test_every_return_is_printed_best_first(tmp_path, capsys):
    run, *_ = train(config(tmp_path))
    summary = json.loads((run.directory / "summary.json").read_text())
    ranked = sorted(range(3), key=lambda i: -summary[f"particle_{i}"])
    line = "  ".join(f"#{i} {summary[f'particle_{i}']:.1f}" for i in ranked)
    assert f"best first:\n{line}\nFinished after" in capsys.readouterr().out


def test_joint_is_one_agent_with_the_data_of_all(tmp_path):
    run, env, agent = train(config(tmp_path, mode="joint"))
    assert env.batch_size == (1, 6)
    assert agent.loss.particles.shape[0] == 1
    assert list(scalars(run, "test/return_max")) == [3 * 2 * 12, 2 * 3 * 2 * 12]
    assert load_actor(run.directory)[0].module.num_particles == 1


def test_a_seed_fixes_the_run(tmp_path, trained):
    again, _, agent = train(config(tmp_path))
    assert agent.loss.particles.equal(trained[2].loss.particles)
    assert scalars(again, "test/return_mean") == scalars(trained[0], "test/return_mean")
    _, other, _ = train(config(tmp_path / "other", seed=1))
    assert not other.reset()["state"].equal(trained[1].reset()["state"])


def test_simulators_of_gymnasium_are_closed(tmp_path, monkeypatch):
    made, closed = [], []
    make_vec, close = gymnasium.make_vec, SyncVectorEnv.close_extras

    def counted(*args, **kwargs):
        made.append(make_vec(*args, **kwargs))
        return made[-1]

    def closing(self, **kwargs):
        closed.append(self)
        close(self, **kwargs)

    monkeypatch.setattr(gymnasium, "make_vec", counted)
    monkeypatch.setattr(SyncVectorEnv, "close_extras", closing)
    run, env, _ = train(config(tmp_path, env="Pendulum-v1", env_options={}))
    assert not isinstance(env, BatchedEnv)
    assert list(scalars(run, "train/loss_objective")) == [72, 144]
    assert len(made) == 4  # for training, two evaluations and the summary
    assert len(closed) == 4


def test_another_problem_is_not_resumed(tmp_path, trained):
    there = str(trained[0].directory)
    with pytest.raises(ValueError, match="mode is svpg in the checkpoint, it cannot become joint"):
        train(config(tmp_path, mode="joint", resume=there))
    assert not (tmp_path / "run").exists()


def test_a_run_is_resumed(tmp_path, trained):
    there = str(trained[0].directory)
    run, _, agent = train(config(tmp_path, resume=there, training={"iterations": 5}))
    assert int(agent.loss.iteration) == 5
    assert list(scalars(run, "train/loss_objective")) == [72 * k for k in (3, 4, 5)]


# what comes out


def test_the_actor_comes_back(trained):
    run, _, agent = trained
    observation = torch.randn(3, 5, 4)
    loaded = load_actor(run.directory)[0].module
    assert_close(loaded(observation), agent.actor[0].module(observation), rtol=0, atol=0)


def test_the_best_particle_is_that_of_the_last_evaluation(trained):
    run, _, agent = trained
    returns = read_metadata(run.directory)["returns"]
    assert len(set(returns)) == 3
    network = agent.actor[0].module.particle(returns.index(max(returns)))
    observation = torch.randn(7, 4)
    assert_close(best_particle(run.directory).actor[0].module(observation), network(observation))


def checkpoint(folder, agent, returns, config=CONFIG):
    checkpoints = Checkpoints(
        folder / "checkpoints", loss=agent.loss, config=config, others={"actor": agent.actor}
    )
    return checkpoints.save(1, returns=returns)


def test_a_particle_without_a_return_is_not_the_best(trained, tmp_path):
    agent = trained[2]
    checkpoint(tmp_path, agent, [math.nan, -5.0, -1.0])
    observation = torch.randn(7, 4)
    network = agent.actor[0].module.particle(2)
    assert_close(best_particle(tmp_path).actor[0].module(observation), network(observation))


def test_every_particle_is_evaluated_with_its_mean_action(trained):
    run, _, agent = trained
    returns = evaluate_particles(run.directory, episodes=4, seed=5)
    assert returns.shape == (3, 4)
    starts = CartpoleEnv((3, 4), seed=5, horizon=10).reset()["state"]
    world = trained[1].world
    for i in range(3):
        network = agent.actor[0].module.particle(i)
        for e in range(4):
            state, total = starts[i, e], 0.0
            for _ in range(CONFIG["eval"]["max_steps"]):
                state, reward, terminated = world.step(state, network(world.observe(state))[0])
                total += reward.item()
                if terminated:
                    break
            assert returns[i, e].item() == pytest.approx(total, rel=1e-4)


def test_every_particle_is_evaluated_with_sampled_actions(trained):
    directory = trained[0].directory
    mean = evaluate_particles(directory, episodes=4, seed=5)
    torch.manual_seed(1)
    sampled = evaluate_particles(directory, episodes=4, seed=5, exploration=ExplorationType.RANDOM)
    assert (sampled != mean).all()
    torch.manual_seed(1)
    again = evaluate_particles(directory, episodes=4, seed=5, exploration=ExplorationType.RANDOM)
    assert_close(again, sampled)


def test_the_best_particle_earns_what_its_evaluation_says(trained):
    run, *_ = trained
    returns = evaluate_particles(run.directory, episodes=200, seed=5).mean(1)
    env = make_task("cartpole", (1, 200), seed=5, options={"horizon": 10})
    policy = best_particle(run.directory)
    saved = read_metadata(run.directory)["returns"]
    with torch.no_grad():
        earned = play_episodes(env, policy, 8, ExplorationType.DETERMINISTIC).returns.mean()
    # Of the same policy, from other starts.
    assert earned.item() == pytest.approx(returns[saved.index(max(saved))].item(), rel=0.1)


# errors


def test_a_checkpoint_without_population(tmp_path):
    config = {"recipe": "soft_q"}
    Checkpoints(tmp_path / "checkpoints", loss=nn.Linear(1, 1), config=config, others={}).save(1)
    for use in (load_actor, best_particle, lambda path: evaluate_particles(path, 1)):
        with pytest.raises(ValueError, match="checkpoint of soft_q, which has no population"):
            use(tmp_path)


def test_a_checkpoint_before_the_first_evaluation(trained, tmp_path):
    checkpoint(tmp_path, trained[2], [])
    with pytest.raises(ValueError, match="saved before its particles were evaluated"):
        best_particle(tmp_path)


def test_no_checkpoint(tmp_path):
    for use in (load_actor, best_particle, lambda path: evaluate_particles(path, 1)):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint at {tmp_path}"):
            use(tmp_path)
