"""The sweeps: every parameter is a setting of the recipe, and the search really runs it."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recipes.processes import SMALL

pytest.importorskip("hydra")
pytest.importorskip("optuna")

import optuna
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from tests.recipes.loops import settings_of

ROOT = Path(__file__).parents[1]
COMPLETE = optuna.trial.TrialState.COMPLETE
SWEEPS = {path.stem: path for path in sorted((ROOT / "sweeps").glob("*.yaml"))}
assert SWEEPS, "no sweeps found: did a folder move?"


def composed(recipe, overrides):
    with initialize_config_dir(str(ROOT / "recipes" / "conf"), version_base="1.3"):
        return compose(recipe, overrides)


# Weights & Biases


def values_of(parameter):
    """Values that a parameter of a sweep may take: all, or the ends of its range."""
    if "values" in parameter:
        return parameter["values"]
    assert parameter["distribution"] == "log_uniform_values"
    assert 0 < parameter["min"] < parameter["max"]
    return [parameter["min"], parameter["max"]]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_parameter_is_a_setting(name):
    sweep = yaml.safe_load(SWEEPS[name].read_text())
    values = {key: values_of(parameter) for key, parameter in sweep["parameters"].items()}
    defaults = composed(name, [])
    for end in (0, -1):
        config = composed(name, [f"{key}={these[end]}" for key, these in values.items()])
        for key, these in values.items():
            before = OmegaConf.select(defaults, key)
            if OmegaConf.is_config(before):  # a group of settings, whose file has that name
                assert OmegaConf.select(config, key).name == these[end], key
                continue
            assert {type(value) for value in these} == {type(before)}, key
            assert OmegaConf.select(config, key) == these[end], key


@pytest.mark.parametrize("name", SWEEPS)
def test_the_command_of_a_sweep(name):
    sweep = yaml.safe_load(SWEEPS[name].read_text())
    assert sweep["program"] == f"recipes/{name}.py"
    assert (ROOT / sweep["program"]).exists()
    interpreter, program, *settings, arguments = sweep["command"]
    assert (interpreter, program) == ("${interpreter}", "${program}")
    assert arguments == "${args_no_hyphens}"
    config = composed(name, settings)
    assert config.logger == "wandb"
    assert config.run_dir is None  # agents that start in one second get directories of their own
    assert sweep["metric"]["goal"] == "maximize"


# Optuna


@pytest.fixture
def search(monkeypatch, tmp_path):
    """The script as a module, with a recipe that takes no time."""
    path = ROOT / "sweeps" / "optuna_soft_q.py"
    spec = importlib.util.spec_from_file_location("optuna_soft_q", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "import json, pathlib, sys\n"
        "given = dict(a.split('=') for a in sys.argv[1:])\n"
        "folder = pathlib.Path(given['run_dir']); folder.mkdir(parents=True)\n"
        "(folder / 'given.json').write_text(json.dumps(given))\n"
        "if folder.name in given.get('fails', '').split(','): sys.exit(1)\n"
        "if folder.name in given.get('stops', '').split(','): sys.exit(130)\n"
        "score = -abs(float(given['loss.temperature']) - 10)\n"
        "(folder / 'summary.json').write_text(json.dumps({'score': score, 'other': 1.0}))\n"
    )
    monkeypatch.setattr(module, "RECIPE", recipe)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return module


def test_trials_are_runs_of_the_recipe(search, tmp_path):
    study = search.search("a", 3, "score", ["shared=1"], tmp_path)
    assert len(study.trials) == 3
    for trial in study.trials:
        folder = tmp_path / "a" / f"trial_{trial.number:04}"
        given = json.loads((folder / "given.json").read_text())
        assert given.pop("shared") == "1"
        assert Path(given.pop("run_dir")) == folder
        assert given == {name: str(value) for name, value in trial.params.items()}
        assert trial.value == -abs(trial.params["loss.temperature"] - 10)
        assert trial.user_attrs["summary"] == {"score": trial.value, "other": 1.0}
    assert study.best_value == max(trial.value for trial in study.trials)


def test_a_study_goes_on(search, tmp_path):
    assert len(search.search("a", 2, "score", [], tmp_path).trials) == 2
    assert len(search.search("a", 5, "score", [], tmp_path).trials) == 5
    assert len(search.search("a", 5, "score", [], tmp_path).trials) == 5
    assert len(search.search("b", 1, "score", [], tmp_path).trials) == 1
    assert len(list((tmp_path / "a").glob("trial_*"))) == 5


def test_a_failed_run_does_not_count(search, tmp_path):
    study = search.search("a", 2, "score", ["fails=trial_0000"], tmp_path)
    states = [trial.state.name for trial in study.trials]
    assert states == ["FAIL", "COMPLETE", "COMPLETE"]


def test_a_search_of_failures_ends(search, tmp_path):
    everything = ",".join(f"trial_{i:04}" for i in range(100))
    study = search.search("a", 2, "score", [f"fails={everything}"], tmp_path)
    assert [trial.state.name for trial in study.trials] == ["FAIL"] * 4


def test_ctrl_c_in_a_run_ends_the_search(search, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        search.search("a", 3, "score", ["stops=trial_0001"], tmp_path)
    assert len(search.search("a", 3, "score", [], tmp_path).get_trials(states=[COMPLETE])) == 3


def test_what_is_suggested_are_settings(search):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(5):
        overrides = [f"{name}={value}" for name, value in search.suggest(study.ask()).items()]
        settings_of("soft_q", *overrides)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_script_with_the_real_recipe(tmp_path):
    script = ROOT / "sweeps" / "optuna_soft_q.py"
    small = [setting for setting in SMALL["soft_q"] if "num_particles" not in setting]
    process = subprocess.run(
        [
            sys.executable,
            script,
            "--trials",
            "1",
            "--metric",
            "return",
            "--folder",
            "x",
            "--",
            *small,
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr
    summary = json.loads((tmp_path / "x" / "soft_q" / "trial_0000" / "summary.json").read_text())
    assert f"Best of 1 trials: return {summary['return']:.4g}" in process.stdout
    assert "python recipes/soft_q.py loss.temperature=" in process.stdout


# A workspace of W&B


@pytest.mark.filterwarnings("ignore:Pydantic V1 style")
def test_the_workspace_has_plots_over_environment_steps():
    pytest.importorskip("wandb_workspaces")
    spec = importlib.util.spec_from_file_location("workspace", ROOT / "sweeps" / "workspace.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.workspace("somebody", "torchrl_stein")
    *plots, media = made.sections
    assert [section.name for section in plots] == list(module.QUESTIONS)
    for section, names in zip(plots, module.QUESTIONS.values(), strict=True):
        assert [(plot.x, plot.y) for plot in section.panels] == [
            ("trainer/step", [name]) for name in names
        ]
    assert media.panels[0].media_keys


LOGGED = re.compile(r"(?:train|eval|test|time)/\w+")


def test_the_workspace_names_what_recipes_log():
    """Names of the page on tracking and of the workspace, in the code that logs them."""
    code = "\n".join(p.read_text() for p in (ROOT / "torchrl_stein").rglob("*.py"))
    for name in LOGGED.findall((ROOT / "sweeps" / "workspace.py").read_text()):
        assert re.search(rf"\b{name.partition('/')[2]}\b", code) or name in {"train/return"}, name
