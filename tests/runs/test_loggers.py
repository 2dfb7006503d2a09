"""CSV, TensorBoard and W&B: what arrives there, read back or seen by a fake."""

import json
import os
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import wandb
from torch import nn

from tests.runs.conftest import ROOT
from torchrl_stein.runs import find_checkpoint, loggers
from torchrl_stein.runs.checkpoint import Checkpoints, load_component
from torchrl_stein.runs.loggers import (
    CSVLog,
    Recorder,
    RunLogger,
    WandbLog,
    flatten_settings,
    open_loggers,
)

CONFIG = {"seed": 1, "loss": {"kernel": None, "gamma": 0.9}, "cells": [8, 8], "compile": False}


def recorder(folder, name="csv", config=CONFIG):
    found = Recorder()
    folder.mkdir(exist_ok=True)
    found.directory, found.loggers = folder, open_loggers(name, folder, config, {"python": "3"})
    return found


def log_all(found):
    found.steps = 10
    found.log({"eval/return": 1.5, "eval/length": 3.0})
    found.steps = 20
    found.log({"eval/return": 2.5})
    found.log_histogram("eval/actions", torch.arange(10.0))
    found.log_image("eval/kernel", torch.full((4, 6, 3), 7, dtype=torch.uint8))
    return found.log_video("eval/episode", torch.zeros(3, 4, 4, 3, dtype=torch.uint8), 5)


def close(found):
    for logger in found.loggers:
        logger.close()


# CSV


def test_metrics_are_lines(tmp_path):
    close_me = recorder(tmp_path)
    log_all(close_me)
    scalars = tmp_path / "metrics" / "scalars"
    assert (scalars / "eval" / "return.csv").read_text() == "10,1.5\n20,2.5\n"
    assert (scalars / "eval" / "length.csv").read_text() == "10,3.0\n"


def test_nothing_is_kept_per_value(tmp_path):
    log = CSVLog(tmp_path)
    log.log({f"a/{i}": 1.0 for i in range(5)}, 0)
    ours = [tracemalloc.Filter(True, loggers.__file__)]
    tracemalloc.start()
    try:
        for step in range(3000):
            log.log({"a/0": 0.5, "a/1": 0.25}, step)
        kept = tracemalloc.take_snapshot().filter_traces(ours).statistics("filename")
    finally:
        tracemalloc.stop()
    assert sum(each.size for each in kept) < 10_000
    assert (tmp_path / "metrics/scalars/a/0.csv").read_text().count("\n") == 3001


def test_it_is_fast_enough_to_log_every_update(tmp_path):
    log = CSVLog(tmp_path)
    begin = time.process_time()
    for step in range(1000):
        log.log({"a": 1.0}, step)
    assert time.process_time() - begin < 1.0


@pytest.mark.parametrize(
    "name",
    ["../out", "a/../../out", "a/../b", "/etc/out", "..", ".", "", "a\\..\\b", "a/b/../../../../c"],
)
@pytest.mark.parametrize("logger", ["csv", "none"])
def test_names_cannot_leave_the_directory(tmp_path, name, logger):
    found = recorder(tmp_path / "run", logger)
    picture = torch.zeros(4, 4, 3, dtype=torch.uint8)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    for log in (
        lambda: CSVLog(tmp_path / "run").log({name: 1.0}, 0),
        lambda: found.log_image(name, picture),
        lambda: found.log_video(name, picture[None], 5),
    ):
        with pytest.raises(ValueError, match="a name to log must be like 'train/loss', got"):
            log()
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not Path("/etc/out.csv").exists()


# TensorBoard


def test_tensorboard_has_what_was_logged(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = recorder(tmp_path / "run", "tensorboard")
    log_all(found)
    close(found)
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("eval/return")] == [(10, 1.5), (20, 2.5)]
    (histogram,) = events.Histograms("eval/actions")
    assert (histogram.step, histogram.histogram_value.num) == (20, 10)
    assert histogram.histogram_value.sum == 45
    (image,) = events.Images("eval/kernel")
    assert (image.step, image.height, image.width) == (20, 4, 6)
    # One run, not a second one for the settings.
    assert {path.parent for path in tmp_path.rglob("events.*")} == {tmp_path / "run/tensorboard"}
    settings = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    for word in (b"loss.gamma", b"loss.kernel", b"null", b"[8, 8]", b"compile"):
        assert word in settings
    assert (tmp_path / "run/metrics/scalars/eval/return.csv").read_text() == "10,1.5\n20,2.5\n"


