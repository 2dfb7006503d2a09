"""The page of the UCI regression benchmark; the benchmark itself takes hours."""

import itertools

import pytest

pytest.importorskip("hydra")

from benchmarks.experiments import uci_regression as uci


def folder(path, rows):
    path.mkdir(parents=True)
    (path / "data.txt").write_text("1 2\n" * rows)
    (path / "index_features.txt").write_text("0\n")
    (path / "index_target.txt").write_text("1\n")


def finished(rmse, log_likelihood, splits=3):
    """What run() returns, with numbers whose differences are exact."""
    scores = {
        "rmse": [rmse + 0.25 * (i - 1) for i in range(splits)],
        "log_likelihood": [log_likelihood] * splits,
    }
    return {
        "overrides": [],
        "date": "2025-01-01",
        "ms_per_step": 10.0,
        "splits": splits,
        "scores": scores,
    }


def test_the_plan(tmp_path):
    folder(tmp_path / "small", 5000)
    folder(tmp_path / "large", 5001)
    (tmp_path / "notes").mkdir()
    jobs = {
        job.key: job for job in uci.plan(tmp_path, ["svgd", "wgf_paper_sum"], ["short", "long"])
    }
    both = itertools.product(("small", "large"), ("svgd", "wgf_paper_sum"), ("short", "long"))
    assert set(jobs) == {"/".join(names) for names in both}
    assert next(iter(jobs)) == "small/wgf_paper_sum/long"  # the longest
    assert jobs["large/svgd/short"].overrides == [
        "method=svgd",
        "training.steps=2000",
        "splits.num_splits=5",
        "training.eval_interval=1000",
    ]
    assert "splits.num_splits=20" in jobs["small/svgd/short"].overrides
    assert "weight=8.0" in jobs["small/wgf_paper_sum/long"].overrides
    assert "training.final_lr_fraction=0.01" in jobs["small/wgf_paper_sum/long"].overrides
    with pytest.raises(SystemExit, match=r"must hold folders with a data.txt, got .*notes"):
        uci.plan(tmp_path / "notes", ["svgd"], ["short"])


def test_a_run_in_numbers(tmp_path):
    path = tmp_path / "table"
    folder(path, 1)
    (path / "data.txt").write_text("".join(f"{i} {2 * i % 7}\n" for i in range(20)))
    few = [
        "training.steps=4",
        "training.batch_size=9",
        "training.eval_interval=2",
        "splits.num_splits=2",
    ]
    small = [*uci.METHODS["wgf_paper"], *few, "posterior.num_cells=3", "posterior.num_particles=2"]
    found = uci.run(uci.Job(path, "wgf_paper", "short", small, 1.0))
    assert (found["train_rows"], found["features"], found["splits"]) == (18, 1, 2)
    assert [step for step, *_ in found["curve"]] == [2, 4]
    assert all(len(values) == 2 for values in found["scores"].values())
    assert found["ms_per_step"] > 0
    assert "| table | 2 |" in uci.page({"table/wgf_paper/short": found}, "COMMAND")


def test_numbers_are_shown_with_their_error():
    # Standard deviation 0.2, hence an error of 0.1 for four values; two digits of it.
    assert uci.spread([0.8, 1.2, 0.8, 1.2]) == "1.00 ± 0.12"
    assert uci.spread([100.0, 140.0]) == "120 ± 20"
    assert uci.spread([0.5]) == "0.5"
    assert uci.spread([2.0, 2.0]) == "2.000 ± 0.000"


def test_the_page():
    runs = {
        f"{run}/{budget}": finished(*scores)
        for budget in ("short", "long")
        for run, scores in {
            "yacht/svgd": (1.0, -1.5),
            "yacht/wgf": (0.5, -1.0),
            "other/wgf": (7.0, -3.0),
        }.items()
    }
    text = uci.page(runs, "COMMAND")
    assert "$ COMMAND" in text
    lines = text.splitlines()
    (header,) = {line for line in lines if line.startswith("|  | splits |")}
    assert header.endswith("| SVGD, short | WGF, short | SVGD, long | WGF, long |")
    ours = "1.00 ± 0.14 | 0.50 ± 0.14"  # 0.25 / sqrt(3)
    assert f"| Yacht | 3 | .86 ± .05 | .56 ± .16 | {ours} | {ours} |" in lines
    assert "| other | 3 |  |  |  | 7.00 ± 0.14 |  | 7.00 ± 0.14 |" in lines
    values = "-1.500 ± 0.000 | -1.000 ± 0.000"
    assert f"| Yacht | 3 | -1.23 ± .04 | -.99 ± .15 | {values} | {values} |" in lines
    change = "-0.500 ± 0.000 | -0.500 ± 0.000 | 0.500 ± 0.000 | 0.500 ± 0.000"
    assert f"| Yacht | {change} |" in lines


def test_a_page_without_svgd_has_no_differences():
    assert "trust region" not in uci.page({"yacht/wgf/long": finished(0.5, -1.0)}, "COMMAND")
