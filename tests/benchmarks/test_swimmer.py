"""The page and the picture of the Swimmer benchmark; the benchmark itself takes hours."""

import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")

from benchmarks.experiments import swimmer
from benchmarks.recipes import settings_of


def finished(method, seed, steps, last):
    """A run that gains one per evaluation until ``last``, its return at the end."""
    points = range(3500, steps + 1, 2500)  # a warm-up of 1000
    curve = [[step, last - (steps - step) / 2500] for step in points]
    return {
        "method": method,
        "seed": seed,
        "steps": steps,
        "return": last,
        "curve": curve,
        "ms_per_update": 20.0,
    }


RUNS = [
    finished("soft Q-learning", 0, 30_000, 40.0),
    finished("soft Q-learning", 1, 30_000, 44.0),
    finished("DP-WGF, weight 5", 0, 10_000, 30.0),
]


def test_the_page_compares_at_the_last_evaluation_of_the_shortest():
    lines = swimmer.page(RUNS).splitlines()
    assert "| method | steps | seeds | at the end | at step 8,500 | best | ms per update |" in lines
    # 1500 steps before the end is the last evaluation; 40 and 44 have the deviation sqrt(8).
    expected = "| soft Q-learning | 30,000 | 2 | 42.0 ± 2.8 | 33.4 ± 2.8 | 41.4 ± 2.8 | 20 ± 0 |"
    assert expected in lines
    assert "| DP-WGF, weight 5 | 10,000 | 1 | 30.0 | 29.4 | 29.4 | 20 |" in lines


def test_every_method_has_a_run_of_its_own(tmp_path):
    jobs = [swimmer.Job(method, seed, 100) for method in swimmer.RECIPES for seed in (0, 1)]
    assert len({job.directory(tmp_path) for job in jobs}) == len(jobs) == 20


def test_what_the_recipe_writes_is_read(robot_run, monkeypatch):
    monkeypatch.setattr(swimmer.Job, "directory", lambda job, out: robot_run)
    run = swimmer.read(swimmer.Job("DP-WGF", 0, 48), robot_run.parent)
    assert [step for step, _ in run["curve"]] == [28, 48]
    assert run["ms_per_update"] > 0
    assert "| DP-WGF | 48 | 1 | " in swimmer.page([run])


def test_methods_are_settings_of_the_recipes():
    for recipe, overrides in swimmer.RECIPES.values():
        assert settings_of(recipe, "task=swimmer", *overrides).env.name == "Swimmer-v5"


def test_the_picture(tmp_path):
    swimmer.draw(RUNS, tmp_path / "swimmer.png")
    assert (tmp_path / "swimmer.png").stat().st_size > 10_000
