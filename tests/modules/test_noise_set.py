"""A sampler whose noise is one of finitely many values."""

from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, ValueOperator

from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import SoftQLoss

BOX = Bounded(-1.0, 1.0, shape=(2,))
STATES = TensorDict({"observation": torch.randn(40, 3)}, [40])


def make_actor(size=6, **options):
    torch.manual_seed(0)
    return AmortizedSVGDActor(
        MLP(3 + 2, 2, num_cells=[8]), action_spec=BOX, noise_set_size=size, **options
    )


def rows_of(actor, noise):
    """Which value of the set each noise is, by a slow comparison; -1 for none."""
    same = (noise.reshape(-1, 1, actor.noise_dim) == actor.noise_set).all(-1)
    return torch.where(same.any(-1), same.long().argmax(-1), -1)


def test_noise_is_uniform_over_the_values_left():
    actor = make_actor()
    for count in (6, 4, 1):
        actor.limit_noise(count)
        noise = actor.draw_noise(STATES, 200)
        assert noise.shape == (40, 200, 2)
        frequencies = rows_of(actor, noise).bincount(minlength=6) / 8000
        expected = torch.tensor([1 / count] * count + [0.0] * (6 - count))
        assert (frequencies - expected).abs().max() < 0.03


def test_states_and_sets_do_not_share_their_draws():
    actor = make_actor()
    a, b = actor.draw_noise_sets(STATES, [3, 5])
    assert (a.shape, b.shape) == ((40, 3, 2), (40, 5, 2))
    assert len(rows_of(actor, a).reshape(40, 3).unique(dim=0)) > 20
    assert not rows_of(actor, a).reshape(40, 3).equal(rows_of(actor, b).reshape(40, 5)[:, :3])


def test_values_are_normal_and_of_the_seed():
    values = make_actor(4000).noise_set
    assert values.mean().abs() < 0.05
    assert values.std().item() == pytest.approx(1.0, abs=0.05)
    assert values.equal(make_actor(4000).noise_set)


def test_the_fixed_sample_is_the_first_value():
    actor = make_actor()
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        fixed = actor(STATES.clone())["action"]
    actor.limit_noise(1)
    assert actor(STATES.clone())["action"].equal(fixed)
    assert actor.sample(STATES, 5).std(1).max() < 1e-6
    noise = actor.noise_set[0].expand(40, 1, 2)
    assert fixed.equal(actor.squash(actor.unsquashed(STATES, noise)).squeeze(1))


def test_the_state_holds_values_and_number():
    actor, other = make_actor(), make_actor()
    torch.nn.init.zeros_(other.noise_set)
    actor.limit_noise(3)
    other.load_state_dict(actor.state_dict())
    assert other.noise_set.equal(actor.noise_set)
    assert other.num_noise == 3
    assert "noise_set" not in make_actor(None).state_dict()


def test_a_loss_and_its_policy_share_them():
    actor = make_actor()
    qvalue = ValueOperator(MLP(5, 1, num_cells=[8]), in_keys=["observation", "action"])
    loss = SoftQLoss(actor, qvalue, num_action_samples=3, num_value_samples=3).to("cpu")
    actor.limit_noise(2)
    state = deepcopy(loss.state_dict())
    assert state["actor_network_params.num_noise"] == 2
    actor.limit_noise(5)
    torch.nn.init.zeros_(actor.noise_set)
    loss.load_state_dict(state)
    assert actor.num_noise == 2
    assert actor.noise_set.abs().min() > 0


@pytest.mark.parametrize("count", [1, 2])
def test_a_stein_step_with_few_values_is_finite(count):
    """Particles that coincide do not repel each other, and have no bandwidth of their own."""
    actor = make_actor()
    actor.limit_noise(count)
    qvalue = ValueOperator(MLP(5, 1, num_cells=[8]), in_keys=["observation", "action"])
    loss = SoftQLoss(actor, qvalue, num_action_samples=8, num_value_samples=3, delay_qvalue=False)
    losses = loss.actor_loss(STATES.clone())
    losses["loss_actor"].backward()
    assert all(p.grad.isfinite().all() for p in actor.parameters())
    assert losses["repulsion_ratio"].isfinite()
    if count == 1:
        assert losses["repulsion_ratio"] < 1e-3  # of rounding


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError)])
def test_an_empty_set(size, error):
    with pytest.raises(error, match=f"AmortizedSVGDActor: noise_set_size must be .*, got {size}"):
        make_actor(size)


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (7, ValueError), (2.5, TypeError), (True, TypeError)]
)
def test_numbers_out_of_range(count, error):
    actor = make_actor(6)
    with pytest.raises(error, match=f"count must be .*>= 1 and <= 6, got {count}"):
        actor.limit_noise(count)
    assert actor.num_noise == 6


def test_no_set_to_limit():
    with pytest.raises(ValueError, match="limit_noise needs a noise_set_size, got None"):
        make_actor(None).limit_noise(1)


def test_there_is_no_density():
    with pytest.raises(ValueError, match="with a noise set, the actions have no density"):
        make_actor().sample_with_log_prob(STATES, 3)
    with pytest.raises(ValueError, match="num_samples must be >= 1, got 0"):
        make_actor().draw_noise(STATES, 0)
