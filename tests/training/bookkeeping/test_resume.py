"""A resumed run has the settings of the run it goes on with, changed by the command line."""

import pytest
from torch import nn

from torchrl_stein.training import Checkpoints, resumed_config

omegaconf = pytest.importorskip("omegaconf")

SAVED = {
    "recipe": "soft_q",
    "seed": 3,
    "resume": None,
    "run_dir": "a",
    "loss": {"gamma": 0.9, "k": 2},
}


@pytest.fixture
def checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", loss=nn.Linear(2, 1), config=SAVED, others={})
    return str(checkpoints.save(step=1))


def composed(**values):
    defaults = {"recipe": "soft_q", "seed": 0, "resume": None, "run_dir": "b"}
    return omegaconf.OmegaConf.create({**defaults, "loss": {"gamma": 0.5, "k": 1}, **values})


def test_settings_come_from_the_checkpoint(checkpoint, capsys):
    cfg = resumed_config(composed(resume=checkpoint), [f"resume={checkpoint}"])
    assert cfg.loss == {"gamma": 0.9, "k": 2}
    assert cfg.seed == 3
    assert (cfg.resume, cfg.run_dir) == (checkpoint, "b")
    assert f"Resuming {checkpoint} with its settings; writing to b" in capsys.readouterr().out


def test_the_command_line_wins(checkpoint):
    given = ["seed=7", "loss.gamma=1e-3", "run_dir=b"]
    cfg = resumed_config(composed(resume=checkpoint, seed=7), given)
    assert cfg.seed == 7
    assert cfg.loss == {"gamma": 1e-3, "k": 2}


def test_what_the_run_has_no_setting_for_cannot_be_given(checkpoint):
    """A group chooses settings, which those of the checkpoint would silently replace."""
    with pytest.raises(ValueError, match="resume: the run has no setting task, it cannot be given"):
        resumed_config(composed(resume=checkpoint), ["task=swimmer", "seed=7"])


def test_another_recipe_stays_visible(checkpoint):
    assert resumed_config(composed(resume=checkpoint, recipe="ddpg"), []).recipe == "ddpg"


def test_nothing_to_resume():
    cfg = composed()
    assert resumed_config(cfg, ["seed=7"]) is cfg
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        resumed_config(composed(resume="nowhere"), [])
