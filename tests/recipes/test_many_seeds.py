"""seeds= of recipes/svpg.py: every population of the batch learns as it would alone."""

import json
import re
from copy import deepcopy

import pytest
import torch
from torch.testing import assert_close

from tests.recipes.processes import start
from tests.recipes.test_svpg_recipe import config, recipe
from torchrl_stein.training import WorldCollector, make_task

__all__ = ["recipe"]  # a fixture

pytestmark = pytest.mark.timeout(900)

S, N = 2, 3
SETTINGS = {
    "svpg": ["mode=svpg"],
    "no baseline": ["mode=svpg", "base=reinforce"],
    "ppo": ["mode=svpg", "base=ppo", "training.num_epochs=3"],
    "trpo": ["mode=svpg", "base=trpo", "loss.temperature=1"],
    "ip_wgf": ["mode=ip_wgf", "trust_region.weight=5"],
    "independent": ["mode=independent"],
    "joint": ["mode=joint"],
    "radial": ["mode=radial"],
    "tangential": ["mode=tangential"],
    "layerwise": [
        "mode=svpg",
        "~loss.kernel.bandwidth",
        "loss.kernel._target_=torchrl_stein.kernels.LayerwiseKernel",
        "+loss.kernel._partial_=true",
    ],
}


def make_agent(recipe, n, *overrides):
    """In double precision, with the world it acts in."""
    cfg = config(*overrides)
    env = make_task(cfg.env, (n, 2), seed=0, options={"horizon": 15})
    agent = recipe.make_agent(cfg, env)
    agent.loss.double()
    agent.critic.double()
    if agent.trust_region is not None:
        agent.trust_region.loss.double()
    return agent, env


def batch_of(agent, env):
    """Of the world, in single precision, and then made double."""
    actor, frames = deepcopy(agent.actor).float(), env.batch_size.numel() * 30
    data = next(iter(WorldCollector(env, actor, frames_per_batch=frames, total_frames=frames)))
    return data.apply(lambda x: x.double() if x.is_floating_point() else x)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_population_learns_as_it_would_alone(recipe, name):
    n = 1 if name == "joint" else N
    torch.manual_seed(0)
    together, env = make_agent(recipe, S * n, f"seeds={S}", *SETTINGS[name])
    alone = [make_agent(recipe, n, *SETTINGS[name])[0] for _ in range(S)]
    particles = together.loss.particles
    parts = [slice(s * n, (s + 1) * n) for s in range(S)]
    with torch.no_grad():
        for rows, agent in zip(parts, alone, strict=True):
            agent.loss.particles.copy_(particles[rows])
            if agent.trust_region is not None:
                agent.trust_region.updater.step()
        if together.trust_region is not None:
            together.trust_region.updater.step()
    start = particles.detach().clone()
    for _ in range(3):
        data = batch_of(together, env)
        together.update(data.clone())
        for rows, agent in zip(parts, alone, strict=True):
            agent.update(data[rows].clone())
    assert (particles.detach() - start).abs().amax(1).min() > 1e-3
    for rows, agent in zip(parts, alone, strict=True):
        assert_close(particles.detach()[rows], agent.loss.particles.detach(), rtol=0, atol=1e-8)
        assert_close(together.critic.module.weight[rows], agent.critic.module.weight)


def test_replacements_stay_within_a_population(recipe):
    agent, _ = make_agent(recipe, S * N, f"seeds={S}", "birth_death.temperature=0.01")
    assert agent.birth_death.num_groups == S
    agent.birth_death.observe(torch.tensor([0.0, 2.0, 0.5, 90.0, 99.0, 91.0]).double())
    assert agent.birth_death.draw().tolist() == [1, 1, 1, 4, 4, 4]


def test_drifts_of_all_particles_differ(recipe):
    agent, _ = make_agent(recipe, S * N, f"seeds={S}", "mode=drift")
    assert agent.loss.kernel.directions.shape[0] == S * N


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["seeds=3", "seed=2", "env=Pendulum-v1"],
            r"seeds must be 1 for Pendulum-v1, .*: --multirun seed=2,3,4$",
        ),
        (["seeds=0"], "seeds must be >= 1; got 0"),
    ],
)
def test_seeds_that_cannot_be(recipe, overrides, message):
    with pytest.raises(ValueError, match=message):
        recipe.check_settings(config(*overrides))


def test_a_kernel_that_looks_at_the_data(recipe):
    behaviour = [
        "~loss.kernel.bandwidth",
        "loss.kernel._target_=torchrl_stein.kernels.BehaviourKernel",
        "+loss.kernel._partial_=true",
    ]
    with pytest.raises(ValueError, match=r"must not observe the data.* got BehaviourKernel"):
        make_agent(recipe, S * N, f"seeds={S}", "mode=svpg", *behaviour)


def test_from_the_command_line(tmp_path, evaluate, capsys):
    process = start(tmp_path, "svpg", f"seeds={S}", "seed=7", "birth_death.temperature=0.01").wait()
    assert process.code == 0, process.err
    run = tmp_path / "run"
    for seed in (7, 8):
        summary = json.loads((run / f"seed{seed}" / "summary.json").read_text())
        assert {f"particle_{i}" for i in range(N)} < set(summary)
    evaluate.main(str(run), episodes=3, seed=1)
    text = capsys.readouterr().out
    rows = re.findall(r"^  seed (\d) particle +(\d) +-?\d+\.\d+ +\d+\.\d +-?\d+\.\d+$", text, re.M)
    assert sorted(rows) == [(s, i) for s in "78" for i in "012"]
