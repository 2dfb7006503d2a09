"""From run directories to JSON, page and figures of the SVPG experiments."""

import json
import math

import numpy as np
import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")

from benchmarks.experiments import svpg_report as report
from benchmarks.experiments import svpg_robustness, svpg_runs
from benchmarks.experiments import svpg_statistics as stats
from benchmarks.recipes import settings_of

FRAMES = 16 * 10 * 5  # n * E * steps


def scalar(folder, name, steps, values):
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(steps, values, strict=True)
    (folder / f"{name}.csv").write_text("".join(f"{s},{v}\n" for s, v in rows))


def settings(mode, seed, **changes):
    """What recipes/svpg.py writes of its settings; ``interaction`` is of birth and death."""
    interaction = changes.pop("interaction", "svpg")
    rbf = {"_target_": "torchrl_stein.kernels.RBFKernel"}
    names = {"drift": "DriftControl", "radial": "RadialControl"}
    kernel, word = rbf, interaction if mode == "birth_death" else mode
    if word in ("independent", "joint"):
        kernel = {"_target_": "torchrl_stein.kernels.IdentityKernel"}
    elif word not in ("svpg", "ip_wgf"):
        kernel = {"_target_": f"torchrl_stein.kernels.{names.get(word, word)}", "kernel": rbf}
    sizes = (1, 160) if mode == "joint" else (16, 10)
    config = {
        "recipe": "svpg",
        "seed": seed,
        "env": "cartpole_swingup",
        "env_options": {},
        "base": {"name": "reinforce", "num_epochs": 1, "num_minibatches": 1, "clip_epsilon": None},
        "kernel": kernel,
        "selection": {"interval": 5} if mode == "birth_death" else None,
        "trust_region": {"weight": 0.4} if mode == "ip_wgf" else None,
        "population": {
            "num_particles": sizes[0],
            "envs_per_particle": sizes[1],
            "num_cells": [8, 8],
        },
        "loss": {"temperature": 10.0, "final_temperature": None},
        "training": {"iterations": 20, "steps": 5, "log_interval": 1, "eval_interval": 10},
        "optim": {"lr": 0.005},
        "eval": {"episodes": 10, "max_steps": 5},
    }
    if "base" in changes:
        config["base"] |= {"name": changes.pop("base")}
    for name, value in changes.items():
        *section, key = name.split("__")
        (config[section[0]] if section else config)[key] = value
    return config


def make_run(root, suite, mode, seed, final, *, iterations=20, checkpoint=False, **changes):
    """A directory as recipes/svpg.py leaves it; test returns rise to the final ones."""
    tags = "-".join(str(v) for v in changes.values())
    run = root / f"svpg_{suite}" / f"{mode}-{tags}-seed{seed}"
    scalars = run / "metrics" / "scalars"
    best, mean, top = max(final), np.mean(final), np.mean(sorted(final)[-4:])
    steps = [FRAMES * (i + 1) for i in range(iterations)]
    ramp = np.linspace(0.05, 1, iterations)
    for name, level in (("max", best), ("mean", mean), ("top4", top)):
        scalar(scalars / "train", f"return_{name}", steps, ramp * level)
        scalar(scalars / "test", f"return_{name}", steps[9:20:10], [level / 2, level])
    scalar(scalars / "train", "particle_distance", steps, ramp * 2.0)
    scalar(scalars / "time", "updates_per_s", steps, [0.5] * iterations)
    (run / "config.json").write_text(json.dumps(settings(mode, seed, **changes)))
    particles = {f"particle_{i}": value for i, value in enumerate(final)}
    (run / "summary.json").write_text(json.dumps({"max": best, "mean": mean, **particles}))
    if checkpoint:
        (run / "checkpoints/checkpoint-1").mkdir(parents=True)
        (run / "checkpoints/checkpoint-1/actor.pt").touch()
    return run


def make_report(tmp_path, *arguments):
    given = ["--runs", tmp_path / "runs", "--results", tmp_path, "--docs", tmp_path, *arguments]
    report.main([str(value) for value in given])
    return json.loads((tmp_path / "svpg.json").read_text()), (tmp_path / "svpg.md").read_text()


def tables(page):
    found = [part.splitlines() for part in page.split("\n\n") if part.startswith("|")]
    return [[[c.strip() for c in row.strip("|").split("|")] for row in t] for t in found]


