"""From run directories to groups: what is read, what tells methods apart, what is refused."""

import json
from pathlib import Path

import pytest

from torchrl_stein.comparison import RunScores
from torchrl_stein.comparison.groups import differing_evaluations, differing_settings, group_runs
from torchrl_stein.comparison.runs import find_runs, read_run

CONFIG = {
    "recipe": "ddpg",
    "seed": 1,
    "device": "cpu",
    "threads": 1,
    "logger": "csv",
    "resume": None,
    "run_dir": "somewhere",
    "env": {"name": "multigoal", "num_envs": 4, "options": {"horizon": 30}},
    "network": {"num_cells": [16, 16]},
    "training": {"total_frames": 100, "log_interval": 5, "eval_interval": 10},
    "loss": {"kernel": {"_target_": "torchrl_stein.kernels.RBFKernel"}},
}


def write(directory, curve=(), summary=None, metric="eval/return", **changes):
    """The files of a run that are read."""
    path = Path(directory, "metrics", "scalars", f"{metric}.csv")
    path.parent.mkdir(parents=True)
    if curve:
        path.write_text("".join(f"{step},{value}\n" for step, value in curve))
    contents = {"config.json": CONFIG | changes, "summary.json": summary}
    for name, content in contents.items():
        if content is not None:
            Path(directory, name).write_text(json.dumps(content))
    return Path(directory)


def make(recipe="ddpg", seed=0, env="multigoal", options=None, **settings):
    names = {name.replace("__", "."): value for name, value in settings.items()}
    directory = Path(f"{recipe}-{env}-{seed}-{sorted(settings.values(), key=str)}")
    return RunScores(
        directory,
        recipe,
        env,
        options or {},
        names,
        seed,
        metric="eval/return",
        score=0.0,
        curve={},
        steps=None,
        finished=True,
    )


def names(groups):
    return {task: list(methods) for task, methods in groups.items()}


def test_a_finished_run(tmp_path):
    run = read_run(write(tmp_path / "a", [(10, -3.0), (20, -2.5)], {"return": -2.0, "length": 9.0}))
    assert (run.recipe, run.env, run.seed, run.options) == ("ddpg", "multigoal", 1, {"horizon": 30})
    assert (run.metric, run.score, run.finished) == ("eval/return", -2.0, True)
    assert run.curve == {10: -3.0, 20: -2.5}
    assert run.settings == {
        "env.num_envs": 4,
        "network.num_cells": [16, 16],
        "training.total_frames": 100,
        "loss.kernel._target_": "torchrl_stein.kernels.RBFKernel",
    }


def test_steps_are_those_of_training_not_of_the_last_evaluation(tmp_path):
    directory = write(tmp_path / "a", [(10, -3.0)], {"return": 0.0})
    assert read_run(directory).steps == 10
    (directory / "metrics/scalars/train").mkdir()
    (directory / "metrics/scalars/train/loss.csv").write_text("5,0.1\n15,0.2\n")
    assert read_run(directory).steps == 15
    assert read_run(write(tmp_path / "b", summary={"return": 0.0})).steps is None


def test_a_population(tmp_path):
    directory = write(
        tmp_path / "a",
        [(500, 1.0), (1000, 2.0)],
        {"max": 9.0, "mean": 4.0, "particle_0": 4.0},
        metric="test/return_mean",
        env="cartpole",
        env_options={"pole_length": 1.5},
    )
    run = read_run(directory)
    assert (run.metric, run.score, run.env) == ("test/return_mean", 4.0, "cartpole")
    assert run.options == {"pole_length": 1.5}
    assert read_run(directory, ["test/return_max"]).score == 9.0


def test_the_first_metric_that_the_run_has(tmp_path):
    directory = write(tmp_path / "a", [(10, 5.0)], {"return": 7.0}, metric="train/return")
    assert read_run(directory, ["test/none", "train/return"]).metric == "train/return"
    # Not the evaluation's, which has the same last name.
    assert read_run(directory, ["train/return"]).score == 5.0
    assert (read_run(directory).score, read_run(directory).curve) == (7.0, {})


def test_an_unfinished_run(tmp_path):
    run = read_run(write(tmp_path / "a", [(10, -3.0), (20, -2.5)]))
    assert (run.score, run.finished) == (-2.5, False)
    assert read_run(write(tmp_path / "b")) is None


