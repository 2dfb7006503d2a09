"""Run directories, what is logged where, and seeds."""

import json
import random

import numpy as np
import pytest
import torch

from torchrl_stein.training import Run, spawn_seeds
from torchrl_stein.training.bookkeeping import run as run_module
from torchrl_stein.training.bookkeeping.loggers import RunLogger


def test_the_configuration_is_on_disk_at_once(tmp_path):
    config = {"seed": 1, "network": {"num_cells": [64, 64]}, "resume": None}
    run = Run(tmp_path / "deep" / "down", config)
    assert json.loads((run.directory / "config.json").read_text()) == config
    assert run.config == config
    provenance = json.loads((run.directory / "provenance.json").read_text())
    assert provenance == run.provenance
    assert provenance["versions"]["torch"] == torch.__version__


def test_metrics_are_csv(tmp_path):
    run = Run(tmp_path, {})
    run.log({"train/loss_actor": 0.5, "eval/return": -3.0}, step=10)
    run.log({"train/loss_actor": 0.25}, step=20)
    scalars = tmp_path / "metrics" / "scalars"
    assert (scalars / "train" / "loss_actor.csv").read_text() == "10,0.5\n20,0.25\n"
    assert (scalars / "eval" / "return.csv").read_text() == "10,-3.0\n"
    run.close()


def test_json_beside_it(tmp_path):
    path = Run(tmp_path, {}).save_json("summary.json", {"return": -1.5})
    assert path == tmp_path / "summary.json"
    assert json.loads(path.read_text()) == {"return": -1.5}


def test_two_runs_never_share_a_directory(tmp_path):
    Run(tmp_path, {"seed": 1})
    with pytest.raises(FileExistsError, match=f"{tmp_path} already holds a run"):
        Run(tmp_path, {"seed": 2})
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 1}


def test_an_unknown_logger_is_named_and_leaves_no_trace(tmp_path):
    message = "one of csv, tensorboard, wandb, none; got 'paper'"
    with pytest.raises(ValueError, match=message):
        Run(tmp_path / "run", {}, logger="paper")
    assert not (tmp_path / "run").exists()


def test_without_loggers_there_are_settings_and_pictures_only(tmp_path):
    run = Run(tmp_path, {"seed": 1}, logger="none")
    run.log({"train/loss": 1.0}, step=10)
    run.log_histogram("eval/returns", torch.ones(3), step=10)
    run.log_image("eval/kernel", torch.zeros(4, 5, 3, dtype=torch.uint8), step=10)
    run.save_json("summary.json", {})
    run.close()
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    picture = "images/eval/kernel_000000000010.png"
    assert files == {"config.json", "provenance.json", "summary.json", picture}


class Recorder(RunLogger):
    """Remembers what it is given."""

    def __init__(self):
        self.calls = []

    def __getattribute__(self, name):
        if not name.startswith("log") and name != "close":
            return super().__getattribute__(name)
        return lambda *arguments: self.calls.append((name, *arguments))


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """A run with two recorders in the place of its loggers."""
    loggers = [Recorder(), Recorder()]
    monkeypatch.setattr(run_module, "open_loggers", lambda *_: loggers)
    return Run(tmp_path / "run", {}), loggers


def test_every_logger_gets_everything(recorded):
    run, loggers = recorded
    image = torch.randint(256, (6, 8, 3), dtype=torch.uint8)
    frames = torch.randint(256, (4, 5, 7, 3), dtype=torch.uint8)
    run.log({"train/loss": 1.0}, 10)
    run.log_histogram("eval/actions", torch.tensor([[1.0, 2.0]], requires_grad=True), 20)
    picture = run.log_image("eval/kernel", image, 20)
    video = run.log_video("eval/episode", frames, 5, 20)
    run.close()
    for logger in loggers:
        names = [call[0] for call in logger.calls]
        assert names == ["log", "log_histogram", "log_image", "log_video", "close"]
        assert logger.calls[0] == ("log", {"train/loss": 1.0}, 10)
        _, name, values, step = logger.calls[1]
        assert (name, values.tolist(), step) == ("eval/actions", [1.0, 2.0], 20)
        assert np.array_equal(logger.calls[2][2], image.numpy())
        assert logger.calls[3] == ("log_video", "eval/episode", video, 20)
    assert picture == run.directory / "images/eval/kernel_000000000020.png"
    assert video == run.directory / "videos/eval/episode_000000000020.mp4"


