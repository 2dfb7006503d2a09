"""Playing episodes: sums by hand, and against one environment stepped in a loop."""

import math

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType, RandomPolicy, exploration_type

from torchrl_stein.envs import SIMPLE_MAZE, GoalMazeEnv, MultiGoalEnv
from torchrl_stein.modules import AmortizedSVGDActor, BestActionActor
from torchrl_stein.runs import evaluate, make_configured_task, make_mlp, play_episodes
from torchrl_stein.runs.evaluation import (
    Episodes,
    episode_metrics,
    goal_maze_metrics,
    isolated_draws,
    multigoal_metrics,
)
from torchrl_stein.runs.settings import Success


def policy(function):
    return TensorDictModule(function, ["observation"], ["action"])


def constant(*actions):
    return policy(lambda observation: torch.tensor(actions).expand_as(observation))


def test_by_hand():
    # Row 0 runs to the goal (5, 0), row 1 is half as fast and late, row 2 stays at the origin.
    env = MultiGoalEnv((3,), horizon=8, init_sigma=0.0, seed=0)
    episodes = play_episodes(env, constant([1.0, 0.0], [0.5, 0.0], [0.0, 0.0]), max_steps=12)
    # -30 |a|^2 - (5 - x)^2 per step, +10 at the goal, which is reached below a distance of 1.
    assert episodes.returns.tolist() == [
        5 * -30.0 - (16 + 9 + 4 + 1 + 0) + 10,
        8 * -7.5 - (20.25 + 16 + 12.25 + 9 + 6.25 + 4 + 2.25 + 1),
        8 * -25.0,
    ]
    assert episodes.lengths.tolist() == [5, 8, 8]
    assert episodes.terminated.tolist() == [True, False, False]
    assert episodes.last().tolist() == [[5.0, 0.0], [4.0, 0.0], [0.0, 0.0]]
    assert episodes.last("elapsed_steps").tolist() == [[5], [8], [8]]


def test_an_episode_that_is_still_running_counts_with_what_it_has():
    env = MultiGoalEnv((1,), horizon=8, init_sigma=0.0, seed=0)
    episodes = play_episodes(env, constant([1.0, 0.0]), max_steps=2)
    assert episodes.returns.tolist() == [-30.0 - 16 - 30 - 9]
    assert episodes.lengths.tolist() == [2]
    assert episodes.terminated.tolist() == [False]
    assert episodes.last().tolist() == [[2.0, 0.0]]


def test_agrees_with_one_world_stepped_in_a_loop():
    # Starts are spread wide, so that rows differ: some begin in a goal, some never reach one.
    env = MultiGoalEnv((40,), horizon=6, init_sigma=3.0, seed=1)
    weight = torch.randn(2, 2)
    episodes = play_episodes(env, policy(lambda s: torch.tanh(s @ weight)), max_steps=15)
    assert 3 < episodes.terminated.sum() < 37
    for row in range(40):
        s = episodes.data["observation"][row, 0]
        total, steps, reached = 0.0, 0, False
        while steps < 6 and not reached:
            s, reward, terminated = env.world.step(s, torch.tanh(s @ weight))
            total, steps, reached = total + reward.item(), steps + 1, bool(terminated)
        assert episodes.returns[row].item() == pytest.approx(total, rel=1e-5)
        assert episodes.lengths[row].item() == steps
        assert episodes.terminated[row].item() == reached
        assert_close(episodes.last()[row], s)


@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 3)])
def test_any_batch_shape(shape):
    env = MultiGoalEnv(shape, horizon=4, seed=0)
    episodes = play_episodes(env, RandomPolicy(env.action_spec), max_steps=6)
    assert episodes.data.shape == (*shape, 6)
    assert episodes.returns.shape == episodes.lengths.shape == episodes.terminated.shape == shape
    assert episodes.last().shape == (*shape, 2)
    assert episodes.lengths.unique().tolist() == [4]
    assert_close(episodes.last(), episodes.data["next", "observation"][..., 3, :])


