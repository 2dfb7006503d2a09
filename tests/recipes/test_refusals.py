"""What a recipe refuses, as a user sees it: one line, and nothing is left behind."""

import hashlib
import os
import pickle
import shutil

import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.processes import RECIPES, ROOT, Process, start
from tests.recipes.results import checkpoints, forge, read

pytestmark = pytest.mark.timeout(900)

# Recipe, settings, and the line; RUN is a run of soft_q.py.
LINES = {
    "name": ("soft_q", ["+loss.temprature=3"], "there is no setting loss.temprature; did you mean"),
    "type": ("svpg", ["threads=1.5"], "threads must be an integer, got 1.5"),
    "range": ("ddpg", ["eval.episodes=0"], "eval.episodes must be greater than or equal to 1, got"),
    "rate": ("td3", ["optim.lr_actor=-1"], "optim.lr_actor must be greater than 0, got -1"),
    "one scale": (
        "ddpg",
        ["seeds=2", "exploration.parameter_noise=0.1"],
        "seeds=1 with exploration.parameter_noise above 0",
    ),
    "atoms": ("d4pg", ["loss.v_max=-9"], "expected loss.v_min below loss.v_max"),
    "n steps": ("d4pg", ["loss.n_steps=999"], "training.warmup_frames of at least loss.n_steps *"),
    "nan": ("soft_qv", ["exploration.noise=nan"], "exploration.noise must be"),
    "section": ("sac", ["network.num_cells=64"], "network.num_cells must be a list, got 64"),
    "norm": (
        "sac",
        ["network.norm=batch"],
        "network.norm must be 'layer' or 'batch_renorm', got 'batch'",
    ),
    "no norm": ("td3", ["network.norm=layer"], "there is no setting network.norm"),
    "statistics": (
        "soft_q",
        ["network.norm=batch_renorm"],
        "network.norm=batch_renorm with values of the policy's actions: loss.value_target=expected",
    ),
    "both": ("svpg", ["trust_region=wasserstein"], "expected selection=none with a trust_region"),
    "warm-up": ("ddpg", ["training.total_frames=100"], "total_frames above warmup_frames"),
    "device": ("trpo", ["device=gpu9"], "device must be"),
    "graphs": ("svpg", ["compile.cudagraphs=true"], "compile.cudagraphs with device=cuda"),
    "logger": ("ddpg", ["logger=mlflow"], "logger must be"),
    "choices": (
        "td3",
        ["task=hopper", "env.name=CartPole-v1"],
        "env: 'CartPole-v1' must have a finite box of actions, got OneHot",
    ),
    "rows": ("acer", ["training.steps=7"], "training: expected batch_size a multiple of steps"),
    "minibatches": (
        "ppo",
        ["training.num_minibatches=7"],
        "expected training.num_minibatches that divides the 40 transitions of an iteration",
    ),
    "group": ("svpg", ["kernel=foo"], "kernel"),
    "data": (
        "bnn_regression",
        ["data=nowhere.csv"],
        "path must be a file or a folder, got nowhere",
    ),
    "task": ("soft_q", ["env.name=Foo-v0"], "env must be one of"),
    "target": ("soft_q", ["loss.kernel._target_=os.system"], "_target_ must be a kernel"),
    "place": ("ddpg", ["run_dir=/dev/null/run"], "/dev/null"),
    "path": ("svpg", ["resume=nowhere"], "resume: no checkpoint at nowhere"),
    "start": ("ddpg", ["init_from=RUN"], "init_from: "),
    "continuous": (
        "discrete_soft_q",
        ["env.name=Pendulum-v1", "~env.options.horizon"],
        "env: 'Pendulum-v1' must have one-hot actions, got Bounded",
    ),
    "no world": ("discrete_soft_q", ["env.name=multigoal"], "env must be one of ['grid_world'] or"),
    "rates": ("soft_q", ["resume=RUN", "optim.lr_actor=0.1"], "resume: optim.lr_actor is 0.003"),
    "several": ("sharded_svpg", ["resume=RUN"], "resume must be"),
    "simulator": ("sharded_svpg", ["env=Pendulum-v1"], "env to be a batched world of this package"),
}


@pytest.mark.parametrize("case", LINES)
def test_a_refusal_is_one_line(finished, tmp_path, case):
    recipe, settings, line = LINES[case]
    run = str(finished("soft_q").directory) if "RUN" in "".join(settings) else ""
    settings = [setting.replace("RUN", run) for setting in settings]
    process = start(tmp_path, recipe, *settings).wait()
    assert process.code == 1
    assert process.err.startswith(f"{recipe}.py: "), process.err
    assert line in process.err
    assert process.err.count("\n") == 1
    assert not process.directory.exists()


def test_ways_of_hydra_that_work(tmp_path):
    """A setting that exists may be forced, and a task's rule of success replaced by another."""
    settings = [
        "task=swimmer_finish_line",
        "env.num_envs=2",
        "training.total_frames=24",
        "training.warmup_frames=20",
        "++eval.episodes=3",
        "eval.final_episodes=2",
        "eval.max_steps=5",
        "eval.success='x_position < 1e3'",
    ]
    directory = start(tmp_path, "ddpg", *settings).succeeded().directory
    config = read(directory, "config.json")["eval"]
    assert config["episodes"] == 3
    assert config["success"] == {"entry": "x_position", "above": None, "below": 1000.0}
    assert read(directory, "summary.json")["success"] == 1.0


