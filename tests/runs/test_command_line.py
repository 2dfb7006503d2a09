"""What a recipe does with its command line before it imports torch."""

import ast
import json

import pytest

from tests.runs.conftest import ROOT
from torchrl_stein.runs import targets
from torchrl_stein.runs.command_line import check_command_line


@pytest.fixture
def check(monkeypatch, tmp_path, recipe, capsys):
    """The check of a recipe, in a folder of its own: its exit code or line, and what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, name="soft_q"):
        script = ROOT / "recipes" / f"{name}.py"
        monkeypatch.setattr("sys.argv", [str(script), *arguments])
        code = None
        try:
            check_command_line(str(script), recipe(name).Settings, "What it does.\n\n$x {y}")
        except SystemExit as end:
            code = end.code
        assert [path for path in tmp_path.iterdir() if path.name == "runs"] == []
        return code, capsys.readouterr().out

    return run


def test_a_right_command_line_passes(check):
    assert check("seed=3", "run_dir=new/deep") == (None, "")
    assert check("--multirun", "seed=1,2", "loss.gamma=0.5") == (None, "")
    assert check("--config-name", "joint", name="svpg") == (None, "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_what_can_be_set(check, option):
    code, out = check(option, "seed=7")
    assert code == 0
    assert out.startswith("What it does.\n\n$x {y}")
    assert "  task: ant, ant_hallway" in out
    assert "\nseed: 7\n" in out
    assert "num_value_samples: 16" in out
    code, out = check(option, "runs=[a]", name="compose")
    assert (code, "runs:\n- a" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["seed=-1"], "soft_q.py: seed must be greater than or equal to 0, got -1"),
        (["--multirun", "seed=1,2", "loss.gamma=2"], "soft_q.py: loss.gamma must be less"),
        (["--sed=3"], "soft_q.py: there is no option --sed; settings are NAME=VALUE, see --help"),
        (["--seed", "3"], "soft_q.py: there is no option --seed; settings are NAME=VALUE"),
        (["-x"], "soft_q.py: there is no option -x;"),
        (["--config-name"], "soft_q.py: argument -cn/--config-name: expected one argument"),
        (["--config-name", "nix"], "soft_q.py: Cannot find primary config 'nix'"),
        (["--config-name", "svpg"], "soft_q.py: recipe must be 'soft_q', got 'svpg'"),
        (["--help", "task=nix"], "soft_q.py: task must be one of ant,"),
        (["run_dir=file/below"], "soft_q.py: run_dir must be a directory, but "),
        (["run_dir=file"], "soft_q.py: run_dir must be a directory, but "),
        ([f"run_dir={'x' * 300}"], "soft_q.py: run_dir must be a directory: File name too long"),
        (["run_dir=old"], "soft_q.py: run_dir must be a new directory, "),
    ],
)
def test_a_wrong_one_is_one_line(check, tmp_path, arguments, line):
    (tmp_path / "file").write_text("")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text("{}")
    code, out = check(*arguments)
    assert isinstance(code, str)
    assert code.startswith(line)
    assert "\n" not in code
    assert out == ""


def test_a_place_that_cannot_be_written(check, tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    assert "run_dir must be a place that can be written" in check("run_dir=new")[0]
    assert "run_dir must be a place that can be written" in check()[0]


@pytest.mark.parametrize("option", ["--cfg", "--hydra-help", "--info"])
def test_hydra_answers_its_own_questions(check, option):
    assert check(option, "job") == (None, "")


def test_the_user_may_trust(check):
    given = "loss.kernel._target_=my_package.Kernel"
    assert "--trust builds whatever" in check(given)[0]
    assert not targets._trusted
    assert check(given, "--trust") == (None, "")
    import sys

    assert "--trust" not in sys.argv  # Hydra does not know it
    assert targets._trusted


def test_nothing_that_answers_help_imports_torch():
    """Its import takes seconds. The package itself is lazy elsewhere."""
    heavy = {"torch", "tensordict", "torchrl", "numpy", "gymnasium", "hydra", "omegaconf"}
    allowed = {"checkpoint", "command_line", "settings", "targets"}
    for name in allowed:
        tree = ast.parse((ROOT / "torchrl_stein" / "runs" / f"{name}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & heavy, name
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert node.module.split(".")[0] not in heavy | {"torchrl_stein"}, name
            elif isinstance(node, ast.ImportFrom):
                assert node.module in allowed, (name, node.module)


def test_a_directory_of_the_same_settings_without_a_checkpoint_will_do(check, recipe, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    plain = recipe("soft_q").read("run_dir=killed").plain() | {"run_dir": str(folder)}
    (folder / "config.json").write_text(json.dumps(plain))
    assert check("run_dir=killed") == (None, "")
    assert "already holds a run" in check("run_dir=killed", "seed=1")[0]
