"""The multi-goal world, as pure functions and as a batched environment."""

import math

import pytest
import torch
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs import Compose, RewardSum, SerialEnv, StepCounter, TransformedEnv
from torchrl.envs.utils import check_env_specs

from torchrl_stein.envs import MultiGoalEnv, MultiGoalWorld


def loop_step(state, action):
    """The world for one row, in plain Python floats, written from the definition."""
    action = [max(-1.0, min(1.0, a)) for a in action]
    state = [max(-7.0, min(7.0, s + a)) for s, a in zip(state, action, strict=True)]
    nearest = min(math.dist(state, goal) for goal in ((5, 0), (-5, 0), (0, 5), (0, -5)))
    reward = -30 * (action[0] ** 2 + action[1] ** 2) - nearest**2 + (10 if nearest < 1 else 0)
    return state, reward, nearest < 1


def undiscounted_return(distances):
    """Return of a straight walk towards the goal (5, 0) that visits the given distances to it."""
    world, state, total = MultiGoalWorld(), torch.zeros(2, dtype=torch.float64), 0.0
    for before, after in zip([5.0, *distances], distances, strict=False):
        state, reward, terminated = world.step(
            state, torch.tensor([before - after, 0.0], dtype=torch.float64)
        )
        total += reward.item()
    assert terminated.item()
    return total


# by hand


@pytest.mark.parametrize(
    ("state", "action", "position", "reward", "terminated"),
    [
        # -30 * 1 - (5 - 1)^2
        ((0.0, 0.0), (1.0, 0.0), (1.0, 0.0), -46.0, False),
        # standing still at the origin: -5^2
        ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0), -25.0, False),
        # the action is clipped to (1, -1) before it costs: -60 - min(4^2 + 1, 1 + 4^2)
        ((0.0, 0.0), (3.0, -2.0), (1.0, -1.0), -77.0, False),
        # reached, at distance 0.5 after the step: -30 * 0.25 - 0.25 + 10
        ((-4.0, 0.0), (-0.5, 0.0), (-4.5, 0.0), 2.25, True),
        # distance exactly 1 is not within 1: -0 - 1
        ((0.0, 4.0), (0.0, 0.0), (0.0, 4.0), -1.0, False),
        # the wall holds the mass at 7, the action still costs: -30 - (2^2 + 7^2)
        ((7.0, 7.0), (1.0, 0.0), (7.0, 7.0), -83.0, False),
        # leaving a goal counts by where it ends: -30 - 1.5^2
        ((5.5, 0.0), (1.0, 0.0), (6.5, 0.0), -32.25, False),
    ],
)
def test_one_step_by_hand(state, action, position, reward, terminated):
    after, paid, ended = MultiGoalWorld().step(torch.tensor(state), torch.tensor(action))
    assert after.tolist() == list(position)
    assert paid.tolist() == [reward]
    assert ended.tolist() == [terminated]


def test_goal_reached_names_the_goal_and_minus_one_elsewhere():
    positions = torch.tensor(
        [[[5.9, 0.0], [-5.0, 0.9]], [[0.5, 4.5], [0.0, -4.1]], [[0.0, 0.0], [6.0, 0.0]]]
    )
    expected = [[0, 1], [2, 3], [-1, -1]]
    assert MultiGoalWorld().goal_reached(positions).tolist() == expected
    reached = MultiGoalEnv().goal_reached(positions)
    assert reached.tolist() == expected
    assert reached.dtype == torch.int64


# against a slow loop


@pytest.mark.parametrize("batch_size", [(), (64,), (16, 4)])
def test_step_equals_a_loop(batch_size):
    generator = torch.Generator().manual_seed(0)
    state = 14.0 * torch.rand((*batch_size, 2), generator=generator, dtype=torch.float64) - 7.0
    action = 2.0 * torch.randn((*batch_size, 2), generator=generator, dtype=torch.float64)
    after, reward, terminated = MultiGoalWorld().step(state, action)
    assert reward.shape == terminated.shape == (*batch_size, 1)
    rows = zip(state.reshape(-1, 2).tolist(), action.reshape(-1, 2).tolist(), strict=True)
    expected = [loop_step(*row) for row in rows]
    assert_close(after.reshape(-1, 2), torch.tensor([e[0] for e in expected]).double())
    assert_close(reward.flatten(), torch.tensor([e[1] for e in expected]).double())
    assert terminated.flatten().tolist() == [e[2] for e in expected]


