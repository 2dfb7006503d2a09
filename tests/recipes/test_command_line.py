"""--help and its kin: quick, for they import no torch, and worth reading."""

import ast
import subprocess
import sys

import pytest

from tests.recipes.processes import ROOT

pytest.importorskip("hydra")

HYDRA_RECIPES = [p for p in (ROOT / "recipes").glob("*.py") if "@hydra.main" in p.read_text()]
HYDRA_RECIPES = {path.stem: path for path in sorted(HYDRA_RECIPES)}
# What a recipe does before its other imports, in a process where importing torch fails.
ASK = """
import sys
sys.modules["torch"] = None
sys.path.insert(0, {folder!r})
from command_line import answer_help
answer_help({description!r}, {name!r})
print("goes on with", sys.argv[1:])
"""
# The same with the whole recipe.
RUN = """
import runpy, sys
sys.modules["torch"] = None
sys.argv = sys.argv[1:]
sys.path.insert(0, {folder!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def ask(folder, name, *arguments):
    """The answer of a recipe to a command line, as a finished process."""
    description = ast.get_docstring(ast.parse(HYDRA_RECIPES[name].read_text()))
    values = {"folder": str(ROOT / "recipes"), "name": name, "description": description}
    command = [sys.executable, "-c", ASK.format(**values), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("name", HYDRA_RECIPES)
def test_help_says_what_a_recipe_does_and_what_can_be_set(tmp_path, name):
    answer = ask(tmp_path, name, "--help", "seed=7")
    assert answer.returncode == 0, answer.stderr
    first = ast.get_docstring(ast.parse(HYDRA_RECIPES[name].read_text())).splitlines()[0]
    assert answer.stdout.startswith(first)
    assert f"python recipes/{name}.py" in answer.stdout
    assert "\nseed: 7\n" in answer.stdout
    assert f"explained in conf/{name}.yaml" in answer.stdout
    assert "130 interrupted" in answer.stdout
    assert "Hydra (https" not in answer.stdout
    assert list(tmp_path.iterdir()) == []  # no run, no output directory


def test_groups_are_listed_and_chosen(tmp_path):
    answer = ask(tmp_path, "soft_q", "-h", "task=swimmer")
    assert "task: " in answer.stdout
    assert "multigoal" in answer.stdout
    assert "name: Swimmer-v5" in answer.stdout


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--cfg", "job", "loss.temperature=3"], "temperature: 3\n"),
        (["--cfg=job", "-p", "loss"], "# @package loss"),
        (["--config-name", "ip_wgf", "--cfg", "job"], "mode: ip_wgf\n"),
        (["--info", "defaults"], "Defaults List"),
        (["--hydra-help"], "Hydra"),
    ],
)
def test_other_questions(tmp_path, arguments, answer):
    process = ask(tmp_path, "svpg", *arguments)
    assert process.returncode == 0, process.stderr
    assert answer in process.stdout
    assert "goes on" not in process.stdout
    assert not process.stdout.startswith("Stein variational")


def test_tasks_are_offered_where_there_are_any(tmp_path):
    assert "task: ant, ant_hallway" in ask(tmp_path, "ddpg", "--help").stdout
    for name in ("svpg", "bnn_regression"):
        assert "Groups of settings" not in ask(tmp_path, name, "--help").stdout


@pytest.mark.parametrize("question", ["--help", "--cfg=job"])
def test_a_setting_that_does_not_exist(tmp_path, question):
    process = ask(tmp_path, "svpg", question, "no_such=1")
    assert process.returncode == 1
    assert "no_such" in process.stderr
    assert "Traceback" not in process.stderr


def test_everything_else_goes_on(tmp_path):
    arguments = ["seed=1", "--multirun", "run_dir=--help_me"]
    process = ask(tmp_path, "svpg", *arguments)
    assert process.stdout == f"goes on with {arguments}\n"


WIRED = [name for name, path in HYDRA_RECIPES.items() if "answer_help" in path.read_text()]


@pytest.mark.parametrize("name", WIRED)
def test_the_recipe_itself_answers(tmp_path, name):
    code = RUN.format(folder=str(ROOT / "recipes"))
    command = [sys.executable, "-c", code, str(HYDRA_RECIPES[name])]
    process = subprocess.run(
        [*command, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == ask(tmp_path, name, "--help").stdout
    # The check itself: anything else does import torch.
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert process.returncode == 1
    assert "torch" in process.stderr
