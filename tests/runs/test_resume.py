"""A resumed run has the settings of the run it goes on with, changed by the command line."""

import copy
import json
import os

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from torch import nn

from torchrl_stein.runs import checkpoint as files
from torchrl_stein.runs.checkpoint import Checkpoints
from torchrl_stein.runs.command_line import resumed_values
from torchrl_stein.runs.settings import SettingsError

MAY_CHANGE = {
    "threads=2": ("threads", 2),
    "device=cuda:1": ("device", "cuda:1"),
    "logger=none": ("logger", "none"),
    "run_dir=other": ("run_dir", "other"),
    "eval.episodes=7": ("eval", "episodes", 7),
    "eval.episodes=int(9)": ("eval", "episodes", 9),
    "eval.max_steps=33": ("eval", "max_steps", 33),
    "eval.deterministic=true": ("eval", "deterministic", True),
    "++eval.video_steps=0": ("eval", "video_steps", 0),
    "compile.compile=true": ("compile", "compile", True),
    "compile.compile_mode=max-autotune": ("compile", "compile_mode", "max-autotune"),
    "env.num_envs=8": ("env", "num_envs", 8),
    "training.total_frames=500_000": ("training", "total_frames", 500_000),
    "training.batch_size=7": ("training", "batch_size", 7),
    "training.updates_per_step=3": ("training", "updates_per_step", 3),
    "training.eval_interval=7": ("training", "eval_interval", 7),
    "training.log_interval=7": ("training", "log_interval", 7),
    "training.checkpoint_interval=7": ("training", "checkpoint_interval", 7),
}
MAY_NOT = [
    "seed=5",
    "optim.lr_actor=0.1",
    "optim.lr_qvalue=0.1",
    "optim.final_lr_fraction=1.0",
    "optim.target_update_interval=7",
    "loss.gamma=0.5",
    "loss.temperature=3",
    "loss.squash=none",
    "loss.kernel.bandwidth.floor=0.5",
    "training.reward_scale=1",
    "training.buffer_size=300_000",
    "training.warmup_frames=7",
    "network.num_cells=[8]",
    "env.name=multigoal_x",
    "env.options.horizon=9",
    "+env.options.init_sigma=9",
    "exploration.noise=0.5",
    "trust_region.weight=0.4",
    "annealing.updates=5",
    "init_from=elsewhere",
    "~eval.success",
    "~loss.gamma",
]
NO_SETTING = ["task=multigoal", "task=swimmer", "+task=multigoal", "~task"]


@pytest.fixture
def saved(recipe, tmp_path):
    """A checkpoint of a recipe: its path, and its settings."""

    def make(name="soft_q", *overrides, **changes):
        settings = recipe(name).read("seed=3", *overrides)
        config = settings.plain() | changes
        checkpoints = Checkpoints(tmp_path / name / "checkpoints", config)
        return checkpoints.save(100, {"loss": nn.Linear(2, 1)}), settings

    return make


def test_settings_come_from_the_checkpoint(recipe, saved, tmp_path):
    path, before = saved("soft_q", "loss.gamma=0.5", "eval.episodes=11")
    for place in (path, tmp_path / "soft_q"):
        settings = recipe("soft_q").read(f"resume={place}", "run_dir=new")
        assert settings.resume == str(path)
        assert settings.run_dir == "new"
        same = {"resume": None, "run_dir": None}
        assert settings.model_copy(update=same) == before.model_copy(update=same)


def test_a_relative_path_is_stored_absolute(recipe, saved, tmp_path, monkeypatch):
    path, _ = saved()
    monkeypatch.chdir(tmp_path)
    assert recipe("soft_q").read("resume=soft_q").resume == str(path.resolve())
    (tmp_path / "link").symlink_to(tmp_path / "soft_q")
    monkeypatch.chdir(tmp_path / "soft_q")
    assert recipe("soft_q").read("resume=../link").resume == str(path.resolve())


def put(values, names, value):
    *sections, last = names
    for section in sections:
        values = values[section]
    values[last] = value