@pytest.mark.parametrize("way", ["vmap", "compile"])
def test_step_is_the_same_under(way):
    step = MultiGoalWorld().step
    state = torch.linspace(-7.0, 7.0, 24).reshape(12, 2)
    action = torch.linspace(1.5, -1.5, 24).reshape(12, 2)
    # The backend "eager" shows graph breaks as well, and starts faster than a code generator.
    other = {
        "vmap": torch.vmap(step),
        "compile": torch.compile(step, backend="eager", fullgraph=True),
    }[way]
    for computed, expected in zip(other(state, action), step(state, action), strict=True):
        assert_close(computed, expected)


def test_step_differentiates():
    action = torch.tensor([0.5, 0.0], requires_grad=True)
    MultiGoalWorld().step(torch.zeros(2), action)[1].sum().backward()
    assert action.grad.tolist() == [-21.0, 0.0]  # -60 a + 2 (5 - a) at a = 0.5


# theory


@pytest.mark.parametrize(("steps", "best"), [(8, -110.31), (9, -110.01), (10, -110.42)])
def test_best_walks_decelerate_and_nine_steps_are_best(steps, best):
    # Minimising 30 sum (d_{k-1} - d_k)^2 + sum d_k^2 with d_0 = 5 and d_n = 1 gives
    # d_{k+1} - (2 + 1/30) d_k + d_{k-1} = 0, so d_k = (5 sinh((n - k) w) + sinh(k w)) / sinh(n w)
    # with cosh w = 1 + 1/60. The end lies just inside the threshold.
    w, edge = math.acosh(1.0 + 1.0 / 60.0), 1.0 - 1e-9
    walk = [
        (5.0 * math.sinh((steps - k) * w) + edge * math.sinh(k * w)) / math.sinh(steps * w)
        for k in range(1, steps + 1)
    ]
    assert undiscounted_return(walk) == pytest.approx(best, abs=0.005)


def test_equal_steps_cost_more_than_decelerating_ones():
    # Eight steps of 0.5: -30 * 8 * 0.25 - (4.5^2 + 4^2 + ... + 1^2) + 10 = -60 - 71 + 10
    walk = [5.0 - 0.5 * k for k in range(1, 8)] + [1.0 - 1e-9]
    assert undiscounted_return(walk) == pytest.approx(-121.0, abs=1e-6)


def test_four_goals_are_equally_good():
    # A quarter turn permutes the goals, so it changes no reward and no termination.
    world, generator = MultiGoalWorld(), torch.Generator().manual_seed(0)
    state = 14.0 * torch.rand(100, 2, generator=generator) - 7.0
    action = torch.randn(100, 2, generator=generator)
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    after, reward, terminated = world.step(state, action)
    turned = world.step(state @ turn, action.clamp(-1.0, 1.0) @ turn)
    assert_close(turned[0], after @ turn)
    assert_close(turned[1], reward)
    assert turned[2].equal(terminated)


# lines for goals, and episodes that go on


def test_a_goal_that_leaves_a_coordinate_open_is_a_line():
    world = MultiGoalWorld(goals=((3.0, None), (None, -4.0)), action_cost=1.0)
    state = torch.tensor([[0.0, 0.0], [2.5, 6.0], [-7.0, -3.5]])
    assert world.squared_distances(state).tolist() == [[9.0, 16.0], [0.25, 100.0], [100.0, 0.25]]
    assert world.goal_reached(state).tolist() == [-1, 0, 1]
    _, reward, terminated = world.step(state, torch.zeros(3, 2))
    assert reward.flatten().tolist() == [-9.0, 9.75, 9.75]
    assert terminated.flatten().tolist() == [False, True, True]


def test_an_episode_that_goes_on_at_its_goal():
    world = MultiGoalWorld(ends_at_goal=False)
    _, reward, terminated = world.step(torch.tensor([5.0, 0.0]), torch.zeros(2))
    assert (reward.item(), terminated.item(), terminated.dtype) == (10.0, False, torch.bool)
    env = MultiGoalEnv((3,), init_sigma=0.0, horizon=6, goals=((0.0, 0.0),), ends_at_goal=False)
    assert not env.rollout(5)["next", "terminated"].any()


