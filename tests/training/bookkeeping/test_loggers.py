"""CSV, TensorBoard and W&B: what arrives there, read back or seen by a fake."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import wandb
from torchrl.checkpoint import Checkpoint

from torchrl_stein.training import Checkpoints, Run, load_weights
from torchrl_stein.training.bookkeeping import loggers

CONFIG = {"seed": 1, "loss": {"kernel": None, "gamma": 0.9}, "cells": [8, 8], "compile": False}


def log_all(run):
    run.log({"eval/return": 1.5, "eval/length": 3.0}, step=10)
    run.log({"eval/return": 2.5}, step=20)
    run.log_histogram("eval/actions", torch.arange(10.0), step=20)
    run.log_image("eval/kernel", torch.full((4, 6, 3), 7, dtype=torch.uint8), step=20)
    return run.log_video("eval/episode", torch.zeros(3, 4, 4, 3, dtype=torch.uint8), 5, step=20)


# TensorBoard


def test_tensorboard_has_what_was_logged(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = Run(tmp_path / "run", CONFIG, logger="tensorboard")
    log_all(run)
    run.close()
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


def test_a_missing_tensorboard_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'torchrl_stein\[tensorboard\]'"):
        Run(tmp_path / "run", {}, logger="tensorboard")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "flat"),
    [
        ({}, {}),
        ({"a": {"b": {"c": 1}}, "d": True}, {"a.b.c": 1, "d": True}),
        ({"a": {}, "b": [1, {"c": None}]}, {"b": '[1, {"c": null}]'}),
    ],
)
def test_settings_are_flattened(config, flat):
    assert loggers.flatten_settings(config) == flat


# W&B


class FakeWandb:
    """TorchRL's WandbLogger and its experiment in one."""

    def __init__(self, directory, **kwargs):
        self.directory, self.kwargs, self.calls = directory, kwargs, []
        self.experiment, self.id = self, "abc123"

    def log_metrics(self, metrics, step):
        self.calls.append(("metrics", metrics, step))

    def log_histogram(self, name, values, *, step, bins):
        self.calls.append(("histogram", name, values.tolist(), step, bins))

    def log_artifact(self, artifact, aliases):
        self.calls.append(("artifact", artifact, aliases))

    def finish(self):
        self.calls.append(("finish",))


@pytest.fixture
def opened(monkeypatch):
    """The fakes that were opened in the place of W&B."""
    found = []
    monkeypatch.setattr(
        loggers,
        "open_wandb",
        lambda folder, **kw: found.append(FakeWandb(folder, **kw)) or found[0],
    )
    return found


def test_wandb_is_opened_if_asked_for(tmp_path, opened):
    Run(tmp_path / "plain", {}).close()
    assert opened == []
    run = Run(tmp_path / "both", CONFIG, logger="wandb")
    (fake,) = opened
    assert fake.directory == tmp_path / "both"
    assert fake.kwargs == {
        "name": "both",
        "project": "torchrl_stein",
        "config": {**CONFIG, "provenance": run.provenance},
    }


def test_wandb_gets_everything(tmp_path, opened):
    run = Run(tmp_path / "run", {}, logger="wandb")
    video = log_all(run)
    run.close()
    first, second, histogram, image, film, end = opened[0].calls
    assert first == ("metrics", {"eval/return": 1.5, "eval/length": 3.0}, 10)
    assert second == ("metrics", {"eval/return": 2.5}, 20)
    assert histogram == ("histogram", "eval/actions", list(map(float, range(10))), 20, 64)
    assert (type(image[1]["eval/kernel"]), image[2]) == (wandb.Image, 20)
    assert np.array_equal(np.asarray(image[1]["eval/kernel"].image), np.full((4, 6, 3), 7))
    assert (type(film[1]["eval/episode"]), film[2]) == (wandb.Video, 20)
    assert Path(film[1]["eval/episode"]._path) == video
    assert end == ("finish",)
    assert (tmp_path / "run/metrics/scalars/eval/return.csv").read_text() == "10,1.5\n20,2.5\n"


def test_checkpoints_are_artifacts_without_the_replay_buffer(tmp_path, opened):
    run = Run(tmp_path / "run", {}, logger="wandb")
    loss, buffer = torch.nn.Linear(2, 1), torch.nn.Linear(1000, 1)
    others = {"buffer": buffer, "optimizer": torch.optim.Adam(loss.parameters())}
    checkpoints = Checkpoints(
        run.directory / "checkpoints", loss=loss, config={"seed": 3}, others=others
    )
    path = checkpoints.save(10, 1.0)
    run.close()
    (_, artifact, aliases), end = opened[0].calls
    assert (artifact.type, artifact.name, aliases) == (
        "model",
        "checkpoint-abc123",
        ["last", "best"],
    )
    assert end == ("finish",)
    files = {entry.path: Path(entry.local_path) for entry in artifact.manifest.entries.values()}
    assert all(local == path / name for name, local in files.items())  # nothing is copied
    assert sum(local.stat().st_size for local in files.values()) < 10_000 < 4 * 1000 * 1000
    assert not any("buffer" in name for name in files)
    # What is left is a checkpoint whose weights can be loaded.
    copy = tmp_path / "downloaded"
    for name, local in files.items():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(local.read_bytes())
    assert Checkpoint.is_checkpoint(copy)
    other = torch.nn.Linear(2, 1)
    load_weights(copy, other)
    assert other.weight.equal(loss.weight)


def test_wandb_itself_offline(tmp_path, monkeypatch, capsys):
    """The real thing: nothing of the above is refused, and the files are there."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    run = Run(tmp_path / "run", CONFIG, logger="wandb")
    log_all(run)
    folder = run.directory / "checkpoints"
    Checkpoints(folder, loss=torch.nn.Linear(2, 1), config={}, others={}).save(10, 1.0)
    run.close()
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert f"wandb sync {offline}" in capsys.readouterr().out
    assert len(list(offline.glob("files/media/images/eval/kernel_*.png"))) == 1
    assert len(list(offline.glob("files/media/videos/eval/episode_*.mp4"))) == 1
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == CONFIG


# what every logger must bear


def test_the_base_drops_everything():
    logger = loggers.RunLogger()
    logger.log({"a": 1.0}, 0)
    logger.log_histogram("a", np.zeros(1), 0)
    logger.log_image("a", np.zeros((1, 1, 3), np.uint8), 0)
    logger.log_video("a", Path("a.mp4"), 0)
    logger.log_checkpoint(Path("a"), ["last"])
    logger.close()


@pytest.mark.parametrize("name", ["none", "csv"])
def test_who_cannot_show_it_leaves_it_out(tmp_path, name):
    run = Run(tmp_path / "run", CONFIG, logger=name)
    assert log_all(run).exists()
    run.close()
    assert (tmp_path / "run" / "metrics").exists() == (name == "csv")
