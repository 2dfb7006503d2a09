"""The off-policy loop: what it counts, when it acts, how it stops and how it goes on."""

import os
import re
import signal

import pytest
import torch
from tensordict import TensorDict
from torchrl.checkpoint import CheckpointError
from torchrl.envs import TransformedEnv
from torchrl.envs.transforms import Transform

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.training import (
    OffPolicySettings,
    Run,
    find_checkpoint,
    load_weights,
    read_metadata,
    train_off_policy,
)
from torchrl_stein.training.off_policy import loop as off_policy

SETTINGS = {"warmup_frames": 16, "batch_size": 8, "log_interval": 5, "eval_interval": 10}


def settings(updates, **options):
    """For 4 environments and 16 frames of warm-up."""
    options = {"checkpoint_interval": 1000, "buffer_size": 1000, **SETTINGS, **options}
    return OffPolicySettings(total_frames=16 + 4 * updates, **options)


def scalars(run, name):
    lines = (run.directory / "metrics" / "scalars" / f"{name}.csv").read_text().split()
    return {int(step): float(value) for step, value in (line.split(",") for line in lines)}


class Harness:
    """Runs the loop with a small agent; every run of it starts from the same seed."""

    def __init__(self, folder, make_agent):
        self.folder, self.make_agent = folder, make_agent

    def __call__(self, name, settings, *, evaluate=None, resume=None, env=None, **agent):
        env = env or MultiGoalEnv((4,), horizon=5, seed=0)
        self.agent = self.make_agent(env, **agent)
        self.run = Run(self.folder / name, {"name": name})
        self.evaluations = 0

        def count():
            self.evaluations += 1
            return evaluate() if evaluate else {"return": -1.0}

        return train_off_policy(self.agent, env, settings, self.run, count, resume=resume)


@pytest.fixture
def train(tmp_path, make_agent):
    return Harness(tmp_path, make_agent)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    return {}


# what happens when


@pytest.mark.parametrize(
    ("total", "warmup", "per_step"),
    [(100, 16, 1), (100, 18, 1), (98, 16, 2), (16, 16, 1), (8, 40, 1)],
)
def test_the_number_of_updates_is_known_beforehand(train, total, warmup, per_step):
    numbers = OffPolicySettings(
        total_frames=total,
        warmup_frames=warmup,
        updates_per_step=per_step,
        batch_size=8,
        buffer_size=100,
    )
    assert train("run", numbers)
    assert train.agent.scheduler.last_epoch == numbers.updates(num_envs=4)


def test_intervals(train):
    assert train("run", settings(23, checkpoint_interval=10))
    assert train.agent.scheduler.last_epoch == 23
    assert train.evaluations == 2
    frames_of = {update: 16 + 4 * update for update in (5, 10, 15, 20, 23)}
    losses = scalars(train.run, "train/loss_qvalue")
    assert list(losses) == [frames_of[u] for u in (5, 10, 15, 20)]
    assert list(scalars(train.run, "eval/return")) == [frames_of[10], frames_of[20]]
    kept = sorted(p.name for p in (train.run.directory / "checkpoints").iterdir())
    assert [int(name.split("-")[1]) for name in kept] == [frames_of[20], frames_of[23]]
    assert read_metadata(train.run.directory)["config"] == {"name": "run"}


def test_logs_the_rate_in_use_and_unscaled_returns(train):
    env = MultiGoalEnv((4,), horizon=5, init_sigma=0.0, seed=0, action_cost=0.0)
    train("run", settings(10, reward_scale=1e-3), env=env, updates=10, lr=1e-3)
    rates = scalars(train.run, "train/lr")
    assert list(rates.values()) == pytest.approx([1e-3 * (1 - 0.9 * 5 / 10), 1e-4])
    # Five steps at distances of about 5 from the nearest goal.
    assert all(-250 < value < -30 for value in scalars(train.run, "train/return").values())
    assert all(value < 2 for value in scalars(train.run, "train/loss_qvalue").values())


