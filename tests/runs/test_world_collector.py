"""WorldCollector: what a slow loop over single rows gives, in the form of TorchRL's Collector."""

import math
from functools import partial

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs import RewardSum, TransformedEnv
from torchrl.envs.utils import ExplorationType
from torchrl.modules import IndependentNormal, ProbabilisticActor, TanhNormal

from torchrl_stein.envs import (
    BatchedEnv,
    CartpoleEnv,
    CartpoleSwingUpEnv,
    DoublePendulumEnv,
    MountainCarEnv,
    MultiGoalEnv,
)
from torchrl_stein.runs import WorldCollector, make_gaussian_actor, play_episodes

ENVS = {
    "cartpole": partial(CartpoleEnv, horizon=9),
    "swingup": partial(CartpoleSwingUpEnv, horizon=9),
    "double_pendulum": partial(DoublePendulumEnv, horizon=9),
    "mountain_car": partial(MountainCarEnv, horizon=9),
    "multigoal": partial(MultiGoalEnv, horizon=9, init_sigma=3.0),
}
all_envs = pytest.mark.parametrize("name", ENVS)
FINISH = {"cartpole", "multigoal"}  # some of whose episodes terminate within nine steps


def collector(env, steps=12, batches=2, **options):
    actor = make_gaussian_actor(env, env.batch_size[0], [8])
    frames = steps * env.batch_size.numel()
    return WorldCollector(
        env, actor, frames_per_batch=frames, total_frames=batches * frames, **options
    )


def starts_of(env):
    """A list that will hold every start state that the environment draws."""
    starts, draw = [], env.draw_starts

    def record(shape):
        starts.append(draw(shape))
        return starts[-1]

    env.draw_starts = record
    return starts


def row_by_row(env, actions, starts):
    """The same episodes, one environment of one row, one step at a time.

    ``starts[t]`` are the states to begin with if an episode begins at time t.
    """
    single = BatchedEnv(env.world, (), horizon=env.horizon)
    rows = []
    for i in range(actions.shape[0]):
        now, steps = None, []
        for t in range(actions.shape[1]):
            if now is None:
                now, total = single.reset(), torch.zeros(1)
                now["state"] = starts[t][i]
                now["observation"] = env.world.observe(starts[t][i])
            step = single.step(now.set("action", actions[i, t]))
            total = total + step["next", "reward"]
            step["next", "episode_reward"] = total
            steps.append(step.select("observation", "elapsed_steps", "next").clone())
            now = None if step["next", "done"] else step["next"].exclude("reward").clone()
        rows.append(torch.stack(steps))
    return torch.stack(rows)


@all_envs
def test_equals_a_slow_loop_over_rows(name):
    env = ENVS[name]((2, 3), seed=0)
    starts = starts_of(env)
    data = torch.cat(list(collector(env)), 2)
    assert data.shape == (2, 3, 24)
    # The first state, then one for each step of both batches, taken if an episode ended there.
    starts = torch.cat([starts[0].unsqueeze(0), *starts[1:]]).flatten(1, 2)
    want = row_by_row(env, data["action"].flatten(0, 1), starts).unflatten(0, (2, 3))
    for key in ("observation", "elapsed_steps"):
        assert_close(data[key], want[key])
    for key in ("observation", "elapsed_steps", "reward", "terminated", "truncated", "done"):
        assert_close(data["next", key], want["next", key])
    assert_close(data["next", "episode_reward"], want["next", "episode_reward"])
    # Both kinds of ends happened, and not in all rows at once.
    ends = data["next", "done"].sum(2).unique()
    assert data["next", "truncated"].any()
    assert data["next", "terminated"].any() == (name in FINISH)
    assert len(ends) > 1 or name not in FINISH


