"""Networks from the directories of runs, which may be a stranger's."""

import json
import os
import sys

import pytest
import torch
from torchrl.envs.utils import ExplorationType

from torchrl_stein.runs import (
    best_particle,
    evaluate_particles,
    load_actor,
    load_loss,
    make_configured_task,
    make_gaussian_actor,
    make_task,
    play_episodes,
    saved,
)
from torchrl_stein.runs import checkpoint as files
from torchrl_stein.runs.checkpoint import Checkpoints

SMALL = ["network.num_cells=[8]", "env.num_envs=2"]


@pytest.fixture
def off_policy(recipe, tmp_path):
    """A checkpoint of an off-policy recipe that has not learnt yet, and its loss."""

    def make(name="soft_q", *overrides):
        settings = recipe(name).read(*SMALL, *overrides)
        env = make_configured_task(settings.env, 1, seed=0)
        loss = saved._import_recipe(name).make_loss(settings, env)
        path = Checkpoints(tmp_path / name, settings.plain()).save(1, {"loss": loss})
        return path, loss, settings

    return make


ONE_POLICY = ["a2c", "acer", "d4pg", "ddpg", "discrete_soft_q", "maddpg", "ppo", "s2ac", "sac"]
ONE_POLICY += ["soft_q", "soft_qv", "td3"]


@pytest.mark.parametrize("name", ONE_POLICY)
def test_losses_come_back(off_policy, name, same):
    path, loss, settings = off_policy(name)
    for key, value in loss.state_dict().items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            loss.state_dict()[key].copy_(torch.randn_like(value))
    Checkpoints(path.parent, settings.plain()).save(2, {"loss": loss})
    other, read = load_loss(path.parent.parent / name / "checkpoint-000000000002")
    assert read == settings
    same(dict(other.state_dict()), dict(loss.state_dict()))


@pytest.fixture
def population(recipe, tmp_path):
    """A checkpoint of a population with its returns, and its actor."""

    def make(*overrides, returns=(1.0, float("nan"), 3.0), name="svpg"):
        small = ["env=cartpole", "population.num_particles=3", "population.num_cells=[4]"]
        settings = recipe(name).read(*small, "eval.max_steps=9", *overrides)
        env = make_task(settings.env, (3, 1), seed=0, options=settings.env_options)
        actor = make_gaussian_actor(env, 3, [4])
        notes = {} if returns is None else {"returns": list(returns)}
        path = Checkpoints(tmp_path / name, settings.plain()).save(1, {"actor": actor}, **notes)
        return path, actor

    return make


@pytest.mark.parametrize("name", ["svpg", "trpo", "sharded_svpg"])
def test_actors_come_back(population, name):
    path, actor = population(name=name)
    assert load_actor(path)[0].module.particles.equal(actor[0].module.particles)


def test_those_of_several_seeds_too(recipe, tmp_path):
    settings = recipe("svpg").read("seeds=2", "population.num_particles=2", "env=cartpole")
    env = make_task("cartpole", (2, 2, 1), seed=0)
    actor = make_gaussian_actor(env, (2, 2), settings.population.num_cells)
    returns = [1.0, 2.0, 9.0, float("nan")]
    Checkpoints(tmp_path / "checkpoints", settings.plain()).save(
        1, {"actor": actor}, returns=returns
    )
    assert load_actor(tmp_path)[0].module.leading == (2, 2)
    observation = torch.randn(7, 4)
    found = best_particle(tmp_path).actor[0].module(observation)
    torch.testing.assert_close(found, actor[0].module.particle(1, 0)(observation))


def test_the_best_particle(population):
    path, actor = population()
    observation = torch.randn(7, 4)
    found = best_particle(path).actor[0].module(observation)
    torch.testing.assert_close(found, actor[0].module.particle(2)(observation))
    path, _ = population("seed=1", returns=None, name="trpo")
    with pytest.raises(ValueError, match="was saved before its particles were evaluated"):
        best_particle(path)


