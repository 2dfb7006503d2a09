"""The multi-goal recipes as a user starts them: real processes, with runs of a few seconds.

Each process spends most of its time on imports, so runs are shared between tests, and those that
do not depend on each other are started together.
"""

import importlib
import json
import math
import re
import signal

import pytest
import torch

from tests.recipes.processes import RECIPES, ROOT, SMALL, Process, start
from torchrl_stein.training import find_checkpoint, load_weights, read_metadata

pytestmark = pytest.mark.timeout(900)
pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

NAMES = ("ddpg", "dp_wgf_v", "sac", "soft_q", "td3")
UPDATES = 80


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Every recipe, run to its end: {name: (process, run directory)}."""
    folder = tmp_path_factory.mktemp("finished")
    # The default directory, runs/NAME/..., is part of what is tested.
    started = {name: start(folder / name, name, run_dir=None) for name in NAMES}
    return {
        name: (process.wait(), *(folder / name / "runs" / name).glob("*_seed0"))
        for name, process in started.items()
    }


def test_every_recipe_is_found():
    trainers = {p.stem for p in (ROOT / "recipes").glob("*.py") if "@hydra.main" in p.read_text()}
    assert trainers == set(RECIPES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains(finished, evaluate, name):
    process, directory = finished[name]
    assert process.code == 0, process.err
    lines = [line for line in process.out.splitlines() if line.startswith("update ")]
    assert [int(line.split()[1]) for line in lines] == [20, 40, 60, 80]

    config = json.loads((directory / "config.json").read_text())
    assert (config["recipe"], config["seed"]) == (name, 0)
    assert config["training"]["batch_size"] == 16
    summary = json.loads((directory / "summary.json").read_text())
    assert {"return", "success", "entropy", "goal_3"} <= set(summary)
    assert all(math.isfinite(value) for value in summary.values())

    losses = list((directory / "metrics" / "scalars" / "train").glob("loss_*.csv"))
    assert len(losses) >= 2
    for path in losses:
        rows = [line.split(",") for line in path.read_text().split()]
        assert len(rows) == UPDATES // 5
        assert all(math.isfinite(float(value)) for _, value in rows)
        # SAC's temperature is fixed and its loss 0.
        assert len({value for _, value in rows}) > 1 or path.stem == "loss_alpha"

    *best, first, last = sorted((directory / "checkpoints").iterdir())
    assert (first.name, last.name) == ("checkpoint-000000001280", "checkpoint-000000001600")
    assert best in ([], [find_checkpoint(directory / "best")])  # may be one of the last
    assert read_metadata(last)["config"] == config
    before, after = (evaluate.load_agent(str(path))[0].loss.state_dict() for path in (first, last))
    still = [k for k, v in after.items() if k.endswith("weight") and v.equal(before[k])]
    # Of the weights only the target networks may rest for 20 updates: they are copied every 100.
    assert all(name.startswith("target_") for name in still), still


def test_the_demo_ends_with_a_picture(finished):
    image = importlib.import_module("matplotlib.image")
    process, directory = finished["soft_q"]
    path = directory / "multigoal.png"
    assert f"Picture: {path.relative_to(process.folder)}" in process.out
    height, width, _ = image.imread(path).shape
    assert width > 2 * height > 600
    assert not (finished["ddpg"][1] / "multigoal.png").exists()


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
    process = start(tmp_path, "soft_q", *changes).wait()
    assert process.code == 0, process.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary) == {"return", "return_std", "length"}
    assert summary["length"] == 20
    rows = (tmp_path / "run/metrics/scalars/train/loss_trust_region.csv").read_text().split()
    assert any(float(row.split(",")[1]) > 0 for row in rows)
    assert not (tmp_path / "run" / "multigoal.png").exists()
    assert evaluate.main(str(tmp_path / "run"), episodes=3, seed=1)["length"] == 20
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
    pretrain = start(tmp_path, "soft_q", "task=ant_pretrain", *ROBOT, run_dir="pretrained").wait()
    assert pretrain.code == 0, pretrain.err
    given = [*ROBOT, "init_from=pretrained", "annealing.updates=40", "annealing.noise_set_size=4"]
    process = start(tmp_path, "soft_q", "task=ant_hallway", *given).wait()
    assert process.code == 0, process.err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary) == {"return", "return_std", "length"}
    for run in ("pretrained", "run"):
        assert f"Picture: {run}/traces.png" in pretrain.out + process.out
        assert (tmp_path / run / "traces.png").exists()
    # 60 updates, annealed over the first 40 of them.
    rows = (tmp_path / "run/metrics/scalars/train/alpha.csv").read_text().split()
    alphas = [float(row.split(",")[1]) for row in rows]
    expected = [0.1 * 0.01 ** (min(update - 1, 40) / 40) for update in range(5, 61, 5)]
    assert alphas == pytest.approx(expected, rel=1e-4)
    # The checkpoint knows what is left of the noise.
    agent, _ = evaluate.load_agent(str(tmp_path / "run"))
    assert agent.policy.num_noise == 1
    assert agent.policy.noise_set.shape == (4, 8)


def test_composing_two_runs(tmp_path, evaluate, capsys):
    started = [
        start(tmp_path, "soft_q", f"task=multigoal_{part}", run_dir=part) for part in ("x", "y")
    ]
    for process in started:
        assert process.wait().code == 0, process.err
    command = [ROOT / "recipes/compose.py", "x", "y", "--updates", 20, "--log-interval", 5]
    process = Process(tmp_path, *command, "--run-dir", "both", "--compare", "x").wait()
    assert process.code == 0, process.err
    # 1600 steps in each of the buffers, at which the sampler was trained.
    assert "sum of 2 Q-functions at 3200 states" in process.out
    table = json.loads((tmp_path / "both" / "comparison.json").read_text())
    assert list(table) == ["composed", "x", "y"]
    assert {"success", "entropy", "goal_3"} <= set(table["composed"])
    rows = (tmp_path / "both/metrics/scalars/train/loss_actor.csv").read_text().split()
    assert [int(row.split(",")[0]) for row in rows] == [5, 10, 15, 20]
    assert (tmp_path / "both" / "multigoal.png").exists()
    # A run like any other, with the Q-functions in its checkpoint.
    metrics = evaluate.main(str(tmp_path / "both"), episodes=25, seed=1)
    assert {f"goal_{i}" for i in range(4)} <= set(metrics)
    assert "goal (-5.0, -5.0)" in capsys.readouterr().out
    evaluate.main(str(tmp_path / "x"), episodes=25, seed=1)
    assert "goal ( 5.0,  any)" in capsys.readouterr().out

    refused = Process(tmp_path, ROOT / "recipes/compose.py", "x", "x").wait()
    assert refused.code == 1
    assert refused.err.startswith("compose.py: composition: goals of the parts must be lines of")


# evaluate.py


def check_report(text):
    for label in ("return", "length", "success", "histogram entropy"):
        assert re.search(rf"^ +{label} +-?\d+\.\d+", text, re.MULTILINE), text
    goals = re.findall(r"^ +goal \( *(\S+), +(\S+)\) +(\d\.\d+)", text, re.MULTILINE)
    assert [(float(x), float(y)) for x, y, _ in goals] == [(5, 0), (-5, 0), (0, 5), (0, -5)]
    success = float(re.search(r"success +(\S+)", text)[1])
    assert sum(float(f) for *_, f in goals) == pytest.approx(success, abs=3e-3)


def test_evaluate_prints_what_a_run_reached(finished):
    _, directory = finished["soft_q"]
    command = [ROOT / "recipes/evaluate.py", directory, "--episodes", 30, "--seed", 5]
    process = Process(directory, *command).wait()
    assert process.code == 0, process.err
    assert "30 episodes of at most 20 steps" in process.out
    check_report(process.out)


def test_evaluate_knows_every_recipe_and_its_seed(finished, evaluate, capsys):
    for name in NAMES:
        directory = str(finished[name][1])
        capsys.readouterr()
        metrics = evaluate.main(directory, episodes=25, seed=1)
        check_report(capsys.readouterr().out)
        assert evaluate.main(directory, episodes=25, seed=1) == metrics
        assert evaluate.main(directory, episodes=25, seed=2) != metrics
    path = str(find_checkpoint(directory))
    assert evaluate.main(path, episodes=25, seed=1) == metrics
    directory = str(finished["soft_q"][1])
    sampled, mean = (
        evaluate.main(directory, episodes=25, seed=1, actions=how) for how in ("sampled", "mean")
    )
    assert sampled == evaluate.main(directory, episodes=25, seed=1)  # as configured
    assert mean != sampled


def test_evaluate_without_a_checkpoint(evaluate):
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        evaluate.main("nowhere", episodes=1, seed=0)


# stopping and going on


def test_ctrl_c_and_resume_with_wandb(tmp_path):
    running = start(tmp_path, "soft_q", "training.total_frames=200_000")
    running.until("update ")
    running.process.send_signal(signal.SIGINT)
    stopped = running.wait()
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err + stopped.out
    path = find_checkpoint(tmp_path / "run")
    assert f"To go on: resume={path}" in stopped.out
    assert not (tmp_path / "run" / "summary.json").exists()

    frames = int(path.name.split("-")[1])
    assert frames >= 320 + 16 * 20
    longer = [f"training.total_frames={frames + 16 * 25}", "logger=wandb", "resume=run"]
    process = start(tmp_path, "soft_q", *longer, run_dir="resumed").wait()
    assert process.code == 0, process.err
    assert len(re.findall(r"^update ", process.out, re.MULTILINE)) in (1, 2)
    assert find_checkpoint(tmp_path / "resumed").name.endswith(str(frames + 16 * 25))
    hints = re.findall(r"wandb sync (\S+)", process.out + process.err)
    assert len(hints) == 1
    assert hints[0].startswith("resumed/wandb/offline-run-")
    assert list((tmp_path / hints[0]).glob("*.wandb"))
    csv = tmp_path / "resumed/metrics/scalars/train/loss_qvalue.csv"
    assert all(int(line.split(",")[0]) > frames for line in csv.read_text().split())


# what goes wrong

NAN_REWARDS = """
import runpy, sys
from torchrl_stein.envs import MultiGoalWorld
steps, step = [], MultiGoalWorld.step
def bad(self, state, action):
    steps.append(1)
    state, reward, terminated = step(self, state, action)
    return state, reward * (float("nan") if len(steps) > 90 else 1), terminated