def test_what_may_change_does(recipe, saved):
    path, before = saved()
    settings = recipe("soft_q").read(f"resume={path}", *MAY_CHANGE)
    plain = before.plain() | {"resume": str(path)}
    for *names, value in MAY_CHANGE.values():
        put(plain, names, value)
    assert settings.plain() == plain


def test_each_change_by_itself(recipe, saved):
    path, before = saved()
    values = before.plain() | {"resume": str(path), "run_dir": None}
    for override, (*names, value) in MAY_CHANGE.items():
        composed = copy.deepcopy(values)
        put(composed, names, value)
        assert resumed_values(recipe("soft_q").Settings, composed, [override]) == composed


@pytest.mark.parametrize("override", MAY_NOT)
def test_what_may_not_is_refused(recipe, saved, override):
    path, before = saved()
    composed = before.plain() | {"resume": str(path)}
    parsed = OverridesParser.create().parse_override(override)
    name = parsed.key_or_group
    if not parsed.is_delete():
        put(composed, name.split("."), parsed.value())
    words = f"resume: (the run has no setting )?{name}.*(cannot become|cannot be given now)"
    with pytest.raises(SettingsError, match=words):
        resumed_values(recipe("soft_q").Settings, composed, [override])


@pytest.mark.parametrize("override", [*NO_SETTING, "optim.lr_actor=0.1", "~eval.success"])
def test_a_group_chooses_settings_that_would_be_ignored(recipe, saved, override):
    path, _ = saved()
    with pytest.raises(SettingsError):
        recipe("soft_q").read(f"resume={path}", override)


def test_what_is_the_same_may_be_said_again(recipe, saved):
    path, _ = saved()
    given = ["seed=3", "optim.lr_actor=3e-3", "loss.gamma=0.99", "network.num_cells=[64,64]"]
    assert recipe("soft_q").read(f"resume={path}", *given).seed == 3


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("eval.success=null", None),
        ("eval.success={entry:min_distance_to_target,below:4.9}", 4.9),
        ("eval.success='min_distance_to_target < 4.9'", 4.9),
        ("eval.success={entry: min_distance_to_target, below: float(3)}", 3.0),
    ],
)
def test_values_are_read_as_hydra_reads_them(recipe, saved, override, value):
    path, _ = saved("soft_q", "task=ant_maze")
    rule = recipe("soft_q").read(f"resume={path}", override).eval.success
    assert (rule and rule.below) == value


def test_wrong_values_are_refused_likewise(recipe, saved):
    path, _ = saved()
    for text in ("1e-3", "'9'", "null"):
        with pytest.raises(SettingsError, match=r"eval.episodes must be an integer"):
            recipe("soft_q").read(f"resume={path}", f"eval.episodes={text}")


def test_rules_of_two_settings_hold_after_the_change(recipe, saved):
    path, _ = saved("soft_q", "training.total_frames=300", "training.warmup_frames=100")
    # 240 is less than the warm-up of the recipe, and not of the run.
    settings = recipe("soft_q").read(f"resume={path}", "training.total_frames=240")
    assert settings.training.total_frames == 240
    with pytest.raises(SettingsError, match="total_frames above warmup_frames"):
        recipe("soft_q").read(f"resume={path}", "training.total_frames=90")


def test_populations_likewise(recipe, saved):
    path, _ = saved("svpg", "base=ppo", "kernel=none")
    settings = recipe("svpg").read(f"resume={path}", "training.iterations=2000", "base=ppo")
    assert (settings.training.iterations, settings.base.name) == (2000, "ppo")
    for override in ("kernel=rbf", "base=a2c", "selection=none", "optim.lr=0.1", "seeds=2"):
        with pytest.raises(SettingsError, match="in the checkpoint, it cannot become"):
            recipe("svpg").read(f"resume={path}", override)


def test_another_recipe_is_refused(recipe, saved):
    path, _ = saved("sac")
    with pytest.raises(SettingsError, match="recipe is sac in the checkpoint, it cannot become so"):
        recipe("soft_q").read(f"resume={path}")


