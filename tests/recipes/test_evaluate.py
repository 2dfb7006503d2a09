"""evaluate.py on every kind of run."""

import re

import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.processes import ROOT, Process
from torchrl_stein.runs import find_checkpoint, read_manifest

pytestmark = pytest.mark.timeout(900)

EVALUATE = ROOT / "recipes" / "evaluate.py"
OFF_POLICY = ("d4pg", "ddpg", "s2ac", "sac", "soft_q", "soft_q_pixels", "soft_qv", "td3")


def check_report(text):
    for label in ("return", "length", "success", "histogram entropy"):
        assert re.search(rf"^ +{label} +-?\d+\.\d+", text, re.MULTILINE), text
    goals = re.findall(r"^ +goal \( *(\S+), +(\S+)\) +(\d\.\d+)", text, re.MULTILINE)
    assert [(float(x), float(y)) for x, y, _ in goals] == [(5, 0), (-5, 0), (0, 5), (0, -5)]
    success = float(re.search(r"success +(\S+)", text)[1])
    assert sum(float(f) for *_, f in goals) == pytest.approx(success, abs=3e-3)


def test_it_prints_what_a_run_reached(finished, tmp_path):
    command = [EVALUATE, finished("soft_q").directory, "--episodes", 30, "--seed", 5]
    process = Process(tmp_path, *command).succeeded()
    assert process.out.startswith("30 episodes of at most 20 steps\n")
    check_report(process.out)


def test_it_knows_every_off_policy_recipe_and_its_seed(finished, evaluate, capsys):
    for name in OFF_POLICY:
        directory = str(finished(name).directory)
        capsys.readouterr()
        metrics = evaluate.main(directory, episodes=25, seed=1)
        check_report(capsys.readouterr().out)
        assert evaluate.main(directory, episodes=25, seed=1) == metrics
        assert evaluate.main(directory, episodes=25, seed=2) != metrics
    path = str(find_checkpoint(directory))
    assert evaluate.main(path, episodes=25, seed=1) == metrics
    directory = str(finished("soft_q").directory)
    sampled, mean = (
        evaluate.main(directory, episodes=25, seed=1, actions=how) for how in ("sampled", "mean")
    )
    assert sampled == evaluate.main(directory, episodes=25, seed=1)  # as configured
    assert mean != sampled
    best = evaluate.main(directory, episodes=25, seed=1, best_of=8)
    assert {name: best[name] for name in sampled} == sampled
    assert best["return_best_of_k"] not in (best["return"], mean["return"])
    with pytest.raises(ValueError, match="--best-of is for soft_q and soft_qv, not for ddpg"):
        evaluate.main(str(finished("ddpg").directory), best_of=8)


@pytest.mark.parametrize("name", ["svpg", "trpo"])
def test_it_prints_every_particle(finished, evaluate, capsys, name):
    directory = str(finished(name).directory)
    metrics = evaluate.main(directory, episodes=3, seed=1)
    text = capsys.readouterr().out
    assert text.startswith("cartpole: 3 episodes of at most 20 steps\n")
    rows = re.findall(r"^  particle +(\d+) +(-?\d+\.\d+) +(\d+\.\d) +(-?\d+\.\d+)$", text, re.M)
    assert len(rows) == 3
    saved = read_manifest(directory)["notes"]["returns"]
    for i, mean, _, before in rows:
        assert float(mean) == pytest.approx(metrics[f"particle_{i}"], abs=0.01)
        assert float(before) == pytest.approx(saved[int(i)], abs=0.01)
    means = [float(mean) for _, mean, *_ in rows]
    assert means == sorted(means, reverse=True)
    assert evaluate.main(directory, episodes=3, seed=1) == metrics
    assert evaluate.main(directory, episodes=3, seed=2) != metrics
    assert evaluate.main(directory, episodes=3, seed=1, actions="sampled") != metrics
    capsys.readouterr()
    evaluate.main(directory)
    assert capsys.readouterr().out.startswith("cartpole: 3 episodes")  # as configured
    # In another world, which the first line names.
    evaluate.main(directory, options=["pole_length=1.5"])
    assert capsys.readouterr().out.startswith("cartpole pole_length=1.5: 3 episodes")
    with pytest.raises(ValueError, match="--option must be NAME=VALUE, got pole_length"):
        evaluate.main(directory, options=["pole_length"])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "evaluate.py: no checkpoint at nowhere\n"),
        (["REGRESSION"], 1, "must be a run of one of a2c, acer, "),
        (["POLICY", "--option", "horizon=3"], 1, "--option is for populations, not for ddpg"),
        (["POPULATION", "--option", "pole=1"], 1, "evaluate.py: "),
        (["POLICY", "--episodes", "0"], 2, "must be >= 1, got 0"),
        (["POLICY", "--device", "gpu9"], 1, "evaluate.py: "),
    ],
)
def test_what_it_refuses(finished, tmp_path, arguments, code, message):
    names = {"REGRESSION": "bnn_regression", "POLICY": "ddpg", "POPULATION": "svpg"}
    given = [finished(names[a]).directory if a in names else a for a in arguments]
    process = Process(tmp_path, EVALUATE, *given).wait()
    assert process.code == code
    assert message in process.err
    assert "Traceback" not in process.err
    assert code == 2 or process.err.count("\n") == 1