def test_a_goal_must_be_somewhere():
    with pytest.raises(ValueError, match=r"at most one None each, got .*\(None, None\)"):
        MultiGoalWorld(goals=((1.0, 2.0), (None, None)))
    with pytest.raises(ValueError, match=r"goals must be >= -7\.0 and <= 7\.0, got 8\.0"):
        MultiGoalWorld(goals=((8.0, None),))


# the picture: 14.7 units of length on 160 pixels, y upwards


def colour_at(image, x, y):
    column, row = round(79.5 + x * 160 / 14.7), round(79.5 - y * 160 / 14.7)
    return image[row, column].tolist()


GREEN, ORANGE, WHITE = [0, 158, 115], [213, 94, 0], [255, 255, 255]


def test_render_draws_the_goals_up_to_their_threshold_and_the_point():
    image = MultiGoalWorld(goals=[(5.0, 0.0), (0.0, -4.0)]).render(torch.tensor([-3.0, 2.0]))
    assert image.shape == (160, 160, 3)
    for x, y, colour in (
        (5.0, 0.0, GREEN),
        (5.0, 0.9, GREEN),
        (5.0, 1.2, WHITE),
        (0.0, -4.0, GREEN),
        (0.0, 4.0, WHITE),
        (-3.0, 2.0, ORANGE),
        (-3.0, -2.0, WHITE),
    ):
        assert colour_at(image, x, y) == colour, (x, y)


def test_render_draws_goals_that_are_lines():
    image = MultiGoalWorld(goals=[(5.0, None), (None, -3.0)]).render(torch.zeros(2))
    for x, y in ((5.0, 6.0), (5.0, -6.0), (6.0, -3.0), (-6.0, -3.0)):
        assert colour_at(image, x, y) == GREEN
    assert colour_at(image, -6.0, 6.0) == WHITE


def test_an_observation_of_pixels_is_the_picture_of_the_position():
    env = MultiGoalEnv((3,), pixels=64, seed=0)
    check_env_specs(env)
    data = env.rollout(4, break_when_any_done=False)
    for states in (data, data["next"]):
        assert states["pixels"].shape == (3, 4, 3, 64, 64)
        picture = env.world.render(states["observation"], 64)
        assert torch.equal(states["pixels"].movedim(-3, -1), picture)
    assert "pixels" not in MultiGoalEnv((3,)).observation_spec.keys()  # noqa: SIM118


def test_a_small_picture_tells_where_the_point_is():
    # The centre of the orange pixels, of which each is 14.7 / 64 = 0.23 units wide.
    position = 10.0 * torch.rand(200, 2, generator=torch.Generator().manual_seed(0)) - 5.0
    image = MultiGoalWorld().render(position, 64)
    orange = (image == torch.tensor(ORANGE, dtype=torch.uint8)).all(-1).float()
    axis = 14.7 / 64 * (torch.arange(64) - 31.5)
    count = orange.sum((-2, -1))
    x, y = (orange.sum(-2) @ axis) / count, -(orange.sum(-1) @ axis) / count
    assert count.min() >= 4
    assert (torch.stack([x, y], -1) - position).abs().max() < 0.1


def test_world_options_reach_the_dynamics():
    env = MultiGoalEnv(goals=[[2.0, 0.0]], goal_reward=3.0, action_cost=2.0, distance_cost=4.0)
    data = env.reset()
    data["observation"] = torch.zeros(2)
    after = env.step(data.set("action", torch.tensor([0.5, 0.0])))["next"]
    assert after["reward"].item() == -9.5  # -2 * 0.5^2 - 4 * 1.5^2
    data["observation"] = torch.tensor([1.0, 0.0])
    after = env.step(data.set("action", torch.tensor([0.5, 0.0])))["next"]
    assert after["reward"].item() == 1.5  # -2 * 0.5^2 - 4 * 0.5^2 + 3


def test_uniform_random_actions_cost_twenty_a_step():
    # E|a|^2 = 2/3 for a uniform on [-1, 1]^2, times 30
    data = MultiGoalEnv((256,), seed=0, distance_cost=0.0, goal_reward=0.0)
    torch.manual_seed(0)
    reward = data.rollout(20, break_when_any_done=False)["next", "reward"]
    assert reward.mean().item() == pytest.approx(-20.0, abs=0.3)


