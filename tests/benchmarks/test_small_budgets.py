"""Methods at small budgets: their settings, and what is read of their runs."""

import json

import pytest

pytest.importorskip("hydra")

from benchmarks.experiments import small_budgets, small_budgets_times
from benchmarks.recipes import settings_of


@pytest.mark.parametrize("task", small_budgets.TASKS)
def test_settings_are_settings_of_the_recipe(task):
    seeds = 3 if task in small_budgets.THREE_SEEDS else 5
    frames = 300_000 if task == "walker2d_300k" else 100_000
    for method, (recipe, overrides) in small_budgets.methods_of(task).items():
        settings = settings_of(recipe, *overrides)
        if method == "trpo":
            policies, training = settings.population, settings.training
            assert policies.num_particles == seeds
            each = policies.envs_per_particle * training.steps
            assert (each * training.iterations, each * training.eval_interval) == (frames, 5000)
            continue
        if task in small_budgets.ROBOTS:
            assert settings.training.total_frames == settings.training.buffer_size == frames
        assert settings.seeds == (1 if method == "crossq" else seeds)
        assert settings.num_updates == settings.training.total_frames - 5000, method
        assert (settings.network.num_cells, settings.training.batch_size) == ([128, 128], 128)


def test_a_score_is_the_mean_of_the_last_three_evaluations():
    curve = {0: {5000: 9.0, 10_000: 1.0, 15_000: 2.0, 20_000: 6.0, 25_000: 50.0}, 1: {5000: 4.0}}
    assert small_budgets.scores_at(curve, 20_000) == {0: 3.0}  # the other has not come so far
    assert small_budgets.scores_at(curve, 5000) == {0: 9.0, 1: 4.0}


def test_a_cell():
    assert small_budgets.cell([]) == "-"
    assert small_budgets.cell([0.5]) == "0.50; n = 1"
    text = small_budgets.cell([100.0, 200.0, 300.0])
    assert text.startswith("200 ± 100; 200 [100, 300]")
    assert text.endswith("n = 3")


def test_a_report_pairs_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(small_budgets, "RUNS", tmp_path)
    monkeypatch.setattr(small_budgets, "RESULTS", tmp_path)
    monkeypatch.setattr(small_budgets, "draw", lambda *arguments: None)
    returns = {"sac": {0: 10.0, 1: 20.0, 2: 30.0}, "svgd": {2: 31.0, 0: 14.0}}
    for method, seeds in returns.items():
        folder = tmp_path / "ant" / method
        for seed, value in seeds.items():
            file = folder / f"seed{seed}" / "metrics" / "scalars" / "eval" / "return.csv"
            file.parent.mkdir(parents=True)
            file.write_text(f"25000,{value}\n")
        (folder / "provenance.json").write_text(json.dumps({"git": {"commit": "abcdef0123"}}))
    small_budgets.report()
    text = (tmp_path / "small_budgets.md").read_text()
    assert "| svgd - sac | 2.50 ± 2.12; 2.50 [1.00, 4.00]; n = 2 |" in text


def test_a_report_keeps_what_came_further_on_another_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(small_budgets, "RUNS", tmp_path)
    monkeypatch.setattr(small_budgets, "RESULTS", tmp_path)
    monkeypatch.setattr(small_budgets, "draw", lambda *arguments: None)
    folder = tmp_path / "ant" / "sac"
    file = folder / "seed0" / "metrics" / "scalars" / "eval" / "return.csv"
    file.parent.mkdir(parents=True)
    for commit, rows in (("aaaaaaa", "5000,1\n10000,2\n"), ("bbbbbbb", "5000,3\n")):
        (folder / "provenance.json").write_text(json.dumps({"git": {"commit": commit}}))
        file.write_text(rows)
        small_budgets.report()
        first = small_budgets.committed()["ant"]["sac"]
        assert first == (["aaaaaaa"], {"return": {0: {5000: 1.0, 10_000: 2.0}}})
    file.write_text("5000,3\n10000,4\n15000,5\n")  # of the second, which went on
    small_budgets.report()
    assert small_budgets.committed()["ant"]["sac"].commits == ["bbbbbbb"]


def test_a_run_that_went_on_continues_its_curve(tmp_path, monkeypatch):
    monkeypatch.setattr(small_budgets, "RUNS", tmp_path)
    for name, rows in (("sac", "5000,1.0\n10000,2.0\n"), ("sac.1", "10000,3.0\n15000,4.0\n")):
        folder = tmp_path / "hopper" / name
        file = folder / "seed7" / "metrics" / "scalars" / "eval" / "return.csv"
        file.parent.mkdir(parents=True)
        file.write_text(rows)
        (folder / "provenance.json").write_text(json.dumps({"git": {"commit": "abcdef0123"}}))
    found = small_budgets.curves("hopper", "sac")
    assert found == {"return": {7: {5000: 1.0, 10_000: 3.0, 15_000: 4.0}}}
    assert [path.name for path in small_budgets.folders("hopper", "sac")] == ["sac", "sac.1"]
    assert small_budgets.commits_of(tmp_path / "hopper" / "sac") == ["abcdef0"]


