"""Recipes that are stopped, killed and resumed, or cannot write: nothing is lost."""

import re
import signal
import time

import pytest
import torch

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.kills import Kill
from tests.recipes.processes import QUICK_COST, RECIPES, REGION, SMALL, Process, start
from tests.recipes.results import checkpoints, curve, read, scalars, step_of
from torchrl_stein.runs import find_checkpoint, read_manifest

pytestmark = pytest.mark.timeout(900)

OFTEN = ["training.checkpoint_interval=1"]
IP_WGF = ["selection=none", "trust_region=wasserstein", "trust_region.tau=0.3", QUICK_COST]
# Recipe, settings, and the steps after which it kills itself, one time after the other.
CASES = {
    "a2c": ("a2c", [], [200]),
    "ppo": ("ppo", [], [160, 280]),
    "kl_penalty": ("ppo", ["ppo_loss=kl_penalty"], [200]),
    "soft_q": ("soft_q", [], [400, 560]),
    "dp_wgf": ("soft_q", ["trust_region.weight=0.4", *REGION], [400]),
    "pixels": ("soft_q_pixels", [], [400]),
    "soft_qv": ("soft_qv", [], [400]),
    "sac": ("sac", [], [480]),
    "seeds": ("soft_q", ["seeds=2", "loss.fixed_alpha=false"], [400]),
    "seeds of dp_wgf_v": ("soft_qv", ["seeds=2", "loss.fixed_alpha=false"], [400]),
    "seeds of s2ac": ("s2ac", ["seeds=2", "loss.fixed_alpha=false"], [400]),
    "td3": ("td3", [], [400]),
    "parameter noise": ("ddpg", ["exploration.parameter_noise=0.2"], [400]),
    "acer": ("acer", ["env.name=multigoal", "loss.entropy_coeff=null"], [400]),
    "ddpg": ("ddpg", [], [480]),
    "discrete": ("discrete_soft_q", ["loss.fixed_alpha=false"], [400]),
    "seeds of discrete": ("discrete_soft_q", ["seeds=2", "loss.fixed_alpha=false"], [400]),
    "d4pg": ("d4pg", [], [400]),
    "maddpg": ("maddpg", [], [480]),
    "svpg": ("svpg", ["selection=none", "training.iterations=8"], [360]),
    "birth_death": ("svpg", ["selection.interval=2", "training.iterations=8"], [240, 480]),
    "ip_wgf": ("svpg", [*IP_WGF, "training.iterations=8"], [360]),
    "trpo": ("trpo", ["kernel=rbf", "training.iterations=8"], [360]),
}


MOMENTS = ["writing", "removing", 3]  # see Kill
HIDDEN = {"writing": r"\.checkpoint-\d+-\d+", "removing": r"\.checkpoint-\d+-removed"}


def check_complete(directory):
    """Everything that can be found can be read."""
    assert checkpoints(directory)
    for path in checkpoints(directory):
        files = read_manifest(path)["files"]
        assert {"loss.pt", "session.pt", "rng.pt", "collector.pt"} <= files.keys()
        assert {file.name for file in path.iterdir()} == {"manifest.json", *files}
        for name in files:
            torch.load(path / name, weights_only=True)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_ends_as_an_undisturbed_one(finished, tmp_path, case):
    recipe, settings, moments = CASES[case]
    straight = finished(recipe, *settings)
    expected = scalars(straight.directory, "train")

    resume = []
    for number, steps in enumerate(moments):
        moment = MOMENTS[(number + len(case)) % len(MOMENTS)]
        kill = Kill(steps, moment)
        run_dir = f"killed_{number}"
        process = start(tmp_path, recipe, *settings, *OFTEN, *resume, run_dir=run_dir, kill=kill)
        assert process.wait().code == -signal.SIGKILL, process.err
        check_complete(process.directory)
        # What it logged after its last checkpoint is what the next one will log.
        assert scalars(process.directory, "train").items() <= expected.items()
        names = [found.name for found in (process.directory / "checkpoints").iterdir()]
        if moment in HIDDEN:  # it was in the middle of something
            assert any(re.fullmatch(HIDDEN[moment], name) for name in names)
        path = find_checkpoint(process.directory)
        assert path.name == max(name for name in names if name[0] != ".")
        resume = [f"resume={path.relative_to(tmp_path)}"]

    rarely = "training.checkpoint_interval=10"  # nobody kills it any more
    last = Process(tmp_path, RECIPES[recipe], *resume, rarely, "run_dir=last").succeeded()
    assert f"Resuming {path}" in last.out
    directory = tmp_path / "last"
    rest = {key: value for key, value in expected.items() if key[1] > step_of(path)}
    assert scalars(directory, "train") == rest
    assert {name for name, _ in rest} == {name for name, _ in expected}
    assert read(directory, "summary.json") == read(straight.directory, "summary.json")
    assert not [p for p in (directory / "checkpoints").iterdir() if p.name.startswith(".")]
    # A relative resume is still found from elsewhere.
    values = read(directory, "batch.json" if case.startswith("seeds") else "config.json")
    assert values["resume"] == str(path)


