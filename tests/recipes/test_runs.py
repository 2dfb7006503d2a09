"""Recipes as a user starts them, to their end: what they print and leave behind."""

import importlib
import math
import re
import sys

import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.processes import RECIPES, ROOT, Process, start
from tests.recipes.results import checkpoints, curve, read, scalars, values
from torchrl_stein.runs import find_checkpoint, load_actor, load_loss, read_manifest

pytestmark = pytest.mark.timeout(900)

OFF_POLICY = ("d4pg", "ddpg", "s2ac", "sac", "soft_q", "soft_q_pixels", "soft_qv", "td3")
POPULATIONS = ("svpg", "trpo")
BRIEF = ["training.total_frames=400"]


def test_every_recipe_is_found():
    trainers = {p.stem for p in (ROOT / "recipes").glob("*.py") if "@hydra.main" in p.read_text()}
    assert trainers == set(RECIPES)


@pytest.mark.parametrize("name", OFF_POLICY)
def test_an_off_policy_recipe_trains(finished, evaluate, name):
    process = finished(name)
    directory = process.directory
    assert process.err == ""
    lines = [line for line in process.out.splitlines() if line.startswith("update ")]
    assert [int(line.split()[1]) for line in lines] == [10, 20, 30]
    assert f"\nResults: {directory}\n" in process.out

    config = read(directory, "config.json")
    assert (config["recipe"], config["seed"]) == (name, 0)
    assert config["training"]["batch_size"] == 16
    assert config["run_dir"] == str(directory)
    assert {"started", "command"} <= set(read(directory, "provenance.json"))
    summary = read(directory, "summary.json")
    assert {"return", "success", "entropy", "goal_3"} <= set(summary)
    assert all(math.isfinite(value) for value in summary.values())

    losses = {key[0] for key in scalars(directory, "train") if key[0].startswith("train/loss_")}
    assert len(losses) >= 2
    for loss in losses:
        steps, numbers = zip(*curve(directory, loss), strict=True)
        # The actor of TD3 learns in every second update.
        every = 10 if (name, loss) == ("td3", "train/loss_actor") else 5
        assert steps == tuple(range(320 + 16 * every, 801, 16 * every))
        # SAC's temperature is fixed and its loss 0.
        assert len(set(numbers)) > 1 or loss == "train/loss_alpha"
    # Of training episodes, which end after 30 steps at most.
    assert all(-3000 < value < 100 for value in values(directory, "train/return"))

    *best, first, last = checkpoints(directory)
    assert (first.name, last.name) == ("checkpoint-000000000640", "checkpoint-000000000800")
    assert best in ([], [find_checkpoint(directory / "best")])  # may be one of the last
    assert read_manifest(last)["config"] == config
    before, after = (load_loss(path)[0].state_dict() for path in (first, last))
    still = [k for k, v in after.items() if k.endswith("weight") and v.equal(before[k])]
    # Of the weights only the target networks may rest for 10 updates: they are copied every 100.
    assert all(name.startswith("target_") for name in still), still


def test_discrete_soft_q_says_how_far_the_optimum_is(finished):
    directory = finished("discrete_soft_q").directory
    summary = read(directory, "summary.json")
    assert set(summary) == {"return", "return_std", "length", "kl_to_optimum"}
    distances = values(directory, "eval/kl_to_optimum")
    assert len(distances) == 3
    assert min(distances) > 0
    assert summary["kl_to_optimum"] == pytest.approx(distances[-1])  # of no episodes, no noise
    assert load_loss(directory)[1].recipe == "discrete_soft_q"


