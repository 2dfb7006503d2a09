"""recipes/bnn_regression.py as a user starts it, and what its settings build."""

import importlib.util
import json
import math
import re
import signal
import statistics

import pytest
import torch

from tests.recipes.processes import RECIPES, ROOT, SMALL, start
from torchrl_stein.objectives import PaperCost, SinkhornCost
from torchrl_stein.regression import make_splits
from torchrl_stein.training import CompileSettings, Run, linear_schedule

pytest.importorskip("hydra")

from hydra import compose, initialize_config_dir

pytestmark = pytest.mark.timeout(900)

SCORES = ("rmse", "log_likelihood")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Processes that ran side by side: a trust region on a table of one's own, and an error."""
    folder = tmp_path_factory.mktemp("finished")
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


def test_it_trains_and_reports(finished):
    process = finished["wgf"]
    assert process.code == 0, process.err
    (directory,) = (process.folder / "runs" / "bnn_regression").glob("*_wgf_seed0")
    assert process.out.startswith("waves: 3 splits, 90 rows to train on, 2 features\n")
    lines = re.findall(
        r"^step (\d+)  RMSE (\S+) \+- \S+  log-likelihood (\S+) \+- \S+  \d+ s, \d+ s left$",
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
        assert float(lines[-1][position]) == pytest.approx(score["mean"], rel=1e-3)
        curve = (directory / "metrics" / "scalars" / "test" / f"{name}.csv").read_text().split()
        assert [float(line.split(",")[1]) for line in curve] == pytest.approx(
            [e[name]["mean"] for e in summary["evaluations"]]
        )
    ratios = (directory / "metrics/scalars/train/transport_ratio.csv").read_text().split()
    assert all(0.0 < float(line.split(",")[1]) < 1.0 for line in ratios)


def test_an_error_is_one_line(finished):
    process = finished["missing"]
    assert process.code == 1
    assert process.err.strip().splitlines()[-1:] == [
        "bnn_regression.py: read_table: path must be a file or a folder, got nowhere.csv"
    ]
    assert "Traceback" not in process.err


def test_ctrl_c(tmp_path):
    running = start(tmp_path, "bnn_regression", "method=svgd", "training.steps=1_000_000")
    running.until("step ")
    running.process.send_signal(signal.SIGINT)
    stopped = running.wait()
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err + stopped.out
    assert re.search(r"^Stopped at step \d+; scores so far are in run$", stopped.out, re.MULTILINE)
    assert (tmp_path / "run/metrics/scalars/test/rmse.csv").exists()
    assert not (tmp_path / "run" / "summary.json").exists()


# what the settings build


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("bnn_recipe", RECIPES["bnn_regression"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(*overrides):
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        return compose("bnn_regression", list(overrides))


def flow_of(recipe, *overrides):
    cfg = config(*SMALL["bnn_regression"], *overrides)
    return recipe.make_flow(cfg, make_splits(recipe.load_table(cfg), 2))


def test_the_defaults_are_those_of_the_paper():
    cfg = config()
    assert (cfg.method, cfg.weight) == ("wgf", 0.4)
    assert (cfg.splits.num_splits, cfg.splits.test_fraction) == (20, 0.1)
    assert (cfg.posterior.num_particles, cfg.posterior.num_cells) == (20, 50)
    assert cfg.training.batch_size == 100


def test_a_method_chooses_the_trust_region(recipe):
    assert flow_of(recipe, "method=svgd").cost is None
    wgf = flow_of(recipe, "weight=0.3")
    assert type(wgf.cost) is SinkhornCost
    assert wgf.weight == 0.3
    paper = flow_of(recipe, "cost._target_=torchrl_stein.objectives.PaperCost")
    assert type(paper.cost) is PaperCost
    with pytest.raises(ValueError, match="method must be one of svgd, wgf; got sgld"):
        flow_of(recipe, "method=sgld")


def test_a_target_without_data(recipe):
    with pytest.raises(ValueError, match="target names a column of data, which is null; got price"):
        recipe.load_table(config("target=price"))


def test_the_bandwidth_is_that_of_the_paper(recipe):
    kernel = flow_of(recipe).kernel
    x = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4 and 9
    assert kernel.evaluate(x).bandwidth.item() == pytest.approx(4 / math.log(3))


def test_the_optimizer_is_rmsprop(recipe):
    optimizer = flow_of(recipe, "optim.lr=0.01").optimizer
    assert type(optimizer) is torch.optim.RMSprop
    group = optimizer.param_groups[0]
    assert (group["lr"], group["alpha"], group["eps"]) == (0.01, 0.9, 1e-6)


def test_the_rate_falls_to_its_last_part(recipe, tmp_path):
    settings = [*SMALL["bnn_regression"], "training.steps=4"]
    cfg = config(*settings, "optim.lr=0.01")
    splits = make_splits(recipe.load_table(cfg), 2)
    flow = recipe.make_flow(cfg, splits)
    rates = []
    flow.optimizer.register_step_pre_hook(lambda o, *_: rates.append(o.param_groups[0]["lr"]))
    schedule = linear_schedule(flow.optimizer, 4, 0.1)
    fusion = CompileSettings()
    recipe.train(cfg, Run(tmp_path, {}, "csv"), flow, fusion, schedule, splits, batch_seed=0)
    assert rates == pytest.approx([0.01, 0.00775, 0.0055, 0.00325])
    assert flow.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_the_precision_of_the_weights(recipe):
    assert flow_of(recipe).posterior.weight_precision == 1.0
    assert flow_of(recipe, "posterior.weight_precision=null").posterior.weight_precision is None


def test_scores_that_are_no_numbers(recipe):
    flow = flow_of(recipe)
    splits = make_splits(recipe.load_table(config()), 2)
    with torch.no_grad():
        flow.posterior.networks.particles.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"rmse is \[nan, nan\] at step 7"):
        recipe.evaluate(7, flow.posterior, splits)


def test_one_split_has_no_standard_error(recipe):
    expected = {"mean": 2.0, "standard_error": None, "splits": [2.0]}
    assert recipe.summarize(torch.tensor([2.0])) == expected
