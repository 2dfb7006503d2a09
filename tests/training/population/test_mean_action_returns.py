"""WorldCollector.mean_action_returns: what playing episodes in the environment gives."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType

from torchrl_stein.envs import CartpoleEnv, DoublePendulumEnv
from torchrl_stein.training import WorldCollector, make_gaussian_actor, play_episodes

ENVS = {
    "ends early": partial(CartpoleEnv, horizon=60),  # the pole falls
    "full length": partial(DoublePendulumEnv, horizon=9),
}


def collector(env):
    actor = make_gaussian_actor(env, env.batch_size[0], [8], gain=3.0)
    frames = 5 * env.batch_size.numel()
    return WorldCollector(env, actor, frames_per_batch=frames, total_frames=2 * frames)


@pytest.mark.parametrize("count", [1, 3, 7])  # fewer than the rows, as many, no multiple
@pytest.mark.parametrize("name", ENVS)
@pytest.mark.parametrize("max_steps", [4, 60])
def test_equals_episodes_played_in_the_environment(name, count, max_steps):
    make = ENVS[name]
    ours = collector(make((2, 3), seed=0))
    world = make((2, count), seed=1)
    want = play_episodes(
        make((2, count), seed=1), ours.policy, max_steps, ExplorationType.DETERMINISTIC
    )
    returns = ours.mean_action_returns(world.draw_starts(world.batch_size), max_steps)
    assert_close(returns, want.returns)
    assert returns.unique().numel() == 2 * count or max_steps == 4
    if name == "ends early" and max_steps == 60:
        assert want.terminated.any()


def test_training_data_go_on_where_they_were():
    """With and without an evaluation in between, the second batch of data is the same."""
    seconds = []
    for evaluate in (False, True):
        torch.manual_seed(0)
        ours = collector(CartpoleEnv((2, 3), seed=0))
        ours.collect()
        if evaluate:
            ours.mean_action_returns(CartpoleEnv((2, 3), seed=1).draw_starts((2, 3)), 10)
        seconds.append(ours.collect())
    first, second = seconds
    for key in ("observation", ("next", "episode_reward"), "elapsed_steps"):
        assert_close(first[key], second[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("shape", "max_steps", "message"),
    [
        ((3, 5), 4, r"starts must be \[2, M, S\].*got \[3, 5, "),
        ((5,), 4, r"starts must be \[2, M, S\]"),
        ((2, 5), 0, "max_steps must be >= 1, got 0"),
    ],
)
def test_bad_input(shape, max_steps, message):
    env = CartpoleEnv((2, 3), seed=0)
    with pytest.raises(ValueError, match=message):
        collector(env).mean_action_returns(env.draw_starts(shape), max_steps)