def test_the_policies_of_a_population_are_seeds(tmp_path, monkeypatch):
    monkeypatch.setattr(small_budgets, "RUNS", tmp_path)
    folder = tmp_path / "hopper" / "trpo" / "metrics" / "scalars" / "test"
    folder.mkdir(parents=True)
    for number in (0, 1):  # steps of both
        (folder / f"return_particle_{number}.csv").write_text(f"10000,{number}.5\n")
    found = small_budgets.curves("hopper", "trpo")
    assert found == {"return": {0: {5000: 0.5}, 1: {5000: 1.5}}}


def test_it_begins_or_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(small_budgets, "RUNS", tmp_path)
    started = []
    monkeypatch.setattr(small_budgets, "start_recipe", lambda *given: started.append(given))
    small_budgets.run("hopper/sac")
    (tmp_path / "hopper" / "sac" / "checkpoints" / "checkpoint-1-5").mkdir(parents=True)
    small_budgets.run("hopper/sac")
    assert started[0][2] == tmp_path / "hopper" / "sac"
    goes_on = [f"resume={started[0][2]}", "compile.compile=true"]
    assert started[1][1:] == (goes_on, tmp_path / "hopper" / "sac.1")
    (tmp_path / "hopper" / "sac" / "summary.json").touch()
    small_budgets.run("hopper/sac")
    assert len(started) == 2


def test_seeds_that_came_later_are_a_process_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(small_budgets, "RUNS", tmp_path)
    (tmp_path / "ant" / "sac").mkdir(parents=True)
    (tmp_path / "ant" / "sac" / "summary.json").touch()
    started = []
    monkeypatch.setattr(small_budgets, "start_recipe", lambda *given: started.append(given))
    small_budgets.run("ant/sac")
    ((recipe, settings, directory),) = started
    assert (recipe, settings[-2:]) == ("sac", ["seed=3", "seeds=2"])
    assert directory == tmp_path / "ant" / "sac" / "later"
    for seed, folder in ((0, directory.parent), (3, directory)):
        file = folder / f"seed{seed}" / "metrics" / "scalars" / "eval" / "return.csv"
        file.parent.mkdir(parents=True)
        file.write_text(f"5000,{seed}\n")
    assert small_budgets.curves("ant", "sac") == {"return": {0: {5000: 0.0}, 3: {5000: 3.0}}}


def test_seeds_that_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(small_budgets, "RUNS", tmp_path)
    started = []
    monkeypatch.setattr(small_budgets, "start_recipe", lambda *given: started.append(given))
    ended, broken = tmp_path / "walker2d/crossq/seed0", tmp_path / "walker2d/crossq/seed1"
    ended.mkdir(parents=True)
    (ended / "summary.json").touch()
    (broken / "checkpoints" / "checkpoint-1-5").mkdir(parents=True)
    small_budgets.run("walker2d/crossq")
    (recipe, resumed, second), (_, fresh, third) = started
    assert (recipe, second) == ("sac", tmp_path / "walker2d/crossq.1/seed1")
    assert resumed == [f"resume={broken}", "compile.compile=true"]
    assert (third, fresh[-1]) == (tmp_path / "walker2d/crossq/seed2", "seed=2")


@pytest.mark.parametrize("name", ["hopper/sac", "hopper/crossq", "ant/dp_wgf_v", "maze_hard/svgd"])
def test_the_part_of_a_run_that_is_timed(name):
    recipe, short, long, seeds, parts = small_budgets_times.plan(name)
    task, method = name.split("/")
    whole = settings_of(recipe, *small_budgets.methods_of(task)[method].settings)
    first, second = (settings_of(recipe, *settings) for settings in (short, long))
    assert second.num_updates - first.num_updates == 1000
    assert parts == whole.num_updates / 1000
    assert seeds == whole.seeds
    # One evaluation more, and as many episodes of it for each update as the whole run has.
    assert (
        first.training.total_frames < first.training.eval_interval == second.training.total_frames
    )
    rate = whole.eval.episodes / whole.training.eval_interval
    assert second.eval.episodes == pytest.approx(1000 * rate)


def test_trpo_is_timed_by_iterations():
    recipe, short, long, seeds, parts = small_budgets_times.plan("hopper/trpo")
    first, second = (settings_of(recipe, *settings).training for settings in (short, long))
    assert (first.iterations, second.iterations, first.eval_interval) == (5, 10, 5)
    assert (seeds, parts) == (5, 20)