@pytest.fixture
def controls(tmp_path):
    runs = tmp_path / "runs"
    for seed, (one, other) in enumerate([(10.0, 4.0), (12.0, 5.0), (17.0, 9.0)]):
        make_run(runs, "controls", "svpg", seed, [one, 1.0, 0.0, 3.0])
        make_run(runs, "controls", "independent", seed, [0.0, other, 0.0, 0.0])
    return tmp_path


def test_settings_of_a_suite_are_those_of_its_modes():
    """What the recipe is told is what the page reads out of the run's settings."""
    for suite, members in svpg_runs.suites().items():
        names = {svpg_runs.name_of(overrides, seed=0) for overrides in members}
        assert len(names) == len(members), suite  # a directory each
        different = {(o["mode"], o.get("interaction")): o for o in members}
        for overrides in different.values():
            first, *others = svpg_runs.arguments_of(overrides, seed=3)
            config, words = "svpg", [first, *others]
            if first.startswith("--config-name="):
                config, words = first.removeprefix("--config-name="), others
            written = settings_of("svpg", *words, config=config).plain()
            read = stats.flatten(stats.described(written))
            assert written["seed"] == 3
            assert read["birth_death.interaction" if "interaction" in overrides else "mode"] == (
                overrides.get("interaction", overrides["mode"])
            )
            for name in ("env", "base", "training.iterations", "loss.temperature", "optim.lr"):
                assert read[name] == overrides.get(name, read[name])
            assert read["population.num_particles"] == 16
            assert read["population.envs_per_particle"] == 10


def test_what_the_recipe_writes_is_read(population_run):
    run = stats.read_run(population_run)
    assert (run["suite"], run["name"], run["seed"]) == ("controls", "drift-seed3", 3)
    assert run["settings"]["mode"] == "birth_death"
    assert run["settings"]["birth_death.interaction"] == "drift"
    assert run["test"]["iteration"] == [3, 6]
    assert set(run["train"]["iteration"]) <= {1, 2, 3, 4, 5, 6}
    assert all(len(run[part][name]) > 0 for part in ("train", "test") for name in ("max", "mean"))
    assert len(run["final"]) == 4
    assert run["minutes"] > 0
    assert run["distance"] > 0


def test_what_a_population_is_worth_elsewhere(population_run, monkeypatch):
    monkeypatch.setattr(svpg_robustness, "EPISODES", 2)
    row = svpg_robustness.evaluate(population_run)
    assert row.keys() == svpg_robustness.WORLDS.keys()
    assert all(values["best"] >= values["picked"] for values in row.values())
    name = svpg_robustness.name_of(population_run)
    assert name == "reinforce birth_death drift"
    assert f"| {name} | 1 | " in svpg_robustness.page({name: [row]})


def test_a_run_in_numbers(tmp_path):
    make_run(tmp_path, "table", "svpg", 3, [1.0, 40.0, 2.0, 3.0])
    run = stats.read_run(next(tmp_path.glob("svpg_table/*")))
    assert (run["suite"], run["seed"], run["final"]) == ("table", 3, [40.0, 3.0, 2.0, 1.0])
    curves = {"max": [20.0, 40.0], "mean": [5.75, 11.5], "top4": [5.75, 11.5]}
    assert run["test"] == {"iteration": [10, 20], **curves}
    assert run["train"]["iteration"] == list(range(1, 21))
    assert run["minutes"] == pytest.approx(20 / 0.5 / 60, rel=1e-4)
    assert run["distance"] == 2.0
    assert run["settings"]["loss.temperature"] == 10.0
    assert run["settings"]["loss.final_temperature"] == "null"
    assert not {"seed", "run_dir", "recipe", "training.log_interval"} & {*run["settings"]}


def test_long_curves_become_means_of_neighbours(tmp_path):
    run = make_run(tmp_path, "table", "svpg", 0, [0.0] * 4, iterations=1000)
    values = np.random.default_rng(0).normal(size=1000)
    scalar(run / "metrics/scalars/train", "return_max", FRAMES * np.arange(1, 1001), values)
    train = stats.read_run(run)["train"]
    assert train["iteration"] == list(range(10, 1001, 10))
    assert train["max"] == pytest.approx(values.reshape(100, 10).mean(1).tolist(), rel=1e-4)


def test_only_finished_runs_count_and_json_outlives_directories(controls):
    unfinished = make_run(controls / "runs", "controls", "drift", 0, [1.0] * 4)
    (unfinished / "summary.json").unlink()
    first, page = make_report(controls)
    assert len(first["runs"]) == 6
    assert "drift" not in page
    (controls / "runs").rename(controls / "gone")
    assert make_report(controls) == (first, page)
    make_run(controls / "runs", "controls", "svpg", 0, [99.0, 0.0, 0.0, 0.0])
    make_run(controls / "runs", "controls", "svpg", 7, [1.0] * 4)
    merged, _ = make_report(controls)
    best = {r["seed"]: r["final"][0] for r in merged["runs"] if r["settings"]["mode"] == "svpg"}
    assert best == {0: 99.0, 1: 12.0, 2: 17.0, 7: 1.0}