def test_a_recipe_of_several_agents_trains(finished, evaluate, capsys):
    process = finished("maddpg")
    assert process.err == ""
    summary = read(process.directory, "summary.json")
    assert set(summary) == {"return", "return_std", "length"}
    assert summary["length"] == 25
    for loss in ("train/loss_actor", "train/loss_value"):
        steps, numbers = zip(*curve(process.directory, loss), strict=True)
        assert steps == tuple(range(400, 801, 80))
        assert len(set(numbers)) > 1
    # Of training episodes, in which agents hardly leave the square where they start.
    assert all(-600 < value < -20 for value in values(process.directory, "train/return"))
    *_, first, last = checkpoints(process.directory)
    before, after = (load_loss(path)[0].state_dict() for path in (first, last))
    learnt = [key for key in before if key.endswith("particles")]
    assert len(learnt) == 4  # actors, critics, and their targets
    assert all((before[key] != after[key]).any(-1).all() for key in learnt)
    capsys.readouterr()
    metrics = evaluate.main(str(process.directory), episodes=3, seed=1)
    assert set(metrics) == set(summary)
    assert "3 episodes of at most 25 steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_recipe_of_populations_trains(finished, name):
    process = finished(name)
    directory = process.directory
    assert process.err == ""
    lines = [line for line in process.out.splitlines() if line.startswith("update ")]
    assert [int(line.split()[1]) for line in lines] == [2, 4]
    summary = read(directory, "summary.json")
    assert set(summary) == {"max", "mean", "top4", *(f"particle_{i}" for i in range(3))}
    assert all(math.isfinite(value) for value in summary.values())
    ranked = sorted(range(3), key=lambda i: -summary[f"particle_{i}"])
    line = "  ".join(f"#{i} {summary[f'particle_{i}']:.1f}" for i in ranked)
    assert f"final test return of each particle, best first:\n{line}\n" in process.out

    steps, losses = zip(*curve(directory, "train/loss_objective"), strict=True)
    assert steps == (120, 240, 360, 480)
    assert all(math.isfinite(value) for value in losses)
    assert len(curve(directory, "train/return_mean")) == 4
    assert len(curve(directory, "test/return_particle_2")) == 2
    first, last = checkpoints(directory)
    assert (first.name, last.name) == ("checkpoint-000000000240", "checkpoint-000000000480")
    before, after = (load_actor(path)[0].module.particles for path in (first, last))
    assert (before != after).any(1).all()
    tested = [values(directory, f"test/return_particle_{i}")[-1] for i in range(3)]
    assert read_manifest(last)["notes"]["returns"] == pytest.approx(tested)
    assert [path.name for path in sorted((directory / "images/test").iterdir())] == [
        "kernel_000000000240.png",
        "kernel_000000000480.png",
    ]


def test_a_sweep(tmp_path):
    """--multirun: several runs in one process, each in a directory of its own."""
    options = ["kernel=rbf,none", "base=reinforce", "selection=none", "eval.video_steps=5"]
    process = start(tmp_path, "svpg", *options, "--multirun", run_dir=None).succeeded()
    runs = list((tmp_path / "runs" / "svpg").iterdir())
    assert len(runs) == 2
    configs = [read(run, "config.json") for run in runs]
    chosen = {config["kernel"]["_target_"].rpartition(".")[2] for config in configs}
    assert chosen == {"RBFKernel", "IdentityKernel"}
    assert len({tuple(read(run, "summary.json").values()) for run in runs}) == 2
    assert process.out.count("Results: ") == 2
    for run in runs:
        assert list(run.glob("videos/eval/episode_*.mp4"))


def test_the_demo_ends_with_a_picture(finished):
    image = importlib.import_module("matplotlib.image")
    for name in ("soft_q", "soft_qv"):
        process = finished(name)
        path = process.directory / "multigoal.png"
        assert f"Picture: {path}" in process.out
        height, width, _ = image.imread(path).shape
        assert width > 2 * height > 600
    assert not (finished("ddpg").directory / "multigoal.png").exists()


def test_a_gymnasium_task_with_a_trust_region(tmp_path, evaluate, capsys):
    settings = {
        "task": "swimmer",
        "env.num_envs": 2,
        "trust_region.weight": 0.4,
        "training.total_frames": 240,
        "training.warmup_frames": 80,
        "training.checkpoint_interval": 40,
        "eval.max_steps": 20,
    }
    changes = [f"{name}={value}" for name, value in settings.items()]
    directory = start(tmp_path, "soft_q", *changes).succeeded().directory
    summary = read(directory, "summary.json")
    assert set(summary) == {"return", "return_std", "length"}
    assert summary["length"] == 20
    assert any(value > 0 for value in values(directory, "train/loss_trust_region"))
    assert not (directory / "multigoal.png").exists()
    assert evaluate.main(str(directory), episodes=3, seed=1)["length"] == 20
    assert "return_std" in capsys.readouterr().out


ROBOT = [
    "env.num_envs=2",
    "training.total_frames=160",
    "training.warmup_frames=40",
    "training.eval_interval=50",
    "training.checkpoint_interval=50",
    "eval.episodes=2",
    "eval.final_episodes=3",
    "eval.max_steps=20",
]