@pytest.mark.parametrize("kind", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_sets_the_exploration(kind):
    seen = set()

    def act(observation):
        seen.add(exploration_type())
        return torch.zeros_like(observation)

    before = exploration_type()
    play_episodes(MultiGoalEnv((2,), seed=0), policy(act), max_steps=3, exploration=kind)
    assert seen == {kind}
    assert exploration_type() == before


def make_actor(env):
    return AmortizedSVGDActor(make_mlp(4, 2, [8]), action_spec=env.action_spec_unbatched)


def test_explores_unless_told_otherwise():
    actor = make_actor(MultiGoalEnv((4,)))
    still = MultiGoalEnv((50,), init_sigma=0.0, seed=0)
    actions = play_episodes(still, actor, max_steps=1).data["action"]
    assert actions.std(0).min() > 1e-3
    mode = play_episodes(still, actor, 1, ExplorationType.DETERMINISTIC).data["action"]
    assert mode.std(0).max() == 0


def test_what_a_policy_draws_has_nothing_to_do_with_the_starts(recipe):
    """Though they come from one seed: noise that equals the starts biases returns, by 13 of 191."""
    settings = recipe("soft_q").read("env.options.horizon=1", "+env.options.init_sigma=1.0")
    noise = policy(lambda observation: torch.randn_like(observation).clamp(-1, 1))
    _, played = evaluate(noise, settings, episodes=2000, seed=7)
    first = [played.data[name][:, 0] for name in ("observation", "action")]
    correlation = torch.corrcoef(torch.cat(first, -1).T)[:2, 2:]
    assert correlation.abs().max() < 0.1  # of independent draws about 0.02


def test_records_no_graph():
    layer = torch.nn.Linear(2, 2)
    episodes = play_episodes(MultiGoalEnv((2,), seed=0), policy(layer), max_steps=3)
    assert not episodes.returns.requires_grad
    assert not episodes.data["action"].requires_grad


@pytest.mark.parametrize("max_steps", [0, -1])
def test_needs_a_step(max_steps):
    with pytest.raises(ValueError, match=f"max_steps must be >= 1, got {max_steps}"):
        play_episodes(MultiGoalEnv((2,), seed=0), constant([0.0, 0.0]), max_steps)


# metrics of what else was recorded


def recorded(values, lengths):
    """Rows whose entry "height" and "place" are given; only the first steps count."""
    height = torch.tensor(values)
    rows, steps = height.shape
    data = TensorDict({}, [rows, steps])
    data["next", "height"] = height
    data["next", "place"] = torch.stack([height, -height], -1)
    lengths = torch.tensor(lengths)
    zeros = torch.zeros(rows)
    return Episodes(data, torch.tensor([1.0, 5.0]), lengths, zeros.bool())


def test_numbers_that_were_recorded_become_metrics():
    episodes = recorded([[1.0, 2.0, 9.0], [3.0, 4.0, 6.0]], lengths=[2, 3])
    metrics = episode_metrics(episodes, ["height", "place"])
    of_all = {"return": 3.0, "return_std": 2.0, "length": 2.5}
    assert metrics == of_all | {"height": 4.0, "height_min": 2.0, "height_max": 6.0}


@pytest.mark.parametrize(
    ("rule", "fraction"),
    [({"above": 2.0}, 0.5), ({"above": 1.9}, 1.0), ({"below": 6.0}, 0.5), ({"below": 2.0}, 0.0)],
)
def test_success_is_where_an_episode_ends(rule, fraction):
    episodes = recorded([[1.0, 2.0, 9.0], [3.0, 4.0, 6.0]], lengths=[2, 3])
    assert episode_metrics(episodes, (), Success(entry="height", **rule))["success"] == fraction


def test_what_was_not_recorded_is_named():
    episodes = recorded([[1.0, 2.0], [3.0, 4.0]], lengths=[2, 2])
    with pytest.raises(KeyError, match="speed"):
        episode_metrics(episodes, ["speed"])


# the multi-goal world


GOALS = [[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]]


def episodes_that_end_at(places):
    """One step each, with returns 0, 1, 2, ... and lengths 1."""
    shape = torch.tensor(places).shape[:-1]
    rows = math.prod(shape)
    after = torch.tensor(places).unsqueeze(-2)
    data = TensorDict({("next", "observation"): after}, (*shape, 1))
    return Episodes(
        data=data,
        returns=torch.arange(rows, dtype=torch.float32).reshape(shape),
        lengths=torch.ones(shape, dtype=torch.int64),
        terminated=torch.zeros(shape, dtype=torch.bool),
    )


def test_multigoal_metrics_by_hand():
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
    both = Episodes(longer, episodes.returns, episodes.lengths, episodes.terminated)
    assert multigoal_metrics(MultiGoalEnv(), both)["success"] == 1.0


def test_metrics_of_any_batch_shape():
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


# a run's evaluation


def settings_of(recipe, *overrides):
    return recipe("soft_q").read("eval.max_steps=3", *overrides)


def test_it_starts_from_the_seed_in_the_world_of_training(recipe):
    settings = settings_of(recipe, "+env.options.action_cost=0.0", "env.options.horizon=77")
    actor = make_actor(MultiGoalEnv((1,)))
    (metrics,), played = evaluate(actor, settings, episodes=6, seed=5)
    assert played.data.shape == (6, 3)
    assert played.data["observation"][:, 0].equal(MultiGoalEnv((6,), seed=5).reset()["observation"])
    world = MultiGoalEnv((1,), horizon=77, action_cost=0.0)
    assert metrics == multigoal_metrics(world, played)
    assert [metrics] == evaluate(actor, settings, episodes=6, seed=5)[0]
    assert [metrics] != evaluate(actor, settings, episodes=6, seed=6)[0]


def test_with_sampled_actions_or_the_mode(recipe):
    actor = make_actor(MultiGoalEnv((1,)))
    sampled, mode = (
        [
            evaluate(actor, settings_of(recipe, f"eval.deterministic={how}"), episodes=6, seed=seed)
            for seed in (5, 5)
        ]
        for how in ("false", "true")
    )
    assert sampled[0][1].data["action"].equal(sampled[1][1].data["action"])  # by the seed
    assert mode[0][1].data["action"].equal(mode[1][1].data["action"])
    first = [found[0][1].data["action"][:, 0] for found in (sampled, mode)]
    assert (first[0] != first[1]).all()


def test_the_best_of_some_actions_beside_the_policy(recipe):
    actor, settings = make_actor(MultiGoalEnv((1,))), settings_of(recipe, "eval.best_of=32")

    def qvalue(states, actions):  # what is paid at each step
        return -actions.square().sum(-1)

    (metrics,), played = evaluate(actor, settings, episodes=6, seed=5, qvalue=qvalue)
    assert metrics["return_best_of_k"] > metrics["return"]
    best = BestActionActor(actor, qvalue, 32)
    (expected,), _ = evaluate(best, settings, episodes=6, seed=5)
    assert metrics.pop("return_best_of_k") == expected["return"]
    (plain,), without = evaluate(actor, settings_of(recipe), episodes=6, seed=5, qvalue=qvalue)
    assert metrics == plain  # the policy's own numbers are those of before
    assert played.data["action"].equal(without.data["action"])


TASKS = ["multigoal", "swimmer", "torchrl_ant"]


@pytest.mark.parametrize("task", TASKS)
def test_training_does_not_notice(recipe, task):
    """Its draws come from generators of its own, and so do those of environments it makes."""
    settings = settings_of(recipe, f"task={task}")
    spec = make_configured_task(settings.env, 1, seed=0).action_spec_unbatched
    size = spec.shape[-1]

    def act(observation):
        return torch.rand(*observation.shape[:-1], size) * np.random.rand()  # noqa: NPY002

    def draws():
        return torch.rand(3).tolist(), np.random.rand(3).tolist()  # noqa: NPY002

    expected = []
    for evaluations in (0, 1, 3):
        torch.manual_seed(4)
        np.random.seed(4)  # noqa: NPY002
        for seed in range(evaluations):
            evaluate(policy(act), settings, episodes=2, seed=seed)
        expected.append(draws())
    assert expected[0] == expected[1] == expected[2]


def test_draws_are_isolated_whatever_happens():
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)

    def fail():
        with isolated_draws(1):
            torch.rand(7)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert torch.rand(3).equal(expected)


