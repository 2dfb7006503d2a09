"""recipes/compare.py on a run of a recipe, and on directories with defects."""

import importlib.util
import json
import re
import runpy
import shutil
import sys

import pytest

from tests.recipes.loops import settings_of
from tests.recipes.processes import ROOT, Process
from tests.recipes.results import curve, read

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")

pytestmark = pytest.mark.timeout(900)

COMPARE = ROOT / "recipes" / "compare.py"
# Fails at once if anything imports torch.
WITHOUT_TORCH = [
    "-c",
    "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')",
]


@pytest.fixture(scope="module")
def compare():
    """The module; each test then compares in this process."""
    spec = importlib.util.spec_from_file_location("compare", COMPARE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(finished, tmp_path_factory):
    """DDPG, a copy that passes for a better seed, and one that looks interrupted."""
    origin, runs = finished("ddpg").directory, tmp_path_factory.mktemp("trained") / "ddpg"
    config, summary = read(origin, "config.json"), read(origin, "summary.json")
    for seed in (0, 1, 2):
        copy = shutil.copytree(origin, runs / f"seed{seed}")
        (copy / "config.json").write_text(json.dumps(config | {"seed": seed}))
        better = summary | {"return": summary["return"] + seed}
        (copy / "summary.json").write_text(json.dumps(better))
    (runs / "seed2" / "summary.json").unlink()
    (runs / "notes.log").write_text("not a run")
    return runs


def write(directory, score, seed=0, recipe="mine", env="cartpole", **settings):
    """The files of a run that a comparison reads."""
    folder = directory / "metrics" / "scalars" / "eval"
    folder.mkdir(parents=True)
    (folder / "return.csv").write_text(f"100,{score - 1.0}\n")
    config = {"recipe": recipe, "seed": seed, "env": env, **settings}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "summary.json").write_text(json.dumps({"return": score}))


def test_a_comparison_needs_no_torch(tmp_path, trained):
    process = Process(tmp_path, COMPARE, "--help", cold=WITHOUT_TORCH).wait()
    assert process.code == 0, process.err
    assert "--normalize TASK=LOW,HIGH" in process.out
    assert Process(tmp_path, COMPARE, trained, cold=WITHOUT_TORCH).wait().code == 0
    (tmp_path / "needs_it.py").write_text("import torch")
    process = Process(tmp_path, tmp_path / "needs_it.py", cold=WITHOUT_TORCH).wait()
    assert process.code == 1
    assert "torch" in process.err


@pytest.mark.parametrize("text", ["cartpole", "cartpole=1", "cartpole=2,1", "=0,1", "a=x,y"])
def test_bad_ranges_are_refused_at_once(tmp_path, text):
    process = Process(tmp_path, COMPARE, "runs", "--normalize", text).wait()
    assert process.code == 2
    assert f"must be TASK=LOW,HIGH with LOW < HIGH, got '{text}'" in process.err


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the file as a command, in an empty directory but in this process, which has torch."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, arguments)])
        runpy.run_path(str(COMPARE), run_name="__main__")

    return run


def test_runs_of_a_recipe(trained, tmp_path, command, capsys):
    command(*sorted(trained.iterdir()))  # as the shell would give them, the log included
    out = tmp_path / "comparison"
    numbers = json.loads((out / "comparison.json").read_text())
    summaries = [read(trained / f"seed{s}", "summary.json") for s in (0, 1)]
    scores = [summary["return"] for summary in summaries]
    group = numbers["tasks"]["multigoal"]["methods"]["ddpg"]
    assert (group["seeds"], group["scores"], group["steps"]) == ([0, 1], scores, 800)
    assert group["iqm"] == pytest.approx(sum(scores) / 2)
    assert group["interval"] == pytest.approx(sorted(scores))
    assert group["curve"]["steps"] == [480, 640, 800]
    assert numbers["notes"] == [
        f"Left out: {trained / 'seed2'} is unfinished (summary.json is missing)."
    ]
    page = (out / "comparison.md").read_text()
    printed = capsys.readouterr().out
    assert printed.startswith(page[: page.index("\n\n!")])
    assert "Written to comparison: " in printed
    assert re.search(r"^\| 1 \| ddpg \| multigoal \| 2 \| 800 \| ", page, re.MULTILINE)
    for picture in ("learning_curves.png", "scores.png"):
        assert f"({picture})" in page
        assert (out / picture).stat().st_size > 5000


