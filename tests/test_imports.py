"""What an import loads, looked at in a fresh process, step by step."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import torchrl_stein

ROOT = Path(__file__).parents[1]
EXTRAS = {"gymnasium", "hydra", "imageio", "matplotlib", "scipy", "sklearn", "wandb"}
# TorchRL itself loads MuJoCo where it is installed, so that only what we add to it counts.
THEIRS = "import torchrl.envs, torchrl.modules, torchrl.objectives, torchrl.data"
STEPS = {
    "the package": "import torchrl_stein; dir(torchrl_stein)",
    "functional": "import torchrl_stein.functional",
    "kernels": "import torchrl_stein.kernels",
    "TorchRL": THEIRS,
    "losses": "from torchrl_stein import ParticleModule, SoftQLoss; torchrl_stein.regression",
    "envs": "torchrl_stein.envs",
}
LOOK = "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
TASKS = "print(json.dumps([i for i in gymnasium.registry if i.startswith('torchrl_stein/')]))"


def run(*lines):
    """What a fresh interpreter prints, each line read as JSON."""
    code = "\n".join(["import json, sys", *lines])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.fixture(scope="module")
def loaded():
    """Top-level modules that are loaded after each of the steps."""
    looks = run(*(line for step in STEPS.values() for line in (step, LOOK)))
    return {name: set(roots) for name, roots in zip(STEPS, looks, strict=True)}


def test_the_package_alone_loads_nothing(loaded):
    assert not loaded["the package"] & {"torch", "numpy", "tensordict", "torchrl", *EXTRAS}


def test_the_mathematics_needs_torch_alone(loaded):
    assert "torch" in loaded["functional"]
    assert not loaded["functional"] & {"tensordict", "torchrl", "mujoco", *EXTRAS}


def test_kernels_need_no_torchrl(loaded):
    assert not loaded["kernels"] & {"torchrl", "mujoco", *EXTRAS}


def test_losses_add_nothing_to_what_torchrl_loads(loaded):
    added = loaded["losses"] - loaded["TorchRL"]
    assert not added & {"mujoco", *EXTRAS}
    assert added <= set(sys.stdlib_module_names)


def test_environments_add_gymnasium_alone(loaded):
    assert "gymnasium" in loaded["envs"]
    assert not (loaded["envs"] - loaded["TorchRL"]) & (EXTRAS - {"gymnasium"})


def test_gymnasium_learns_of_the_tasks_with_the_environments():
    before, after, again, shape = run(
        "import gymnasium, torchrl_stein.modules",
        TASKS,
        # Gymnasium imports what stands before the colon: nobody else has to.
        "env = gymnasium.make('torchrl_stein.envs:torchrl_stein/MultiGoal-v0')",
        TASKS,
        "torchrl_stein.envs.register_tasks()",
        TASKS,
        "print(json.dumps(env.observation_space.shape))",
    )
    assert before == []
    assert len(after) == 10
    assert "torchrl_stein/AntMaze-v0" in after
    assert again == after
    assert shape == [2]


def test_every_name_is_there_when_asked_for():
    folders = {path.parent.name for path in (ROOT / "torchrl_stein").glob("*/__init__.py")}
    names = {*torchrl_stein.__all__, *folders, "__version__"}
    assert names <= set(dir(torchrl_stein))
    assert all(hasattr(torchrl_stein, name) for name in names)
    with pytest.raises(AttributeError, match="module 'torchrl_stein' has no attribute 'envz'"):
        _ = torchrl_stein.envz
