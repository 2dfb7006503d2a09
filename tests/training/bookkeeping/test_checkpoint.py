"""Checkpoints: what comes back is what went in, to the bit, or an error that says why not."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torchrl.checkpoint import Checkpoint, GlobalRNGState
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.training import (
    Checkpoints,
    OffPolicySettings,
    check_same_problem,
    find_checkpoint,
    load_weights,
    read_metadata,
)
from torchrl_stein.training.off_policy.replay import ReplayState, make_buffer


def buffer_for(env, transitions, **settings):
    settings = OffPolicySettings(
        **{"total_frames": 100, "batch_size": 8, "buffer_size": 100, **settings}
    )
    buffer = make_buffer(settings, None)
    for _ in range(transitions // env.numel()):
        buffer.extend(env.rollout(1, RandomPolicy(env.action_spec)).reshape(-1))
    return buffer


def checkpoints_of(directory, agent, buffer, **options):
    others = {
        "optimizer": agent.optimizer,
        "scheduler": agent.scheduler,
        "target_updater": agent.target_updater,
        "buffer": ReplayState(buffer),
        "rng": GlobalRNGState(),
    }
    options = {"config": {}, "others": others, **options}
    return Checkpoints(directory / "checkpoints", loss=agent.loss, **options)


def continue_training(agent, buffer, updates):
    for _ in range(updates):
        batch = buffer.sample()
        agent.update(batch)
    return batch


def test_training_goes_on_to_the_bit(tmp_path, make_agent, env, same, states):
    agent, buffer = make_agent(env), buffer_for(env, 80, reward_scale=0.1)
    continue_training(agent, buffer, 7)  # between two copies of the targets
    path = checkpoints_of(tmp_path, agent, buffer).save(step=80)
    at_save = states(agent)
    last = continue_training(agent, buffer, 4)
    after = states(agent)
    further = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002

    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    other, empty = make_agent(env, seed=99), buffer_for(env, 0, reward_scale=0.1)
    checkpoints_of(tmp_path / "other", other, empty).restore(path)
    same(states(other), at_save)
    assert len(empty) == 80
    assert empty[:].get("observation").equal(buffer[:].get("observation"))
    assert empty[:].get(("next", "reward")).equal(buffer[:].get(("next", "reward")))
    assert empty.storage.max_size == 100
    assert continue_training(other, empty, 4).to_dict().keys() == last.to_dict().keys()
    same(states(other), after)
    assert torch.rand(3).equal(further[0])
    assert (np.random.rand(3) == further[1]).all()  # noqa: NPY002
    assert random.random() == further[2]


def test_the_saved_state_is_a_real_one(make_agent, env, states):
    # Guards the test above: seven updates move everything that it compares.
    agent, buffer = make_agent(env), buffer_for(env, 80)
    before = states(agent)
    continue_training(agent, buffer, 7)
    after = states(agent)
    moved = [
        k
        for k, v in after["loss"].items()
        if v.is_floating_point() and (v != before["loss"][k]).any()
    ]
    for part in ("actor_network_params", "qvalue_network_params", "target_qvalue_network_params"):
        assert any(name.startswith(part) for name in moved), part
    assert len(after["optimizer"]["state"]) > 0
    assert after["scheduler"]["last_epoch"] == 7
    assert after["target_updater"] != before["target_updater"]


def test_weights_alone_leave_the_rest(tmp_path, make_agent, env, same, states):
    agent, buffer = make_agent(env), buffer_for(env, 40)
    continue_training(agent, buffer, 2)
    path = checkpoints_of(tmp_path, agent, buffer).save(step=1)
    other = make_agent(env, seed=5)
    before = states(other)
    state = torch.get_rng_state()
    load_weights(path, other.loss)
    assert torch.get_rng_state().equal(state)
    assert not other.optimizer.state_dict()["state"]
    same(states(other)["loss"], states(agent)["loss"])
    with pytest.raises(AssertionError):
        same(states(other)["loss"], before["loss"])
    # The networks that act share these weights.
    states_ = env.reset()
    assert other.policy.sample(states_, 3).shape == (4, 3, 2)
    torch.manual_seed(0)
    expected = agent.policy.sample(states_, 3)
    torch.manual_seed(0)
    assert other.policy.sample(states_, 3).equal(expected)


# other architectures


@pytest.mark.parametrize(
    ("saved", "here", "difference"),
    [
        ([8], [9], "network.0.bias has shape [8] there and [9] here"),
        ([8], [8, 2], "network.4.bias has shape none (absent) there and [2] here"),
        ([8, 2], [8], "network.4.bias has shape [2] there and none (absent) here"),
    ],
    ids=["wider", "deeper", "shallower"],
)
def test_another_architecture_is_refused(
    tmp_path, make_agent, env, states, same, saved, here, difference
):
    path = checkpoints_of(tmp_path, make_agent(env, saved), buffer_for(env, 40)).save(step=1)
    other = make_agent(env, here, seed=1)
    before = states(other)
    with pytest.raises(ValueError, match="made by another architecture") as restoring:
        checkpoints_of(tmp_path / "other", other, buffer_for(env, 0)).restore(path)
    with pytest.raises(ValueError, match="made by another architecture") as loading:
        load_weights(path, other.loss)
    for error in (restoring, loading):
        assert str(path) in str(error.value)
        assert f"actor_network_params.{difference}" in str(error.value)
    same(states(other), before)


# finding them


def linear_checkpoints(directory, **options):
    return Checkpoints(
        directory / "checkpoints", loss=nn.Linear(2, 1), config={}, others={}, **options
    )


def test_a_run_stands_for_its_newest_checkpoint(tmp_path):
    checkpoints = linear_checkpoints(tmp_path)
    first, second = checkpoints.save(step=900), checkpoints.save(step=1000)
    assert find_checkpoint(tmp_path) == find_checkpoint(str(tmp_path)) == second
    assert find_checkpoint(first) == first


def test_only_the_last_ones_are_kept(tmp_path):
    checkpoints = linear_checkpoints(tmp_path, keep_last=2)
    paths = [checkpoints.save(step=step) for step in (10, 20, 30)]
    assert [path.exists() for path in paths] == [False, True, True]


def test_the_best_one_is_kept_too(tmp_path):
    checkpoints = linear_checkpoints(tmp_path, keep_last=2)
    with pytest.raises(FileNotFoundError, match=f"no evaluated checkpoint at {tmp_path}$"):
        find_checkpoint(tmp_path / "best")
    # None: not evaluated since the one before.
    returns = [None, -3.0, float("nan"), -1.0, None, float("-inf"), -2.0, -5.0]
    paths = [checkpoints.save(step, value) for step, value in enumerate(returns)]
    assert [path.exists() for path in paths] == [False] * 3 + [True] + [False] * 2 + [True] * 2
    assert find_checkpoint(tmp_path / "best") == paths[3]
    assert find_checkpoint(tmp_path) == paths[-1]
    assert read_metadata(tmp_path / "best")["eval_return"] == -1.0
    better = checkpoints.save(8, 0.5)
    assert find_checkpoint(str(tmp_path / "best")) == better
    assert not paths[3].exists()


def test_a_run_may_be_called_best(tmp_path):
    path = linear_checkpoints(tmp_path / "best").save(step=1)
    assert find_checkpoint(tmp_path / "best") == find_checkpoint(path) == path


def test_a_step_is_written_once(tmp_path, monkeypatch):
    checkpoints = linear_checkpoints(tmp_path)
    path = checkpoints.save(step=10)
    monkeypatch.setattr(Checkpoint, "save", lambda *_, **__: pytest.fail("written again"))
    assert checkpoints.save(step=10) == path


@pytest.mark.parametrize("what", ["missing", "empty", "run_without_any"])
def test_a_path_without_a_checkpoint_is_named(tmp_path, what):
    path = tmp_path / what
    if what != "missing":
        path.mkdir()
    if what == "run_without_any":
        (path / "checkpoints").mkdir()
    for use in (
        find_checkpoint,
        read_metadata,
        linear_checkpoints(tmp_path / "here").restore,
        lambda p: load_weights(p, nn.Linear(2, 1)),
    ):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint at {path}"):
            use(path)


def test_metadata(tmp_path):
    config = {"recipe": "soft_q", "network": {"num_cells": [8]}, "resume": None}
    checkpoints = Checkpoints(
        tmp_path / "checkpoints", loss=nn.Linear(2, 1), config=config, others={}
    )
    checkpoints.save(step=5)
    metadata = read_metadata(tmp_path)
    assert metadata["config"] == config
    assert metadata["shapes"] == {"weight": [1, 2], "bias": [1]}


# another problem

PROBLEM = {"recipe": "soft_q", "loss": {"gamma": 0.9, "kernel": {"floor": 1.0}}}
PROBLEM["training"] = {"reward_scale": 0.1, "total_frames": 100}
PROBLEM["env"] = {"name": "multigoal", "num_envs": 2, "options": {"radius": 1.0}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "ddpg"}, "recipe is soft_q in the checkpoint, it cannot become ddpg"),
        ({"loss": {"gamma": 0.5}}, r"loss.gamma is 0.9 in the checkpoint, it cannot become 0.5"),
        ({"training": {"reward_scale": 1.0}}, "training.reward_scale is 0.1 in the checkpoint"),
        ({"loss": {**PROBLEM["loss"], "squash": "none"}}, "loss.squash is None in the checkpoint"),
        ({"env": {**PROBLEM["env"], "name": "x"}}, "env.name is multigoal in the checkpoint"),
        ({"env": {**PROBLEM["env"], "options": {}}}, "env.options is {'radius': 1.0} in the check"),
    ],
)
def test_another_problem_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check_same_problem(PROBLEM, {**PROBLEM, **change})


def test_a_longer_run_is_the_same_problem():
    longer = {**PROBLEM, "training": {"reward_scale": 0.1, "total_frames": 900}, "seed": 7}
    longer["env"] = {**PROBLEM["env"], "num_envs": 4}
    check_same_problem(PROBLEM, longer)
