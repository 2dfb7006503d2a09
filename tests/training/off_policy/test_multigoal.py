"""Metrics of the multi-goal world, from episodes made by hand, and a whole run."""

import json
import math

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.training import Episodes, evaluate_multigoal, multigoal_metrics
from torchrl_stein.training.off_policy import recipe as off_policy_run
from torchrl_stein.training.off_policy.recipe import evaluate_agent, train_off_policy_run

GOALS = [[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]]


def episodes_that_end_at(places):
    """One step each, with returns 0, 1, 2, ... and lengths 1."""
    shape = torch.tensor(places).shape[:-1]
    rows = math.prod(shape)
    after = torch.tensor(places).unsqueeze(-2)
    data = TensorDict({("next", "observation"): after}, (*shape, 1))
    return Episodes(
        data=data,
        active=torch.ones(*shape, 1, dtype=torch.bool),
        returns=torch.arange(rows, dtype=torch.float32).reshape(shape),
        lengths=torch.ones(shape, dtype=torch.int64),
        terminated=torch.zeros(shape, dtype=torch.bool),
    )


def test_by_hand():
    lost = [0.0, 0.0]
    episodes = episodes_that_end_at([GOALS[0], [5.3, 0.4], GOALS[2], lost])
    metrics = multigoal_metrics(MultiGoalEnv(), episodes)
    # Among those that arrive, goals 0 and 2 share 2 : 1, against log 4 for evenness.
    entropy = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3)) / math.log(4)
    assert metrics == pytest.approx(
        {
            "return": 1.5,
            "length": 1.0,
            "success": 0.75,
            "goals_reached": 2.0,
            "entropy": entropy,
            "goal_0": 0.5,
            "goal_1": 0.0,
            "goal_2": 0.25,
            "goal_3": 0.0,
        }
    )


def test_even_and_empty_histograms():
    env = MultiGoalEnv()
    even = multigoal_metrics(env, episodes_that_end_at(GOALS))
    assert even["entropy"] == pytest.approx(1.0)
    assert even["goals_reached"] == 4
    none = multigoal_metrics(env, episodes_that_end_at([[0.0, 0.0]] * 3))
    assert none["success"] == none["entropy"] == none["goals_reached"] == 0


def test_a_goal_counts_as_reached_from_one_episode_in_twenty():
    env = MultiGoalEnv()
    one_of = [[GOALS[1], *[[0.0, 0.0]] * (n - 1)] for n in (20, 21)]
    reached = [multigoal_metrics(env, episodes_that_end_at(p))["goals_reached"] for p in one_of]
    assert reached == [1.0, 0.0]


def test_what_comes_after_an_episode_does_not_matter():
    episodes = episodes_that_end_at([GOALS[0], GOALS[1]])
    longer = torch.cat([episodes.data, episodes.data.clone()], 1)
    longer["next", "observation"][:, 1] = 0.0
    both = Episodes(longer, None, episodes.returns, episodes.lengths, episodes.terminated)
    assert multigoal_metrics(MultiGoalEnv(), both)["success"] == 1.0


def test_any_batch_shape():
    env = MultiGoalEnv()
    flat = multigoal_metrics(env, episodes_that_end_at([*GOALS, [0.0, 0.0], GOALS[0]]))
    rows = [[*GOALS[:3]], [GOALS[3], [0.0, 0.0], GOALS[0]]]
    assert multigoal_metrics(env, episodes_that_end_at(rows)) == flat
    assert multigoal_metrics(env, episodes_that_end_at(GOALS[3]))["goal_3"] == 1.0


def test_other_goals_give_other_entries():
    env = MultiGoalEnv(goals=[[1.0, 0.0], [-3.0, 0.0]], goal_threshold=0.5)
    metrics = multigoal_metrics(env, episodes_that_end_at([[1.2, 0.0], [-3.0, 0.1]]))
    assert metrics["goal_0"] == metrics["goal_1"] == 0.5
    assert "goal_2" not in metrics


