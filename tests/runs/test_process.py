"""What a run knows about the machine it is on, and where it comes from."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
import torch

from torchrl_stein.runs import process
from torchrl_stein.runs.process import git_state, prepare_cpu, read_provenance

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]


def git(folder, *arguments):
    command = ["git", "-C", str(folder), *IDENTITY, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path, monkeypatch):
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text("1\n")
    (tmp_path / ".gitignore").write_text("runs/\n")
    (tmp_path / "deep").mkdir()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_a_clean_working_tree(repository):
    clean = {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}
    assert git_state(repository) == clean
    assert git_state(repository / "deep") == clean
    (repository / "runs").mkdir()
    (repository / "runs" / "ignored").write_text("")
    assert git_state(repository) == clean


@pytest.mark.parametrize("file", ["code.py", "new.py"])
def test_a_changed_one(repository, file):
    commit = git(repository, "rev-parse", "HEAD")
    (repository / file).write_text("2\n")
    assert git_state(repository) == {"commit": commit, "dirty": True}
    assert git_state(repository / "deep")["dirty"]


def test_without_repository_commit_or_git(tmp_path, monkeypatch):
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "missing") is None
    git(tmp_path, "init", "-q")
    assert git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) is None


def test_a_git_that_does_not_answer(tmp_path, monkeypatch):
    def hang(command, **kwargs):
        raise subprocess.TimeoutExpired(command, kwargs["timeout"])

    monkeypatch.setattr(process.subprocess, "run", hang)
    assert git_state(tmp_path) is None


def test_the_rest(repository, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(repository / "code.py")])
    monkeypatch.setattr(sys, "orig_argv", ["python", "code.py", "loss.a=[1, 2]"])
    known = read_provenance()
    assert json.loads(json.dumps(known)) == known
    assert known["git"] == git_state(repository)
    assert known["command"] == "python code.py 'loss.a=[1, 2]'"
    assert known["python"] == ".".join(map(str, sys.version_info[:3]))
    versions = known["versions"]
    assert torch.__version__.startswith(versions["torch"])
    packages = {"torchrl_stein", "torchrl", "tensordict", "gymnasium", "mujoco", "numpy"}
    assert set(versions) == packages | {"torch"}
    assert known["device"]
    age = datetime.now(UTC) - datetime.fromisoformat(known["started"])
    assert timedelta(0) <= age < timedelta(minutes=5)


def test_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(process, "PACKAGES", ("no_such_package",))
    assert read_provenance()["versions"] == {"no_such_package": None}


def test_the_device_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"card {device}")
    assert read_provenance("cuda:1")["device"] == "card cuda:1"
    assert not read_provenance("cpu")["device"].startswith("card")


def test_threads():
    before = torch.get_num_threads()
    prepare_cpu(1)
    assert torch.get_num_threads() == 1
    prepare_cpu(before)