@pytest.mark.parametrize(
    ("config", "flat"),
    [
        ({}, {}),
        ({"a": {"b": {"c": 1}}, "d": True}, {"a.b.c": 1, "d": True}),
        ({"a": {}, "b": [1, {"c": None}]}, {"b": '[1, {"c": null}]'}),
    ],
)
def test_settings_are_flattened(config, flat):
    assert flatten_settings(config) == flat


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_logger_that_is_not_installed_is_one_line(small, monkeypatch, name):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    from tests.runs.conftest import SmallSettings
    from torchrl_stein.runs.settings import SettingsError

    with pytest.raises(SettingsError, match=f"logger must be .* installed: pip install {name}"):
        SmallSettings.parse({"logger": name})


# every logger


class Fake(RunLogger):
    """Remembers what it is given."""

    def __init__(self):
        self.calls = []

    def __getattribute__(self, name):
        if name not in ("log", "show", "keep", "close"):
            return super().__getattribute__(name)
        return lambda *arguments: self.calls.append((name, *arguments))


def test_every_logger_gets_everything(tmp_path):
    found = recorder(tmp_path)
    found.loggers = [Fake(), Fake()]
    video = log_all(found)
    close(found)
    for logger in found.loggers:
        names = [call[0] for call in logger.calls]
        assert names == ["log", "log", "show", "show", "show", "close"]
        assert logger.calls[0] == ("log", {"eval/return": 1.5, "eval/length": 3.0}, 10)
        _, name, values, step = logger.calls[2]
        assert (name, values.tolist(), step) == ("eval/actions", list(range(10)), 20)
        assert np.array_equal(logger.calls[3][2], np.full((4, 6, 3), 7))
        assert logger.calls[4] == ("show", "eval/episode", video, 20)
    assert video == tmp_path / "videos/eval/episode_000000000020.mp4"
    assert (tmp_path / "images/eval/kernel_000000000020.png").exists()


def test_the_last_and_the_best_checkpoint_are_kept(tmp_path):
    found = recorder(tmp_path)
    found.loggers = [Fake()]
    checkpoints = Checkpoints(tmp_path / "checkpoints", {})
    best = checkpoints.save(10, {}, 5.0)
    found.log_checkpoints()
    checkpoints.save(20, {}, 3.0)
    last = checkpoints.save(30, {}, 1.0)
    found.log_checkpoints()
    kept = [call[1:] for call in found.loggers[0].calls]
    assert kept == [(best, ["last", "best"]), (last, ["last"]), (best, ["best"])]


def test_the_base_drops_everything():
    logger = RunLogger()
    logger.log({"a": 1.0}, 0)
    logger.show("a", np.zeros(1), 0)
    logger.keep(Path("a"), ["last"])
    logger.close()


@pytest.mark.parametrize("name", ["none", "csv"])
def test_who_cannot_show_it_leaves_it_out(tmp_path, name):
    found = recorder(tmp_path, name)
    assert log_all(found).exists()
    close(found)
    assert (tmp_path / "metrics").exists() == (name == "csv")


