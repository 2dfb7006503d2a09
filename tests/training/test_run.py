"""Run directories and seeds."""

import json
import random

import numpy as np
import pytest
import torch

from torchrl_stein.training import Run, spawn_seeds


def test_the_configuration_is_on_disk_at_once(tmp_path):
    config = {"seed": 1, "network": {"num_cells": [64, 64]}, "resume": None}
    run = Run(tmp_path / "deep" / "down", config)
    assert json.loads((run.directory / "config.json").read_text()) == config
    assert run.config == config


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
    with pytest.raises(ValueError, match=r"one of \['csv', 'wandb'\], got 'tensorboard'"):
        Run(tmp_path / "run", {}, logger="tensorboard")
    assert not (tmp_path / "run").exists()


def test_wandb_comes_on_top_of_csv(tmp_path, monkeypatch):
    class Fake:
        def __init__(self, directory, **kwargs):
            self.directory, self.kwargs, self.logged, self.finished = directory, kwargs, [], 0
            self.experiment = self

        def log_metrics(self, metrics, step):
            self.logged.append((metrics, step))

        def finish(self):
            self.finished += 1

    opened = []
    monkeypatch.setattr(
        "torchrl_stein.training.run.open_wandb",
        lambda directory, **kwargs: opened.append(Fake(directory, **kwargs)) or opened[-1],
    )
    Run(tmp_path / "plain", {}).close()
    assert opened == []
    run = Run(tmp_path / "both", {"seed": 1}, logger="wandb")
    run.log({"train/loss": 1.0}, step=10)
    run.close()
    (fake,) = opened
    assert fake.directory == tmp_path / "both"
    assert fake.kwargs == {"name": "both", "project": "torchrl_stein", "config": {"seed": 1}}
    assert fake.logged == [({"train/loss": 1.0}, 10)]
    assert fake.finished == 1
    assert (tmp_path / "both/metrics/scalars/train/loss.csv").read_text() == "10,1.0\n"


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
