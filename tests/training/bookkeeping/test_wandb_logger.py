"""W&B without a network and without a login: it never asks, and it never stops a run.

What depends on the terminal runs in processes of its own, with an empty home directory: one
without a terminal, one on a pseudo-terminal, where W&B itself would show a menu and wait.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb

from torchrl_stein.training import open_wandb
from torchrl_stein.training.bookkeeping import wandb_logger

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[3]

SCRIPT = """
import os, sys
from pathlib import Path
from torchrl_stein.training import open_wandb

for mode in sys.argv[1:]:
    os.environ.pop("WANDB_MODE", None)
    if mode != "unset":
        os.environ["WANDB_MODE"] = mode
    before = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    print("BEGIN", mode)
    logger = open_wandb(Path(mode), name="a", project="b", config={"x": 1})
    logger.log_scalar("train/loss", 1.0, step=10)
    logger.experiment.finish()
    after = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    print("ENVIRONMENT", "same" if after == before else sorted(set(after) ^ set(before)))
    print("END", mode)
"""


def clean_environment(home):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB") and k != "NETRC"}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Output of the script by kind of terminal, as {mode: text}, and where it ran."""
    pty = pytest.importorskip("pty")
    modes = ["unset", "online", "offline", "dryrun", "disabled"]
    results, started = {}, {}
    for kind in ("pipe", "terminal"):
        home = tmp_path_factory.mktemp(kind)
        ours, theirs = pty.openpty() if kind == "terminal" else os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *modes],
            stdin=theirs if kind == "terminal" else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            cwd=home,
            env=clean_environment(home),
            start_new_session=True,
        )
        os.close(theirs)
        started[kind] = (process, ours, home)
    for kind, (process, ours, home) in started.items():
        try:
            process.wait(timeout=240)  # their output is short enough for the pipe to hold
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with W&B's own process
            process.wait()
        text = read(ours)
        parts = {m: text.split(f"BEGIN {m}")[-1].split(f"END {m}")[0] for m in modes}
        results[kind] = SimpleNamespace(text=text, parts=parts, code=process.returncode, home=home)
    return results


def read(descriptor):
    text = b""
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # how a pseudo-terminal says that it is at its end
            piece = b""
        if not piece:
            os.close(descriptor)
            return text.decode().replace("\r\n", "\n")
        text += piece


KINDS = pytest.mark.parametrize("kind", ["pipe", "terminal"])


@KINDS
def test_nothing_is_asked(outputs, kind):
    assert outputs[kind].code == 0, outputs[kind].text
    assert "Enter your choice" not in outputs[kind].text
    assert "END disabled" in outputs[kind].text


@KINDS
@pytest.mark.parametrize("mode", ["unset", "online", "offline", "dryrun"])
def test_offline_with_a_hint(outputs, kind, mode):
    lines = [line for line in outputs[kind].parts[mode].splitlines() if "wandb sync" in line]
    assert len(lines) == 1, outputs[kind].text
    run = outputs[kind].home / lines[0].split("wandb sync ")[1]
    assert run.is_dir()
    assert run.name.startswith("offline-run-")
    assert run.parents[1].name == mode


@KINDS
def test_disabled_writes_nothing(outputs, kind):
    assert "wandb sync" not in outputs[kind].parts["disabled"]
    assert not list(outputs[kind].home.glob("disabled/wandb/*run-*"))


@KINDS
def test_the_environment_is_left_alone(outputs, kind):
    assert outputs[kind].text.count("ENVIRONMENT same") == 5, outputs[kind].text


# which mode


