"""What is timed: peers compute what ours computes, and updates are those of the recipes."""

import importlib
import importlib.util

import pytest
import torch

from benchmarks.speed import collection, harness, operations, replay, svpg_update, trust_region
from benchmarks.speed.harness import Peer, Roofline
from torchrl_stein.runs import WorldCollector

CPU = torch.device("cpu")

needs_recipes = pytest.mark.skipif(
    importlib.util.find_spec("hydra") is None, reason="recipes need hydra"
)
needs_jax = pytest.mark.skipif(
    not (importlib.util.find_spec("jax") and importlib.util.find_spec("optax")), reason="no JAX"
)
needs_baselines = pytest.mark.skipif(
    importlib.util.find_spec("stable_baselines3") is None, reason="no stable_baselines3"
)


@needs_recipes
@pytest.mark.parametrize("particles", [4, 5])  # an even and an odd number of pairs
def test_soft_q_in_the_way_of_public_code(particles):
    from benchmarks.speed.agents import MULTI_GOAL, make_agent, random_transitions
    from benchmarks.speed.off_policy import plain_peer

    sizes = [f"loss.num_action_samples={particles}", "loss.num_value_samples=3"]
    agent = make_agent("soft_q", MULTI_GOAL, CPU, sizes)
    batch = random_transitions(7, MULTI_GOAL, CPU)
    peer = plain_peer(agent, batch)  # compares
    before = [p.clone() for p in peer.actor.parameters()]
    peer.update(batch)
    assert all((p != old).any() for p, old in zip(peer.actor.parameters(), before, strict=True))


@needs_recipes
def test_soft_q_with_another_proposal_is_noticed():
    from benchmarks.speed.agents import MULTI_GOAL, make_agent, random_transitions
    from benchmarks.speed.off_policy import plain_peer

    agent = make_agent("soft_q", MULTI_GOAL, CPU, ["loss.num_action_samples=4"])
    agent.loss.value_proposal = lambda actor, states, count: (
        torch.zeros(*states.batch_size, count, 2),
        torch.zeros(*states.batch_size, count),
    )
    with pytest.raises(AssertionError):
        plain_peer(agent, random_transitions(7, MULTI_GOAL, CPU))


@needs_recipes
@needs_jax
@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("soft_q", ["loss.num_action_samples=5", "loss.num_value_samples=3"]),
        (
            "soft_q",
            [
                "loss.num_action_samples=4",
                "loss.num_value_samples=2",
                "loss.num_qvalue_nets=2",
                "loss.value_target=expected",
            ],
        ),
        ("sac", []),
    ],
)
def test_updates_in_jax(recipe, overrides, monkeypatch):
    from benchmarks.speed import jax_updates
    from benchmarks.speed.agents import HALF_CHEETAH, make_agent, random_transitions

    agent = make_agent(recipe, HALF_CHEETAH, CPU, overrides)
    batch = random_transitions(7, HALF_CHEETAH, CPU)
    make = getattr(jax_updates, f"jax_{recipe}")
    make(agent, batch)()  # compares
    volume = jax_updates.log_volume
    monkeypatch.setattr(jax_updates, "log_volume", lambda u: 1.01 * volume(u))
    with pytest.raises(AssertionError):
        make(agent, batch)


@needs_recipes
def test_sac_of_torchrl_is_that_of_the_recipe():
    from benchmarks.speed.agents import HALF_CHEETAH, make_agent, random_transitions
    from benchmarks.speed.off_policy import torchrl_sac

    agent = make_agent("sac", HALF_CHEETAH, CPU)
    torchrl_sac(agent, random_transitions(5, HALF_CHEETAH, CPU))()  # compares


@needs_recipes
@needs_baselines
def test_baselines_take_a_step():
    from benchmarks.speed.agents import MULTI_GOAL, random_transitions
    from benchmarks.speed.off_policy import _sb3

    for name in ("SAC", "TD3", "DDPG"):
        [update] = _sb3(name, MULTI_GOAL, CPU).values()
        update()
    sample = replay.sb3_buffer(random_transitions(50, MULTI_GOAL, CPU), 8, CPU)()
    assert sample.observations.shape == (8, 2)


@needs_recipes
def test_samples_are_rows_of_what_the_buffer_was_given():
    from benchmarks.speed.agents import MULTI_GOAL, random_transitions

    buffer = replay.filled_buffer(random_transitions(50, MULTI_GOAL, CPU), 8)
    assert len(buffer) == 50


@pytest.mark.parametrize(("count", "rows"), [(1, 4), (2, 6)])
def test_collectors_collect_the_same(count, rows):
    collection.check_same_data(count, rows, [8], CPU, steps=5)


def test_other_data_are_noticed(monkeypatch):
    collect = WorldCollector.collect

    def late(self):
        collect(self)
        return collect(self)

    monkeypatch.setattr(WorldCollector, "collect", late)
    with pytest.raises(AssertionError):
        collection.check_same_data(1, 4, [8], CPU, steps=5)


def test_the_wrapped_loss_has_the_coupled_gradient_of_the_bare_one():
    svpg_update.coupled_losses(20, CPU)  # compares


def test_a_loop_of_networks_is_the_population():
    svpg_update.populations(3, CPU)  # compares


def test_many_optimizers_take_the_step_of_one():
    svpg_update.optimizers(CPU)  # compares


