"""recipes/compose.py: what is summed, what is compared, and what cannot be composed."""

import json

import pytest

from tests.recipes.processes import start
from torchrl_stein.runs import read_manifest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Runs of both parts of a world, and of what is no part."""
    folder = tmp_path_factory.mktemp("parts")
    started = {
        "x": start(folder / "x", "soft_q", "task=multigoal_x"),
        "y": start(folder / "y", "soft_q", "task=multigoal_y"),
        "whole": start(folder / "whole", "soft_q"),
        "hot": start(folder / "hot", "soft_q", "task=multigoal_y", "loss.temperature=20"),
        "ddpg": start(folder / "ddpg", "ddpg"),
    }
    return {name: process.succeeded().directory for name, process in started.items()}


def compose(folder, parts, *names, **options):
    listed = ",".join(str(parts[name]) for name in names)
    others = [f"{key}=[{parts[value]}]" for key, value in options.items()]
    return start(folder, "compose", f"runs=[{listed}]", *others).wait()


def test_a_sum_is_sampled_and_compared(tmp_path, parts, evaluate):
    process = compose(tmp_path, parts, "x", "y", compare="x")
    assert process.code == 0, process.err
    run = process.directory
    results = json.loads((run / "comparison.json").read_text())
    assert {"composed", str(parts["x"]), str(parts["y"])} == set(results)
    summary = json.loads((run / "summary.json").read_text())
    assert summary == results["composed"]
    assert {f"goal_{i}" for i in range(4)} <= set(summary)  # the crossings of the lines
    assert (run / "multigoal.png").stat().st_size > 10_000
    assert read_manifest(run)["config"]["runs"] == [str(parts["x"]), str(parts["y"])]
    losses = (run / "metrics" / "scalars" / "train" / "loss_actor.csv").read_text().split()
    assert [int(line.split(",")[0]) for line in losses] == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x", "hot"], "loss.temperature"),
        (["x", "ddpg"], "must be a run of soft_q.py"),
        (["x", "whole"], "composition: every part must have ends_at_goal false"),
        (["x", "x"], "composition: goals of the parts must be lines of different coordinates"),
    ],
)
def test_what_cannot_be_composed(tmp_path, parts, names, message):
    process = compose(tmp_path, parts, *names)
    assert process.code == 1
    assert process.err.startswith("compose.py: ")
    assert message in process.err
    assert "Traceback" not in process.err
    assert not process.directory.exists()