# the environment


@pytest.mark.parametrize("batch_size", [(), (1,), (64,), (16, 4)])
def test_specs_hold(batch_size):
    env = MultiGoalEnv(batch_size)
    check_env_specs(env, seed=0, break_when_any_done="both")
    assert env.action_spec.shape == (*batch_size, 2)
    assert env.action_spec.space.low.unique().tolist() == [-1.0]
    assert env.action_spec.space.high.unique().tolist() == [1.0]
    assert env.observation_spec["observation"].space.high.unique().tolist() == [7.0]
    assert env.reward_spec.shape == (*batch_size, 1)
    # what a step reads back, which environments in worker processes must be told
    assert set(env.state_spec.keys()) == {"observation", "elapsed_steps"}
    assert set(env.done_keys) == {"done", "terminated", "truncated"}


def test_time_limit_truncates_and_does_not_terminate():
    env = MultiGoalEnv((3,), horizon=5, seed=0)
    still = {"action": torch.zeros(3, 2)}
    data = env.rollout(100, lambda td: td.update(still))
    assert data.shape == (3, 5)
    assert data["next", "truncated"].squeeze(-1).tolist() == [[False] * 4 + [True]] * 3
    assert data["next", "done"].equal(data["next", "truncated"])
    assert not data["next", "terminated"].any()


def test_reaching_a_goal_terminates_and_does_not_truncate():
    env = MultiGoalEnv((2,), init_sigma=0.0, seed=0)
    action = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    data = env.rollout(100, lambda td: td.set("action", action.clone()))
    # Five full steps end at the goal; after four the distance is exactly 1, not yet within.
    assert data.shape == (2, 5)
    assert data["next", "terminated"].squeeze(-1).tolist() == [[False] * 4 + [True], [False] * 5]
    assert data["next", "done"].equal(data["next", "terminated"])
    assert not data["next", "truncated"].any()
    assert env.goal_reached(data["next", "observation"][:, -1]).tolist() == [0, -1]


def test_start_is_a_small_gaussian_at_the_origin():
    start = MultiGoalEnv((20_000,), seed=0).reset()["observation"]
    assert start.mean(0).abs().max() < 0.005  # seven standard errors of 0.1 / sqrt(20 000)
    assert_close(start.std(0), torch.full((2,), 0.1), atol=0.003, rtol=0)


def test_start_stays_inside_the_square():
    start = MultiGoalEnv((1000,), seed=0, init_sigma=50.0).reset()["observation"]
    assert start.abs().max() == 7.0


def test_same_seed_same_starts_whatever_the_global_generator_does():
    env, other = MultiGoalEnv((8,), seed=3), MultiGoalEnv((8,), seed=4)
    first = [env.reset()["observation"], env.reset()["observation"]]
    assert not first[0].equal(first[1])
    assert not first[0].equal(other.reset()["observation"])
    other.set_seed(3)
    torch.manual_seed(123)
    assert other.reset()["observation"].equal(first[0])
    assert other.reset()["observation"].equal(first[1])


def test_without_a_seed_the_global_generator_decides():
    starts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        starts.append(MultiGoalEnv((4,)).reset()["observation"])
    assert starts[0].equal(starts[1])
    assert not starts[0].equal(starts[2])


def test_moving_an_environment_keeps_its_seed():
    env = MultiGoalEnv((4,), seed=5)
    start = env.reset()["observation"]
    assert env.to("cpu").reset()["observation"].equal(start)


def test_rows_are_independent():
    env = MultiGoalEnv((4, 3), seed=0)
    data = env.reset()
    data["action"] = torch.full((4, 3, 2), 0.1)
    before = env.step(data.clone())["next"]
    data["action"][2, 1] = 0.9
    after = env.step(data)["next"]
    changed = (before["observation"] != after["observation"]).any(-1)
    assert changed.nonzero().tolist() == [[2, 1]]
    assert (before["reward"] != after["reward"]).squeeze(-1).equal(changed)