class FakeLogger:
    """Remembers how it was opened; the first ``failures`` times it cannot."""

    opened: list
    failures: list

    def __init__(self, name, **kwargs):
        FakeLogger.opened.append({"name": name, **kwargs})
        if FakeLogger.failures:
            raise FakeLogger.failures.pop(0)
        self.experiment = SimpleNamespace(dir=f"{kwargs['save_dir']}/wandb/offline-run-1/files")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    for name in [n for n in os.environ if n.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    default = SimpleNamespace(settings=SimpleNamespace(base_url="https://api.forge.coreweave.com"))
    monkeypatch.setattr(wandb, "setup", lambda: default)
    monkeypatch.setattr(wandb_logger, "WandbLogger", FakeLogger)
    FakeLogger.opened, FakeLogger.failures = [], []
    return FakeLogger


def modes_of(fake, tmp_path):
    open_wandb(tmp_path / "run", name="a", project="b", config={"x": 1})
    return [call["mode"] for call in fake.opened]


def test_what_is_passed_on(fake, tmp_path):
    modes_of(fake, tmp_path)
    (call,) = fake.opened
    assert (call["name"], call["project"], call["config"]) == ("a", "b", {"x": 1})
    assert call["save_dir"] == str(tmp_path / "run")
    assert call["settings"].init_timeout == 30
    assert "offline" not in call  # it would write WANDB_MODE into the environment


@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_credentials_in_the_environment(fake, tmp_path, monkeypatch, variable, capsys):
    assert modes_of(fake, tmp_path) == ["offline"]
    monkeypatch.setenv(variable, "x" * 40)
    assert modes_of(fake, tmp_path) == ["offline", "online"]
    assert capsys.readouterr().out.count("wandb sync") == 1


@pytest.mark.parametrize("place", ["NETRC", ".netrc", "_netrc"])
@pytest.mark.parametrize(
    ("server", "machine", "mode"),
    [
        (None, "api.forge.coreweave.com", "online"),
        (None, "api.wandb.ai", "online"),  # what the default server was called before
        (None, "example.org", "offline"),
        ("https://wandb.example.org", "wandb.example.org", "online"),
        ("https://wandb.example.org", "api.wandb.ai", "offline"),
        ("http://localhost:8080", "localhost:8080", "online"),
        ("http://localhost:8080", "localhost", "offline"),
    ],
)
def test_credentials_in_a_netrc_file(fake, tmp_path, monkeypatch, place, server, machine, mode):
    path = tmp_path / ("elsewhere" if place == "NETRC" else place)
    path.write_text(f"machine {machine}\n  login user\n  password {'x' * 40}\n")
    path.chmod(0o600)
    if place == "NETRC":
        monkeypatch.setenv("NETRC", str(path))
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    assert modes_of(fake, tmp_path) == [mode]


@pytest.mark.parametrize(
    "content",
    ["", "machine\n", "machine api.forge.coreweave.com\n  login user\n  password ''\n"],
    ids=["empty", "broken", "without_key"],
)
def test_a_netrc_file_without_a_key(fake, tmp_path, content):
    path = tmp_path / ".netrc"
    path.write_text(content.replace("''", '""'))
    path.chmod(0o600)
    assert modes_of(fake, tmp_path) == ["offline"]


@pytest.mark.parametrize("mode", ["online", "offline", "disabled", "dryrun"])
def test_wandb_mode_decides_if_there_is_a_login(fake, tmp_path, monkeypatch, mode, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert modes_of(fake, tmp_path) == [mode]
    assert os.environ["WANDB_MODE"] == mode
    assert ("wandb sync" in capsys.readouterr().out) == (mode in ("offline", "dryrun"))


@pytest.mark.parametrize(
    "error", [wandb.errors.CommError("no network"), wandb.errors.UsageError("no key")]
)
def test_an_unreachable_server_means_offline(fake, tmp_path, monkeypatch, error, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    fake.failures.append(error)
    assert modes_of(fake, tmp_path) == ["online", "offline"]
    out = capsys.readouterr().out
    assert f"not reachable ({type(error).__name__}), logging offline" in out
    assert f"wandb sync {tmp_path / 'run'}/wandb/offline-run-1" in out
    assert "WANDB_MODE" not in os.environ


def test_other_errors_are_not_hidden(fake, tmp_path):
    fake.failures.append(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        modes_of(fake, tmp_path)
