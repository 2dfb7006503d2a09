"""recipes/bnn_regression.py as a user starts it, and what its settings build."""

import json
import math
import re
import signal
import statistics

import pytest

from tests.recipes.processes import ROOT, start

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir

pytestmark = pytest.mark.timeout(900)

SCORES = ("rmse", "log_likelihood")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Processes that ran side by side: a trust region on a table of one's own, and an error."""
    folder = tmp_path_factory.mktemp("ended")
    rows = [f"{x / 10},{x % 7},{math.sin(x / 10):.4f}" for x in range(100)]
    (folder / "waves.csv").write_text("x,residue,y\n" + "\n".join(rows) + "\n")
    started = {
        "wgf": start(
            folder / "wgf",
            "bnn_regression",
            f"data={folder / 'waves.csv'}",
            "target=y",
            run_dir=None,  # the default directory is part of what is tested
        ),
        "missing": start(folder / "missing", "bnn_regression", "data=nowhere.csv"),
    }
    return {name: process.wait() for name, process in started.items()}


def test_it_trains_and_reports(ended):
    process = ended["wgf"]
    assert process.code == 0, process.err
    (directory,) = (process.folder / "runs" / "bnn_regression").glob("*_wgf_seed0")
    assert "waves: 3 splits, 90 rows to train on, 2 features\n" in process.out
    lines = re.findall(
        r"^update +(\d+)  rmse (\S+)  rmse \+- \S+  log_likelihood (\S+)  log_likelihood \+- \S+ ",
        process.out,
        re.MULTILINE,
    )
    assert [int(step) for step, *_ in lines] == [10, 20, 25]
    summary = json.loads((directory / "summary.json").read_text())
    assert [e["step"] for e in summary["evaluations"]] == [10, 20, 25]
    assert summary["step"] == 25
    for position, name in enumerate(SCORES, 1):
        score = summary[name]
        assert score == summary["evaluations"][-1][name]
        assert len(score["splits"]) == 3
        assert score["mean"] == pytest.approx(statistics.fmean(score["splits"]))
        error = statistics.stdev(score["splits"]) / math.sqrt(3)
        assert score["standard_error"] == pytest.approx(error)
        assert float(lines[-1][position]) == pytest.approx(score["mean"], rel=1e-2)
        curve = (directory / "metrics" / "scalars" / "test" / f"{name}.csv").read_text().split()
        assert [float(line.split(",")[1]) for line in curve] == pytest.approx(
            [e[name]["mean"] for e in summary["evaluations"]]
        )
    ratios = (directory / "metrics/scalars/train/transport_ratio.csv").read_text().split()
    assert all(0.0 < float(line.split(",")[1]) < 1.0 for line in ratios)


def test_an_error_is_one_line(ended):
    process = ended["missing"]
    assert process.code == 1
    assert process.err.strip().splitlines()[-1:] == [
        "bnn_regression.py: read_table: path must be a file or a folder, got nowhere.csv"
    ]
    assert "Traceback" not in process.err


def test_ctrl_c(tmp_path):
    running = start(tmp_path, "bnn_regression", "method=svgd", "training.steps=1_000_000")
    running.until("update ")
    stopped = running.signal(signal.SIGINT).wait()
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err + stopped.out
    assert "Stopped." in stopped.out
    assert (tmp_path / "run/metrics/scalars/test/rmse.csv").exists()
    assert not (tmp_path / "run" / "summary.json").exists()


# settings


def test_the_defaults_are_those_of_the_paper():
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        cfg = compose("bnn_regression", [])
    assert (cfg.method, cfg.weight) == ("wgf", 0.4)
    assert (cfg.splits.num_splits, cfg.splits.test_fraction) == (20, 0.1)
    assert (cfg.posterior.num_particles, cfg.posterior.num_cells) == (20, 50)
    assert cfg.posterior.weight_precision == 1.0
    assert cfg.training.batch_size == 100
    assert cfg.kernel.bandwidth.denominator == "log(n)"
    assert (cfg.optim.lr, cfg.optim.alpha, cfg.optim.eps) == (1e-3, 0.9, 1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=sgld"], "method must be 'svgd' or 'wgf', got 'sgld'"),
        (["target=price"], "data, of which target names a column"),
    ],
)
def test_settings_that_are_refused(tmp_path, overrides, message):
    process = start(tmp_path, "bnn_regression", *overrides).wait()
    assert process.code == 1
    assert message in process.err
    assert not (tmp_path / "run").exists()