def test_partial_reset_leaves_the_others_untouched():
    env = MultiGoalEnv((3,), seed=0)
    data = env.reset()
    data = env.step(data.set("action", torch.ones(3, 2)))["next"].exclude("reward")
    position = data["observation"].clone()
    mask = torch.tensor([[False], [True], [False]])
    fresh = env.reset(data.clone().set("_reset", mask))
    assert fresh["elapsed_steps"].flatten().tolist() == [1, 0, 1]
    assert fresh["observation"][[0, 2]].equal(position[[0, 2]])
    assert fresh["observation"][1].abs().max() < 0.6  # a start again, six sigma


def test_rows_restart_on_their_own_in_a_long_rollout():
    env = MultiGoalEnv((2,), horizon=7, init_sigma=0.0, seed=0)
    action = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    data = env.rollout(14, lambda td: td.set("action", action.clone()), break_when_any_done=False)
    assert data["elapsed_steps"].squeeze(-1).tolist() == [
        [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3],
        [0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6],
    ]


@pytest.mark.parametrize("serial", [False, True])
def test_an_episode_may_start_anywhere(serial):
    env = SerialEnv(3, MultiGoalEnv) if serial else MultiGoalEnv((3,), seed=0)
    data = env.reset()
    probes = torch.tensor([[-2.5, 0.0], [0.0, 0.0], [2.5, 2.5]])
    data["observation"] = probes
    still = {"action": torch.zeros(3, 2)}
    walked = env.rollout(2, lambda td: td.update(still), auto_reset=False, tensordict=data)
    assert walked["next", "observation"][:, -1].equal(probes)


def test_transforms_and_collector_of_torchrl():
    env = TransformedEnv(
        MultiGoalEnv((16, 4), horizon=6, seed=0), Compose(RewardSum(), StepCounter())
    )
    check_env_specs(env, seed=0)
    for data in Collector(env, None, frames_per_batch=64 * 12, total_frames=64 * 12):
        assert data.shape == (16, 4, 12)
        after = data["next"]
        assert after["step_count"].equal(after["elapsed_steps"])
        assert after["truncated"].equal(after["elapsed_steps"] == 6)
        whole = after["truncated"][..., 5, 0] & (after["elapsed_steps"][..., 5, 0] == 6)
        total = after["reward"][..., :6, :].sum(-2)
        assert_close(after["episode_reward"][..., 5, :][whole], total[whole])
        assert whole.any()


def test_serial_env_stacks_it():
    check_env_specs(SerialEnv(2, lambda: MultiGoalEnv((3,))), seed=0)


# bad arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"horizon": 0}, r"horizon must be >= 1, got 0"),
        ({"init_sigma": -0.1}, r"init_sigma must be >= 0, got -0\.1"),
        ({"goals": [[1.0, 2.0, 3.0]]}, r"goals must have shape \[G, 2\].*got \[\[1\.0, 2"),
        ({"goals": torch.zeros(0, 2)}, r"goals must have shape \[G, 2\].*got tensor"),
        ({"goals": [[1.0], [2.0, 3.0]]}, r"goals must have shape \[G, 2\].*got \[\[1\.0\]"),
        ({"goals": [[9.0, 0.0]]}, r"goals must be >= -7\.0 and <= 7\.0, got 9\.0"),
        ({"goals": [[math.nan, 0.0]]}, r"goals must be finite and >= -7\.0 .*got nan"),
        ({"goal_reward": math.inf}, r"goal_reward must be finite, got inf"),
        ({"action_cost": math.nan}, r"action_cost must be finite and >= 0, got nan"),
        ({"goal_threshold": 0.0}, r"goal_threshold must be > 0, got 0\.0"),
        ({"position_limit": -7.0}, r"position_limit must be > 0, got -7\.0"),
        ({"batch_size": (2, -1)}, r"batch_size must be >= 1, got -1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiGoalEnv(**arguments)


def test_starts_are_not_the_noise_of_the_same_seed():
    torch.manual_seed(3)
    noise = torch.randn(2000, 2)
    starts = MultiGoalEnv((2000,), seed=3, init_sigma=1.0).reset()["observation"]
    correlation = torch.corrcoef(torch.cat([noise, starts], -1).T)[:2, 2:]
    assert correlation.abs().max() < 0.1  # of independent draws about 0.02


def test_an_episode_has_twenty_steps_unless_told_otherwise():
    assert (MultiGoalEnv().horizon, MultiGoalEnv(horizon=7).horizon) == (20, 7)