def test_a_config_file_beside_a_run_is_refused(recipe, saved, monkeypatch):
    from tests.runs.conftest import ROOT
    from torchrl_stein.runs.command_line import check_command_line

    path, _ = saved("svpg")
    script = str(ROOT / "recipes" / "svpg.py")
    monkeypatch.setattr("sys.argv", [script, "--config-name", "joint", f"resume={path}"])
    with pytest.raises(SystemExit, match="--config-name cannot be given"):
        check_command_line(script, recipe("svpg").Settings, "")


# runs of strangers


def rewritten(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest["config"])
    del manifest["sha256"]
    manifest["sha256"] = files._digest(files._canonical(manifest))
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (("env", "_target_"), "os.system"),
        (("env", "name"), "strange_module:Env-v0"),
        (("loss", "kernel", "_target_"), "subprocess.run"),
        (("loss", "kernel", "bandwidth"), {"_target_": "torch.load", "f": "x.pt"}),
        (("trust_region", "cost"), {"_target_": "torch.load", "f": "x", "weights_only": False}),
        (("loss", "kernel", "x"), [{"y": {"_target_": "os.system"}}]),
        (("eval",), "x"),
        (("eval", "episodes"), 0),
        (("eval", "episodes"), "9"),
        (("training", "total_frames"), 10**30),
        (("network", "num_cells"), None),
        (("device",), "cuda; rm"),
        (("seed",), -1),
        (("no_such_setting",), 1),
        (("loss", "gamma"), float("nan")),
        (("run_dir",), ""),
    ],
    ids=str,
)
def test_settings_of_a_stranger_pass_the_same_schema(recipe, saved, name, value):
    path, _ = saved()

    def change(config):
        *sections, last = name
        for section in sections:
            config = config[section]
        config[last] = value

    rewritten(path, change)
    for typed in ([], ["eval.episodes=5"])[: 1 + (name == ("eval",))]:
        with pytest.raises(SettingsError, match=f"^resume: {path}: ") as error:
            recipe("soft_q").read(f"resume={path}", *typed)
        assert "\n" not in str(error.value)


def test_nothing_of_a_stranger_is_looked_up(recipe, saved, monkeypatch):
    monkeypatch.setenv("SECRET", "s3cret")
    path, _ = saved()

    def change(config):
        config["run_dir"] = "${oc.env:SECRET}"
        config["init_from"] = "${oc.env:SECRET}"
        config["env"]["options"]["note"] = "${oc.env:SECRET}"

    rewritten(path, change)
    for typed in ([], ["eval.episodes=5"], ["run_dir=x"]):
        plain = recipe("soft_q").read(f"resume={path}", *typed).plain()
        assert plain["init_from"] == "${oc.env:SECRET}"
        assert plain["env"]["options"]["note"] == "${oc.env:SECRET}"
        assert "s3cret" not in json.dumps(plain)
    with pytest.raises(SettingsError) as error:
        recipe("soft_q").read(f"resume={path}", "init_from=x")
    assert "s3cret" not in str(error.value)
    assert os.environ["SECRET"] == "s3cret"


def test_what_the_user_types_is_looked_up(recipe, saved, monkeypatch):
    path, _ = saved()
    monkeypatch.setenv("EPISODES", "5")
    given = "eval.episodes='${oc.decode:${oc.env:EPISODES}}'"
    assert recipe("soft_q").read(f"resume={path}", given).eval.episodes == 5


def test_a_damaged_checkpoint_is_one_line_and_another_is_named(recipe, tmp_path):
    config = recipe("soft_q").read().plain()
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", config)
    older, path = (checkpoints.save(step, {"loss": nn.Linear(2, 1)}) for step in (1, 2))
    content = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(content.replace('"seed": 0', '"seed": 1'))
    line = f"resume: the checkpoint is damaged: {path}/manifest.json: it is not what was written; "
    with pytest.raises(SettingsError) as error:
        recipe("soft_q").read(f"resume={tmp_path / 'run'}")
    assert str(error.value) == f"{line}another checkpoint is {older}"
    assert recipe("soft_q").read(f"resume={older}").resume == str(older)
