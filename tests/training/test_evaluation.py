"""Playing episodes: sums by hand, and against one environment stepped in a loop."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType, RandomPolicy, exploration_type

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.training import Episodes, episode_metrics, play_episodes


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
    assert episodes.active.sum(-1).equal(episodes.lengths)
    assert episodes.active[0].tolist() == [True] * 5 + [False] * 7


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
    assert episodes.data.shape == episodes.active.shape == (*shape, 6)
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


def test_explores_unless_told_otherwise(make_agent, env):
    actor = make_agent(env).policy
    still = MultiGoalEnv((50,), init_sigma=0.0, seed=0)
    actions = play_episodes(still, actor, max_steps=1).data["action"]
    assert actions.std(0).min() > 1e-3
    mode = play_episodes(still, actor, 1, ExplorationType.DETERMINISTIC).data["action"]
    assert mode.std(0).max() == 0


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
    return Episodes(data, None, torch.tensor([1.0, 5.0]), lengths, zeros.bool())


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
    assert episode_metrics(episodes, (), {"entry": "height", **rule})["success"] == fraction


def test_success_without_a_rule():
    episodes = recorded([[1.0, 2.0], [3.0, 4.0]], lengths=[2, 2])
    with pytest.raises(ValueError, match=r"eval.success must hold entry and one of .* \['entry'\]"):
        episode_metrics(episodes, (), {"entry": "height"})
    with pytest.raises(KeyError, match="speed"):
        episode_metrics(episodes, ["speed"])