def test_the_warmup_acts_uniformly_and_does_not_learn(train, monkeypatch):
    batches = []
    monkeypatch.setattr(
        "torchrl_stein.training.off_policy.loop.check_losses", lambda *args: batches.append(args[2])
    )
    env = MultiGoalEnv((500,), seed=0)
    numbers = OffPolicySettings(
        total_frames=4500, warmup_frames=4000, batch_size=3000, buffer_size=5000
    )
    assert train("run", numbers, env=env)
    assert train.agent.scheduler.last_epoch == 1
    action = batches[0]["action"]
    assert action.shape == (3000, 2)
    assert action.abs().max() <= 1
    assert (action.std(0) - 3**-0.5).abs().max() < 0.03  # of which the actor makes a ninth


# stopping


def test_ctrl_c_saves_and_says_how_to_go_on(train, capsys):
    before = signal.getsignal(signal.SIGINT)
    assert not train("run", settings(1000), evaluate=interrupt)
    assert train.agent.scheduler.last_epoch == 10
    path = find_checkpoint(train.run.directory)
    assert f"Stopped. To go on: resume={path}" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGINT) is before


class BadReward(Transform):
    """Replaces one reward of the n-th step."""

    def __init__(self, value, at):
        super().__init__(in_keys=["reward"], out_keys=["reward"])
        self.value, self.left = value, at

    def _step(self, tensordict, next_tensordict):
        self.left -= 1
        if self.left == 0:
            next_tensordict["reward"][2] = self.value
        return next_tensordict


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bad_reward_is_named_and_the_last_checkpoint_is_sound(train, value):
    env = MultiGoalEnv((4,), horizon=5, seed=0)
    env = TransformedEnv(env, BadReward(value, at=4 + 15))
    with pytest.raises(ValueError, match=r"\('next', 'reward'\) must be finite"):
        train("run", settings(400, checkpoint_interval=10), env=env)
    # The path that a user takes: back to the checkpoint, with a mended environment.
    (path,) = (train.run.directory / "checkpoints").iterdir()
    assert path.name.endswith(str(16 + 4 * 10))
    assert train("again", settings(20), resume=path)
    assert all(p.isfinite().all() for p in train.agent.loss.parameters())


def test_a_diverging_loss_is_named_and_the_data_are_not_blamed(train):
    with pytest.raises(FloatingPointError) as error:
        train("run", settings(100, checkpoint_interval=1), lr_qvalue=1e25)
    steps = train.agent.scheduler.last_epoch
    pattern = rf"loss_(actor|qvalue) is (nan|inf|-inf) at update {steps}; the batch is finite"
    assert re.fullmatch(pattern, str(error.value)), error.value
    # The checkpoint is of the update before, whose losses were numbers.
    path = find_checkpoint(train.run.directory)
    assert path.name.endswith(str(16 + 4 * (steps - 1)))
    load_weights(path, train.agent.loss)
    assert all(p.isfinite().all() for p in train.agent.loss.parameters())


def test_no_checkpoint_holds_a_divergence_that_nobody_looked_at(train, monkeypatch):
    # On an accelerator losses are looked at when something is written; the end is such a moment.
    monkeypatch.setattr(off_policy, "_looking_is_free", lambda batch: False)
    make_agent = train.make_agent

    def diverged(*args):
        agent = make_agent(*args)
        agent.update = lambda batch: TensorDict({"loss_actor": torch.tensor(float("nan"))})
        return agent

    train.make_agent = diverged
    for name, number, options in [
        ("ended", 8, {"log_interval": 1000}),
        ("logged", 6, {"log_interval": 6}),
        ("saved", 7, {"log_interval": 1000, "checkpoint_interval": 7}),
    ]:
        with pytest.raises(FloatingPointError, match=f"loss_actor is nan at update {number};"):
            train(name, settings(8, **options))
        assert not list(train.run.directory.glob("checkpoints/*"))


