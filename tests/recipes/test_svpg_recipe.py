"""recipes/svpg.py as a user starts it, and what its settings build."""

import importlib.util
import json
import math
import re
import signal

import pytest
import torch
from torchrl.objectives import A2CLoss, ClipPPOLoss, ReinforceLoss

from tests.recipes.processes import RECIPES, ROOT, SMALL, Process, start
from torchrl_stein.kernels import (
    DriftControl,
    IdentityKernel,
    RadialControl,
    RBFKernel,
    TangentialControl,
)
from torchrl_stein.objectives import NaturalGradientStep, TRPOLoss
from torchrl_stein.training import find_checkpoint, load_actor, make_task, read_metadata

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir

pytestmark = pytest.mark.timeout(900)

MODES = (
    "birth_death",
    "svpg",
    "ip_wgf",
    "independent",
    "joint",
    "drift",
    "shared_drift",
    "radial",
    "tangential",
)
BASES = ("reinforce", "a2c", "ppo")
TRPO = ("trpo_svpg", "trpo_birth_death", "trpo_joint")


def sweep(folder, *overrides):
    """Several runs one after the other in one process, each in its default directory."""
    return start(folder, "svpg", *overrides, "--multirun", run_dir=None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Processes and the directories of their runs, by mode and by base."""
    folder = tmp_path_factory.mktemp("finished")
    started = {
        "modes": sweep(folder / "modes", f"mode={','.join(MODES)}", "birth_death.temperature=0.01"),
        "bases": sweep(
            folder / "bases",
            f"base={','.join(BASES)}",
            "env=Pendulum-v1",
            "mode=svpg",
            "loss.final_temperature=0.1",
            "training.num_epochs=2",
            "training.num_minibatches=2",
        ),
        "trpo": sweep(
            folder / "trpo", "base=trpo", "mode=svpg,birth_death,joint", "env=Pendulum-v1"
        ),
        "mode": start(folder / "mode", "svpg", "mode=foo"),
    }
    processes = {name: process.wait() for name, process in started.items()}
    for name in ("modes", "bases", "trpo"):
        assert processes[name].code == 0, processes[name].err
    runs = {}
    for mode in MODES:
        (runs[mode],) = (folder / "modes/runs/svpg").glob(f"*_cartpole_a2c_{mode}_seed0")
    for base in BASES:
        (runs[base],) = (folder / "bases/runs/svpg").glob(f"*_Pendulum-v1_{base}_svpg_seed0")
    for name in TRPO:
        (runs[name],) = (folder / "trpo/runs/svpg").glob(f"*_Pendulum-v1_{name}_seed0")
    return processes, runs


def scalars(directory, name):
    lines = (directory / "metrics" / "scalars" / f"{name}.csv").read_text().split()
    return [float(line.split(",")[1]) for line in lines]


@pytest.mark.parametrize("name", [*MODES, *BASES, *TRPO])
def test_it_trains(finished, name):
    directory = finished[1][name]
    n = 1 if name.endswith("joint") else 3
    summary = json.loads((directory / "summary.json").read_text())
    assert set(summary) == {"max", "mean", "top4", *(f"particle_{i}" for i in range(n))}
    assert all(math.isfinite(value) for value in summary.values())
    values = scalars(
        directory, "train/loss_actor" if name == "reinforce" else "train/loss_objective"
    )
    assert len(values) == 4
    assert all(math.isfinite(value) for value in values)
    checkpoints = sorted((directory / "checkpoints").iterdir())
    assert [int(path.name.split("-")[1]) for path in checkpoints] == [
        3 * 2 * 20 * k for k in (2, 4)
    ]
    before, after = (load_actor(path)[0].module.particles for path in checkpoints)
    assert (before != after).any(1).all()


@pytest.mark.parametrize("name", TRPO)
def test_natural_gradients_report_their_steps(finished, name):
    figures = {
        key: scalars(finished[1][name], f"train/{key}")
        for key in ("kl", "step_fraction", "cg_residual", "improvement")
    }
    assert all(len(values) == 4 for values in figures.values())
    assert all(0 < kl <= 0.01001 for kl in figures["kl"])
    assert all(0 < fraction <= 1 for fraction in figures["step_fraction"])
    assert all(0 <= residual < 1 for residual in figures["cg_residual"])


def test_every_particle_is_printed_best_first(finished):
    processes, runs = finished
    summary = json.loads((runs["svpg"] / "summary.json").read_text())
    ranked = sorted(range(3), key=lambda i: -summary[f"particle_{i}"])
    line = "  ".join(f"#{i} {summary[f'particle_{i}']:.1f}" for i in ranked)
    assert f"final test return of each particle, best first:\n{line}\n" in processes["modes"].out


def test_modes_are_different_algorithms(finished):
    modes = [mode for mode in MODES if mode != "joint"]
    ends = [load_actor(finished[1][mode])[0].module.particles for mode in modes]
    for i, one in enumerate(ends):
        for j, other in enumerate(ends[:i]):
            assert not one.allclose(other), (modes[i], modes[j])


def test_the_temperature_is_annealed(finished):
    temperatures = scalars(finished[1]["a2c"], "train/temperature")
    assert temperatures == pytest.approx([10.0 * 0.01 ** (k / 4) for k in range(4)])
    assert scalars(finished[1]["svpg"], "train/temperature") == [10.0] * 4


def test_an_unknown_word_is_one_line(finished):
    process = finished[0]["mode"]
    assert process.code == 1
    assert process.err.strip().splitlines()[-1:] == [
        "svpg.py: mode must be one of birth_death, joint, ip_wgf, svpg, independent, drift, "
        "shared_drift, radial, tangential; got foo"
    ]
    assert "Traceback" not in process.err
    assert not (process.folder / "run").exists()


def test_ctrl_c_and_resume(tmp_path):
    running = start(tmp_path, "svpg", "training.iterations=100_000")
    running.until("iteration ")
    running.process.send_signal(signal.SIGINT)
    stopped = running.wait()
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err + stopped.out
    path = find_checkpoint(tmp_path / "run")
    assert f"To go on: resume={path}" in stopped.out
    assert not (tmp_path / "run" / "summary.json").exists()

    done = int(path.name.split("-")[1]) // 120
    # Without the small settings: those of the run are taken.
    options = ["resume=run", f"training.iterations={done + 3}", "run_dir=resumed"]
    process = Process(tmp_path, RECIPES["svpg"], *options).wait()
    assert process.code == 0, process.err
    assert find_checkpoint(tmp_path / "resumed").name.endswith(str(120 * (done + 3)))
    assert len(scalars(tmp_path / "resumed", "train/loss_objective")) == 3


# evaluate.py


@pytest.mark.parametrize("name", ["svpg", "joint", "ppo", "trpo_joint"])
def test_evaluate_prints_every_particle(finished, evaluate, capsys, name):
    directory = str(finished[1][name])
    metrics = evaluate.main(directory, episodes=3, seed=1)
    text = capsys.readouterr().out
    task = "cartpole" if name in MODES else "Pendulum-v1"
    assert text.startswith(f"{task}: 3 episodes of at most 20 steps\n")
    rows = re.findall(r"^  particle +(\d+) +(-?\d+\.\d+) +(\d+\.\d) +(-?\d+\.\d+)$", text, re.M)
    assert len(rows) == (1 if name.endswith("joint") else 3)
    saved = read_metadata(directory)["returns"]
    for i, mean, _, before in rows:
        assert float(mean) == pytest.approx(metrics[f"particle_{i}"], abs=0.01)
        assert float(before) == pytest.approx(saved[int(i)], abs=0.01)
    means = [float(mean) for _, mean, *_ in rows]
    assert means == sorted(means, reverse=True)
    assert evaluate.main(directory, episodes=3, seed=1) == metrics
    assert evaluate.main(directory, episodes=3, seed=2) != metrics
    capsys.readouterr()
    evaluate.main(directory)
    assert capsys.readouterr().out.startswith(f"{task}: 3 episodes")  # as configured
    if name == "svpg":  # in another world, which the first line names
        evaluate.main(directory, options=["pole_length=1.5"])
        assert capsys.readouterr().out.startswith("cartpole pole_length=1.5: 3 episodes")
        with pytest.raises(ValueError, match="--option must be NAME=VALUE, got pole_length"):
            evaluate.main(directory, options=["pole_length"])


# what the settings build


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("svpg_recipe", RECIPES["svpg"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(*overrides):
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        return compose("svpg", [*SMALL["svpg"], *overrides])


def agent_of(recipe, *overrides):
    cfg = config(*overrides)
    return recipe.make_agent(cfg, make_task(cfg.env, (3, 2), seed=0))


@pytest.mark.parametrize(
    ("overrides", "kernel", "replaces"),
    [
        (["mode=svpg"], RBFKernel, False),
        (["mode=ip_wgf"], RBFKernel, False),
        (["mode=independent"], IdentityKernel, False),
        (["mode=joint"], IdentityKernel, False),
        (["mode=drift"], DriftControl, False),
        (["mode=radial"], RadialControl, False),
        (["mode=tangential"], TangentialControl, False),
        (["mode=birth_death"], RBFKernel, True),
        (["mode=birth_death", "birth_death.interaction=independent"], IdentityKernel, True),
    ],
)
def test_a_mode_chooses_the_interaction(recipe, overrides, kernel, replaces):
    agent = agent_of(recipe, *overrides)
    assert type(agent.loss.kernel) is kernel
    assert (agent.birth_death is not None) == replaces
    if replaces:
        assert agent.birth_death.population is agent.actor[0].module
        assert agent.birth_death_interval == 2


@pytest.mark.parametrize(
    ("base", "loss", "fits"),
    [
        ("reinforce", ReinforceLoss, False),
        ("a2c", A2CLoss, True),
        ("ppo", ClipPPOLoss, True),
        ("trpo", TRPOLoss, True),
    ],
)
def test_a_base_chooses_loss_and_baseline(recipe, base, loss, fits):
    agent = agent_of(recipe, f"base={base}", "loss.gamma=0.9", "loss.lmbda=0.8")
    assert type(agent.loss.loss_module) is loss
    assert agent.fit_critic is fits
    assert (agent.gamma, agent.lmbda) == (0.9, 0.8)
    assert agent.optimizer.param_groups[0]["params"][0] is agent.actor[0].module.particles
    assert isinstance(agent.optimizer, NaturalGradientStep) == (base == "trpo")


def test_a_single_policy_with_natural_gradients(recipe):
    """--config-name trpo: the settings of the step reach it, and advantages are generalised."""
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        cfg = compose("trpo", ["trpo.max_kl=0.02", "trpo.iterations=7"])
    recipe.check_settings(cfg)
    assert (cfg.env, cfg.mode, cfg.recipe) == ("Hopper-v5", "joint", "svpg")
    agent = recipe.make_agent(cfg, make_task(cfg.env, (1, 2), seed=0))
    step = agent.optimizer
    assert (step.max_kl, step.damping, step.iterations) == (0.02, 0.1, 7)
    assert step.loss is agent.loss
    assert agent.loss.population.num_particles == 1
    assert (agent.gamma, agent.lmbda) == (0.99, 0.97)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trpo.max_kl=0", "NaturalGradientStep: max_kl must be > 0, got 0"),
        ("training.num_minibatches=2", "takes each batch once and whole"),
        ("+trpo.foo=1", "unexpected keyword argument 'foo'"),
    ],
)
def test_natural_gradients_with_bad_settings(recipe, override, message):
    with pytest.raises((ValueError, TypeError), match=message):
        agent_of(recipe, "base=trpo", override)


def test_the_bandwidth_is_that_of_the_authors(recipe):
    kernel = agent_of(recipe, "mode=svpg").loss.kernel
    x = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4 and 9
    assert kernel.evaluate(x).bandwidth.item() == pytest.approx(4 / (2 * math.log(4)))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mode=foo", "mode must be one of birth_death, joint, ip_wgf, svpg, .*; got foo"),
        ("base=foo", "base must be one of reinforce, a2c, ppo, trpo; got foo"),
        ("base=trpo mode=ip_wgf", "mode=ip_wgf needs another base; trpo has"),
        ("birth_death.interaction=joint", "birth_death.interaction must be one of svpg, .* joint"),
        ("env=foo", r"env must be one of \[.*'cartpole', .* id of a gymnasium environment.*'foo'"),
        ("env=CartPole-v1", "env must have continuous actions, got Discrete"),
        ("+env_options.foo=1", "unexpected keyword argument 'foo'"),
        ("population.num_particles=0", "population.num_particles must be >= 1; got 0"),
        ("population.envs_per_particle=0", "population.envs_per_particle must be >= 1; got 0"),
        ("training.iterations=0", "training.iterations must be >= 1; got 0"),
        ("trust_region.weight=-1", "trust_region.weight must be >= 0; got -1"),
        ("training.steps=0", "training.steps must be >= 1; got 0"),
    ],
)
def test_words_that_nothing_answers_to(recipe, override, message):
    with pytest.raises((ValueError, TypeError), match=message):
        recipe.check_settings(config(*override.split()))


def test_all_choices_are_accepted(recipe):
    for mode in MODES:
        recipe.check_settings(config(f"mode={mode}"))
    for base in (*BASES, "trpo"):
        recipe.check_settings(config(f"base={base}", "mode=svpg", "env=Pendulum-v1"))
