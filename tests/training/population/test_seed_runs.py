"""Several seeds as one batch: each leaves what a run of its own leaves."""

import json
import math

import pytest
import torch

from tests.training.population.test_recipe import config, scalars
from tests.training.population_builders import build_population
from tests.training.resuming import check_the_rest, interrupt_at
from torchrl_stein.comparison import find_runs, group_runs, read_run
from torchrl_stein.kernels import GroupedKernel, RBFKernel
from torchrl_stein.training import (
    SeedRuns,
    best_particle,
    evaluate_particles,
    find_checkpoint,
    load_actor,
    population_sizes,
    read_metadata,
    return_metrics,
    spawn_seeds,
    train_population,
)
from torchrl_stein.training.population import loop as on_policy

S, N, E, T = 2, 3, 2, 12


def batch_config(folder, **changes):
    return config(folder, **{"seed": 4, "seeds": S, **changes})


def train(config):
    agents = []

    def make_agent(env):
        kernel = GroupedKernel(RBFKernel(), config["seeds"])
        agents.append(build_population(env, kernel=kernel, seed=torch.initial_seed()))
        return agents[0]

    run, complete = train_population(config, make_agent)
    run.close()
    return run, agents[0], complete


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return train(batch_config(tmp_path_factory.mktemp("trained")))


def test_every_seed_has_a_directory(trained):
    batch, agent, complete = trained
    assert complete
    assert [run.directory.name for run in batch.runs] == ["seed4", "seed5"]
    assert agent.loss.particles.shape[0] == S * N
    for seed, run in zip((4, 5), batch.runs, strict=True):
        settings = json.loads((run.directory / "config.json").read_text())
        own = {"seed": seed, "seeds": 1, "run_dir": str(run.directory)}
        assert settings == {**batch.config, **own}
        assert (run.directory / "provenance.json").exists()
    assert not (batch.directory / "config.json").exists()
    assert json.loads((batch.directory / "batch.json").read_text()) == batch.config


def test_each_has_the_returns_of_its_own_particles(trained):
    batch, *_ = trained
    saved = read_metadata(batch.directory)["returns"]
    assert len(set(saved)) == S * N
    for s, run in enumerate(batch.runs):
        metrics = return_metrics(torch.tensor(saved[s * N : (s + 1) * N]))
        assert set(metrics) == {"max", "mean", "top4", *(f"particle_{i}" for i in range(N))}
        last = {k: list(scalars(run, f"test/return_{k}").values())[-1] for k in metrics}
        assert last == pytest.approx(metrics)


def test_steps_are_those_of_one_seed(trained):
    batch, *_ = trained
    for run in batch.runs:
        for name in ("test/return_mean", "train/return_mean"):
            assert list(scalars(run, name)) == [N * E * T, 2 * N * E * T]
    assert list(scalars(batch, "train/loss_objective")) == [S * N * E * T, 2 * S * N * E * T]


def test_what_is_of_all_is_beside_them(trained):
    batch, *_ = trained
    for name in ("max", "mean", "top4"):
        own = [scalars(run, f"test/return_{name}").values() for run in batch.runs]
        means = [sum(values) / S for values in zip(*own, strict=True)]
        assert list(scalars(batch, f"test/return_{name}").values()) == pytest.approx(means)
    for run in batch.runs:
        folder = run.directory / "metrics" / "scalars"
        logged = {path.name for path in (folder / "train").glob("*.csv")}
        assert all(name.startswith("return_") for name in logged)
    assert not list((batch.directory / "metrics").rglob("*particle_0*"))


def test_summaries_are_evaluations_of_their_own_particles(trained):
    batch, *_ = trained
    *_, final_seed = spawn_seeds(4, 3)
    returns = evaluate_particles(batch.directory, episodes=3, seed=final_seed).mean(1)
    for run, own in zip(batch.runs, returns.chunk(S), strict=True):
        summary = json.loads((run.directory / "summary.json").read_text())
        assert summary == pytest.approx(return_metrics(own))


