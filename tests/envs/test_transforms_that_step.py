"""TorchRL's transforms that step or reset an environment themselves, against slow loops.

The state of a ``BatchedEnv`` travels in the tensordict. A transform that steps the environment
again has to hand on what the last step wrote; those that do not are refused.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict.nn import TensorDictModule
from torchrl.envs import (
    Compose,
    ConditionalPolicySwitch,
    ConditionalSkip,
    EnvCreator,
    FrameSkipTransform,
    MultiAction,
    NoopResetEnv,
    ParallelEnv,
    RandomTruncationTransform,
    RewardSum,
    SerialEnv,
    StepCounter,
    TransformedEnv,
    check_env_specs,
    step_mdp,
)

from torchrl_stein.envs import (
    ActionRepeatWorld,
    BatchedEnv,
    CartpoleEnv,
    CartpoleSwingUpEnv,
    CartpoleSwingUpWorld,
    CartpoleWorld,
    DoublePendulumWorld,
    MountainCarWorld,
    MultiGoalEnv,
    MultiGoalWorld,
    ParticleEnv,
)


def one_by_one(world, state, actions):
    """Steps of one row, up to its end: states, rewards and whether it terminated."""
    states, rewards, ended = [state], [], False
    for action in actions:
        if ended:
            break
        state, reward, terminated = world.step(state, action)
        states.append(state)
        rewards.append(reward.item())
        ended = terminated.item()
    return states, rewards, ended


# holding an action

LOPSIDED = MultiGoalWorld(goals=((0.7, 0.0),), goal_threshold=0.5)  # reached after a step or two
WORLDS = (
    CartpoleWorld(angle_limit=0.05),
    CartpoleSwingUpWorld(position_limit=0.9, sparse_reward=True),
    DoublePendulumWorld(),
    MountainCarWorld(),
    LOPSIDED,
)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    world=st.sampled_from(WORLDS),
    repeats=st.integers(1, 6),
    shape=st.sampled_from([(), (5,), (2, 3)]),
    seed=st.integers(0, 99),
)
def test_a_repeated_action_is_that_many_steps_of_each_row(world, repeats, shape, seed):
    generator = torch.Generator().manual_seed(seed)
    held = ActionRepeatWorld(world, repeats)
    state = held.sample_state(shape, generator=generator, dtype=torch.float64)
    action = torch.randn(*shape, held.action_dim, generator=generator, dtype=torch.float64)
    after, reward, terminated = held.step(state, action)
    assert reward.shape == terminated.shape == (*shape, 1)
    assert terminated.dtype == torch.bool
    rows = zip(
        state.reshape(-1, held.state_dim),
        action.reshape(-1, held.action_dim),
        after.reshape(-1, held.state_dim),
        reward.flatten().tolist(),
        terminated.flatten().tolist(),
        strict=True,
    )
    for start, push, end, total, over in rows:
        states, rewards, ended = one_by_one(world, start, [push] * repeats)
        torch.testing.assert_close(end, states[-1])
        assert total == pytest.approx(sum(rewards))
        assert over is ended


def test_a_row_that_ended_waits_for_the_others():
    held = ActionRepeatWorld(LOPSIDED, 3)
    start = torch.tensor([[0.0, 0.0], [-1.5, 0.0]])
    after, reward, terminated = held.step(start, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert after.tolist() == [[1.0, 0.0], [0.5, 0.0]]  # after one step, after two
    assert terminated.all()
    assert reward.squeeze(-1).tolist() == pytest.approx(
        [10 - 30 - 0.3**2, (-30 - 1.2**2) + (10 - 30 - 0.2**2)]
    )


def test_the_environment_of_a_held_action():
    env = BatchedEnv(ActionRepeatWorld(CartpoleSwingUpWorld(clean_start=True), 4), (3,), horizon=5)
    check_env_specs(env, seed=0)
    data = env.rollout(9, break_when_any_done=False)
    assert data["next", "elapsed_steps"].max() == 5  # of the long steps
    start, push = data["state"][:, 0], data["action"][:, 0]
    for row in range(3):
        states, rewards, _ = one_by_one(env.world.world, start[row], [push[row]] * 4)
        torch.testing.assert_close(data["next", "state"][row, 0], states[-1])
        assert data["next", "reward"][row, 0].item() == pytest.approx(sum(rewards))
    assert env.render(data).shape[:2] == (3, 9)


def test_a_held_action_compiles_without_a_break():
    held = ActionRepeatWorld(CartpoleWorld(), 3)
    state, action = held.sample_state((4,)), torch.randn(4, 1)
    compiled = torch.compile(held.step, fullgraph=True, backend="aot_eager")
    for ours, plain in zip(compiled(state, action), held.step(state, action), strict=True):
        torch.testing.assert_close(ours, plain)


def test_a_world_that_cannot_draw_itself_cannot_when_held():
    class Blind(MultiGoalWorld):
        render = None

    env = BatchedEnv(ActionRepeatWorld(Blind(), 2), horizon=5)
    with pytest.raises(NotImplementedError, match=r"has no render\(state\)"):
        env.render(env.reset())


# refused

SKIP = r"Env: transforms must not include FrameSkipTransform.*ActionRepeatWorld\(world, 4\)"


def _skipping(env):
    return TransformedEnv(env, FrameSkipTransform(4))


@pytest.mark.parametrize(
    "make",
    [
        lambda: _skipping(CartpoleSwingUpEnv()),
        lambda: _skipping(MultiGoalEnv((2, 3))),
        lambda: TransformedEnv(
            CartpoleEnv((2,)), Compose(StepCounter(), FrameSkipTransform(4), RewardSum())
        ),
        lambda: TransformedEnv(CartpoleEnv(), Compose(RewardSum(), Compose(FrameSkipTransform(4)))),
        lambda: TransformedEnv(_skipping(CartpoleEnv()), StepCounter(), auto_unwrap=False),
        lambda: _skipping(ParticleEnv(MultiGoalEnv((6,)), 3)),
        lambda: ParticleEnv(_skipping(MultiGoalEnv((6,))), 3),
        lambda: _skipping(SerialEnv(2, CartpoleEnv)),
        lambda: SerialEnv(2, lambda: _skipping(CartpoleEnv())),
        lambda: ParallelEnv(2, EnvCreator(lambda: _skipping(CartpoleEnv()))),
    ],
)
def test_frame_skipping_behind_the_back_is_refused(make):
    with pytest.raises(ValueError, match=SKIP):
        make().rollout(2)


def test_frame_skipping_is_refused_where_it_is_compiled():
    env = _skipping(CartpoleEnv((2,)))
    env.compile(backend="eager")
    with pytest.raises(ValueError, match=SKIP):
        env.rollout(2)


def test_one_frame_is_no_skipping():
    env = TransformedEnv(CartpoleEnv((2,)), FrameSkipTransform(1))
    assert env.rollout(3)["next", "elapsed_steps"].unique().tolist() == [1, 2, 3]


def test_an_environment_that_resets_itself_is_refused():
    env = CartpoleEnv((2,), horizon=3, auto_reset=True)
    with pytest.raises(ValueError, match="CartpoleEnv: transforms must not include AutoReset"):
        env.rollout(5, break_when_any_done=False)


# right

TILTED = {"clean_start": True, "start_spread": (0.0, 0.0, 0.15, 0.0)}


def test_random_actions_after_a_reset_are_steps():
    env = CartpoleSwingUpEnv((), seed=0)
    torch.manual_seed(3)
    data = TransformedEnv(env, NoopResetEnv(5, random=False)).reset()
    torch.manual_seed(3)
    plain = CartpoleSwingUpEnv((), seed=0)
    expected = plain.reset()
    for _ in range(5):
        expected = step_mdp(plain.rand_step(expected))
    assert data["elapsed_steps"].item() == 5
    torch.testing.assert_close(data["state"], expected["state"])
    torch.testing.assert_close(data["observation"], expected["observation"])


@pytest.mark.parametrize("horizon", [50, 3])
@pytest.mark.parametrize("population", [False, True])
def test_chunks_of_actions_are_steps_until_a_row_ends(horizon, population):
    # The rows lean differently, so that some fall in the middle of the chunk.
    base = CartpoleEnv((8,), seed=1, horizon=horizon, angle_limit=0.1, **TILTED)
    inner = ParticleEnv(base, 2) if population else base
    env = TransformedEnv(inner, MultiAction(stack_rewards=True, stack_observations=False))
    start = env.reset()
    rows = start.batch_size
    actions = 2 * torch.rand(*rows, 6, 1) - 1
    data = env.step(start.clone().set("action", actions))["next"]
    lengths = set()
    for index in torch.cartesian_prod(*map(torch.arange, rows)).view(8, -1).tolist():
        row = tuple(index)
        states, rewards, ended = one_by_one(base.world, start["state"][row], actions[row][:horizon])
        steps = len(rewards)
        lengths.add(steps)
        torch.testing.assert_close(data["state"][row], states[-1])
        assert data["elapsed_steps"][row].item() == steps
        torch.testing.assert_close(data["reward"][row].flatten()[:steps], torch.tensor(rewards))
        assert not data["reward"][row].flatten()[steps:].any()
        assert data["terminated"][row].item() is ended
        assert data["done"][row].item() is (ended or steps == horizon)
    assert len(lengths) > 1  # or nothing was asked


def test_another_policy_moves_in_between():
    still = TensorDictModule(lambda: torch.zeros(1), in_keys=[], out_keys=["action"])
    odd = ConditionalPolicySwitch(
        condition=lambda data: data.get("elapsed_steps") % 2 == 1, policy=still
    )
    env = TransformedEnv(CartpoleSwingUpEnv((), seed=0, **TILTED), odd)
    data = env.rollout(3, lambda td: td.set("action", torch.ones(1)))
    actions = [torch.ones(1), torch.zeros(1)] * 3
    states, rewards, _ = one_by_one(env.base_env.world, data["state"][0], actions)
    assert data["next", "elapsed_steps"].flatten().tolist() == [2, 4, 6]
    torch.testing.assert_close(data["next", "state"], torch.stack(states[2::2]))
    assert data["next", "reward"].flatten().tolist() == pytest.approx(rewards[1::2])


@pytest.mark.parametrize("population", [False, True])
def test_rows_that_wait_stay_where_they_are(population):
    base = CartpoleSwingUpEnv((4,), seed=0, **TILTED)
    inner = ParticleEnv(base, 2) if population else base
    waits = torch.tensor([True, False, False, True]).view(inner.batch_size)
    skip = ConditionalSkip(cond=lambda data: (data["elapsed_steps"] == 1).squeeze(-1) & waits)
    data = TransformedEnv(inner, skip).rollout(4).reshape(4, 4)
    actions = data["action"]
    for row, waiting in enumerate(waits.flatten().tolist()):
        moves = actions[row][:1] if waiting else actions[row]
        states, rewards, _ = one_by_one(base.world, data["state"][row, 0], moves)
        steps = [1] * 4 if waiting else [1, 2, 3, 4]
        assert data["next", "elapsed_steps"][row].flatten().tolist() == steps
        expected = torch.stack([states[k] for k in steps])
        torch.testing.assert_close(data["next", "state"][row], expected)
        earned = rewards + [0.0] * (4 - len(rewards))
        assert data["next", "reward"][row].flatten().tolist() == pytest.approx(earned)
        assert not data["next", "done"][row].any()


def test_a_random_end_starts_anew():
    cut = RandomTruncationTransform(min_horizon=2, max_horizon=4)
    env = TransformedEnv(CartpoleSwingUpEnv((16,), seed=0), Compose(StepCounter(), cut))
    data = env.rollout(12, break_when_any_done=False)
    ended = data["next", "done"][:, :-1].squeeze(-1)
    assert ended.any(0).sum() > 3
    following = torch.where(ended, 0, data["next", "elapsed_steps"][:, :-1].squeeze(-1))
    assert torch.equal(data["elapsed_steps"][:, 1:].squeeze(-1), following)
    assert data["next", "elapsed_steps"].max() <= 4