@needs_recipes
@pytest.mark.parametrize("recipe", ["soft_q", "soft_qv", "sac", "ddpg", "td3"])
def test_an_agent_updates_as_its_recipe(recipe):
    """From the same start and the same batches the loop of the recipe has the same losses."""
    from benchmarks.speed.agents import MULTI_GOAL, make_agent, random_transitions
    from tests.recipes.loops import run, settings_of

    few = [f"loss.num_{name}=3" for name in ("action_samples", "value_samples")]
    words = ["network.num_cells=[8]", "seed=3", *(few if recipe.startswith("soft") else [])]
    batches = [random_transitions(8, MULTI_GOAL, CPU) for _ in range(3)]

    class Given:
        """In place of a buffer: one batch after the other, as they are."""

        def __init__(self, **_):
            self.left = iter([batch.clone() for batch in batches])

        def extend(self, data):
            pass

        def sample(self):
            torch.manual_seed(7)
            return next(self.left)

    settings = settings_of(recipe, *words, "env.num_envs=1", "training.warmup_frames=0")
    loop = run(recipe, settings, 3, patches={"TensorDictReplayBuffer": Given})
    agent = make_agent(recipe, MULTI_GOAL, CPU, [*words, "env.num_envs=1"])
    for want, batch in zip(loop.losses, batches, strict=True):
        torch.manual_seed(7)
        found = agent.update(batch)
        torch.testing.assert_close(found.to_dict(), want.to_dict())


@needs_recipes
def test_a_population_updates_as_its_recipe():
    from benchmarks.speed.agents import make_population
    from tests.recipes.loops import run, settings_of

    words = ["selection=none", "population.num_particles=3", "population.envs_per_particle=2"]
    words += ["population.num_cells=[8]", "training.steps=5", "seed=4"]
    words += ["loss.final_temperature=0.1", "training.iterations=5"]
    loop = run("svpg", settings_of("svpg", *words), 2)
    population = make_population(CPU, words)
    for want in loop.losses:
        found = population.update(population.collect())
        torch.testing.assert_close(found.to_dict(), want.to_dict())


@needs_recipes
def test_updates_beside_a_trust_region(monkeypatch):
    losses = []
    monkeypatch.setattr(
        trust_region, "compare", lambda *calls, **_: losses.extend(call() for call in calls)
    )
    small = ["trust_region.num_action_samples=3", "loss.num_action_samples=3"]
    for recipe, sizes, overrides in list(trust_region.OFF_POLICY.values())[3:]:
        trust_region.off_policy(recipe, sizes, [*overrides, *small])
    sizes = ["population.num_particles=3", "training.steps=5", "population.num_cells=[8]"]
    trust_region.population(*sizes)
    with_region = ["loss_trust_region" in found.keys() for found in losses]  # noqa: SIM118
    assert with_region == [False, True] * 5


def once(ours, theirs, device, **_):
    """In place of ``interleave``: everything is called, nothing timed."""
    for call in (ours, *theirs.values()):
        call()
    return 1.0, tuple(Peer(name, 1.0, 1.0, 1.0) for name in theirs), None


@needs_recipes
def test_simulators_beside_others(monkeypatch):
    """Each row compares numbers before it takes time."""
    from benchmarks.speed import simulators

    monkeypatch.setattr(simulators, "interleave", once)
    monkeypatch.setattr(simulators, "STEPS", 6)
    rows = list(simulators.cases(CPU, Roofline(100.0, 30.0)))
    assert [len(row.peers) >= 2 for row in rows] == [True] * len(simulators.SIZES)


@needs_recipes
@pytest.mark.parametrize("group", ["off_policy", "replay", "svpg_update"])
def test_all_rows_of_a_group(group, monkeypatch):
    module = importlib.import_module(f"benchmarks.speed.{group}")
    monkeypatch.setattr(module, "interleave", once)
    monkeypatch.setattr(harness, "interleave", once)
    for name, less in {"BATCH": 16, "HELD": 100, "CELLS": [5]}.items():
        if hasattr(module, name):
            monkeypatch.setattr(module, name, less)
    if hasattr(module, "WAYS"):  # compilation takes minutes, and is tested elsewhere
        monkeypatch.setattr(module, "WAYS", {way: [] for way in module.WAYS})
    rows = list(module.cases(CPU, Roofline(100.0, 30.0)))
    assert len(rows) == len({row.name for row in rows}) > 4


@needs_recipes
def test_ways_of_an_update_are_settings():
    from benchmarks.recipes import settings_of
    from benchmarks.speed.agents import WAYS

    chosen = {
        way: settings_of("svpg", "device=cuda", *words).compile for way, words in WAYS.items()
    }
    assert {way: (c.compile, c.cudagraphs) for way, c in chosen.items()} == {
        "eager": (False, False),
        "compiled": (True, False),
        "CUDA graphs": (False, True),
        "compiled, CUDA graphs": (True, True),
    }


def test_operations_of_a_call_are_counted():
    weight = torch.randn(4, 4, requires_grad=True)

    def call():
        (torch.ones(3, 4) @ weight).exp().sum().backward()

    profile = operations.profile_call(call, CPU, rounds=2)
    calls = {share.name: (share.kind, share.calls) for share in profile.shares}
    assert calls["mm"] == ("products", 2)  # forward, and backward of the weight
    assert calls["exp"] == ("elementwise", 1)
    assert calls["sum"] == ("reductions", 1)
    assert 0 < profile.of_kind("products") < profile.total_ms
    assert profile.outside_maths() <= profile.outside_maths(launches=True)


@needs_recipes
def test_flops_by_hand():
    from benchmarks.speed.dp_wgf_v import count_flops

    weight, x = torch.ones(3, 4, requires_grad=True), torch.ones(5, 3)

    def call():  # one product forward; backward that of the weight alone
        (x @ weight).sum().backward()

    assert count_flops(call) == 2 * (2 * 5 * 3 * 4)
