"""recipes/bnn_regression.py as a user starts it, and what its settings build."""

import math
import re
import statistics

import pytest
import torch

pytest.importorskip("hydra")
pytest.importorskip("tqdm")

from tests.recipes.loops import load, run, settings_of
from tests.recipes.processes import SMALL, start
from tests.recipes.results import curve, read, values
from torchrl_stein.objectives import SinkhornCost, WGFPotential
from torchrl_stein.regression import ParticleFlow, diabetes_table, make_splits
from torchrl_stein.runs.settings import SettingsError

pytestmark = pytest.mark.timeout(900)

NAME = "bnn_regression"
SCORES = ("rmse", "log_likelihood")


def test_it_trains_and_reports(tmp_path):
    rows = [f"{x / 10},{x % 7},{math.sin(x / 10):.4f}" for x in range(100)]
    (tmp_path / "waves.csv").write_text("x,residue,y\n" + "\n".join(rows) + "\n")
    # A trust region on a table of one's own; the default directory is part of what is tested.
    process = start(tmp_path, NAME, "data=waves.csv", "target=y", run_dir=None).succeeded()
    (directory,) = (tmp_path / "runs" / NAME).glob("*_wgf_seed0")
    assert process.out.startswith("waves: 3 splits, 90 rows to train on, 2 features\n")
    lines = re.findall(
        r"^update +(\d+)  rmse (\S+)  rmse \+- \S+  log_likelihood (\S+)  log_likelihood \+- \S+ ",
        process.out,
        re.MULTILINE,
    )
    assert [int(step) for step, *_ in lines] == [10, 20, 25]
    summary = read(directory, "summary.json")
    assert [e["step"] for e in summary["evaluations"]] == [10, 20, 25]
    assert (summary["step"], summary["name"], summary["train_rows"]) == (25, "waves", 90)
    for position, name in enumerate(SCORES, 1):
        score = summary[name]
        assert score == summary["evaluations"][-1][name]
        assert len(score["splits"]) == 3
        assert score["mean"] == pytest.approx(statistics.fmean(score["splits"]))
        error = statistics.stdev(score["splits"]) / math.sqrt(3)
        assert score["standard_error"] == pytest.approx(error)
        assert float(lines[-1][position]) == pytest.approx(score["mean"], rel=1e-2)
        assert values(directory, f"test/{name}") == pytest.approx(
            [e[name]["mean"] for e in summary["evaluations"]]
        )
    ratios = curve(directory, "train/transport_ratio")
    assert [step for step, _ in ratios] == [25]  # the last update is logged
    assert all(0.0 < value < 1.0 for _, value in ratios)


# what the settings build


def flow_of(*overrides):
    """The flow that the recipe makes."""
    made = []

    def make(*args, **kwargs):
        made.append(ParticleFlow(*args, **kwargs))
        return made[-1]

    run(NAME, settings_of(NAME, *SMALL[NAME], *overrides), 1, patches={"ParticleFlow": make})
    return made[0]


def test_the_defaults_are_those_of_the_paper():
    settings = settings_of(NAME)
    assert (settings.method, settings.weight) == ("wgf", 0.4)
    assert (settings.splits.num_splits, settings.splits.test_fraction) == (20, 0.1)
    assert (settings.posterior.num_particles, settings.posterior.num_cells) == (20, 50)
    assert settings.training.batch_size == 100


def test_a_method_chooses_the_trust_region():
    assert flow_of("method=svgd").cost is None
    wgf = flow_of("weight=0.3")
    assert type(wgf.cost) is SinkhornCost
    assert wgf.weight == 0.3
    paper = flow_of("cost._target_=torchrl_stein.objectives.WGFPotential")
    assert type(paper.cost) is WGFPotential


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("method=sgld", "method must be 'svgd' or 'wgf', got 'sgld'"),
        ("target=price", "data, of which target names a column; target is price"),
        ("splits.test_fraction=1", "splits.test_fraction must be less than 1, got 1"),
    ],
)
def test_settings_that_are_refused(override, message):
    with pytest.raises(SettingsError, match=message):
        settings_of(NAME, override)


def test_kernel_optimizer_and_prior():
    flow = flow_of("optim.lr=0.01")
    x = torch.tensor([[0.0], [1.0], [3.0]])  # squared distances 1, 4 and 9
    assert flow.kernel.evaluate(x).bandwidth.item() == pytest.approx(4 / math.log(3))
    assert type(flow.optimizer) is torch.optim.RMSprop
    group = flow.optimizer.param_groups[0]
    assert (group["initial_lr"], group["alpha"], group["eps"]) == (0.01, 0.9, 1e-6)
    assert flow.posterior.weight_precision == 1.0
    assert flow_of("posterior.weight_precision=null").posterior.weight_precision is None


def test_the_rate_falls_to_its_last_part():
    rates = []

    def look(loop):
        rates.append(loop.components["optim"].param_groups[0]["lr"])

    overrides = ["training.steps=4", "training.final_lr_fraction=0.1", "optim.lr=0.01"]
    settings = settings_of(NAME, *SMALL[NAME], *overrides)
    run(NAME, settings, 4, updated=look)
    assert rates == pytest.approx([0.01, 0.00775, 0.0055, 0.00325])


def test_scores_that_are_no_numbers():
    recipe, splits = load(NAME), make_splits(diabetes_table(), 2)
    posterior = flow_of("splits.num_splits=2").posterior
    with torch.no_grad():
        posterior.networks.particles.fill_(math.nan)
    with pytest.raises(FloatingPointError, match=r"rmse is \[nan, nan\]"):
        recipe.evaluate(posterior, *splits[2:])


def test_one_split_has_no_standard_error():
    expected = {"mean": 2.0, "standard_error": None, "splits": [2.0]}
    assert load(NAME).summarize(torch.tensor([2.0])) == expected
