"""compose.py: what is summed, what is compared, and what cannot be composed."""

from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs.utils import RandomPolicy

from tests.recipes.loops import load, settings_of
from tests.recipes.processes import start
from tests.recipes.results import curve, forge, read
from torchrl_stein.runs import load_loss, make_configured_task
from torchrl_stein.runs.checkpoint import Checkpoints
from torchrl_stein.runs.collect import ReplayState

pytestmark = pytest.mark.timeout(900)

SMALL = ["env.num_envs=4", "network.num_cells=[8]", "training.buffer_size=40", "eval.episodes=5"]
SMALL += ["eval.final_episodes=6", "eval.max_steps=4"]


def save_run(directory, name, *overrides, **changes):
    """A run of a recipe with the weights it begins with, and 40 transitions."""
    settings = settings_of(name, *SMALL, *overrides)
    env = make_configured_task(settings.env, 4, seed=0)
    loss = load(name).make_loss(settings, env)
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(40))
    buffer.extend(env.rollout(10, RandomPolicy(env.action_spec)).reshape(-1))
    components = {"loss": loss, "buffer": ReplayState(buffer)}
    config = settings.plain() | changes
    Checkpoints(Path(directory, "checkpoints"), config=config).save(1, components)
    return loss


def compose(*runs, compare=(), run_dir="both"):
    """What the recipe does, in this process."""
    given = [f"runs=[{','.join(runs)}]", f"compare=[{','.join(compare)}]", f"run_dir={run_dir}"]
    few = ["training.updates=5", "training.log_interval=2", "training.batch_size=16"]
    settings = settings_of("compose", *given, *few)
    load("compose").main(settings)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_runs_from_the_command_line(tmp_path, evaluate, capsys):
    parts = [
        start(tmp_path, "soft_q", f"task=multigoal_{part}", run_dir=part) for part in ("x", "y")
    ]
    for part in parts:
        part.succeeded()
    process = start(tmp_path, "compose", "runs=[x,y]", "compare=[x]", run_dir="both").succeeded()
    # 800 steps in each of the buffers, at which the sampler was trained.
    assert "sum of 2 Q-functions at 1600 states" in process.out
    table = read(process.directory, "comparison.json")
    assert list(table) == ["composed", "x", "y"]
    assert {"success", "entropy", "goal_3"} <= set(table["composed"])
    assert read(process.directory, "summary.json") == table["composed"]
    assert [step for step, _ in curve(process.directory, "train/loss_actor")] == [5, 10, 15, 20]
    assert (process.directory / "multigoal.png").exists()
    # A run like any other, with the Q-functions in its checkpoint.
    metrics = evaluate.main(str(process.directory), episodes=25, seed=1)
    assert {f"goal_{i}" for i in range(4)} <= set(metrics)
    assert "goal (-5.0, -5.0)" in capsys.readouterr().out
    evaluate.main(str(tmp_path / "x"), episodes=25, seed=1)
    assert "goal ( 5.0,  any)" in capsys.readouterr().out

    refused = start(tmp_path, "compose", "runs=[x,x]", run_dir="again").wait()
    assert refused.code == 1
    assert refused.err.startswith("compose.py: composition: goals of the parts must be lines of")
    assert refused.err.count("\n") == 1
    assert not refused.directory.exists()


def test_the_q_function_is_the_sum_of_those_of_the_runs(folder, capsys):
    # Trained on another machine: with a device that this one need not have.
    parts = [
        save_run(part, "soft_q", f"task=multigoal_{part}", device="cuda") for part in ("x", "y")
    ]
    save_run("xy", "ddpg", "task=multigoal_xy", device="cuda")
    compose("x", "y", compare=["xy"])
    assert "sum of 2 Q-functions at 80 states" in capsys.readouterr().out
    loss, settings = load_loss("both")
    states = TensorDict({"observation": 10 * torch.rand(50, 2) - 5}, [50])
    actions = 2 * torch.rand(50, 2) - 1
    total = sum(part.qvalue(states, actions) for part in parts)
    assert loss.qvalue(states, actions).allclose(total, atol=1e-4)
    assert settings.env.options["action_cost"] == 30.0
    assert list(read(folder / "both", "comparison.json")) == ["composed", "x", "y", "xy"]
    # The last update is logged too.
    assert [step for step, _ in curve(folder / "both", "train/loss_actor")] == [2, 4, 5]
    with pytest.raises(SystemExit, match=r"both must be a run of soft_q\.py with one"):
        compose("both", run_dir="again")
    assert not Path("again").exists()


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("soft_q", ["loss.temperature=5"], "every run must have the same loss.temperature, got 10"),
        ("soft_q", ["loss.gamma=0.5"], "the same loss.gamma, got 0.99 and 0.5"),
        ("soft_q", ["training.reward_scale=2"], "the same training.reward_scale, got 0.1 and 2"),
        (
            "soft_q",
            ["loss.num_qvalue_nets=2"],
            "y must be a run of soft_q.py with one seed and one Q-network",
        ),
        ("ddpg", [], "y must be a run of soft_q.py with one seed and one Q-network"),
        ("soft_q", ["task=swimmer"], "y must be of the multigoal world, got Swimmer-v5"),
    ],
)
def test_runs_that_do_not_fit(folder, name, overrides, message):
    save_run("x", "soft_q", "task=multigoal_x")
    save_run("y", name, "task=multigoal_y", *overrides)
    with pytest.raises(SystemExit, match=message):
        compose("x", "y")
    assert not Path("both").exists()


def test_runs_whose_rewards_have_no_common_unit(folder):
    for name in ("x", "y"):
        save_run(name, "soft_q", f"task=multigoal_{name}", "training.reward_scale=auto")
    with pytest.raises(SystemExit, match=r"a number as training\.reward_scale, got auto"):
        compose("x", "y")


def test_a_run_without_states(folder):
    save_run("x", "soft_q", "task=multigoal_x")
    (checkpoint,) = Path("x", "checkpoints").iterdir()
    forge(checkpoint, lambda manifest: manifest["files"].pop("buffer.pt"))
    with pytest.raises(SystemExit, match="holds no buffer, only"):
        compose("x")
    assert not Path("both").exists()