@all_envs
def test_entries_are_those_of_the_collector_of_torchrl(name):
    make = ENVS[name]
    env = make((2, 3), seed=0)
    ours = next(iter(collector(env)))
    transformed = TransformedEnv(make((2, 3), seed=0), RewardSum())
    actor = make_gaussian_actor(env, 2, [8])
    theirs = next(iter(Collector(transformed, actor, frames_per_batch=72, total_frames=72)))
    kinds = {key: (v.shape, v.dtype) for key, v in theirs.items(True, True)}
    rows = torch.arange(2).view(2, 1, 1, 1).expand(*ours.batch_size, 1)
    assert ours.pop("particle").equal(rows)
    assert {key: (v.shape, v.dtype) for key, v in ours.items(True, True)}.items() <= kinds.items()
    missing = {key for key in kinds if key not in ours.keys(True, True)}
    # The state of a world, and flags before a step, which are all false.
    carried = {"done", "terminated", "truncated", "episode_reward"}
    assert missing - {"state", ("next", "state"), ("collector", "traj_ids")} == carried


def test_actions_are_drawn_from_the_policy():
    env = MultiGoalEnv((2, 50), horizon=9, seed=0)
    gathered = collector(env, steps=100)
    network = gathered.policy[0].module
    data = next(iter(gathered))
    loc, scale = network(data["observation"])
    assert_close(data["loc"], loc.detach())
    assert_close(data["scale"], scale.detach())
    noise = ((data["action"] - loc) / scale).flatten(0, -2)
    # 10000 draws: means to 0.01, variances to 0.014, correlations to 0.01.
    assert noise.mean(0).abs().max() < 0.05
    assert (noise.T.cov() - torch.eye(2)).abs().max() < 0.06
    # Neither do draws of neighbouring steps, environments or particles correlate.
    noise = noise.view(2, 50, 100, 2)
    for dim in range(3):
        one, other = noise.narrow(dim, 0, 1), noise.narrow(dim, 1, 1)
        assert not one.equal(other)
        assert (one * other).mean().abs() < 4 / math.sqrt(one.numel())


def test_log_prob_is_that_of_the_policy():
    gathered = collector(MultiGoalEnv((2, 3), seed=0))
    data = next(iter(gathered))
    z = (data["action"] - data["loc"]) / data["scale"]
    density = torch.exp(-0.5 * z.square()) / (data["scale"] * math.sqrt(2 * math.pi))
    assert_close(data["action_log_prob"], density.prod(-1).log())
    assert not data["action_log_prob"].requires_grad
    with torch.no_grad():
        assert_close(
            gathered.policy.get_dist(data).log_prob(data["action"]), data["action_log_prob"]
        )


def test_the_policy_of_the_moment_acts():
    gathered = collector(CartpoleEnv((2, 3), seed=0))
    batches = iter(gathered)
    next(batches)
    with torch.no_grad():
        gathered.policy[0].module.particles.zero_()
    assert next(batches)["loc"].abs().max() == 0


@pytest.mark.parametrize(("total", "batches"), [(36, 1), (37, 2), (72, 2), (73, 3)])
def test_stops_after_the_frames(total, batches):
    env = CartpoleEnv((2, 3), seed=0)
    actor = make_gaussian_actor(env, 2, [8])
    gathered = WorldCollector(env, actor, frames_per_batch=36, total_frames=total)
    assert [data.shape for data in gathered] == [(2, 3, 6)] * batches


def test_a_seed_fixes_everything():
    def run(env_seed, torch_seed):
        torch.manual_seed(0)
        gathered = collector(CartpoleEnv((2, 3), seed=env_seed, horizon=4))
        torch.manual_seed(torch_seed)
        return torch.cat(list(gathered), 2)

    first = run(1, 1)
    assert (run(1, 1) == first).all()
    assert not run(2, 1)["observation"][..., 0, :].equal(first["observation"][..., 0, :])
    assert not run(1, 2)["action"].equal(first["action"])


def test_seeding_the_environment_fixes_what_is_drawn_from_then_on():
    gathered = collector(CartpoleEnv((2, 3), horizon=1), batches=4)
    batches = iter(gathered)
    observed = []
    for _ in range(2):
        gathered.env.set_seed(5)
        next(batches)  # of which the first state was drawn before
        observed.append(next(batches)["observation"])
    assert observed[0].equal(observed[1])