def test_a_resumed_run_has_the_curve_of_the_first_part(tmp_path):
    first = write(tmp_path / "a", [(10, 1.0), (20, 2.0), (35, 99.0)])
    checkpoint = first / "checkpoints" / "checkpoint-20"
    second = write(tmp_path / "b", [(30, 3.0), (40, 4.0)], resume=str(checkpoint))
    third = write(tmp_path / "c", [(50, 5.0)], resume=str(second))
    assert read_run(second).curve == {10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0}
    assert read_run(third).curve == {10: 1.0, 20: 2.0, 30: 3.0, 40: 4.0, 50: 5.0}
    alone = write(tmp_path / "d", [(30, 3.0)], resume="/nowhere/checkpoints/checkpoint-20")
    assert read_run(alone).curve == {30: 3.0}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x holds no run: config\.json is missing"):
        read_run(tmp_path / "x")
    without = {name: value for name, value in CONFIG.items() if name != "env"}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text(json.dumps(without))
    with pytest.raises(ValueError, match=r"config\.json of .*a has no env"):
        read_run(tmp_path / "a")
    other = write(tmp_path / "b", [(1, 0.0)], {"max": 0.0}, metric="train/loss")
    message = r"b has no eval/return and no test/return_mean, but train/loss$"
    with pytest.raises(ValueError, match=message):
        read_run(other)
    with pytest.raises(ValueError, match="but no metric at all"):
        read_run(write(tmp_path / "c", summary={}))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"eval/return of .*a must be finite, got nan"):
        read_run(write(tmp_path / "a", [(1, 2.0)], {"return": float("nan")}))
    with pytest.raises(ValueError, match=r"eval/return of .*b must be finite, got inf"):
        read_run(write(tmp_path / "b", [(1, float("inf"))], {"return": 1.0}))
    broken = write(tmp_path / "c", [(1, 2.0)])
    (broken / "metrics/scalars/eval/return.csv").write_text("1,2.0\n2,")
    with pytest.raises(ValueError, match=r"return\.csv must have lines 'step,value', got '2,'"):
        read_run(broken)
    (broken / "summary.json").write_text('{"return":')
    with pytest.raises(ValueError, match=r"c/summary\.json is no JSON"):
        read_run(broken)


def test_runs_and_folders_of_runs_are_found_once(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / "runs" / name)
    (tmp_path / "runs" / "a.log").write_text("")
    (tmp_path / "runs" / "empty").mkdir()
    runs = tmp_path / "runs"
    assert find_runs([runs]) == [runs / "a", runs / "b"]
    assert find_runs([runs / "b", runs / "a.log", str(runs)]) == [runs / "b", runs / "a"]
    with pytest.raises(FileNotFoundError, match=r"empty holds no run: config\.json is missing"):
        find_runs([runs / "empty"])


def test_seeds_make_a_group():
    groups = group_runs([make("ddpg", 0), make("sac", 0), make("ddpg", 1)])
    assert names(groups) == {"multigoal": ["ddpg", "sac"]}
    assert [run.seed for run in groups["multigoal"]["ddpg"]] == [0, 1]


def test_settings_and_budget_tell_methods_apart():
    runs = [
        make("soft_q", seed, training__total_frames=frames, loss__weight=weight)
        for frames in (100, 200)
        for weight in (0.0, 0.4)
        for seed in (0, 1)
    ]
    expected = [f"soft_q total_frames={f} weight={w}" for f in (100, 200) for w in (0, 0.4)]
    assert names(group_runs(runs)) == {"multigoal": expected}


def test_recipes_may_differ_in_any_setting():
    runs = [make("ddpg", optim__lr=0.1, noise=0.3), make("sac", optim__lr=0.2, alpha=1.0)]
    assert names(group_runs(runs)) == {"multigoal": ["ddpg", "sac"]}
    assert differing_settings(group_runs(runs)) == {"ddpg": {}, "sac": {}}


