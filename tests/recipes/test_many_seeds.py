"""seeds= of recipes/svpg.py: every population of the batch learns as it would alone."""

import json
import re

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import Enough, run, settings_of
from tests.recipes.processes import SMALL
from torchrl_stein.runs import make_linear_critic, make_population_collector
from torchrl_stein.runs.settings import SettingsError

S, N = 2, 3
CASES = {
    "svpg": [],
    "no baseline": ["base=reinforce"],
    "ppo": ["base=ppo", "base.num_epochs=3", "base.num_minibatches=1"],
    "ip_wgf": ["trust_region=wasserstein", "trust_region.weight=5"],
    "independent": ["kernel=none"],
    "joint": ["kernel=none", "population.num_particles=1"],
    "radial": ["kernel=radial"],
    "tangential": ["kernel=tangential"],
    "layerwise": ["kernel=layerwise"],
}


@pytest.fixture
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def learn(*overrides, updates=3, **watched):
    """A loop and its critic."""
    critics = []

    def make_critic(env, n, make=make_linear_critic):
        critics.append(make(env, n))
        return critics[-1]

    def make_collector(env, actor, make=make_population_collector, **counts):
        """Of episodes in double precision, where that is the default."""
        collector, draw = make(env, actor, **counts), env.draw_starts
        collector._state = collector._state.to(torch.get_default_dtype())
        env.draw_starts = lambda shape: draw(shape).to(torch.get_default_dtype())
        return collector

    small = (*SMALL["svpg"], "+env_options.horizon=15", "training.steps=30", "selection=none")
    settings = settings_of("svpg", *small, *overrides)
    patches = {
        "make_linear_critic": make_critic,
        "make_population_collector": make_collector,
    }
    return run("svpg", settings, updates, patches=patches, **watched), critics[0]


def particles(loop):
    return loop.components["loss"].particles.detach()


@pytest.mark.parametrize("name", CASES)
def test_a_population_learns_as_it_would_alone(doubles, name):
    starts = []
    together, critic = learn(
        f"seeds={S}", *CASES[name], tracked=lambda loop: starts.append(particles(loop).clone())
    )
    assert (particles(together) - starts[0]).abs().amax(1).min() > 1e-3
    for rows in torch.arange(len(starts[0])).chunk(S):

        def begin(loop, rows=rows):
            particles(loop).copy_(starts[0][rows])
            if loop.components["previous"] is not None:
                loop.components["previous"].step()

        # Their particles have other numbers there.
        data = [batch[rows].exclude("particle") for batch in together.collected]
        alone, own = learn(*CASES[name], tracked=begin, batches=data)
        assert_close(particles(together)[rows], particles(alone), rtol=0, atol=1e-8)
        assert_close(critic.module.weight[rows], own.module.weight)


def test_replacements_stay_within_a_population():
    settings = settings_of("svpg", *SMALL["svpg"], f"seeds={S}", "selection.temperature=0.01")

    def stop(loop):
        raise Enough

    selection = run("svpg", settings, tracked=stop).components["selection"]
    selection.observe(torch.tensor([0.0, 2.0, 0.5, 90.0, 99.0, 91.0]))
    assert selection.draw().tolist() == [1, 1, 1, 4, 4, 4]


@pytest.mark.parametrize("kernel", ["drift", "shared_drift"])
def test_drifts_of_all_particles_differ(kernel):
    drift = learn(f"seeds={S}", f"kernel={kernel}")[0].components["loss"].kernel
    assert len(torch.unique(drift.directions, dim=0)) == S * N
    # A push is as long as the repulsion within the particle's own population.
    x = torch.randn(S * N, drift.directions.shape[1])
    pushes = drift.gram_and_repulsion(x)[1].norm(dim=1)
    inner = drift.kernel.kernel
    expected = [inner.gram_and_repulsion(part)[1].norm(dim=1) for part in x.chunk(S)]
    assert_close(pushes, torch.cat(expected))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["seeds=3", "seed=2", "env=Pendulum-v1"],
            r"seeds=1 with env=Pendulum-v1, .*: --multirun seed=2,3,4$",
        ),
        (["seeds=0"], "seeds must be greater than or equal to 1, got 0"),
    ],
)
def test_seeds_that_cannot_be(overrides, message):
    with pytest.raises(SettingsError, match=message):
        settings_of("svpg", *overrides)


def test_a_kernel_that_looks_at_the_data():
    with pytest.raises(ValueError, match=r"must not observe the data.* got BehaviourKernel"):
        learn(f"seeds={S}", "kernel=behaviour")


def test_from_the_command_line(finished, evaluate, capsys):
    directory = finished("svpg", f"seeds={S}", "seed=7", "selection.temperature=0.01").directory
    for seed in (7, 8):
        folder = directory / f"seed{seed}"
        summary = json.loads((folder / "summary.json").read_text())
        assert {f"particle_{i}" for i in range(N)} < set(summary)
        config = json.loads((folder / "config.json").read_text())
        assert (config["seed"], config["seeds"]) == (seed, 1)
        lines = (folder / "metrics/scalars/test/return_particle_2.csv").read_text().split()
        assert [line.split(",")[0] for line in lines] == ["240", "480"]  # steps of one seed
    evaluate.main(str(directory), episodes=3, seed=1)
    text = capsys.readouterr().out
    rows = re.findall(r"^  seed (\d) particle +(\d) +-?\d+\.\d+ +\d+\.\d +-?\d+\.\d+$", text, re.M)
    assert sorted(rows) == [(s, i) for s in "78" for i in "012"]
