"""Directories of runs: every run has its own, whoever starts it when."""

import json
import multiprocessing
import os
import signal

import pytest

from tests.runs.conftest import SmallSettings
from torchrl_stein.runs import checkpoint as module
from torchrl_stein.runs.checkpoint import (
    Checkpoints,
    check_directory,
    claim_directory,
    release_directory,
    write_json,
)
from torchrl_stein.runs.settings import SettingsError


@pytest.fixture(autouse=True)
def _released():
    yield
    for path in list(module._locks):
        release_directory(path)


@pytest.fixture
def one_second(monkeypatch):
    """A clock that stands still."""

    class Clock(module.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2030, 1, 2, 3, 4, 5)

    monkeypatch.setattr(module, "datetime", Clock)


def begin(settings):
    """What a run writes first."""
    path = claim_directory(settings)
    write_json(path / "config.json", settings.plain() | {"run_dir": str(path)})
    return path


def test_runs_of_the_same_second_have_directories_of_their_own(
    small, tmp_path, monkeypatch, one_second
):
    monkeypatch.chdir(tmp_path)
    paths = [begin(small(None, seed=3)) for _ in range(3)]
    name = "2030-01-02_03-04-05_run_seed3"
    assert [path.name for path in paths] == [name, f"{name}_2", f"{name}_3"]
    assert {path.parent for path in paths} == {tmp_path / "runs" / "small"}


def test_a_task_with_a_slash_is_one_directory(tmp_path, monkeypatch, one_second):
    class Settings(SmallSettings):
        env: str = "torchrl_stein/AntMaze-v0"

    monkeypatch.chdir(tmp_path)
    assert claim_directory(Settings()).parent == tmp_path / "runs" / "small"


def test_relative_paths_are_absolute_from_the_start(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = small().model_copy(update={"run_dir": "here/below"})
    assert claim_directory(settings) == tmp_path / "here" / "below"


def race(folder, barrier, me, found, rounds, run_dir):
    os.chdir(folder)
    for i in range(rounds):
        settings = SmallSettings(run_dir=f"run{i}" if run_dir else None, seed=0 if run_dir else i)
        barrier.wait()
        try:
            found.put((i, str(begin(settings)), me))
        except SettingsError as error:
            if "another run uses" not in str(error):
                raise
    barrier.wait()  # a process that ends unlocks its directories


@pytest.mark.parametrize("run_dir", [True, False])
def test_two_processes_at_once(tmp_path, run_dir):
    context, rounds = multiprocessing.get_context("fork"), 60
    barrier, found = context.Barrier(2), context.SimpleQueue()
    processes = [
        context.Process(target=race, args=(tmp_path, barrier, me, found, rounds, run_dir))
        for me in range(2)
    ]
    for process in processes:
        process.start()
    claims = [found.get() for _ in range(rounds if run_dir else 2 * rounds)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert found.empty()
    assert len({path for _, path, _ in claims}) == len(claims)


def test_a_directory_in_use_is_refused_here_too(small):
    path = claim_directory(small())
    for _ in range(2):
        with pytest.raises(SettingsError, match="new directory, another run uses"):
            claim_directory(small())
    release_directory(path)
    claim_directory(small())


def test_a_directory_with_a_run_is_refused(small):
    path = begin(small())
    Checkpoints(path / "checkpoints", {}).save(1, {})
    release_directory(path)
    for refuse in (check_directory, claim_directory, claim_directory):
        with pytest.raises(SettingsError, match=f"already holds a run; .*: resume={path}$"):
            refuse(small())
    (path / "config.json").rename(path / "batch.json")  # of several seeds
    with pytest.raises(SettingsError, match="already holds a run"):
        claim_directory(small())


def killed(settings):
    """A run that is killed after it began; what it left is on the disk."""
    child = os.fork()
    if child == 0:
        path = begin(settings)
        (path / "metrics" / "scalars").mkdir(parents=True)
        (path / "metrics" / "scalars" / "loss.csv").write_text("1,2\n")
        (path / "checkpoints" / ".checkpoint-000000000010-77").mkdir(parents=True)
        (path / "notes.txt").write_text("a user's own")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_run_killed_before_its_first_checkpoint_starts_again(small, tmp_path):
    killed(small())
    check_directory(small())
    path = begin(small())
    assert not (path / "metrics").exists()  # or its numbers would be there twice
    assert (path / "notes.txt").exists()
    release_directory(path)
    with pytest.raises(SettingsError, match="already holds a run"):
        claim_directory(small(seed=1))  # other settings are another run
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(SettingsError, match="already holds a run"):
        claim_directory(small())


def test_files_of_others_are_no_run_and_stay(small, tmp_path):
    for name in ("metrics", "images"):
        (tmp_path / "run" / name).mkdir(parents=True)
        (tmp_path / "run" / name / "mine").write_text("x")
    claim_directory(small())
    assert (tmp_path / "run" / "metrics" / "mine").exists()


def test_a_place_that_is_none(small, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(SettingsError, match=f"must be a directory, but {tmp_path}/file is a"):
            check_directory(small(name))
    with pytest.raises(SettingsError, match="File name too long"):
        check_directory(small("x" * 300))
    check_directory(small("new/deep/down"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_disk_without_locks_is_no_reason_to_refuse(small, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    path = begin(small())
    assert json.loads((path / "config.json").read_text())["recipe"] == "small"