# signals


@pytest.mark.parametrize(
    ("number", "recipe"),
    [(signal.SIGINT, "svpg"), (signal.SIGTERM, "ddpg"), (signal.SIGHUP, "trpo")],
)
def test_a_signal_ends_a_run_after_its_batch(tmp_path, number, recipe):
    length = "total_frames=1_000_000" if recipe == "ddpg" else "iterations=100_000"
    running = start(tmp_path, recipe, f"training.{length}").until("update ")
    stopped = running.signal(number).wait()
    assert stopped.code == 128 + number, stopped.err
    assert stopped.err == ""
    path = find_checkpoint(running.directory)
    assert stopped.out.splitlines()[-1] == f"Stopped. To go on: resume={path}"
    assert not (running.directory / "summary.json").exists()
    done = step_of(path)
    check_complete(running.directory)
    # As it says, and without the small settings: those of the run are taken.
    more = {
        "ddpg": f"training.total_frames={done + 16 * 5}",
        "svpg": f"training.iterations={done // 120 + 2}",
        "trpo": f"training.iterations={done // 120 + 2}",
    }[recipe]
    process = Process(tmp_path, RECIPES[recipe], f"resume={path}", more, "run_dir=on").succeeded()
    assert process.err == ""
    steps = {step for _, step in scalars(tmp_path / "on", "train")}
    assert min(steps) > done
    assert max(steps) == (done + 80 if recipe == "ddpg" else done + 240)


def test_a_second_ctrl_c_ends_at_once_and_quietly(tmp_path):
    # A batch of so many updates takes an hour.
    running = start(tmp_path, "ddpg", "training.updates_per_step=10_000")
    log = running.directory / "metrics/scalars/train/loss_value.csv"
    running.until(log.exists)
    running.signal(signal.SIGINT)
    time.sleep(0.3)
    assert running.running()
    stopped = running.signal(signal.SIGINT).wait()
    assert (stopped.code, stopped.err) == (130, "")


def test_a_run_that_cannot_be_resumed_does_not_say_so(tmp_path):
    running = start(tmp_path, "bnn_regression", "method=svgd", "training.steps=1_000_000")
    running.until("update ")
    stopped = running.signal(signal.SIGINT).wait()
    assert (stopped.code, stopped.err) == (130, "")
    assert "resume=" not in stopped.out
    assert "Stopped" in stopped.out
    assert curve(running.directory, "test/rmse")


def test_killed_before_its_first_checkpoint_a_run_can_be_started_again(tmp_path):
    settings = ["training.checkpoint_interval=1000", "training.total_frames=3200"]
    killed = start(tmp_path, "ddpg", *settings)
    killed.until((killed.directory / "metrics/scalars/train/loss_value.csv").exists).kill()
    assert not checkpoints(killed.directory)
    # With other settings it would be another run.
    other = start(tmp_path, "ddpg", *settings, "loss.gamma=0.5").wait()
    assert other.code == 1
    assert "run_dir must be a new directory" in other.err
    start(tmp_path, "ddpg", *settings).succeeded()
    again = start(tmp_path, "ddpg", *settings).wait()
    assert again.code == 1
    assert again.err.startswith("ddpg.py: ")
    assert "already holds a run" in again.err