# mazes with several goals


def diagonal(signs):
    """One push along a diagonal per row of signs, [n, 2]; the goals lie there."""
    return policy(lambda observation: torch.tensor(signs).expand_as(observation[..., :2]))


UP_LEFT, UP_RIGHT, STILL = [-1.0, 1.0], [1.0, 1.0], [0.0, 0.0]


def test_measures_of_a_maze_by_hand():
    # Groups: (0, 1, 0, -, -) reaches two of four goals, (1, -, -, -, -) one, and two are left over.
    signs = [UP_LEFT, UP_RIGHT, UP_LEFT, STILL, STILL]
    signs += [UP_RIGHT, STILL, STILL, STILL, STILL, UP_LEFT, [1.0, -1.0]]
    env = GoalMazeEnv((12,), seed=0)
    episodes = play_episodes(env, diagonal(signs), max_steps=150)
    metrics = goal_maze_metrics(SIMPLE_MAZE, episodes)
    assert metrics["return"] == pytest.approx(50.0)
    assert metrics["success"] == pytest.approx(0.5)
    assert metrics["goals_reached"] == 3.0
    assert metrics["removal_sr5"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert "obstacle_sr5" not in metrics
    # The way along the diagonal leads over an obstacle, but not every way.
    among = play_episodes(GoalMazeEnv((12,), obstacles=True), diagonal(signs), max_steps=150)
    assert among.returns.tolist() == [0.0] * 12
    assert among.terminated.sum() == 6
    assert goal_maze_metrics(SIMPLE_MAZE, episodes, among)["obstacle_sr5"] == 0.0
    assert goal_maze_metrics(SIMPLE_MAZE, among, episodes)["obstacle_sr5"] == 1.0
    assert goal_maze_metrics(SIMPLE_MAZE, among, episodes)["goals_reached"] == 0.0


def test_a_goal_counts_only_if_it_was_paid():
    """An obstacle beside a goal may be touched in the step that reaches it."""
    at_goal = torch.tensor([4.0, 4.0, 0.0, 0.0]).expand(2, 1, 4)
    data = TensorDict({"next": {"observation": at_goal}}, [2, 1])
    lengths, ended = torch.ones(2, dtype=torch.long), torch.ones(2, dtype=torch.bool)
    episodes = Episodes(data, torch.tensor([100.0, 0.0]), lengths, ended)
    assert goal_maze_metrics(SIMPLE_MAZE, episodes)["success"] == 0.5


def test_fewer_episodes_than_a_group():
    episodes = play_episodes(GoalMazeEnv((4,)), diagonal([UP_LEFT]), max_steps=3)
    assert set(goal_maze_metrics(SIMPLE_MAZE, episodes, episodes)) == {
        "return", "length", "success", "goals_reached"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["goal_maze_simple", "torchrl_stein/GoalMazeSimple-v0"])
def test_evaluation_in_a_maze_plays_among_obstacles_too(recipe, name):
    settings = settings_of(
        recipe, "task=goal_maze_simple", f"env.name={name}", "eval.max_steps=150"
    )
    (metrics,), played = evaluate(diagonal([UP_LEFT]), settings, episodes=5, seed=0)
    assert metrics["success"] == 1.0
    assert (metrics["goals_reached"], metrics["removal_sr5"]) == (1.0, 0.5)
    assert metrics["obstacle_sr5"] == 0.0
    assert played.returns.tolist() == [100.0] * 5  # of the free map
