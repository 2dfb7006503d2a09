"""Agents that shall cover landmarks: by hand, against a slow loop, and as an environment."""

from itertools import permutations

import pytest
import torch
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs.utils import check_env_specs

from tests.oracles.simple_spread import spread_step
from torchrl_stein.envs import BatchedEnv, SimpleSpreadEnv, SimpleSpreadWorld

WORLD = SimpleSpreadWorld()


def state_of(places, landmarks, speeds=None):
    rows = [places, speeds or [[0.0, 0.0]] * len(places), landmarks]
    return torch.tensor(rows, dtype=torch.float64).flatten()


# by hand


def test_a_push_moves_an_agent():
    """v = 0.1 * 5 * 1 = 0.5 and x = 0.05; then v = 0.75 * 0.5 = 0.375 and x = 0.0875."""
    far = [[5.0, 0.0], [0.0, 5.0]]
    state = state_of([[0.0, 0.0], *far], [[0.0, 0.0], *far])
    push = torch.tensor([[3.0, -1.0], [0.0, 0.0], [0.0, 0.0]])  # 3 is clipped to 1
    state, reward, ended = WORLD.step(state, push)
    x, v, landmarks = WORLD.split(state)
    assert_close(v[0], torch.tensor([0.5, -0.5]).double())
    assert_close(x[0], torch.tensor([0.05, -0.05]).double())
    assert_close(x[1:], torch.tensor(far).double())
    assert landmarks[0].tolist() == [0.0, 0.0]
    # Three agents, and one landmark of which the nearest agent is sqrt(2) 0.05 away.
    assert_close(reward, torch.tensor([-3 * 2**0.5 * 0.05]).double())
    assert not ended
    x, v, _ = WORLD.split(WORLD.step(state, torch.zeros(3, 2))[0])
    assert_close(v[0], torch.tensor([0.375, -0.375]).double())
    assert_close(x[0], torch.tensor([0.0875, -0.0875]).double())


def test_agents_that_overlap_push_each_other_apart():
    """Two discs of 0.15 at a distance of 0.2 overlap by 0.1: a force of 100 * 0.1, v = 1."""
    places = [[0.0, 0.0], [0.2, 0.0], [0.0, 5.0]]
    state, reward, _ = WORLD.step(state_of(places, places), torch.zeros(3, 2))
    x, v, _ = WORLD.split(state)
    assert_close(v, torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]).double())
    assert_close(x[:2, 0], torch.tensor([-0.1, 0.3]).double())
    # They are 0.4 apart now: no collision, and both have left their landmarks by 0.1.
    assert_close(reward, torch.tensor([-3 * 0.2]).double())


@pytest.mark.parametrize(("apart", "collide"), [(0.2999, True), (0.3001, False)])
def test_a_collision_costs_each_of_the_two(apart, collide):
    """Without contact forces agents at rest stay where they are, on their landmarks."""
    world = SimpleSpreadWorld(contact_force=0.0)
    places = [[0.0, 0.0], [0.0, apart], [3.0, 0.0]]
    _, reward, _ = world.step(state_of(places, places), torch.zeros(3, 2))
    assert_close(reward, torch.tensor([-2.0 * collide]).double())
    three = [[0.0, 0.0], [0.0, apart], [0.75**0.5 * apart, 0.5 * apart]]  # a triangle
    _, reward, _ = world.step(state_of(three, three), torch.zeros(3, 2))
    assert_close(reward, torch.tensor([-6.0 * collide]).double())


def test_what_an_agent_sees():
    """Its velocity and place, landmarks from there, then the agents behind it in the circle."""
    state = state_of(
        [[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]],
        [[0.0, 1.0], [0.0, 2.0], [0.0, 4.0]],
        [[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]],
    )
    seen = WORLD.observe(state)
    expected = [0.2, 0, 2, 0, -2, 1, -2, 2, -2, 4, 2, 0, -1, 0]
    assert_close(seen[1], torch.tensor(expected).double())
    assert_close(seen[2, -4:], torch.tensor([-3.0, 0, -2, 0]).double())


# against a slow loop


@pytest.mark.parametrize("n", [1, 2, 5])
def test_steps_equal_a_loop_over_pairs(n):
    """From starts in a small square, so that most agents touch."""
    world, generator = SimpleSpreadWorld(num_agents=n), torch.Generator().manual_seed(0)
    state = 0.4 * world.sample_state((6,), generator=generator, dtype=torch.float64)
    rows = [[part.tolist() for part in world.split(row)] for row in state]
    for _ in range(8):
        action = 2 * torch.randn(6, n, 2, generator=generator, dtype=torch.float64)
        state, reward, _ = world.step(state, action)
        for i, (places, speeds, landmarks) in enumerate(rows):
            places, speeds, paid = spread_step(places, speeds, landmarks, action[i].tolist())
            rows[i] = [places, speeds, landmarks]
            assert_close(reward[i].item(), paid, atol=1e-9, rtol=0)
        assert_close(state.unflatten(-1, (3, n, 2)), torch.tensor(rows).double())
    assert (reward < 0).all()


# theory