# going on


def test_resuming_goes_on_where_the_run_stopped(train, states, same):
    seen = {}

    def remember():
        seen[train.agent.scheduler.last_epoch] = states(train.agent)
        return {}

    assert train("straight", settings(30), evaluate=remember, updates=30)
    straight = train.agent
    assert not train("stopped", settings(30), evaluate=interrupt, updates=30)
    same(states(train.agent), seen[10])  # the same seed, so the same first half

    # At the moment of resuming, everything that an update reads is what it was.
    moments = []
    make_agent = train.make_agent

    def watched(*args, **kwargs):
        agent = make_agent(*args, **{**kwargs, "seed": 77})
        update = agent.update

        def first(batch):
            moments.append((states(agent), batch))
            return update(batch)

        agent.update = first
        return agent

    train.make_agent = watched
    assert train("resumed", settings(30), resume=train.run.directory, updates=30)
    same(moments[0][0], seen[10])
    assert len(moments) == 20
    # Counters and learning rates end as if nothing had happened.
    assert train.agent.scheduler.last_epoch == 30
    assert train.agent.scheduler.get_last_lr() == straight.scheduler.get_last_lr()
    frames = 16 + 4 * 30
    assert find_checkpoint(train.run.directory).name.endswith(str(frames))
    assert list(scalars(train.run, "train/lr")) == [16 + 4 * u for u in (15, 20, 25, 30)]
    same(train.agent.target_updater.state_dict(), straight.target_updater.state_dict())


def test_resuming_restores_random_numbers_and_data(train, monkeypatch):
    buffers = []
    make_buffer = off_policy.make_buffer

    def kept(*args):
        buffers.append(make_buffer(*args))
        return buffers[-1]

    monkeypatch.setattr(off_policy, "make_buffer", kept)
    assert not train("stopped", settings(30), evaluate=interrupt)
    rng = torch.get_rng_state()
    # Nothing is left to do for a run of 10 updates, so this is the state after restoring.
    assert train("resumed", settings(10), resume=train.run.directory, seed=99)
    assert torch.get_rng_state().equal(rng)
    assert len(buffers[0]) == len(buffers[1]) == 16 + 4 * 10
    for key in ("observation", "action", ("next", "reward"), ("next", "terminated")):
        assert buffers[0][:].get(key).equal(buffers[1][:].get(key))


def test_resuming_does_not_warm_up_again(train):
    assert not train("stopped", settings(30), evaluate=interrupt)
    explorer_calls = []
    make_agent = train.make_agent

    def counted(*args, **kwargs):
        agent = make_agent(*args, **kwargs)
        agent.explorer.register_forward_hook(lambda *_: explorer_calls.append(1))
        return agent

    train.make_agent = counted
    assert train("resumed", settings(30), resume=train.run.directory)
    assert len(explorer_calls) >= 20


def test_a_complete_run_can_go_on_for_longer(train):
    assert train("short", settings(20))
    assert train("long", settings(50), resume=train.run.directory)
    assert train.agent.scheduler.last_epoch == 50
    again = train.run.directory
    assert train("nothing", settings(50), resume=again)
    assert train.agent.scheduler.last_epoch == 50


def test_a_buffer_of_another_size_is_named(train):
    assert train("run", settings(5))
    with pytest.raises(CheckpointError, match=r"buffer_size is 1000 .* cannot become 2000"):
        train("other", settings(9, buffer_size=2000), resume=train.run.directory)


def test_a_bad_resume_is_an_error_before_anything_is_collected(train, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no checkpoint at {tmp_path}/nowhere"):
        train("run", settings(5), resume=str(tmp_path / "nowhere"))
    assert train("small", settings(5))
    with pytest.raises(ValueError, match=r"network\.0\.bias has shape \[8\] there and \[5\] here"):
        train("other", settings(5), resume=train.run.directory, num_cells=(5,))
    assert train.agent.scheduler.last_epoch == 0
