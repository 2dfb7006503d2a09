"""recipes/acer.py: a run to its end, what it learns from, and its average policy."""

import math

import pytest
import torch
from torch.testing import assert_close

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")

from tests.recipes.loops import run, settings_of
from tests.recipes.processes import SMALL
from tests.recipes.results import curve, read
from torchrl_stein.runs.settings import SettingsError

pytestmark = pytest.mark.timeout(900)

SHORT = (*SMALL["acer"], "env.num_envs=2", "training.warmup_frames=16", "training.batch_size=12")


def test_it_trains_on_choices_and_is_played_again(finished, evaluate, capsys):
    process = finished("acer")
    assert process.err == ""
    # Batches of 64 steps: five without replay, then seven with four replays each.
    updates = 5 + 7 * 5
    assert curve(process.directory, "train/loss_qvalue")[-1][0] == 768
    assert f"update {updates:>6}" in process.out
    summary = read(process.directory, "summary.json")
    assert set(summary) == {"return", "return_std", "length"}
    assert all(math.isfinite(value) for value in summary.values())
    metrics = evaluate.main(str(process.directory), episodes=5, seed=1)
    assert metrics["return"] == metrics["length"]  # CartPole pays 1 for each step
    assert "return" in capsys.readouterr().out


def test_first_the_batch_itself_and_then_earlier_ones():
    batches = []

    def look(loop):
        batches.append(loop.components["buffer"].sample())

    loop = run("acer", settings_of("acer", *SHORT), 8, updated=look)
    # Two batches of two rows of four steps are the warm-up; then one and four replays.
    assert len(loop.collected) == 4
    assert [len(batch) for batch in batches] == [3] * 8
    assert batches[0].shape == (3, 4)
    assert loop.components["buffer"].storage.max_size == 4000 // 4
    rewards = loop.components["buffer"].storage[:]["next", "reward"]
    assert (rewards == torch.tensor(0.1)).all()  # of CartPole 1, scaled once


@pytest.mark.parametrize("config", ["acer", "acer_pendulum"])
def test_the_average_policy_moves_by_its_rate_at_every_update(config):
    states = []

    def look(loop):
        loss = loop.components["loss"]
        parts = (loss.actor_network_params, loss.target_actor_network_params)
        states.append([part.flatten_keys(".").clone().data for part in parts])

    settings = settings_of("acer", *SHORT, "optim.target_tau=0.25", config=config)
    loop = run("acer", settings, 4, tracked=look, updated=look)
    assert ("loss_value" in loop.losses[0].keys()) == (config == "acer_pendulum")  # noqa: SIM118
    (_, average), *later = states
    for policy, found in later:
        average = average + 0.25 * (policy - average)
        assert_close(found.to_dict(), average.to_dict())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.batch_size=7", "training: expected batch_size a multiple of steps"),
        ("training.buffer_size=8", "training: expected batch_size a multiple of steps, and at"),
        ("training.reward_scale=auto", "training.reward_scale must be"),
        ("optim.target_tau=null", "optim.target_tau must be"),
        ("optim.target_update_interval=5", "optim.target_update_interval must be"),
        ("loss.kl_bound=0", "loss.kl_bound must be greater than 0, got 0"),
        ("seeds=2", "seeds must be less than or equal to 1, got 2"),
    ],
)
def test_what_is_refused(setting, message):
    with pytest.raises(SettingsError, match=message):
        settings_of("acer", *SHORT, setting)
