"""The on-policy loop: what it does when, how it stops and how it goes on."""

import math
import os
import signal

import pytest
import torch

from tests.training.population_builders import E, N, batch_of, build_population, make_env
from torchrl_stein.modules import BirthDeath
from torchrl_stein.training import (
    OnPolicySettings,
    Run,
    check_same_problem,
    find_checkpoint,
    read_metadata,
    return_metrics,
    train_on_policy,
)

FRAMES = N * E * 10  # of an iteration


def settings(iterations, **options):
    return OnPolicySettings(
        iterations, **{"eval_interval": 100, "checkpoint_interval": 100, **options}
    )


def scalars(run, name):
    lines = (run.directory / "metrics" / "scalars" / f"{name}.csv").read_text().split()
    return {int(step): float(value) for step, value in (line.split(",") for line in lines)}


class Harness:
    """Runs the loop; iteration k has data from an environment of seed k, also after a resume."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(
        self, name, settings, *, evaluate=None, resume=None, spoil=None, bad=1e30, **agent
    ):
        self.agent = build_population(make_env(), **agent)
        # An action that is finite and whose probability is 0, or a reward that is none.
        spoilt = "action" if math.isfinite(bad) else ("next", "reward")
        self.run = Run(self.folder / name, {"name": name})
        self.evaluated_at = []

        def count():
            self.evaluated_at.append(int(self.agent.loss.iteration))
            returns = torch.arange(float(N)) + self.evaluated_at[-1]
            return returns if evaluate is None else evaluate()

        def batches():
            while True:
                k = int(self.agent.loss.iteration)
                data = batch_of(make_env(seed=k), self.agent)
                if k + 1 == spoil:
                    data[spoilt][1, 0, 3] = bad
                yield data

        return train_on_policy(self.agent, batches(), settings, self.run, count, resume)


@pytest.fixture
def train(tmp_path):
    return Harness(tmp_path)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    return torch.zeros(N)


def state(agent):
    """Everything that an update reads and writes but the environments."""
    parts = {name: getattr(agent, name).state_dict() for name in ("actor", "loss", "optimizer")}
    if agent.birth_death is not None:
        parts["birth_death"] = agent.birth_death.state_dict()
    return {**{name: dict(part) for name, part in parts.items()}, "rng": torch.get_rng_state()}


# what happens when


def test_intervals(train):
    assert train("run", settings(7, log_interval=2, eval_interval=3, checkpoint_interval=3))
    assert int(train.agent.loss.iteration) == 7
    assert train.evaluated_at == [3, 6, 7]
    assert list(scalars(train.run, "train/loss_objective")) == [FRAMES * k for k in (2, 4, 6, 7)]
    assert list(scalars(train.run, "test/return_max")) == [FRAMES * k for k in (3, 6, 7)]
    kept = sorted(p.name for p in (train.run.directory / "checkpoints").iterdir())
    assert [int(name.split("-")[1]) for name in kept] == [FRAMES * k for k in (6, 7)]
    assert read_metadata(train.run.directory)["config"] == {"name": "run"}


def test_logs_temperature_figures_and_every_particle(train, capsys):
    train("run", settings(3, eval_interval=2))
    temperatures = list(scalars(train.run, "train/temperature").values())
    assert temperatures == pytest.approx([10.0 * 100 ** (-k / 10) for k in range(3)])
    assert all(v > 0 for v in scalars(train.run, "train/particle_distance").values())
    for i in range(N):
        assert list(scalars(train.run, f"test/return_particle_{i}").values()) == [2.0 + i, 3.0 + i]
        # Episodes of at most 6 steps at 10 a step.
        assert all(0 < v < 61 for v in scalars(train.run, f"train/return_particle_{i}").values())
    assert "iteration     2  test return: max 4.0  top4 3.0  mean 3.0" in capsys.readouterr().out


def test_returns_that_are_no_numbers_are_reported(train, capsys):
    assert train("run", settings(1), evaluate=lambda: torch.full((N,), math.nan))
    assert "max nan" in capsys.readouterr().out


def test_return_metrics_by_hand():
    nan = math.nan
    metrics = return_metrics(torch.tensor([1.0, nan, 6.0, 3.0, 5.0, 4.0]))
    assert (metrics["max"], metrics["mean"], metrics["top4"]) == (6.0, 3.8, 4.5)
    assert metrics["particle_5"] == 4.0
    assert math.isnan(metrics["particle_1"])
    assert return_metrics(torch.tensor([2.0]))["top4"] == 2.0
    assert list(return_metrics(torch.tensor([nan, nan]))) == ["particle_0", "particle_1"]


@pytest.mark.parametrize(
    "name", ["iterations", "log_interval", "eval_interval", "checkpoint_interval"]
)
def test_numbers_are_positive(name):
    for value in (0, -1, math.nan):
        with pytest.raises(ValueError, match=f"OnPolicySettings: {name} must be positive, got"):
            OnPolicySettings(**{"iterations": 1, name: value})


# stopping


def test_ctrl_c_saves_and_says_how_to_go_on(train, capsys):
    before = signal.getsignal(signal.SIGINT)
    assert not train("run", settings(1000, eval_interval=4), evaluate=interrupt)
    assert int(train.agent.loss.iteration) == 4
    path = find_checkpoint(train.run.directory)
    assert path.name.endswith(str(4 * FRAMES))
    assert f"Stopped. To go on: resume={path}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


def test_a_bad_reward_is_named_and_the_last_checkpoint_is_sound(train):
    # On the CPU the loss refuses it; elsewhere the loop finds it in the batch.
    with pytest.raises(ValueError, match="SteinPolicyLoss: 'advantage' must be finite, got"):
        train("run", settings(9, checkpoint_interval=1), spoil=3, bad=math.nan)
    path = find_checkpoint(train.run.directory)
    assert path.name.endswith(str(2 * FRAMES))
    assert train("again", settings(4), resume=path)
    assert train.agent.loss.particles.isfinite().all()


@pytest.mark.parametrize("moment", ["checkpoint", "end", "ctrl_c"])
def test_no_checkpoint_holds_a_divergence_that_nobody_looked_at(train, moment):
    options = {
        "checkpoint": {"checkpoint_interval": 3},
        "end": {"iterations": 3},
        "ctrl_c": {"eval_interval": 3},
    }[moment]
    numbers = settings(**{"iterations": 9, "log_interval": 100, **options})
    with pytest.raises(
        FloatingPointError, match=r"loss_objective is .* at update 3; the batch is f"
    ):
        train("run", numbers, spoil=3, evaluate=interrupt)
    assert not list(train.run.directory.glob("checkpoints/*"))


# going on

POPULATION = {"birth_death": {"temperature": 0.5}, "birth_death_interval": 2}


@pytest.mark.parametrize("base", ["reinforce", "a2c", "ppo"])
def test_three_iterations_and_three_more_are_six(train, same, base):
    options = {"base": base, **POPULATION}
    if base == "ppo":
        options |= {"num_epochs": 2, "num_minibatches": 2}
    assert train("straight", settings(6), **options)
    straight = state(train.agent)
    assert train("first", settings(3), **options)
    half = state(train.agent)
    assert train("second", settings(6), resume=train.run.directory, seed=77, **options)
    same(state(train.agent), straight)
    assert find_checkpoint(train.run.directory).name.endswith(str(6 * FRAMES))
    # Guards the comparison: everything in it moved between 3 and 6.
    for name in half:
        with pytest.raises(AssertionError):
            same(half[name], straight[name])


def test_what_is_restored_acts(train):
    assert train("first", settings(2))
    acted = train.agent.actor[0].module.particles.detach().clone()
    assert train("second", settings(2), resume=train.run.directory, seed=77)
    assert train.agent.actor[0].module.particles.equal(acted)
    assert train.agent.loss.particles is train.agent.actor[0].module.particles


def test_a_complete_run_can_go_on_for_longer(train):
    assert train("short", settings(2))
    assert train("long", settings(5, eval_interval=1), resume=train.run.directory)
    assert train.evaluated_at == [3, 4, 5]


def test_a_bad_resume_is_an_error_before_anything_is_learnt(train, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at {tmp_path}/nowhere"):
        train("run", settings(5), resume=str(tmp_path / "nowhere"))
    assert train("small", settings(1))
    with pytest.raises(ValueError, match=r"particles has shape \[3, 26\] there and \[3, 32\] here"):
        train("other", settings(5), resume=train.run.directory, num_cells=(5,))
    assert int(train.agent.loss.iteration) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("mode", "svpg"), ("base", "ppo"), ("env", "cartpole"), ("env_options", {"horizon": 9})],
)
def test_another_problem_is_refused(name, value):
    saved = {"loss": {}, "training": {}, "mode": "joint", "base": "a2c", "env": "x"}
    saved["env_options"] = {}
    check_same_problem(saved, saved)
    with pytest.raises(ValueError, match=f"resume: {name} is .* in the checkpoint"):
        check_same_problem(saved, {**saved, name: value})


# test returns travel with the checkpoint


def test_a_checkpoint_holds_the_last_test_returns(train):
    assert train("run", settings(2))
    assert read_metadata(train.run.directory)["returns"] == [2.0, 3.0, 4.0]
    # A resume that stops before the next evaluation keeps them.
    assert train("nothing", settings(2), resume=train.run.directory)
    assert read_metadata(train.run.directory)["returns"] == [2.0, 3.0, 4.0]


def test_the_best_mean_is_kept(train):
    returns = iter([5.0, math.nan, 4.0])
    evaluate = lambda: torch.tensor([0.0, 1.0, 2.0]) + next(returns)  # noqa: E731
    numbers = settings(6, eval_interval=2, checkpoint_interval=1)
    assert train("run", numbers, evaluate=evaluate)
    path = find_checkpoint(train.run.directory / "best")
    assert path.name.endswith(str(2 * FRAMES))
    assert read_metadata(path)["eval_return"] == 6.0  # that of iteration 3 was not evaluated
    assert read_metadata(path)["returns"] == [5.0, 6.0, 7.0]


def test_a_copy_has_the_return_of_its_parent(train, monkeypatch):
    # Evaluated after iterations 2 and 4, saved after 3, when particle 2 has replaced particle 0.
    monkeypatch.setattr(BirthDeath, "draw", lambda self: torch.tensor([2, 1, 2]))
    numbers = settings(4, eval_interval=2, checkpoint_interval=3)
    options = {"birth_death": {}, "birth_death_interval": 3}
    train("run", numbers, evaluate=lambda: torch.tensor([5.0, 6.0, 7.0]), **options)
    first, last = sorted((train.run.directory / "checkpoints").iterdir())
    assert read_metadata(first)["returns"] == [7.0, 6.0, 7.0]
    assert read_metadata(last)["returns"] == [5.0, 6.0, 7.0]
