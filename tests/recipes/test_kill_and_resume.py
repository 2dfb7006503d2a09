"""Recipes that are killed, also while they write a checkpoint, and resumed: nothing is lost."""

import random
import re
import time

import pytest
import torch
from torchrl.checkpoint import Checkpoint

from tests.recipes.killable import Killable
from tests.training.resuming import check_the_rest, scalars
from torchrl_stein.training import find_checkpoint

pytestmark = pytest.mark.timeout(900)
pytest.importorskip("hydra")
pytest.importorskip("tqdm")

OFTEN = "training.checkpoint_interval=1"
# Recipe, settings, and the frames at about which it is killed, one after the other.
CASES = {
    "soft_q": ("soft_q", ["trust_region.weight=0.4", "training.total_frames=1120"], [400, 700]),
    "ddpg": ("ddpg", ["training.total_frames=960"], [600]),
    "birth_death": ("svpg", ["training.iterations=10"], [360, 720]),
    "ip_wgf": ("svpg", ["training.iterations=6", "mode=ip_wgf", "birth_death.interval=1"], [240]),
}


def kill_while_writing(process, frames):
    """After so many frames, while the next checkpoint is being written."""
    process.until(lambda: process.frames() >= frames)
    process.until(lambda: any(".stage-" in name for name in process.names())).kill()


def kill_while_removing(process, frames):
    """After so many frames, while an old checkpoint is being removed."""
    process.until(lambda: process.frames() >= frames)
    process.until(lambda: any(".delete-" in name for name in process.names())).kill()


def kill_at_random(process, frames):
    process.until(lambda: process.frames() >= frames)
    time.sleep(random.Random(frames).uniform(0.0, 0.1))
    process.kill()


WAYS = [kill_while_writing, kill_while_removing, kill_at_random]


def check_complete(directory):
    """Everything that can be found can be read."""
    found = [p for p in (directory / "checkpoints").iterdir() if not p.name.startswith(".")]
    assert found
    for path in found:
        components = Checkpoint.manifest(path)["components"]
        assert {"loss", "optimizer", "progress", "rng", "collector"} <= components.keys()
        for component in components.values():
            assert component["files"] == ["state.pt"]
            torch.load(path / component["path"] / "state.pt", weights_only=True)


@pytest.mark.parametrize("case", CASES)
def test_a_killed_run_has_the_losses_of_an_undisturbed_one(tmp_path, case):
    recipe, settings, moments = CASES[case]
    straight = Killable(tmp_path, recipe, *settings, "training.checkpoint_interval=99", run_dir="a")
    assert straight.wait() == 0, straight.log()
    expected = scalars(straight.directory)

    resume = []
    for i, frames in enumerate(moments):
        process = Killable(tmp_path, recipe, *settings, OFTEN, *resume, run_dir=f"killed_{i}")
        WAYS[(i + len(case)) % len(WAYS)](process, frames)
        check_complete(process.directory)
        # What it logged after its last checkpoint is what the next one will log.
        assert scalars(process.directory).items() <= expected.items()
        path = find_checkpoint(process.directory)
        resume = [f"resume={path}"]

    last = Killable(tmp_path, recipe, *settings, *resume, run_dir="last")
    assert last.wait() == 0, last.log()
    step = int(path.name.split("-")[1])
    check_the_rest(straight.directory, last.directory, step)
    assert not [name for name in last.names() if name.startswith(".")]
    assert (last.directory / "summary.json").read_text() == (
        straight.directory / "summary.json"
    ).read_text()


@pytest.mark.parametrize("way", WAYS)
def test_killed_at_any_moment_of_a_write(tmp_path, way):
    for i in range(2):
        process = Killable(tmp_path, "soft_q", OFTEN, run_dir=f"run_{i}")
        way(process, 320 + 250 * i)
        check_complete(process.directory)
        frames = process.frames()
        assert find_checkpoint(process.directory).name == f"checkpoint-{frames:012d}"


# a disk that is full, a directory that cannot be written


def test_a_file_that_cannot_be_written(tmp_path):
    # Not a full disk, which needs one, but what the process sees of it: a write that fails. The
    # buffer grows until it is too large.
    process = Killable(tmp_path, "soft_q", OFTEN, run_dir="run", largest_file=40_000)
    assert process.wait() == 1
    match = re.search(
        r"^soft_q.py: cannot write a checkpoint to \S+/run/checkpoints: File too large "
        r"\(\d+ MiB free\); once it can be written, go on from the last one: resume=(\S+)$",
        process.log(),
        re.MULTILINE,
    )
    assert match, process.log()
    assert "Traceback" not in process.log()
    assert str(find_checkpoint(process.directory)) == match[1]
    check_complete(process.directory)
    assert not [name for name in process.names() if name.startswith(".")]
    again = Killable(tmp_path, "soft_q", f"resume={match[1]}", run_dir="again")
    assert again.wait() == 0, again.log()


@pytest.mark.parametrize("recipe", ["soft_q", "svpg"])
def test_a_directory_that_cannot_be_written(tmp_path, recipe):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    process = Killable(tmp_path, recipe, run_dir="run")
    assert process.wait() == 1
    pattern = rf"^{recipe}.py: cannot write a checkpoint to \S*run/checkpoints: File exists"
    assert re.search(pattern, process.log(), re.MULTILINE), process.log()
    assert "Traceback" not in process.log()
