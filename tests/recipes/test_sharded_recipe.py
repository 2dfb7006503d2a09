"""recipes/sharded_svpg.py on two processes, as torchrun starts them, and on one."""

import json
import math

import pytest
import torch
import torch.distributed as dist

from tests.recipes.processes import RECIPES, SMALL, Process, start
from torchrl_stein.modules import find_population
from torchrl_stein.runs import find_checkpoint, load_actor, read_manifest

pytest.importorskip("hydra")
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not dist.is_gloo_available(), reason="needs the backend gloo"),
]
NAME = "sharded_svpg"


def start_two(folder, *overrides):
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return Process(folder, RECIPES[NAME], *SMALL[NAME], "run_dir=run", *overrides, cold=launch)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Processes that have ended, by what they were."""
    folder = tmp_path_factory.mktemp("sharded")
    started = {
        "two": start_two(folder / "two"),
        "one": start(folder / "one", NAME, "kernel=none"),
        "uneven": start_two(folder / "uneven", "population.num_particles=3"),
        "resumed": start(folder / "resumed", NAME, "resume=runs/x"),
        "simulator": start(folder / "simulator", NAME, "env=Pendulum-v1"),
    }
    return {name: process.wait() for name, process in started.items()}


def scalars(run, name):
    lines = (run / "metrics" / "scalars" / f"{name}.csv").read_text().split()
    return [tuple(map(float, line.split(","))) for line in lines]


@pytest.mark.parametrize(("name", "processes"), [("two", 2), ("one", 1)])
def test_it_trains(ended, name, processes):
    process = ended[name]
    assert process.code == 0, process.err
    lines = [line for line in process.out.splitlines() if line.startswith("update")]
    assert [int(line.split()[1]) for line in lines] == [2, 4]  # said once, by one process
    run = process.folder / "run"
    assert json.loads((run / "config.json").read_text())["processes"] == processes
    summary = json.loads((run / "summary.json").read_text())
    assert set(summary) == {"max", "mean", "top4", *(f"particle_{i}" for i in range(4))}
    assert len({summary[f"particle_{i}"] for i in range(4)}) == 4
    steps, values = zip(*scalars(run, "train/loss_objective"), strict=True)
    assert steps == (160, 320, 480, 640)  # of all processes
    assert all(math.isfinite(value) for value in values)
    assert len(scalars(run, "test/return_particle_3")) == 2


def test_all_policies_are_saved(ended, evaluate, capsys):
    run = ended["two"].folder / "run"
    assert len(read_manifest(run)["notes"]["returns"]) == 4
    first, last = sorted((run / "checkpoints").iterdir())
    assert find_checkpoint(run) == last
    before, after = (
        find_population("tests", "actor", load_actor(path))[1].particles for path in (first, last)
    )
    assert len(torch.unique(after, dim=0)) == 4
    # 2 updates of Adam at 0.005 for the rows of both processes
    moved = (after - before).abs().amax(1)
    assert ((moved > 1e-3) & (moved < 0.02)).all()
    assert set(evaluate.main(str(run), episodes=2)) >= {"particle_3", "mean"}
    assert "particle  3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("uneven", "population.num_particles must be a multiple of the number of processes 2"),
        ("resumed", "resume must be"),
        ("simulator", "expected env to be a batched world of this package, got Pendulum-v1"),
    ],
)
def test_what_cannot_be_is_refused(ended, name, message):
    process = ended[name]
    assert process.code == 1
    assert process.err.count(f"{NAME}.py: {message}") == 1, process.err
    assert not (process.folder / "run").exists()