def test_the_last_and_the_best_checkpoint_are_kept_at_the_end(recorded):
    from torchrl_stein.training import Checkpoints

    run, loggers = recorded
    checkpoints = Checkpoints(
        run.directory / "checkpoints", loss=torch.nn.Linear(1, 1), config={}, others={}
    )
    best = checkpoints.save(10, 5.0)
    checkpoints.save(20, 3.0)
    last = checkpoints.save(30, 1.0)
    run.close()
    kept = [call[1:] for call in loggers[0].calls if call[0] == "log_checkpoint"]
    assert kept == [(last, ["last"]), (best, ["best"])]
    assert [call[0] for call in loggers[1].calls] == ["log_checkpoint", "log_checkpoint", "close"]


def test_one_checkpoint_may_be_both(recorded):
    from torchrl_stein.training import Checkpoints

    run, loggers = recorded
    folder = run.directory / "checkpoints"
    path = Checkpoints(folder, loss=torch.nn.Linear(1, 1), config={}, others={}).save(10, 5.0)
    run.close()
    assert loggers[0].calls[0] == ("log_checkpoint", path, ["last", "best"])


def test_pictures_are_what_was_given(tmp_path):
    imageio = pytest.importorskip("imageio.v3")
    run = Run(tmp_path, {})
    image = torch.randint(256, (9, 7, 3), dtype=torch.uint8)
    path = run.log_image("a/b", image, 3)
    assert np.array_equal(imageio.imread(path), image.numpy())


@pytest.mark.parametrize("size", [(32, 48), (33, 47)], ids=["even", "odd"])
def test_videos_play_what_was_given(tmp_path, size):
    ffmpeg = pytest.importorskip("imageio_ffmpeg")
    # Each frame of one grey, which compression leaves nearly alone.
    greys = torch.tensor([20, 120, 220, 70, 170], dtype=torch.uint8)
    frames = greys.reshape(-1, 1, 1, 1).expand(-1, *size, 3)
    path = Run(tmp_path, {}).log_video("episode", frames, fps=10, step=0)
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    assert meta["fps"] == pytest.approx(10)
    assert meta["size"] == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    seen = [np.frombuffer(frame, np.uint8).mean() for frame in reader]
    assert seen == pytest.approx(greys.tolist(), abs=4)


def test_a_video_that_cannot_be_encoded_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    run = Run(tmp_path, {})
    assert run.log_video("a", torch.zeros(2, 4, 4, 3, dtype=torch.uint8), 5, 0) is None
    out = capsys.readouterr().out.splitlines()
    assert out == ["no video: imageio-ffmpeg is missing, pip install 'torchrl_stein[recipes]'"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda run: run.log_image("a", torch.zeros(4, 4, 3), 0), TypeError, "got torch.float32"),
        (
            lambda run: run.log_image("a", torch.zeros(4, 4, 1, dtype=torch.uint8), 0),
            ValueError,
            r"Run.log_image: image must be uint8 \[H, W, 3\], got shape \[4, 4, 1\]",
        ),
        (
            lambda run: run.log_image("a", torch.zeros(0, 4, 3, dtype=torch.uint8), 0),
            ValueError,
            r"got shape \[0, 4, 3\]",
        ),
        (
            lambda run: run.log_video("a", torch.zeros(4, 4, 3, dtype=torch.uint8), 5, 0),
            ValueError,
            r"Run.log_video: frames must be uint8 \[T, H, W, 3\], got shape \[4, 4, 3\]",
        ),
        (
            lambda run: run.log_video("a", torch.zeros(2, 4, 4, 3, dtype=torch.uint8), 0, 0),
            ValueError,
            "fps must be positive, got 0",
        ),
        (
            lambda run: run.log_histogram("a/b", torch.tensor([1.0, float("nan")]), 0),
            ValueError,
            "values of a/b must be finite and at least one, got 1 of 2 that are not",
        ),
        (
            lambda run: run.log_histogram("a", torch.zeros(0), 0),
            ValueError,
            "at least one, got 0 of 0",
        ),
    ],
)
def test_bad_input_is_refused_whatever_the_logger(tmp_path, call, error, message):
    with pytest.raises(error, match=message):
        call(Run(tmp_path, {}, logger="none"))


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist()  # noqa: NPY002


def test_a_seed_fixes_everything():
    first, first_draws = spawn_seeds(5, 3), draws()
    torch.rand(7)
    assert spawn_seeds(5, 3) == first
    assert draws() == first_draws
    assert random.getstate()  # Python's own generator is not used by the recipes


def test_more_seeds_do_not_change_the_first_ones():
    assert spawn_seeds(5, 4)[:2] == spawn_seeds(5, 2)


def test_neighbouring_runs_share_nothing():
    seeds = [seed for run in range(50) for seed in spawn_seeds(run, 4)]
    assert len(set(seeds)) == len(seeds)
    assert not {s + d for s in seeds for d in range(1, 65)} & set(seeds)
    torch_draws = {(spawn_seeds(run, 1), torch.rand(()).item())[1] for run in range(50)}
    assert len(torch_draws) == 50


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        spawn_seeds(-1, 1)
