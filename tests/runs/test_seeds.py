"""Seeds: independent ones of a run, and several that share a batch."""

import json
import math

import numpy as np
import pytest
import torch

from torchrl_stein.comparison.runs import find_runs
from torchrl_stein.runs import SeedFolders, Session
from torchrl_stein.runs.checkpoint import Checkpoints
from torchrl_stein.runs.populations import return_metrics
from torchrl_stein.runs.process import spawn_seeds

NAN = float("nan")


def draws():
    return torch.rand(3).tolist(), np.random.rand(3).tolist()  # noqa: NPY002


def test_a_seed_fixes_everything():
    first, first_draws = spawn_seeds(5, 3), draws()
    torch.rand(7)
    assert spawn_seeds(5, 3) == first
    assert draws() == first_draws


def test_more_seeds_do_not_change_the_first_ones():
    assert spawn_seeds(5, 4)[:2] == spawn_seeds(5, 2)


def test_neighbouring_runs_share_nothing():
    seeds = [seed for run in range(50) for seed in spawn_seeds(run, 4)]
    assert len(set(seeds)) == len(seeds)
    assert not {s + d for s in seeds for d in range(1, 65)} & set(seeds)
    torch_draws = {(spawn_seeds(run, 1), torch.rand(()).item())[1] for run in range(50)}
    assert len(torch_draws) == 50


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([1.0, 3.0], {"max": 3.0, "mean": 2.0, "top4": 2.0}),
        ([5.0, 1.0, 2.0, 3.0, 4.0], {"max": 5.0, "mean": 3.0, "top4": 3.5}),
        ([NAN, 2.0, NAN], {"max": 2.0, "mean": 2.0, "top4": 2.0}),
        ([NAN, NAN], {}),
    ],
)
def test_metrics_of_returns(returns, expected):
    metrics = return_metrics(torch.tensor(returns))
    particles = {name: metrics.pop(name) for name in list(metrics) if name.startswith("particle")}
    assert metrics == expected
    assert list(particles) == [f"particle_{i}" for i in range(len(returns))]
    assert list(particles.values()) == pytest.approx(returns, nan_ok=True)


# several as one batch: two seeds of two particles

FIRST, SECOND = [1.0, 3.0], [10.0, NAN]
RETURNS = torch.tensor([*FIRST, *SECOND])


def lines(folder):
    return {
        str(path.relative_to(folder / "metrics" / "scalars").with_suffix("")): path.read_text()
        for path in (folder / "metrics").rglob("*.csv")
    }


def batch(settings, seeds=2, end=True):
    plain = settings.plain()
    object.__setattr__(settings, "plain", lambda: plain | {"seeds": seeds})
    with Session(settings) as session:
        session.track()
        folders = SeedFolders(session, seeds)
        session.steps = 40
        summary = folders.log_returns("train", RETURNS)
        if end:
            folders.finish(torch.tensor([4.0, 2.0, 8.0, 9.0]))
    return session, summary


def test_every_seed_leaves_what_a_run_of_its_own_leaves(small, tmp_path, capsys):
    session, summary = batch(small(seed=7))
    assert summary == {"max": 6.5, "mean": 6.0, "top4": 6.0}
    run = tmp_path / "run"
    assert not (run / "config.json").exists()
    for seed in (7, 8):
        folder = run / f"seed{seed}"
        config = json.loads((folder / "config.json").read_text())
        own = {"seed": seed, "seeds": 1, "run_dir": str(folder), "resume": None}
        assert config == json.loads((run / "batch.json").read_text()) | own
        assert json.loads((folder / "provenance.json").read_text()) == session.provenance
    # Steps are those of one seed; who finished no episode has no line.
    first, second = lines(run / "seed7"), lines(run / "seed8")
    assert first["train/return_particle_1"] == "20,3.0\n"
    assert second["train/return_particle_0"] == "20,10.0\n"
    assert "train/return_particle_1" not in second
    # Means are beside them.
    assert lines(run)["train/return_max"] == "40,6.5\n"
    assert not any("particle" in name for name in lines(run))
    assert json.loads((run / "seed7" / "summary.json").read_text())["max"] == 4.0
    assert json.loads((run / "summary.json").read_text()) == {
        "max": 6.5,
        "top4": 5.75,
        "mean": 5.75,
    }
    out = capsys.readouterr().out.splitlines()
    assert "seed7: #0 4.0  #1 2.0" in out
    assert "seed8: #1 9.0  #0 8.0" in out
    assert [line.split() for line in out if line.startswith("  mean")] == [["mean", "5.75"]]


def test_only_the_folders_count_as_runs(small, tmp_path):
    batch(small(seed=7))
    assert [path.name for path in find_runs([tmp_path / "run"])] == ["seed7", "seed8"]


def test_one_seed_needs_no_folders(small, tmp_path, capsys):
    with Session(small(seed=7)) as session:
        session.track()
        folders = SeedFolders(session, 1)
        session.steps = 40
        assert folders.log_returns("test", torch.tensor(FIRST))["mean"] == 2.0
        folders.finish(torch.tensor(FIRST))
    run = tmp_path / "run"
    assert lines(run)["test/return_particle_1"] == "40,3.0\n"
    assert json.loads((run / "summary.json").read_text()) == return_metrics(torch.tensor(FIRST))
    assert not list(run.glob("seed*"))
    assert "#1 3.0  #0 1.0" in capsys.readouterr().out.splitlines()


def test_returns_that_nobody_has_yet(small, tmp_path):
    with Session(small()) as session:
        session.track()
        summary = SeedFolders(session, 1).log_returns("train", torch.tensor([NAN, NAN]))
    assert all(math.isnan(value) for value in summary.values())
    assert lines(tmp_path / "run") == {}


def test_without_a_logger_there_are_no_metrics(small, tmp_path):
    batch(small(logger="none"))
    assert not list(tmp_path.rglob("*.csv"))
    assert (tmp_path / "run" / "seed0" / "summary.json").exists()


def test_a_seed_goes_on_from_its_own_folder(small, tmp_path):
    batch(small("old", seed=7), end=False)
    path = Checkpoints(tmp_path / "old" / "checkpoints", {}).save(3, {})
    settings = small("new", seed=7)
    plain = settings.plain() | {"seeds": 2, "resume": str(path)}
    object.__setattr__(settings, "plain", lambda: plain)
    with Session(settings) as session:
        session.track()
        SeedFolders(session, 2)
    config = json.loads((tmp_path / "new" / "seed8" / "config.json").read_text())
    assert config["resume"] == str(tmp_path / "old" / "seed8")
