"""The robot benchmark: what it starts, and its page and pictures; its runs take hours."""

import json

import numpy as np
import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")

from benchmarks.experiments import robots, robots_report
from benchmarks.experiments.robots import SUITES, Job
from benchmarks.experiments.robots_figures import ways_of
from benchmarks.recipes import run_all, run_recipe, settings_of

ALL = [(suite, method) for suite, methods in SUITES.items() for method in methods]


def test_settings_are_settings_of_the_recipe(tmp_path):
    for suite, method in ALL:
        recipe, _, steps = SUITES[suite][method]
        if recipe == "compose":
            continue
        settings = settings_of(recipe, *robots.arguments_of(Job(suite, method, 3), tmp_path))
        assert settings.seed == 3
        assert settings.training.total_frames == steps
        assert (settings.init_from is not None) == (method in robots.ORIGIN)
        if settings.init_from:  # a run of the same networks and the same seed
            origin = Job("pretrain", robots.ORIGIN[method], 3)
            assert settings.init_from == str(robots.directory_of(origin, tmp_path))
            assert SUITES["pretrain"][origin.method].recipe == recipe
            before = settings_of(recipe, *robots.arguments_of(origin, tmp_path))
            assert settings.network == before.network


def test_the_composition_joins_the_parts(tmp_path):
    words = robots.arguments_of(Job("composition", "composed", 1), tmp_path)
    x, y, xy = (str(tmp_path / "robots_parts" / f"{name}-seed1") for name in ("x", "y", "xy"))
    settings = settings_of("compose", *words)
    assert (settings.runs, settings.compare, settings.seed) == ([x, y], [xy], 1)


def test_every_run_has_a_directory_of_its_own(tmp_path):
    jobs = [Job(*names, seed) for names in ALL for seed in (0, 1)]
    assert len({robots.directory_of(job, tmp_path) for job in jobs}) == len(jobs)


def swimmer(method, seed, furthest, last):
    curve = {"return": [[100, 1.0], [200, 2.0 + seed]], "x_position_min": [[100, -1.0], [200, 0.0]]}
    curve["x_position_max"] = [[100, 1.0], [200, furthest]]
    curve["max_forward_distance_max"] = [[100, furthest], [200, 1.0]]
    final = {"return": last, "max_forward_distance_max": 1.5}
    facts = {"suite": "finish_line", "method": method, "seed": seed, "minutes": 2.0}
    return {**facts, "final": final, "curves": curve}


RUNS = [
    swimmer("soft_q", 0, furthest=3.5, last=10.0),
    swimmer("soft_q", 1, furthest=2.9, last=14.0),
    swimmer("ddpg", 0, furthest=1.0, last=4.0),
]


def test_the_page_counts_who_came_beyond_the_line_at_any_time():
    lines = robots_report.page(RUNS, "What was found.").splitlines()
    # 10 and 14 have the deviation sqrt(8), bests 2 and 3 sqrt(0.5), 3.5 and 2.9 sqrt(0.18).
    row = "| soft_q | 30,000 | 2 | 12.0 ± 2.8 | 2.5 ± 0.7 | 2.0 ± 0.0 | 1 of 2 | 3.20 ± 0.42 |"
    assert row in lines
    # The end counts too: 1.5 there, 1.0 on the way.
    assert "| ddpg | 30,000 | 1 | 4.0 | 2.0 | 2.0 | 0 of 1 | 1.50 |" in lines
    assert "What was found." in lines
    assert "## Hopper-v5" not in lines


def test_the_composition_table():
    def composed(seed, value):
        policies = {
            name: {"return": value, "success": 1.0} for name in ("composed", "x", "y", "xy")
        }
        for metrics in policies.values():
            metrics |= {"goals_reached": 4.0, "entropy": 0.5}
        return {"suite": "composition", "method": "composed", "seed": seed, "policies": policies}

    table = robots_report.composition_table([composed(0, -1.0), composed(1, -3.0)])
    assert "| learnt from the sum | 2 | -2.000 ± 1.414 | 1.000 ± 0.000 |" in table


def test_the_pictures(tmp_path):
    methods = robots_report.grouped(RUNS, "finish_line")
    robots_report.draw_finish_line(tmp_path / "line.png", methods, 3.0)
    robots_report.draw_returns(tmp_path / "returns.png", methods, "Returns")
    line = [[0.0, 0.0], [1.0, 2.0]]
    ways = {Job("pretrain", name, 0): [np.array(line)] for name in ("alpha_1", "ddpg")}
    robots_report.draw_traces(tmp_path / "traces.png", ways)
    names = ("line", "returns", "traces")
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in names)


def test_what_the_recipe_writes_is_read(robot_run, tmp_path):
    run = robots_report.read(Job("finish_line", "soft_q", 0), robot_run)
    assert [step for step, _ in run["curves"]["return"]] == [28, 48]
    assert set(run["curves"]) == set(robots_report.CURVES)
    assert run["minutes"] > 0
    assert "| soft_q | 30,000 | 1 | " in robots_report.page([run])
    methods = {"soft_q": [run]}
    robots_report.draw_finish_line(tmp_path / "line.png", methods, 3.0)
    ways = ways_of(robot_run, episodes=3)
    assert [way.shape for way in ways] == [(7, 2)] * 3


# processes


def test_a_finished_run_is_kept(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "summary.json").write_text("{}")
    run_recipe("no_such_recipe", [], run)  # is not started
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_unfinished_run_is_made_again_and_its_words_are_kept(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "left_over").write_text("")
    run_recipe("compare", ["--help"], run)
    assert not run.exists()
    assert "usage: compare.py" in (tmp_path / "run.log").read_text()


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match=r"(?s)soft_q.py ended with 1, .*run\.log:.*no setting"):
        run_recipe("soft_q", ["no.such=1"], tmp_path / "run")


def test_all_jobs_are_worked_on(capsys):
    worked = []
    done = list(run_all([1, 2, 3], worked.append, str, workers=2))
    assert sorted(worked) == sorted(done) == [1, 2, 3]
    assert capsys.readouterr().out.splitlines()[-1].startswith("3/3 ")
    with pytest.raises(json.JSONDecodeError):  # of a job: not swallowed
        list(run_all(["x"], json.loads, str, workers=1))