def test_pictures_are_what_was_given(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    image = torch.randint(256, (9, 7, 3), dtype=torch.uint8)
    path = recorder(tmp_path).log_image("a/b", image)
    assert np.array_equal(imageio.imread(path), image.numpy())


PICTURE = torch.zeros(4, 4, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: r.log_image("a", torch.zeros(4, 4, 3)), TypeError, "got torch.float32"),
        (lambda r: r.log_image("a", PICTURE[..., :1]), ValueError, r"got shape \[4, 4, 1\]"),
        (lambda r: r.log_image("a", PICTURE[:0]), ValueError, r"got shape \[0, 4, 3\]"),
        (lambda r: r.log_video("a", PICTURE, 5), ValueError, r"uint8 \[T, H, W, 3\], got shape"),
        (lambda r: r.log_histogram("a/b", torch.tensor([1.0, float("nan")])), ValueError, "a/b"),
        (lambda r: r.log_histogram("a", torch.zeros(0)), ValueError, "finite and at least one"),
    ],
)
def test_bad_input_is_refused_whatever_the_logger(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(recorder(tmp_path, "none"))


# W&B


@pytest.fixture
def clean(monkeypatch, tmp_path):
    """No settings of the user, no credentials."""
    for name in [n for n in os.environ if n.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    default = SimpleNamespace(settings=SimpleNamespace(base_url="https://api.forge.coreweave.com"))
    monkeypatch.setattr(wandb, "setup", lambda: default)


@pytest.fixture
def opened(clean, monkeypatch):
    """How W&B is opened; the first ``failures`` times it cannot be."""
    found = SimpleNamespace(calls=[], failures=[], logged=[], artifacts=[])

    def init(**given):
        found.calls.append(given)
        if found.failures:
            raise found.failures.pop(0)
        return SimpleNamespace(
            id="abc123",
            dir=f"{given['dir']}/wandb/offline-run-1/files",
            define_metric=lambda *a, **k: None,
            log=found.logged.append,
            log_artifact=lambda artifact, aliases: found.artifacts.append((artifact, aliases)),
            finish=lambda: found.logged.append("finish"),
        )

    monkeypatch.setattr(wandb, "init", init)
    return found


def modes_of(opened, folder):
    WandbLog(folder, CONFIG)
    return [call["mode"] for call in opened.calls]


def test_what_it_is_told(opened, tmp_path):
    recorder(tmp_path / "plain")
    assert opened.calls == []
    recorder(tmp_path / "run", "wandb")
    (call,) = opened.calls
    assert (call["name"], call["project"]) == ("run", "torchrl_stein")
    assert call["config"] == CONFIG | {"provenance": {"python": "3"}}
    assert call["dir"] == str(tmp_path / "run")
    assert call["settings"].init_timeout == 30
    assert "WANDB_MODE" not in os.environ


def test_it_gets_everything(opened, tmp_path):
    found = recorder(tmp_path, "wandb")
    video = log_all(found)
    close(found)
    first, second, histogram, image, film, table, end = opened.logged
    assert first == {"eval/return": 1.5, "eval/length": 3.0, "trainer/step": 10}
    assert second == {"eval/return": 2.5, "trainer/step": 20}
    assert sum(histogram["eval/actions"].histogram) == 10
    assert np.array_equal(np.asarray(image["eval/kernel"].image), np.full((4, 6, 3), 7))
    assert Path(film["eval/episode"]._path) == video
    assert end == "finish"
    ((name, step, picture),) = table["pictures"].data
    assert (name, step) == ("eval/kernel", 20)
    assert np.array_equal(np.asarray(picture.image), np.full((4, 6, 3), 7))
    assert {entry["trainer/step"] for entry in (histogram, image, film)} == {20}
    assert (tmp_path / "metrics/scalars/eval/return.csv").read_text() == "10,1.5\n20,2.5\n"


def test_checkpoints_are_artifacts_without_the_replay_buffer(opened, tmp_path):
    found = recorder(tmp_path / "run", "wandb")
    parts = {"loss": nn.Linear(2, 1), "buffer": nn.Linear(1000, 1)}
    path = Checkpoints(tmp_path / "run" / "checkpoints", {"seed": 3}).save(10, parts, 1.0)
    found.log_checkpoints()
    ((artifact, aliases),) = opened.artifacts
    assert (artifact.type, artifact.name) == ("model", "checkpoint-abc123")
    assert aliases == ["last", "best"]
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.entries.values()}
    assert all(local == path / name for name, local in files.items())  # nothing is copied
    assert set(files) == {"loss.pt", "manifest.json"}
    # What is left is a checkpoint whose weights can be loaded.
    copy = tmp_path / "downloaded"
    copy.mkdir()
    for name, local in files.items():
        (copy / name).write_bytes(local.read_bytes())
    other = nn.Linear(2, 1)
    load_component(find_checkpoint(copy), "loss", other)
    assert other.weight.equal(parts["loss"].weight)


@pytest.mark.parametrize("variable", ["WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"])
def test_credentials_in_the_environment(opened, tmp_path, monkeypatch, variable, capsys):
    assert modes_of(opened, tmp_path) == ["offline"]
    monkeypatch.setenv(variable, "x" * 40)
    assert modes_of(opened, tmp_path) == ["offline", "online"]
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
def test_credentials_in_a_netrc_file(opened, tmp_path, monkeypatch, place, server, machine, mode):
    path = tmp_path / ("elsewhere" if place == "NETRC" else place)
    path.write_text(f"machine {machine}\n  login user\n  password {'x' * 40}\n")
    path.chmod(0o600)
    if place == "NETRC":
        monkeypatch.setenv("NETRC", str(path))
    if server:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    assert modes_of(opened, tmp_path) == [mode]


@pytest.mark.parametrize(
    "content",
    ["", "machine\n", 'machine api.forge.coreweave.com\n  login user\n  password ""\n'],
    ids=["empty", "broken", "without_key"],
)
def test_a_netrc_file_without_a_key(opened, tmp_path, content):
    path = tmp_path / ".netrc"
    path.write_text(content)
    path.chmod(0o600)
    assert modes_of(opened, tmp_path) == ["offline"]


@pytest.mark.parametrize("mode", ["online", "offline", "disabled", "dryrun"])
def test_wandb_mode_decides_if_there_is_a_login(opened, tmp_path, monkeypatch, mode, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_MODE", mode)
    assert modes_of(opened, tmp_path) == [mode]
    assert os.environ["WANDB_MODE"] == mode
    assert ("wandb sync" in capsys.readouterr().out) == (mode in ("offline", "dryrun"))


@pytest.mark.parametrize(
    "error", [wandb.errors.CommError("no network"), wandb.errors.UsageError("no key")]
)
def test_an_unreachable_server_means_offline(opened, tmp_path, monkeypatch, error, capsys):
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    opened.failures.append(error)
    assert modes_of(opened, tmp_path) == ["online", "offline"]
    out = capsys.readouterr().out
    assert f"not reachable ({type(error).__name__}), logging offline" in out
    assert f"wandb sync {tmp_path}/wandb/offline-run-1" in out
    assert "WANDB_MODE" not in os.environ


def test_other_errors_are_not_hidden(opened, tmp_path):
    opened.failures.append(OSError("disk full"))
    with pytest.raises(OSError, match="disk full"):
        modes_of(opened, tmp_path)


SCRIPT = """
import os, sys
from pathlib import Path
import torch
from torchrl_stein.runs.loggers import Recorder, open_loggers
from torchrl_stein.runs.process import read_provenance

for mode in sys.argv[1:]:
    os.environ.pop("WANDB_MODE", None)
    if mode != "unset":
        os.environ["WANDB_MODE"] = mode
    before = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    print("BEGIN", mode)
    run = Recorder()
    run.directory, run.steps = Path(mode), 10
    run.directory.mkdir()
    run.loggers = open_loggers("wandb", run.directory, {"x": 1}, read_provenance())
    run.log({"train/loss": 1.0})
    run.log_histogram("eval/actions", torch.arange(10.0))
    run.log_image("eval/kernel", torch.full((4, 6, 3), 7, dtype=torch.uint8))
    run.log_video("eval/episode", torch.zeros(3, 4, 4, 3, dtype=torch.uint8), 5)
    for logger in run.loggers:
        logger.close()
    after = {k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"}
    print("ENVIRONMENT", "same" if after == before else sorted(set(after) ^ set(before)))
    print("END", mode)
"""
SECRET = "s3cret" + "0" * 34


def offline_run(path):
    """Rows of the history of an offline run, and of each metric its abscissa and if best is kept.

    The file is a log of LevelDB: blocks of 32 KiB with pieces of records, after 7 bytes of W&B's.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, piece = path.read_bytes(), 7, b""
    history, axes = [], {}
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        piece += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = Record.FromString(piece)
            piece = b""
            if record.HasField("history"):
                row = {}
                for item in record.history.item:
                    key, *below = item.nested_key or [item.key]
                    value = json.loads(item.value_json)
                    if below:
                        row.setdefault(key, {})[below[0]] = value
                    elif not key.startswith("_"):
                        row[key] = value
                history.append(row)
            if record.HasField("metric"):
                metric = record.metric
                name = metric.name or metric.glob_name
                axes[name] = (metric.step_metric, metric.summary.max)
    return history, axes


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


@pytest.mark.timeout(600)
def test_the_real_thing_never_asks_and_is_told_no_secret(tmp_path):
    """On a pseudo-terminal, where W&B itself would show a menu and wait; without a login."""
    pty = pytest.importorskip("pty")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("WANDB") and k != "NETRC"}
    ours, theirs = pty.openpty()
    modes = ["unset", "online", "disabled"]
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *modes],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=kept
        | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        | {"SOME_TOKEN": SECRET, "HF_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        process.wait(timeout=400)  # its output is short enough for the terminal to hold
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with W&B's own process
        process.wait()
    text = read(ours)
    assert process.returncode == 0, text
    assert "Enter your choice" not in text
    assert text.count("ENVIRONMENT same") == 3, text
    for mode in ("unset", "online"):
        part = text.split(f"BEGIN {mode}")[1].split(f"END {mode}")[0]
        (line,) = [line for line in part.splitlines() if "wandb sync" in line]
        run = tmp_path / line.split("wandb sync ")[1]
        assert run.name.startswith("offline-run-")
        assert run.parents[1].name == mode
        assert len(list(run.glob("files/media/images/eval/kernel_*.png"))) == 1
        assert len(list(run.glob("files/media/videos/eval/episode_*.mp4"))) == 1
        (file,) = run.glob("*.wandb")
        history, axes = offline_run(file)
        assert {"train/loss": 1.0, "trainer/step": 10} in history
        shown = {name: row for row in history for name in row if name != "trainer/step"}
        assert shown["eval/actions"]["eval/actions"]["_type"] == "histogram"
        assert shown["eval/kernel"]["eval/kernel"]["_type"] == "image-file"
        assert shown["eval/episode"]["eval/episode"]["_type"] == "video-file"
        (table,) = run.glob("files/media/table/pictures_*.table.json")
        (row,) = json.loads(table.read_text())["data"]
        assert row[:2] == ["eval/kernel", 10]
        # Everything over environment steps; of a return the best value, too.
        assert axes["*"] == ("trainer/step", False)
        assert axes["eval/return"] == ("trainer/step", True)
    assert not list(tmp_path.glob("disabled/wandb/*run-*"))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in written)
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