def test_fine_tuning_a_robot(tmp_path, evaluate):
    pretrain = start(tmp_path, "soft_q", "task=ant_pretrain", *ROBOT, run_dir="pretrained")
    pretrain.succeeded()
    given = [*ROBOT, "init_from=pretrained", "annealing.updates=40", "annealing.noise_set_size=4"]
    process = start(tmp_path, "soft_q", "task=ant_hallway", *given).succeeded()
    assert set(read(process.directory, "summary.json")) == {"return", "return_std", "length"}
    for run in (pretrain, process):
        assert f"Picture: {run.directory}/traces.png" in run.out
        assert (run.directory / "traces.png").exists()
    # 60 updates, annealed over the first 40 of them.
    expected = [0.1 * 0.01 ** (min(update - 1, 40) / 40) for update in range(5, 61, 5)]
    assert values(process.directory, "train/alpha") == pytest.approx(expected, rel=1e-4)
    # The checkpoint knows what is left of the noise.
    loss, _ = load_loss(process.directory)
    assert loss.actor_network.num_noise == 1
    assert loss.actor_network.noise_set.shape == (4, 8)


@pytest.mark.parametrize("name", ["sac", "svpg"])
def test_evaluation_never_changes_training(finished, name):
    """Its draws are its own: however often there is one, training goes the same way."""
    often = {"svpg": 1}.get(name, 7)
    usual, other = finished(name), finished(name, f"training.eval_interval={often}")
    assert scalars(usual.directory, "train") == scalars(other.directory, "train")
    assert scalars(usual.directory) != scalars(other.directory)
    assert read(usual.directory, "summary.json") == read(other.directory, "summary.json")


def test_two_runs_in_one_second(tmp_path):
    """Without run_dir both find a directory, named by recipe, time, task and seed."""
    started = [start(tmp_path, "ddpg", f"loss.gamma={gamma}", run_dir=None) for gamma in (0.5, 0.9)]
    for process in started:
        process.succeeded()
    runs = sorted((tmp_path / "runs" / "ddpg").iterdir())
    assert [read(run, "config.json")["loss"]["gamma"] for run in runs] in ([0.5, 0.9], [0.9, 0.5])
    for run in runs:
        assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_multigoal_seed0(_2)?", run.name)
        assert (run / "summary.json").exists()


@pytest.mark.parametrize("logger", ["tensorboard", "none"])
def test_other_loggers(tmp_path, logger):
    if logger == "tensorboard":
        pytest.importorskip("tensorboard")
    options = [*BRIEF, f"logger={logger}", "eval.video_steps=5"]
    directory = start(tmp_path, "ddpg", *options).succeeded().directory
    assert list(directory.glob("videos/eval/episode_*.mp4"))  # a file, whatever the logger
    assert (directory / "summary.json").exists()
    assert bool(list(directory.glob("tensorboard/events*"))) == (logger == "tensorboard")
    assert bool(scalars(directory)) == (logger != "none")


# cold starts: as a user has them, where nothing is imported yet


def test_help_from_nothing(tmp_path):
    process = Process(tmp_path, RECIPES["soft_q"], "--help", "seed=7", cold=()).succeeded()
    assert process.out.startswith("Soft Q-learning (Haarnoja et al. 2017")
    assert "python recipes/soft_q.py" in process.out
    assert "  task: ant, ant_hallway" in process.out
    assert "\nseed: 7\n" in process.out
    assert [path for path in tmp_path.iterdir() if not path.name.startswith(".")] == []


def test_a_refusal_from_nothing(tmp_path):
    process = start(tmp_path, "soft_q", "training.bach_size=3", cold=()).wait()
    assert process.code == 1
    assert process.err == (
        "soft_q.py: there is no setting training.bach_size; did you mean training.batch_size?\n"
    )
    assert not process.directory.exists()


def test_a_run_from_nothing(tmp_path, finished):
    """Gives the numbers of a fork: forks share no random numbers, and no state of torch."""
    process = start(tmp_path, "soft_q", cold=()).succeeded()
    assert scalars(process.directory) == scalars(finished("soft_q").directory)
    assert read(process.directory, "summary.json") == read(
        finished("soft_q").directory, "summary.json"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_the_parent_of_forks_has_one_thread(tmp_path):
    """A fork of a process with threads may wait for one that it has not."""
    script = tmp_path / "count.py"
    script.write_text(
        "import os, sys\n"
        "print('torchrl_stein.runs.session' in sys.modules)\n"
        "print(len(os.listdir(f'/proc/{os.getppid()}/task')))\n"
    )
    assert Process(tmp_path, script).succeeded().out.split() == ["True", "1"]