def test_playing_every_particle(population):
    path, actor = population()
    returns = evaluate_particles(path, episodes=5, seed=2)
    env = make_task("cartpole", (3, 5), seed=2)
    expected = play_episodes(env, actor, 9, ExplorationType.DETERMINISTIC).returns
    assert returns.equal(expected)
    sampled = evaluate_particles(path, 5, seed=2, exploration=ExplorationType.RANDOM)
    assert not sampled.equal(returns)
    assert sampled.equal(evaluate_particles(path, 5, seed=2, exploration=ExplorationType.RANDOM))
    changed = evaluate_particles(path, 5, seed=2, options={"pole_length": 1.5})
    assert not changed.equal(returns)


def test_what_holds_none(off_policy, population):
    path, *_ = off_policy("sac")
    for load in (load_actor, best_particle, lambda p: evaluate_particles(p, 1)):
        with pytest.raises(ValueError, match="is a run of sac, which has no population"):
            load(path)
        with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
            load("nowhere")
    path, _ = population()
    with pytest.raises(ValueError, match=r"must be a run of one of .*, got svpg"):
        load_loss(path)


# strangers


def rewritten(path, names, value):
    manifest = json.loads((path / "manifest.json").read_text())
    *sections, last = ("config", *names)
    place = manifest
    for section in sections:
        place = place[section]
    place[last] = value
    del manifest["sha256"]
    manifest["sha256"] = files._digest(files._canonical(manifest))
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("env", "_target_"), "os.system"),
        (("env", "_target_"), "torchrl.envs.GymEnv"),
        (("env", "name"), "strange_module:Env-v0"),
        (("trust_region", "cost"), {"_target_": "torch.load", "f": "x.pt", "weights_only": False}),
        (("loss", "kernel", "_target_"), "subprocess.Popen"),
        (("loss", "kernel", "bandwidth"), {"_target_": "os.system", "command": "true"}),
        (("recipe",), "strange_module"),
        (("recipe",), "os"),
        (("recipe",), "../strange_module"),
        (("recipe",), ["sac"]),
        (("network", "num_cells"), "8"),
        (("env", "options"), None),
        (("nonsense",), 1),
    ],
    ids=str,
)
def test_a_run_of_a_stranger_executes_nothing(off_policy, names, value, tmp_path, monkeypatch):
    path, *_ = off_policy()
    rewritten(path, names, value)
    here = tmp_path / "here"
    here.mkdir()
    (here / "strange_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.chdir(here)
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("executed"))
    with pytest.raises(
        ValueError, match=r"_target_|colon|must be a run of|must be a|no setting"
    ) as e:
        load_loss(path)
    assert "\n" not in str(e.value)
    assert "strange_module" not in sys.modules


@pytest.mark.parametrize(
    ("names", "value"),
    [
        (("env",), "strange_module:Env-v0"),
        (("env",), ["x"]),
        (("env_options",), "x"),
        (("population", "num_particles"), 10**30),
        (("population", "num_particles"), "3"),
        (("population", "num_cells"), None),
        (("population",), "x"),
        (("seeds",), -1),
        (("eval", "max_steps"), 0),
        (("eval",), None),
    ],
    ids=str,
)
def test_a_population_of_a_stranger_passes_the_same_schema(population, names, value):
    path, _ = population()
    rewritten(path, names, value)
    for load in (load_actor, best_particle, lambda p: evaluate_particles(p, 1)):
        with pytest.raises(ValueError, match=f"^{path}: {names[0]}"):
            load(path)


def test_recipes_are_not_searched_for_where_python_does(off_policy, tmp_path, monkeypatch):
    """Its path begins with the current folder, which may be that of a stranger's run."""
    path, *_ = off_policy("td3")
    here = tmp_path / "here"
    here.mkdir()
    (here / "td3.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.chdir(here)
    monkeypatch.delitem(sys.modules, "td3", raising=False)
    load_loss(path)
    assert sys.modules["td3"].__file__ != str(here / "td3.py")


def test_with_trust_a_target_may_be_anything(off_policy):
    from torchrl_stein.runs import targets

    path, *_ = off_policy()
    rewritten(path, ("env", "_target_"), "torchrl_stein.envs.MultiGoalGymEnv")
    with pytest.raises(ValueError, match="--trust"):
        load_loss(path)
    targets.trust_all_targets()
    with pytest.raises((TypeError, ValueError, RuntimeError)) as error:
        load_loss(path)
    assert "--trust" not in str(error.value)