MultiGoalWorld.step = bad
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def failed(finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("failed")
    run = finished["soft_q"][1]
    started = {
        "key": start(folder / "key", "soft_q", "training.bach_size=3"),
        "path": start(folder / "path", "soft_q", "resume=nowhere"),
        "population": start(folder / "population", "svpg", "resume=nowhere"),
        "refused": start(folder / "refused", "soft_q", "trust_region.weight=-1"),
        "task": start(folder / "task", "soft_q", "env.name=Foo-v0"),
        "added": start(folder / "added", "soft_q", "+loss.temprature=3"),
        "warm_up": start(folder / "warm_up", "ddpg", "training.total_frames=100"),
        "place": start(folder / "place", "ddpg", run_dir="/dev/null/run"),
        "start": start(folder / "start", "ddpg", f"init_from={run}"),
        "cells": start(folder / "cells", "soft_q", f"resume={run}", "network.num_cells=[32]"),
        "diverged": start(
            folder / "diverged", "soft_q", "optim.lr_qvalue=1e25", "training.checkpoint_interval=1"
        ),
    }
    (folder / "nan").mkdir()
    options = [*SMALL["ddpg"], "run_dir=run", "training.eval_interval=1000"]
    started["nan"] = Process(folder / "nan", "-c", NAN_REWARDS, RECIPES["ddpg"], *options)
    return {name: process.wait() for name, process in started.items()}


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("key", "Key 'bach_size' is not in struct"),
        ("path", "soft_q.py: no checkpoint at nowhere"),
        ("task", "soft_q.py: env must be one of"),
        ("added", "soft_q.py: there is no setting loss.temprature"),
        ("warm_up", "ddpg.py: training.total_frames must be more than training.warmup_frames"),
        ("place", "ddpg.py: cannot write to /dev/null/run: Not a directory"),
        ("start", "ddpg.py: init_from: actor_network_params.high has shape [2] in"),
        ("population", "svpg.py: no checkpoint at nowhere"),
        (
            "refused",
            "soft_q.py: WassersteinTrustRegionLoss: weight must be >= 0, got",
        ),
        ("cells", "actor_network_params.network.0.bias has shape [16] there and [32] here"),
    ],
)
def test_an_error_names_the_culprit(failed, case, message):
    process = failed[case]
    assert process.code not in (0, 130)
    assert message in process.err
    assert not list(process.folder.glob("run/checkpoints/*"))
    if case != "cells":  # which only the checkpoint can tell
        assert not (process.folder / "run").exists()


def test_a_loss_that_is_no_number_is_named(failed):
    process = failed["diverged"]
    assert process.code not in (0, 130)
    match = re.search(
        r"loss_\w+ is (nan|inf|-inf) at update (\d+); the batch is finite", process.err
    )
    assert match, process.err
    frames = 320 + 16 * (int(match[2]) - 1)
    assert find_checkpoint(process.folder / "run").name.endswith(str(frames))


def test_a_reward_that_is_no_number_is_named_and_the_last_checkpoint_is_sound(failed, evaluate):
    process = failed["nan"]
    assert process.code not in (0, 130)
    assert re.search(
        r"loss_\w+ is nan at update \d+; the batch is not finite in \('next', 'reward'\) "
        r"\(\d+ of 16 values\)",
        process.err,
    ), process.err
    agent, _ = evaluate.load_agent(str(process.folder / "run"))
    assert all(p.isfinite().all() for p in agent.loss.parameters())
    load_weights(process.folder / "run", agent.loss)
    assert torch.isfinite(
        torch.tensor([*evaluate.main(str(process.folder / "run"), 10, 0).values()])
    ).all()
