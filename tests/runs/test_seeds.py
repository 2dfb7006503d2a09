"""Seeds: independent ones of a run, and several that share a batch."""

import json
import math

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from torchrl_stein.comparison.runs import find_runs
from torchrl_stein.runs import SeedFolders, Session, rows_of_seeds, seeds_of_rows
from torchrl_stein.runs.checkpoint import Checkpoints
from torchrl_stein.runs.populations import finish_returns, log_returns, return_metrics
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
        summary = log_returns(folders, "train", RETURNS)
        if end:
            finish_returns(folders, torch.tensor([4.0, 2.0, 8.0, 9.0]))
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
        assert log_returns(folders, "test", torch.tensor(FIRST))["mean"] == 2.0
        finish_returns(folders, torch.tensor(FIRST))
    run = tmp_path / "run"
    assert lines(run)["test/return_particle_1"] == "40,3.0\n"
    assert json.loads((run / "summary.json").read_text()) == return_metrics(torch.tensor(FIRST))
    assert not list(run.glob("seed*"))
    assert "#1 3.0  #0 1.0" in capsys.readouterr().out.splitlines()


def test_returns_that_nobody_has_yet(small, tmp_path):
    with Session(small()) as session:
        session.track()
        summary = log_returns(SeedFolders(session, 1), "train", torch.tensor([NAN, NAN]))
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


def test_evaluations_of_seeds(small, tmp_path, capsys):
    settings = small(seed=7)
    plain = settings.plain() | {"seeds": 2}
    object.__setattr__(settings, "plain", lambda: plain)
    with Session(settings) as session:
        session.track()
        folders = SeedFolders(session, 2)
        session.steps = 40
        folders.log_evaluation([{"return": 1.0, "length": 5.0}, {"return": 3.0, "length": 6.0}])
        folders.finish([{"return": 4.0}, {"return": 8.0}])
    run = tmp_path / "run"
    assert lines(run / "seed7") == {"eval/return": "40,1.0\n", "eval/length": "40,5.0\n"}
    assert lines(run / "seed8")["eval/return"] == "40,3.0\n"
    assert lines(run)["eval/return"] == "40,2.0\n"
    assert json.loads((run / "seed8" / "summary.json").read_text()) == {"return": 8.0}
    assert json.loads((run / "summary.json").read_text()) == {"return": 6.0}
    assert "return 2" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(4,), (2, 2), (3,)])
def test_rows_of_a_buffer_hold_a_transition_of_each_seed(shape):
    seeds = 3
    data = TensorDict({"x": torch.randn(seeds, *shape, 5)}, [seeds, *shape])
    rows = rows_of_seeds(data, seeds)
    assert rows.batch_size == (torch.Size(shape).numel(), seeds)
    assert torch.equal(rows["x"][:, 1], data["x"][1].reshape(-1, 5))
    assert torch.equal(seeds_of_rows(rows, seeds)["x"][2], data["x"][2].reshape(-1, 5))
    alone = data[0]
    assert torch.equal(rows_of_seeds(alone, 1)["x"], alone["x"].reshape(-1, 5))
    assert seeds_of_rows(alone, 1) is alone