def test_without_any_run_the_command_says_where_it_looked(tmp_path):
    with pytest.raises(SystemExit, match=r"no finished run at .*runs"):
        make_report(tmp_path)


def test_iterations_to_95_percent_by_hand():
    def reach(values):
        return stats.reach({"iteration": [20, 40, 60, 80], "max": values})

    assert reach([0.0, 94.9, 95.1, 100.0]) == 60
    assert reach([-1000.0, -200.0, -145.0, -100.0]) == 60  # -145 = -100 - 5 % of 900
    assert reach([-1000.0, -200.0, -146.0, -100.0]) == 80
    assert reach([7.0, 1.0, 2.0, 3.0]) == 20
    assert reach([0.0, 96.0, 10.0, 100.0]) == 40


def test_intervals_and_paired_differences_by_hand(controls):
    content, page = make_report(controls)
    independent, svpg = sorted(stats.group(content["runs"]), key=lambda g: g.settings["mode"])
    # Differences 6, 7, 8: mean 7, standard deviation 1, t = 4.3027.
    found = stats.paired_difference(svpg, independent, "best")
    assert found == pytest.approx((7.0, 4.3027 / math.sqrt(3), 3), rel=1e-4)
    assert stats.paired_difference(independent, svpg, "mean").mean == pytest.approx(-2.75)
    del svpg.runs[2]
    assert stats.paired_difference(svpg, independent, "best")[::2] == (6.5, 2)
    overview, differences = tables(page)
    top4 = mean = "4.2 [2.0, 6.5]"
    assert overview[2] == ["svpg", "3", "13.0 [4.0, 22.0]", top4, mean, "20 ± 0", "2 ± 0", "1 ± 0"]
    # Bold: -7 +- 2.5 is below zero.
    assert differences[2][:4] == ["independent", "svpg", "3", "**-7.0 [-9.5, -4.5]**"]


def test_a_single_seed_has_no_interval_and_incomplete_suites_say_so(tmp_path):
    runs = tmp_path / "runs"
    make_run(runs, "table", "svpg", 0, [100.0, 1.0, 2.0, 3.0])
    make_run(runs, "table", "svpg", 1, [120.0, 1.0, 2.0, 3.0])
    make_run(runs, "table", "joint", 1, [50.0])
    _, page = make_report(tmp_path)
    assert "nan" not in page
    assert "fewer than 2 seeds for joint (1)" in page
    assert "2 of 12 settings" in page
    paper, overview = tables(page)
    assert paper[0] == ["task", "", "joint", "independent", "svpg"]
    assert paper[2][1:] == ["here", "50.0 (20), 1 seed", "no run", "110.0 ± 14.1 (20 ± 0), 2 seeds"]
    assert paper[3][1:] == ["paper", "232.96 (253)", "391.46 (594)", "426.69 (238)"]
    assert overview[-1][:5] == ["joint", "1", "50.0", "50.0", "50.0"]
    assert "--seeds 0 1" in page


def test_suites_of_any_name_and_mode_compare_with_references(tmp_path):
    runs = tmp_path / "runs"
    for seed in range(2):
        make_run(runs, "sparse", "brandnew", seed, [9.0 + seed, 0.0, 0.0, 0.0])
        make_run(runs, "sparse", "drift", seed, [5.0, 0.0, 0.0, 0.0])
        make_run(runs, "sparse", "radial", seed + 5, [5.0, 0.0, 0.0, 0.0])
        make_run(runs, "controls", "independent", seed, [2.0, 0.0, 0.0, 0.0])
        make_run(runs, "table", "independent", seed, [3.0] * 4, training__iterations=1000)
    _, page = make_report(tmp_path)
    assert "## Suite sparse" in page
    rows = [row for table in tables(page) for row in table if row[0] == "brandnew"]
    assert rows[0][:2] == ["brandnew", "2"]
    # No seed in common with radial; independent stands in another suite of the same task.
    assert {row[1] for row in rows[1:]} == {"drift", "independent (controls)"}
    assert {row[3].strip("*").split()[0] for row in rows[1:]} == {"4.5", "7.5"}
    assert sum(row[0] == "drift" and row[1] == "brandnew" for t in tables(page) for row in t) == 0


