"""compose.py: what is summed, what is compared, and what cannot be composed."""

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")

import hydra
from omegaconf import OmegaConf
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.training import (
    Checkpoints,
    OffPolicySettings,
    ReplayState,
    make_configured_task,
)
from torchrl_stein.training.off_policy.replay import make_buffer

RECIPES = Path(__file__).parents[2] / "recipes"
SMALL = ["network.num_cells=[8]", "training.buffer_size=40", "eval.episodes=5"]
SMALL += ["eval.final_episodes=6", "eval.max_steps=4"]


@pytest.fixture
def recipe(evaluate, monkeypatch):
    """The module recipes/compose.py."""
    monkeypatch.delitem(sys.modules, "compose", raising=False)
    yield importlib.import_module("compose")
    sys.modules.pop("compose", None)


def save_run(directory, name, *overrides, **changes):
    """A run of a recipe with the weights it begins with, and 40 transitions."""
    with hydra.initialize_config_dir(str(RECIPES / "conf"), version_base="1.3"):
        cfg = hydra.compose(name, [*SMALL, *overrides])
    config = OmegaConf.to_container(cfg, resolve=True)
    env = make_configured_task(config["env"], 4, seed=0)
    agent = importlib.import_module(name).make_agent(OmegaConf.create(config), env)
    buffer = make_buffer(OffPolicySettings(**config["training"]), None)
    buffer.extend(env.rollout(10, RandomPolicy(env.action_spec)).reshape(-1))
    folder = Path(directory) / "checkpoints"
    others = {"buffer": ReplayState(buffer)}
    Checkpoints(folder, loss=agent.loss, config=config | changes, others=others).save(step=1)
    return agent


def options(*runs, **others):
    defaults = {"compare": [], "updates": 5, "log_interval": 2, "seed": 0, "device": "cpu"}
    return Namespace(runs=list(runs), **{**defaults, "logger": "csv", "run_dir": "both", **others})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_q_function_is_the_sum_of_those_of_the_runs(recipe, evaluate, folder, capsys):
    # Trained on another machine: with a device that this one need not have.
    parts = [
        save_run(part, "soft_q", f"task=multigoal_{part}", device="cuda") for part in ("x", "y")
    ]
    save_run("xy", "ddpg", "task=multigoal_xy", device="cuda")
    recipe.main(options("x", "y", compare=["xy"]))
    assert "sum of 2 Q-functions at 80 states" in capsys.readouterr().out
    agent, config = evaluate.load_agent("both")
    states = TensorDict({"observation": 10 * torch.rand(50, 2) - 5}, [50])
    actions = 2 * torch.rand(50, 2) - 1
    total = sum(part.loss.qvalue(states, actions) for part in parts)
    assert agent.loss.qvalue(states, actions).allclose(total, atol=1e-4)
    assert config["env"]["options"]["action_cost"] == 30.0
    assert list(json.loads(Path("both/comparison.json").read_text())) == [
        "composed",
        "x",
        "y",
        "xy",
    ]
    # The last update is logged too, and was looked at before it was saved.
    rows = Path("both/metrics/scalars/train/loss_actor.csv").read_text().split()
    assert [int(row.split(",")[0]) for row in rows] == [2, 4, 5]
    # A composition interacted with nothing, so it has no states to compose from.
    with pytest.raises(ValueError, match="holds no buffer, only"):
        recipe.main(options("both", run_dir="again"))
    assert not Path("again").exists()


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("soft_q", ["loss.temperature=5"], "every run must have the same loss.temperature, got 10"),
        ("soft_q", ["loss.gamma=0.5"], "the same loss.gamma, got 0.99 and 0.5"),
        ("soft_q", ["training.reward_scale=2"], "the same training.reward_scale, got 0.1 and 2"),
        ("soft_q", ["loss.num_qvalue_nets=2"], "y must be a run of soft Q-learning with one Q-ne"),
        ("ddpg", [], "y must be a run of soft Q-learning with one Q-network"),
    ],
)
def test_runs_that_do_not_fit(recipe, folder, name, overrides, message):
    save_run("x", "soft_q", "task=multigoal_x")
    save_run("y", name, "task=multigoal_y", *overrides)
    with pytest.raises(ValueError, match=message):
        recipe.main(options("x", "y"))
    assert not Path("both").exists()


@pytest.mark.parametrize("env", ["cartpole", {"name": "Swimmer-v5", "options": {}}])
def test_runs_of_other_worlds(recipe, folder, env):
    save_run("x", "soft_q", "task=multigoal_x", env=env)
    with pytest.raises(ValueError, match=r"x must be of the multigoal world, got (cart|Swim)"):
        recipe.main(options("x"))
