"""recipes/sharded_svpg.py on two processes, and on one."""

import json
import math
import socket

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.processes import ROOT, SMALL, Process, start
from tests.recipes.results import checkpoints, curve, read
from torchrl_stein.runs import find_checkpoint, load_actor, read_manifest

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not dist.is_gloo_available(), reason="needs the backend gloo"),
]
NAME = "sharded_svpg"


EXCHANGE = """
import json, sys
import torch
from tensordict import TensorDict
from tests.recipes.loops import load, settings_of

recipe = load("sharded_svpg")

class Collecting(Exception):
    pass

def noise(*args, **options):
    raise Collecting(torch.randn(3).tolist())

recipe.WorldCollector = noise
try:
    recipe.main(settings_of("sharded_svpg", *sys.argv[1:]))
except Collecting as reached:
    drawn = reached.args[0]
rank = recipe.dist.get_rank()
rows = recipe.gather(torch.tensor([2 * rank, 2 * rank + 1])).tolist()
losses = recipe.gather_losses(TensorDict(loss_a=rank + 1.0, loss_b=10.0, entropy=rank + 5.0))
print(json.dumps([rank, drawn, rows, losses["loss_a"].item(), losses["loss_b"].item()]))
"""


def start_two(folder, *overrides, script=None):
    """As torchrun starts them; of rank 0 and 1."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    ranks = [shared | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]
    if script is None:
        return [start(folder, NAME, *overrides, environment=rank) for rank in ranks]
    return [Process(folder, script, *SMALL[NAME], *overrides, environment=rank) for rank in ranks]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return [process.succeeded() for process in start_two(tmp_path_factory.mktemp("two"))]


@pytest.mark.parametrize("processes", [1, 2])
def test_it_trains(finished, two, processes):
    process = two[0] if processes == 2 else finished(NAME, "kernel=none")
    lines = [line for line in process.out.splitlines() if line.startswith("update ")]
    assert [int(line.split()[1]) for line in lines] == [2, 4]
    run = process.directory
    assert read(run, "config.json")["processes"] == processes
    summary = read(run, "summary.json")
    assert set(summary) == {"max", "mean", "top4", *(f"particle_{i}" for i in range(4))}
    assert len({summary[f"particle_{i}"] for i in range(4)}) == 4
    steps, values = zip(*curve(run, "train/loss_objective"), strict=True)
    assert steps == (160, 320, 480, 640)  # of all processes
    assert all(math.isfinite(value) for value in values)
    assert len(curve(run, "test/return_particle_3")) == 2


def test_what_processes_exchange_and_what_each_draws_alone(tmp_path):
    script = tmp_path / "exchange.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{EXCHANGE}")
    both = [p.succeeded() for p in start_two(tmp_path, "run_dir=run", script=script)]
    first, second = sorted(json.loads(p.out.splitlines()[-1]) for p in both)
    assert first[1] != second[1]  # the noise of their policies
    for found in (first, second):
        # Rows in the order of the ranks; a loss is the sum over both.
        assert found[2:] == [[0, 1, 2, 3], 3.0, 20.0]


def test_the_other_process_is_silent(two):
    assert two[1].out + two[1].err == ""


def test_all_policies_are_saved(two, evaluate, capsys):
    run = two[0].directory
    assert len(read_manifest(run)["notes"]["returns"]) == 4
    first, last = checkpoints(run)
    assert find_checkpoint(run) == last
    before, after = (load_actor(path)[0].module.particles for path in (first, last))
    assert len(torch.unique(after, dim=0)) == 4
    # 2 updates of Adam at 0.005 for the rows of both processes
    moved = (after - before).abs().amax(1)
    assert ((moved > 1e-3) & (moved < 0.02)).all()
    assert set(evaluate.main(str(run), episodes=2)) >= {"particle_3", "mean"}
    assert "particle  3" in capsys.readouterr().out


def test_particles_that_cannot_be_divided(tmp_path):
    first, second = (p.wait() for p in start_two(tmp_path, "population.num_particles=3"))
    assert (first.code, second.code) == (1, 1)
    assert first.err == (
        f"{NAME}.py: population.num_particles must be a multiple of the number of processes 2, "
        "got 3\n"
    )
    assert second.err == ""  # one of them says it
    assert not first.directory.exists()