def test_settings_that_vary_become_columns(tmp_path):
    runs = tmp_path / "runs"
    for value in (100.0, 0.1, 10.0):
        make_run(runs, "temperature", "svpg", 0, [1.0] * 4, loss__temperature=value)
    make_run(runs, "temperature", "svpg", 0, [1.0] * 4, loss__final_temperature=1.0)
    make_run(runs, "sparse", "svpg", 0, [1.0] * 4, env_options={"sparse": True})
    make_run(runs, "sparse", "svpg", 0, [1.0] * 4)
    _, page = make_report(tmp_path)
    temperature, sparse = tables(page)
    assert temperature[0][:3] == ["mode", "temperature", "final_temperature"]
    cells = [" ".join(row[1:3]) for row in temperature[2:]]
    assert cells == ["0.1 null", "10 1", "10 null", "100 null"]
    assert {row[1] for row in sparse[2:]} == {"{}", '{"sparse": true}'}


def test_a_setting_that_older_runs_lack_does_not_split_seeds(tmp_path):
    run = make_run(tmp_path / "runs", "easy", "svpg", 0, [1.0] * 4)
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"eval": {"episodes": 10}}))
    make_run(tmp_path / "runs", "easy", "svpg", 1, [3.0] * 4)
    content, _ = make_report(tmp_path)
    (group,) = stats.group(content["runs"])
    assert sorted(group.runs) == [0, 1]


def test_every_table_is_rectangular_and_findings_come_first(controls):
    make_run(controls / "runs", "table", "svpg", 0, [1.0] * 4)
    make_run(controls / "runs", "table", "svpg", 0, [1.0] * 4, base="a2c")
    (controls / "svpg_findings.md").write_text("What we saw: *nothing*.\n\nMore.\n")
    _, page = make_report(controls)
    assert page.startswith(
        "# Stein variational policy gradient\n\nWhat we saw: *nothing*.\n\nMore."
    )
    assert all(len({len(row) for row in table}) == 1 for table in tables(page))


def test_figures_follow_the_data(controls, capsys):
    image = pytest.importorskip("matplotlib.image")
    runs = controls / "runs"
    for value in (1.0, 10.0):
        make_run(runs, "temperature", "svpg", 0, [1.0] * 4, loss__temperature=value)
    make_run(runs, "table", "svpg", 0, [1.0, 2.0, 3.0, 4.0])
    make_run(runs, "table", "joint", 0, [7.0])
    _, page = make_report(controls, "--figures")
    names = ["svpg_learning_curves.png", "svpg_sorted_returns.png", "svpg_temperature.png"]
    before = [image.imread(controls / name) for name in names]
    assert all(picture[..., :3].std() > 0.05 for picture in before)
    assert all(name in page for name in names)
    assert "svpg_states.png" not in page
    assert "no figure of states" in capsys.readouterr().out
    make_run(runs, "table", "svpg", 0, [1.0, 2.0, 3.0, -40.0])
    make_run(runs, "temperature", "svpg", 0, [2.0] * 4, loss__temperature=1.0)
    make_report(controls, "--figures")
    for name, old in zip(names, before, strict=True):
        new = image.imread(controls / name)
        assert new.shape != old.shape or (new != old).any(), name


def test_shorter_runs_are_compared_at_their_last_iteration(tmp_path):
    """The test curves of make_run hold half the final return at iteration 10, all of it at 20."""
    longer = {"training__iterations": 40}
    for seed in (0, 1, 2):
        for mode, level in (("independent", 1.0), ("joint", 5.0)):
            make_run(tmp_path, "table", mode, seed, [level + seed] * 4, **longer)
        final = [3.0 + 2 * seed] * 4
        make_run(tmp_path, "table_birth_death", "birth_death", seed, final, training__iterations=10)
    content = stats.gather(tmp_path, tmp_path / "svpg.json")
    text = report.page(content)
    assert "at iteration 10, minus those of the longer runs of suite table" in text
    rows = [
        line for line in text.splitlines() if line.startswith("| REINFORCE Cartpole Swing Up |")
    ]
    difference = next(row for row in rows if "| independent | 3 |" in row)
    # (3 + 2 s) / 2 - (1 + s) / 2 = 1 + s / 2: mean 1.5, and t = 4.303 at 2 degrees of freedom
    half = 4.303 * 0.5 / math.sqrt(3)
    assert f"**1.5 [{1.5 - half:.1f}, {1.5 + half:.1f}]**" in difference