def test_contacts_keep_the_momentum_and_numbers_are_names():
    generator = torch.Generator().manual_seed(1)
    state = 0.2 * WORLD.sample_state((50,), generator=generator, dtype=torch.float64)
    still = torch.zeros(50, 3, 2)
    after, reward, _ = WORLD.step(state, still)
    v = WORLD.split(after)[1]
    assert_close(v.sum(-2), torch.zeros(50, 2).double(), atol=1e-12, rtol=0)
    assert v.abs().amax() > 0.1
    order = torch.tensor([2, 0, 1])
    renamed = torch.stack([part[:, order] for part in WORLD.split(state)], 1).flatten(1)
    other, same, _ = WORLD.step(renamed, still)
    assert_close(same, reward)
    assert_close(WORLD.split(other)[0], WORLD.split(after)[0][:, order])
    # Agents see the others as a circle, so that a turn of the circle turns what is seen.
    turned = torch.stack([part.roll(1, -2) for part in WORLD.split(state)[:2]], 1)
    turned = torch.cat([turned.flatten(1), WORLD.split(state)[2].flatten(1)], 1)
    assert_close(WORLD.observe(turned), WORLD.observe(state).roll(1, -2))


def test_agents_in_one_place_stay_finite():
    state = state_of([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [[0.0, 0.0]] * 3)
    after, reward, _ = WORLD.step(state, torch.zeros(3, 2))
    assert after.isfinite().all()
    assert reward.isfinite().all()


def test_it_differentiates_and_maps():
    generator = torch.Generator().manual_seed(0)
    state = 0.3 * WORLD.sample_state((4,), generator=generator, dtype=torch.float64)
    action = torch.zeros(4, 3, 2, dtype=torch.float64, requires_grad=True)
    after, reward, _ = WORLD.step(state, action)
    assert torch.vmap(WORLD.step)(state, action)[0].allclose(after)
    (gradient,) = torch.autograd.grad(after.sum() + reward.sum(), action)
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


# as an environment


@pytest.mark.parametrize("batch_size", [(), (2, 3)])
def test_specs_hold(batch_size):
    env = SimpleSpreadEnv(batch_size)
    check_env_specs(env, seed=0, break_when_any_done="both")
    assert (env.horizon, env.num_agents) == (25, 3)
    assert env.action_keys == [("agents", "action")]
    assert env.full_action_spec["agents", "action"].shape == (*batch_size, 3, 2)
    agents = env.observation_spec["agents"]
    assert agents.shape == (*batch_size, 3)
    assert agents["observation"].shape == (*batch_size, 3, 14)
    assert env.reward_spec.shape == env.full_done_spec["done"].shape == (*batch_size, 1)


def test_steps_of_the_environment_are_steps_of_the_world():
    env = SimpleSpreadEnv((5,), seed=0, num_agents=2)
    (data,) = Collector(env, None, frames_per_batch=5 * 30, total_frames=5 * 30)
    assert data["agents"].batch_size == (5, 30, 2)
    after, reward, _ = env.world.step(data["state"], data["agents", "action"])
    assert_close(data["next", "state"], after)
    assert_close(data["next", "reward"], reward)
    assert_close(data["next", "agents", "observation"], env.world.observe(after))
    assert data["next", "truncated"].squeeze(-1)[0].nonzero().tolist() == [[24]]
    assert not data["next", "terminated"].any()
    speed, place = data["agents", "observation"][:, [0, 25], :, :4].split(2, -1)
    assert (speed == 0).all()  # of new episodes
    assert place.abs().amax() <= 1


def test_pictures_show_agents_and_landmarks():
    images = SimpleSpreadEnv((2,), seed=0).rollout(3)
    pictures = SimpleSpreadEnv((2,)).render(images)
    assert pictures.shape == (2, 3, 120, 120, 3)
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (pictures == torch.tensor(colour, dtype=torch.uint8)).all(-1).sum() > 20


def test_a_policy_that_shares_the_landmarks_out():
    """Scores of simple policies, beside which docs/reference/recipes.md has that of MADDPG."""
    orders = torch.tensor(list(permutations(range(3))))

    def drive(data, pick):
        """Full force towards the chosen landmark, as far as it is away."""
        seen = data["agents", "observation"]
        to = seen[..., 4:10].unflatten(-1, (3, 2))
        index = pick(to.norm(dim=-1))[..., None, None].expand(*seen.shape[:-1], 1, 2)
        wanted = 0.5 * to.gather(-2, index).squeeze(-2) / 0.1
        force = (wanted - 0.75 * seen[..., :2]) / 0.1
        return data.set(("agents", "action"), (force / 5.0).clamp(-1, 1))

    def shared_out(distances):
        costs = distances[..., torch.arange(3), orders].sum(-1)
        return orders[costs.argmin(-1)]

    def mean(policy):
        data = SimpleSpreadEnv((1000,), seed=7).rollout(25, policy)
        return data["next", "reward"].sum((1, 2)).mean().item()

    assert mean(None) == pytest.approx(-155, abs=5)
    nearest = mean(lambda td: drive(td, lambda distances: distances.argmin(-1)))
    assert nearest == pytest.approx(-119, abs=7)
    assert mean(lambda td: drive(td, shared_out)) == pytest.approx(-29, abs=3)


@pytest.mark.parametrize("n", [0, 2.0, "3", True])
def test_a_number_of_agents_is_a_count(n):
    with pytest.raises((TypeError, ValueError), match="num_agents must be"):
        SimpleSpreadEnv(num_agents=n)

    class Other(type(WORLD)):
        state_dim, observation_dim = 18, 14  # where they come from is not the point

        def __post_init__(self):
            pass

    with pytest.raises((TypeError, ValueError), match="BatchedEnv: Other: num_agents must be"):
        BatchedEnv(Other(num_agents=n), horizon=5)