def test_the_console_tells_seeds_apart(tmp_path, capsys):
    batch, *_ = train(batch_config(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    first = lines.index("final test return of each particle, best first:") + 1
    means = []
    for run, line in zip(batch.runs, lines[first : first + S], strict=True):
        summary = json.loads((run.directory / "summary.json").read_text())
        ranked = sorted(range(N), key=lambda i: -summary[f"particle_{i}"])
        ranking = "  ".join(f"#{i} {summary[f'particle_{i}']:.1f}" for i in ranked)
        assert line == f"{run.directory.name}: {ranking}"
        means.append(summary["mean"])
    (mean,) = (line.split()[1] for line in lines[first + S :] if line.startswith("  mean"))
    assert float(mean) == pytest.approx(sum(means) / S, rel=1e-3)  # of the seeds


def test_comparisons_find_every_seed(trained):
    batch, *_ = trained
    runs = [read_run(directory) for directory in find_runs([batch.directory])]
    assert [run.seed for run in runs] == [4, 5]
    assert all(run.finished and list(run.curve) == [N * E * T, 2 * N * E * T] for run in runs)
    ((_, methods),) = group_runs(runs).items()
    assert [len(same) for same in methods.values()] == [S]


def test_seeds_are_different(trained):
    one, other = trained[0].runs
    assert scalars(one, "test/return_mean") != scalars(other, "test/return_mean")
    particles = trained[1].loss.particles
    assert torch.cdist(particles, particles)[:N, N:].min() > 0.1


def test_joint_has_one_policy_for_each_seed(tmp_path):
    batch, agent, _ = train(batch_config(tmp_path, mode="joint"))
    assert agent.loss.particles.shape[0] == S
    assert load_actor(batch.directory)[0].module.num_particles == S
    for run in batch.runs:
        assert list(scalars(run, "test/return_particle_0")) == [N * E * T, 2 * N * E * T]
        assert not (run.directory / "metrics/scalars/test/return_particle_1.csv").exists()


def test_the_best_particle_is_that_of_all_seeds(trained):
    batch, agent, _ = trained
    returns = read_metadata(batch.directory)["returns"]
    network = agent.actor[0].module.particle(returns.index(max(returns)))
    observation = torch.randn(7, 4)
    torch.testing.assert_close(
        best_particle(batch.directory).actor[0].module(observation), network(observation)
    )


# going on


@pytest.mark.parametrize("path", ["", "best"])
def test_a_batch_goes_on(tmp_path, path):
    training = {"iterations": 6}
    straight, *_ = train(batch_config(tmp_path / "straight", training=training))
    interrupted = pytest.MonkeyPatch()
    interrupt_at(interrupted, on_policy._Loop, "iterate", 4)
    stopped, _, complete = train(batch_config(tmp_path / "stopped", training=training))
    interrupted.undo()
    assert not complete
    assert not list(stopped.directory.rglob("summary.json"))
    there = stopped.directory / path
    done = int(find_checkpoint(there).name.split("-")[1])
    resumed, *_ = train(batch_config(tmp_path / "resumed", training=training, resume=str(there)))
    check_the_rest(straight.directory, resumed.directory, done)
    for before, run in zip(straight.runs, resumed.runs, strict=True):
        check_the_rest(before.directory, run.directory, done // S)
        whole = read_run(before.directory)  # a curve begins with that of the run before it
        assert read_run(run.directory).curve == whole.curve
        assert (before.directory / "summary.json").read_text() == (
            run.directory / "summary.json"
        ).read_text()


def test_another_number_of_seeds_is_not_resumed(tmp_path, trained):
    changes = {"seeds": 3, "resume": str(trained[0].directory)}
    with pytest.raises(ValueError, match="seeds is 2 in the checkpoint, it cannot become 3"):
        train(batch_config(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_a_directory_holds_one_batch(trained):
    with pytest.raises(FileExistsError, match="already holds a run"):
        SeedRuns(trained[0].directory, trained[0].config)


def test_without_a_logger_there_are_no_metrics(tmp_path):
    batch = SeedRuns(tmp_path, batch_config(tmp_path), logger="none")
    batch.log({"a": 1.0}, 1)
    batch.runs[0].log({"a": 1.0}, 1)
    assert not list(tmp_path.rglob("*.csv"))


def test_returns_that_nobody_has_yet(tmp_path):
    batch, *_ = train(batch_config(tmp_path, env_options={"horizon": 500}, training={"steps": 1}))
    assert not (batch.directory / "metrics/scalars/train/return_mean.csv").exists()
    assert all(math.isfinite(v) for v in scalars(batch, "test/return_mean").values())


def test_sizes():
    population = {"num_particles": 7}
    assert population_sizes({"mode": "svpg", "population": population}) == (1, 7)
    assert population_sizes({"mode": "svpg", "seeds": 2, "population": population}) == (2, 7)
    assert population_sizes({"mode": "joint", "seeds": 2, "population": population}) == (2, 1)