def test_evaluate_starts_from_the_seed(make_agent, env):
    agent = make_agent(env)
    metrics, world, played = evaluate_multigoal(agent, episodes=6, max_steps=3, seed=5)
    assert world.batch_size == (6,)
    assert world.horizon == 3
    assert played.data.shape == (6, 3)
    assert played.data["observation"][:, 0].equal(MultiGoalEnv((6,), seed=5).reset()["observation"])
    assert metrics == multigoal_metrics(world, played)


def test_evaluate_plays_in_the_world_of_training(make_agent, env):
    options = {"goals": [[3.0, 3.0], [-3.0, 3.0]], "action_cost": 0.0, "horizon": 77}
    _, world, _ = evaluate_multigoal(make_agent(env), 2, 3, seed=5, options=options)
    assert world.world.goals == ((3.0, 3.0), (-3.0, 3.0))
    assert (world.world.action_cost, world.horizon) == (0.0, 3)


def test_evaluate_with_sampled_actions_or_the_mode(make_agent, env):
    agent = make_agent(env)

    def actions(how):
        return evaluate_multigoal(agent, 6, 3, seed=5, exploration=how)[2].data["action"]

    assert_close(actions(ExplorationType.DETERMINISTIC), actions(ExplorationType.DETERMINISTIC))
    assert (actions(ExplorationType.RANDOM) != actions(ExplorationType.RANDOM)).all()
    off_policy = {"env": {"name": "multigoal", "options": {}}, "device": "cpu"}
    modes = [
        evaluate_agent(agent, off_policy | {"eval": {"max_steps": 3, "deterministic": mode}}, 6, 5)
        for mode in (True, True, False)
    ]
    assert modes[0] == modes[1] != modes[2]


@pytest.fixture
def config(tmp_path):
    training = {"total_frames": 60, "warmup_frames": 20, "eval_interval": 4}
    training |= {"batch_size": 8, "buffer_size": 100}
    return {
        "seed": 3,
        "device": "cpu",
        "threads": 1,
        "logger": "csv",
        "resume": None,
        "init_from": None,
        "run_dir": str(tmp_path / "run"),
        "env": {"name": "multigoal", "num_envs": 4, "options": {"horizon": 5}},
        "training": training,
        "eval": {"episodes": 6, "final_episodes": 9, "max_steps": 4, "deterministic": False},
    }


def test_a_whole_run(config, make_agent, capsys, monkeypatch):
    played = []

    def watched(agent, episodes, max_steps, seed, options, exploration):
        assert options == {"horizon": 5}
        assert exploration is ExplorationType.RANDOM
        played.append((episodes, max_steps, seed))
        return evaluate_multigoal(agent, episodes, max_steps, seed, options, exploration)

    monkeypatch.setattr(off_policy_run, "evaluate_multigoal", watched)
    run, agent, complete = train_off_policy_run(config, make_agent)
    assert complete
    assert agent.scheduler.last_epoch == (60 - 20) // 4
    assert [p[:2] for p in played] == [(6, 4), (6, 4), (9, 4)]  # after 4 and 8, and at the end
    assert len({seed for *_, seed in played}) == 1  # so that progress is not luck
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["length"] == 4.0
    out = capsys.readouterr().out
    assert out.count("update ") == 2
    assert out.splitlines()[-1] == f"Results: {run.directory}"


def test_the_seed_governs_everything(config, make_agent, same, states, tmp_path):
    def outcome(name, seed):
        starts = []

        def make(env):
            starts.append(env.reset()["observation"])
            return make_agent(env, seed=None)

        here = {**config, "seed": seed, "run_dir": str(tmp_path / name)}
        run, agent, _ = train_off_policy_run(here, make)
        first = agent.loss.state_dict()["actor_network_params.network.0.weight"]
        summary = json.loads((run.directory / "summary.json").read_text())
        return starts[0].clone(), first.clone(), summary, states(agent)

    one, again, other = outcome("a", 3), outcome("b", 3), outcome("c", 4)
    same(one, again)
    for ours, theirs in zip(one, other, strict=True):
        with pytest.raises(AssertionError):
            same(ours, theirs)


def test_checks_the_config_before_it_writes(config, make_agent, tmp_path):
    config["training"]["batch_size"] = 0
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        train_off_policy_run(config, make_agent)
    assert not list(tmp_path.iterdir())