# runs of strangers: data, whatever is in them


@pytest.fixture
def stranger(finished, tmp_path):
    """A copy of a run that somebody changed, with checksums that fit; and what shows execution."""

    def make(change=None):
        run = tmp_path / "stranger"
        shutil.copytree(finished("soft_q").directory, run)
        for checkpoint in checkpoints(run):
            forge(checkpoint, lambda manifest: change and change(manifest["config"]))
        return run, tmp_path / "executed"

    return make


def ask(folder, run):
    """Everything that reads somebody's run."""
    yield Process(folder, ROOT / "recipes" / "evaluate.py", run, "--episodes", 2).wait()
    yield start(folder, "soft_q", f"init_from={run}", run_dir="started").wait()
    yield Process(folder, RECIPES["soft_q"], f"resume={run}", "run_dir=resumed").wait()
    yield Process(folder, RECIPES["compose"], f"runs=[{run},{run}]", "run_dir=composed").wait()


def test_a_class_that_the_settings_name_is_not_built(stranger, tmp_path):
    run, executed = stranger(
        lambda config: config["env"].update(
            {"_target_": "os.system", "options": {"command": f"touch {tmp_path / 'executed'}"}}
        )
    )
    for process in ask(tmp_path, run):
        assert not executed.exists()
        if "started" not in process.out:  # init_from reads weights alone
            assert process.code == 0 or process.err.count("\n") == 1, process.err
    assert not (tmp_path / "resumed").exists()
    asked = Process(tmp_path, ROOT / "recipes" / "evaluate.py", run).wait()
    assert asked.code == 1
    assert "env._target_ must be" in asked.err
    assert "--trust builds whatever it names" in asked.err


def test_a_cost_that_would_unpickle_is_not_built(stranger, tmp_path):
    def change(config):
        config["trust_region"] |= {
            "weight": 1.0,
            "cost": {"_target_": "torch.load", "f": "x.pt", "weights_only": False},
        }

    run, _ = stranger(change)
    process = Process(tmp_path, RECIPES["soft_q"], f"resume={run}", "run_dir=resumed").wait()
    assert process.code == 1
    assert process.err.startswith("soft_q.py: ")
    assert "_target_ must be" in process.err
    assert process.err.count("\n") == 1


def test_a_pickle_in_the_place_of_weights_is_not_opened(stranger, tmp_path):
    """Nor what tensordict would read from a folder of that name."""

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'executed'}",)

    run, executed = stranger()
    payload = pickle.dumps(Evil(), protocol=2)  # torch warns of others
    for checkpoint in checkpoints(run):
        (checkpoint / "loss.pt").write_bytes(payload)
        entry = {"sha256": hashlib.sha256(payload).hexdigest(), "bytes": len(payload)}
        forge(checkpoint, lambda m, entry=entry: m["files"].update({"loss.pt": entry}))
    for process in ask(tmp_path, run):
        assert process.code == 1
        assert "loss.pt: it holds more than tensors and numbers" in process.err
        assert process.err.count("\n") == 1
        assert not executed.exists()
    for checkpoint in checkpoints(run):
        (checkpoint / "loss.pt").unlink()
        (checkpoint / "loss.pt").mkdir()
        (checkpoint / "loss.pt" / "other.pickle").write_bytes(payload)
    asked = Process(tmp_path, ROOT / "recipes" / "evaluate.py", run).wait()
    assert asked.code == 1
    assert asked.err.count("\n") == 1
    assert not executed.exists()


def test_nothing_of_a_stranger_is_looked_up(stranger, tmp_path):
    """${oc.env:...} in somebody's settings would show our secrets in the files of our run."""
    run, _ = stranger(lambda config: config["env"]["info"].append("${oc.env:SECRET}"))
    secret = {"SECRET": "hunter2"}
    resumed = [RECIPES["soft_q"], f"resume={run}", "run_dir=resumed"]
    for command in (resumed, [ROOT / "recipes" / "evaluate.py", run]):
        process = Process(tmp_path, *command, environment=secret).wait()
        assert "hunter2" not in process.out + process.err


def test_one_bit_that_flipped_is_seen(stranger, tmp_path):
    run, _ = stranger()
    *_, older, newest = checkpoints(run)
    path = newest / "loss.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(bytes(content))
    more = "training.total_frames=880"
    process = Process(tmp_path, RECIPES["soft_q"], f"resume={run}", more, "run_dir=on").wait()
    assert process.code == 1
    assert str(path) in process.err
    assert str(older) in process.err
    assert process.err.count("\n") == 1
    assert not (tmp_path / "on").exists()
    resume = f"resume={older}"
    Process(tmp_path, RECIPES["soft_q"], resume, more, "run_dir=on").succeeded()