def test_a_run_with_wandb(tmp_path):
    pytest.importorskip("wandb")
    process = start(tmp_path, "ddpg", "logger=wandb").succeeded()
    hints = re.findall(r"wandb sync (\S+)", process.out + process.err)
    assert len(hints) == 1
    assert "run/wandb/offline-run-" in hints[0]
    assert list((tmp_path / hints[0]).glob("*.wandb"))
    assert scalars(process.directory)


# a disk that is full, a directory that cannot be written


def test_a_file_that_cannot_be_written(tmp_path):
    # Not a full disk, which needs one, but what the process sees of it: a write that fails. The
    # buffer grows until it is too large.
    process = start(tmp_path, "ddpg", *OFTEN, largest_file=30_000).wait()
    assert process.code == 1
    match = re.search(
        r"^ddpg.py: cannot write a checkpoint to \S+/run/checkpoints: File too large; "
        r"once it can be written, go on from the last one: resume=(\S+)$",
        process.err,
        re.MULTILINE,
    )
    assert match, process.err
    assert "Traceback" not in process.err
    assert str(find_checkpoint(process.directory)) == match[1]
    check_complete(process.directory)


@pytest.mark.parametrize("recipe", ["ddpg", "svpg"])
def test_a_directory_that_cannot_be_written(tmp_path, recipe):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    process = start(tmp_path, recipe).wait()
    assert process.code == 1
    pattern = rf"^{recipe}.py: cannot write a checkpoint to \S*run/checkpoints: File exists"
    assert re.search(pattern, process.err), process.err
    assert process.err.count("\n") == 1


def test_a_directory_that_is_gone(tmp_path):
    running = start(tmp_path, "ddpg", "training.total_frames=1_000_000").until("update ")
    running.directory.rename(tmp_path / "gone")  # at once: it would fill while it is emptied
    process = running.wait()
    assert process.code == 1
    assert process.err.startswith("ddpg.py: cannot write ")
    assert process.err.count("\n") == 1
    assert not running.directory.exists()


# numbers that are none

NAN_REWARDS = """
import runpy, sys
from torchrl_stein.envs import MultiGoalWorld
steps, step = [], MultiGoalWorld.step
def bad(self, state, action):
    steps.append(1)
    state, reward, terminated = step(self, state, action)
    return state, reward * (float("nan") if len(steps) > 30 else 1), terminated
MultiGoalWorld.step = bad
sys.argv = sys.argv[1:]
sys.path.insert(0, sys.argv[0].rpartition("/")[0])
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_loss_that_is_no_number_is_named(tmp_path):
    process = start(tmp_path, "soft_q", "optim.lr_qvalue=1e12", *OFTEN).wait()
    assert process.code == 1
    match = re.search(
        r"^soft_q.py: loss_\w+ is (nan|inf|-inf) at update (\d+); the batch is finite; "
        r"the last checkpoint is \S+$",
        process.err,
    )
    assert match, process.err
    assert process.err.count("\n") == 1
    steps = 320 + 16 * (int(match[2]) - 1)
    assert step_of(find_checkpoint(process.directory)) == steps


def test_a_reward_that_is_no_number_is_named_and_the_last_checkpoint_is_sound(tmp_path, evaluate):
    script = tmp_path / "nan_rewards.py"
    script.write_text(NAN_REWARDS)
    options = [*SMALL["ddpg"], "run_dir=run", "training.eval_interval=1000", *OFTEN]
    process = Process(tmp_path, script, RECIPES["ddpg"], *options).wait()
    assert process.code == 1
    assert re.search(
        r"^ddpg.py: loss_\w+ is nan at update \d+; the batch is not finite in .*"
        r"\('next', 'reward'\) \(\d+ of 16 values\).*; the last checkpoint is \S+$",
        process.err,
    ), process.err
    metrics = evaluate.main(str(tmp_path / "run"), 10, 0)
    assert torch.isfinite(torch.tensor([*metrics.values()])).all()