def test_evaluations_that_differ():
    runs = [
        make("ddpg", eval__max_steps=20, eval__episodes=5, eval__sampled=True, optim__lr=0.2),
        make("sac", eval__max_steps=1000, eval__episodes=5.0, optim__lr=0.1),
        make("svpg"),
    ]
    # A setting that one of them does not know is none they differ in.
    assert differing_evaluations(runs) == {"eval.max_steps": ["20", "1000"]}
    assert names(group_runs(runs)) == {"multigoal": ["ddpg", "sac", "svpg"]}
    # Two protocols of one recipe are no seeds of each other.
    again = make("ddpg", 1, eval__max_steps=30, eval__episodes=5, eval__sampled=True, optim__lr=0.2)
    assert names(group_runs([runs[0], again])) == {
        "multigoal": ["ddpg max_steps=20", "ddpg max_steps=30"]
    }


def test_tasks_may_have_settings_of_their_own():
    runs = [
        make("ddpg", seed, env, network__cells=cells)
        for env, cells in (("multigoal", 64), ("Swimmer-v5", 128))
        for seed in (0, 1)
    ]
    assert names(group_runs(runs)) == {"multigoal": ["ddpg"], "Swimmer-v5": ["ddpg"]}
    # With a variant on one task, the method has its setting in its name on both.
    groups = group_runs([*runs, make("ddpg", 0, "multigoal", network__cells=128)])
    assert names(groups) == {
        "multigoal": ["ddpg cells=64", "ddpg cells=128"],
        "Swimmer-v5": ["ddpg cells=128"],
    }


def test_options_make_tasks():
    runs = [make(env="cartpole", options={"length": x, "mass": 1.0}) for x in (0.5, 1.5)]
    assert names(group_runs([*runs, make(env="cartpole")])) == {
        "cartpole length=0.5 mass=1": ["ddpg"],
        "cartpole length=1.5 mass=1": ["ddpg"],
        "cartpole": ["ddpg"],
    }


def test_names_are_short_but_distinct():
    kernel = "torchrl_stein.kernels."
    target = "loss.kernel._target_"
    runs = [
        make(**{"a.weight": 1, "b.weight": 2, target: f"{kernel}RBFKernel"}),
        make(**{"a.weight": 2, "b.weight": 1, target: f"{kernel}RBFKernel"}),
        make(**{"a.weight": 2, "b.weight": 2, target: f"{kernel}IMQKernel"}),
        make(**{"a.weight": 2, "b.weight": 1, target: "mine.IMQKernel"}),
        make(**{"a.weight": 1, "b.weight": 1, target: f"{kernel}RBFKernel"}),
    ]
    assert names(group_runs(runs))["multigoal"] == [
        "ddpg a.weight=1 b.weight=2 kernel=RBFKernel",
        "ddpg a.weight=2 b.weight=1 kernel=RBFKernel",
        "ddpg a.weight=2 b.weight=2 kernel=IMQKernel",
        "ddpg a.weight=2 b.weight=1 kernel=mine.IMQKernel",
        "ddpg a.weight=1 b.weight=1 kernel=RBFKernel",
    ]


def test_settings_that_move_together_are_named_once_and_listed_all():
    runs = [make(mode=m, lr=lr, temperature=t) for m, lr, t in (("a", 0.1, 1.0), ("b", 0.2, None))]
    groups = group_runs(runs)
    assert names(groups) == {"multigoal": ["ddpg mode=a", "ddpg mode=b"]}
    assert differing_settings(groups) == {
        "ddpg mode=a": {"mode": "a", "lr": "0.1", "temperature": "1"},
        "ddpg mode=b": {"mode": "b", "lr": "0.2", "temperature": "null"},
    }


def test_equal_numbers_and_absent_settings():
    same = [make(seed=seed, weight=weight) for seed, weight in enumerate((1, 1.0))]
    assert names(group_runs(same)) == {"multigoal": ["ddpg"]}
    truth = [make(weight=weight) for weight in (1, True)]
    assert names(group_runs(truth)) == {"multigoal": ["ddpg weight=1", "ddpg weight=true"]}
    older = [make(), make(weight=0.0), make(weight=None)]
    assert names(group_runs(older)) == {"multigoal": ["ddpg", "ddpg weight=0", "ddpg weight=null"]}


def test_a_seed_twice_is_refused():
    message = r"ddpg-multigoal-3-\[1\] and ddpg-multigoal-3-\[1\] are both seed 3 of ddpg"
    with pytest.raises(ValueError, match=message):
        group_runs([make(seed=3, a=1), make(seed=3, a=1)])