def test_unfinished_runs_count_with_their_last_value(trained, tmp_path, compare, capsys):
    numbers = compare.main([trained], tmp_path, unfinished=True)
    group = numbers["tasks"]["multigoal"]["methods"]["ddpg"]
    assert group["seeds"] == [0, 1, 2]
    assert group["scores"][2] == curve(trained / "seed2", "eval/return")[-1][1]
    assert group["unfinished"] == 1
    assert "| 3 (1 unfinished) |" in capsys.readouterr().out


def test_another_metric(trained, tmp_path, compare):
    numbers = compare.main([trained], tmp_path, metrics=["test/none", "train/loss_value"])
    group = numbers["tasks"]["multigoal"]["methods"]["ddpg"]
    assert group["metrics"] == ["train/loss_value"]
    assert group["scores"][0] == curve(trained / "seed0", "train/loss_value")[-1][1]


def test_groups_of_settings_name_the_methods(tmp_path, compare):
    """What a population is, is chosen by groups: kernel=, base=, selection=, trust_region=."""
    chosen = [
        ("svpg",),
        ("svpg", "selection=none"),
        ("svpg", "selection=none", "kernel=none"),
        ("svpg", "selection=none", "base=ppo"),
        ("trpo",),
    ]
    for number, (recipe, *groups) in enumerate(chosen):
        settings = settings_of(recipe, "env=cartpole", *groups)  # which a run writes down
        write(tmp_path / "runs" / str(number), 1.0, **settings.plain())
    numbers = compare.main([tmp_path / "runs"], tmp_path / "out")
    assert set(numbers["tasks"]["cartpole"]["methods"]) == {
        "svpg base=a2c kernel=RBFKernel",
        "svpg base=a2c kernel=RBFKernel selection=null",
        "svpg base=a2c kernel=IdentityKernel selection=null",
        "svpg base=ppo kernel=RBFKernel selection=null",
        "trpo",
    }


def test_several_tasks(tmp_path, compare, capsys):
    for env, scale in (("cartpole", 1.0), ("Swimmer-v5", 100.0)):
        for seed in range(3):
            write(tmp_path / f"a/{env}{seed}", scale * seed, seed, "a", env)
            write(tmp_path / f"b/{env}{seed}", scale * (seed + 10), seed, "b", env)
    folders = [tmp_path / "a", tmp_path / "b"]
    numbers = compare.main(folders, tmp_path / "out")
    assert "methods" not in numbers["overall"]
    assert numbers["overall"]["improvement"]["b"]["a"]["probability"] == 1.0
    assert "returns of different tasks cannot be averaged" in capsys.readouterr().out
    ranges = [compare.score_range(text) for text in ("cartpole=0,10", "Swimmer-v5=-1e3,0")]
    assert ranges == [("cartpole", (0.0, 10.0)), ("Swimmer-v5", (-1000.0, 0.0))]
    numbers = compare.main(folders, tmp_path / "out", normalize=ranges)
    # 0, 0.1, 0.2 and 1, 1.1, 1.2: one of six is cut off at either end.
    assert numbers["overall"]["methods"]["a"]["iqm"] == pytest.approx(0.6)
    with pytest.raises(ValueError, match=r"normalize must name the tasks \['Swimmer-v5', 'cart"):
        compare.main(folders, tmp_path / "out", normalize=ranges[:1])


def test_defects_end_with_one_line(tmp_path, compare, command):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as end:  # with a text: printed to stderr, and exit status 1
        command("empty")
    assert end.value.code == "compare.py: empty holds no run: config.json is missing"
    write(tmp_path / "a", 1.0)
    write(tmp_path / "b", 2.0)
    with pytest.raises(ValueError, match=r"a and .*b are both seed 0 of mine, with the same"):
        compare.main([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"no finished run to compare\nLeft out: .*a is unfin"):
        compare.main([tmp_path / "a"], tmp_path / "out")
    shutil.rmtree(tmp_path / "a" / "metrics")
    with pytest.raises(ValueError, match=r"Left out: .*a logged no value yet"):
        compare.main([tmp_path / "a"], tmp_path / "out", unfinished=True)
    assert not (tmp_path / "out").exists()


def test_the_same_command_gives_the_same_numbers(tmp_path, compare):
    for seed in range(9):
        write(tmp_path / f"runs/{seed}", seed**1.7, seed)
    first, again = (compare.main([tmp_path / "runs"], tmp_path / name) for name in ("a", "b"))
    assert first == again
    pages = [(tmp_path / name / "comparison.md").read_text() for name in ("a", "b")]
    assert pages[0] == pages[1]