def test_compiled_equals_eager(monkeypatch):
    # Tracing is what may fail; generating code takes ten times as long.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    data = []
    for compiled in (False, True):
        torch.manual_seed(0)
        batches = iter(collector(ENVS["swingup"]((2, 3), seed=0), compiled=compiled))
        first = next(batches)
        with torch.compiler.set_stance("fail_on_recompile"):
            data.append(torch.cat([first, next(batches)], 2))
    for key, value in data[0].items(True, True):
        assert_close(data[1][key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for data in collector(CartpoleEnv((2, 3), "cuda", seed=0, horizon=5)):
        assert data.device is None or data.device.type == "cuda"
        assert {v.device.type for v in data.values(True, True)} == {"cuda"}


# errors


def actor_with(distribution, in_keys=("observation",)):
    network = nn.Linear(4 * len(in_keys), 1)
    module = TensorDictModule(
        lambda *x: (network(torch.cat(x, -1)), torch.ones(1)), list(in_keys), ["loc", "scale"]
    )
    return ProbabilisticActor(module, ["loc", "scale"], distribution_class=distribution)


@pytest.mark.parametrize("frames", [0, -6, 7])
def test_frames_are_a_multiple_of_the_rows(frames):
    words = f"frames_per_batch must be (a multiple of the 6 rows.*|>= 1), got {frames}"
    with pytest.raises(ValueError, match=words):
        WorldCollector(
            CartpoleEnv((2, 3)),
            actor_with(IndependentNormal),
            frames_per_batch=frames,
            total_frames=60,
        )


@pytest.mark.parametrize(
    ("env", "policy", "kind", "message"),
    [
        (CartpoleEnv((2,)), actor_with(TanhNormal), TypeError, "IndependentNormal.*got TanhNormal"),
        (CartpoleEnv((2,)), nn.Linear(4, 1), TypeError, "ProbabilisticActor .*got Linear"),
        (
            CartpoleEnv((2,)),
            actor_with(IndependentNormal, ("observation", "state")),
            ValueError,
            r"must read 'observation' alone, got \['observation', 'state'\]",
        ),
        (
            TransformedEnv(CartpoleEnv((2,)), RewardSum()),
            actor_with(IndependentNormal),
            TypeError,
            "env must be a BatchedEnv .*got TransformedEnv",
        ),
    ],
    ids=["distribution", "no_actor", "reads_more", "transforms"],
)
def test_others_belong_to_the_collector_of_torchrl(env, policy, kind, message):
    with pytest.raises(kind, match=message):
        WorldCollector(env, policy, frames_per_batch=2, total_frames=2)


# episodes with the mean action


EPISODES = {
    "ends early": partial(CartpoleEnv, horizon=60),  # the pole falls
    "full length": partial(DoublePendulumEnv, horizon=9),
}


def strong_collector(env):
    actor = make_gaussian_actor(env, env.batch_size[0], [8], gain=3.0)
    frames = 5 * env.batch_size.numel()
    return WorldCollector(env, actor, frames_per_batch=frames, total_frames=2 * frames)


@pytest.mark.parametrize("count", [1, 3, 7])  # fewer than the rows, as many, no multiple
@pytest.mark.parametrize("name", EPISODES)
@pytest.mark.parametrize("max_steps", [4, 60])
def test_equals_episodes_played_in_the_environment(name, count, max_steps):
    make = EPISODES[name]
    ours = strong_collector(make((2, 3), seed=0))
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
        ours = strong_collector(CartpoleEnv((2, 3), seed=0))
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
        ((3, 5), 4, r"starts must be \[2, M, d\].*got \[3, 5, "),
        ((5,), 4, r"starts must be \[2, M, d\]"),
        ((2, 5), 0, "max_steps must be >= 1, got 0"),
    ],
)
def test_bad_input(shape, max_steps, message):
    env = CartpoleEnv((2, 3), seed=0)
    with pytest.raises(ValueError, match=message):
        strong_collector(env).mean_action_returns(env.draw_starts(shape), max_steps)
