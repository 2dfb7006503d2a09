"""log_prob of AmortizedSVGDActor: by hand, by loop, by theory (it integrates to one)."""

import math

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP

from torchrl_stein.modules import AmortizedSVGDActor

LOW, HIGH = (0.1, -5.0), (0.3, 2.0)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


class Affine(nn.Module):
    """u = A xi + c s, for which the density of the action is known."""

    def __init__(self, matrix, state_weight):
        super().__init__()
        self.matrix = nn.Parameter(torch.tensor(matrix, dtype=torch.float64))
        self.state_weight = state_weight

    def forward(self, observation, noise):
        return noise @ self.matrix.mT + self.state_weight * observation


def make_box(low, high):
    bounds = (torch.tensor(bound, dtype=torch.float64) for bound in (low, high))
    return Bounded(*bounds, dtype=torch.float64)


def make_states(*batch, obs=2):
    return TensorDict({"observation": torch.randn(*batch, obs, dtype=torch.float64)}, batch)


def make_mlp_actor(obs=3, act=2, low=LOW, high=HIGH):
    net = MLP(in_features=obs + act, out_features=act, num_cells=[8]).double()
    return AmortizedSVGDActor(net, action_spec=make_box(low, high))


@pytest.mark.parametrize("matrix", [[[2.0, 0.5], [-1.0, 0.3]], [[0.0, -3.0], [0.1, 0.0]]])
@pytest.mark.parametrize("state_weight", [0.0, 0.7])
def test_affine_sampler_is_a_squashed_gaussian(matrix, state_weight):
    actor = AmortizedSVGDActor(Affine(matrix, state_weight), action_spec=make_box(LOW, HIGH))
    states = make_states(5)
    noise = actor.draw_noise(states, 6)
    action = actor.squash(actor.unsquashed(states, noise))
    # Backwards from the action: u = atanh of its place in the box is N(c s, A A^T), and
    # du/da = 1 / ((1 - t^2) half_width).
    low, high = torch.tensor([LOW, HIGH], dtype=torch.float64)
    half = (high - low) / 2
    t = (action - low) / half - 1.0
    A = torch.tensor(matrix, dtype=torch.float64)
    loc = state_weight * states["observation"].unsqueeze(1)
    gaussian = torch.distributions.MultivariateNormal(loc, covariance_matrix=A @ A.mT)
    want = gaussian.log_prob(torch.atanh(t)) - ((1.0 - t.square()) * half).log().sum(-1)
    torch.testing.assert_close(actor.log_prob(states, noise), want, rtol=1e-7, atol=1e-7)


def test_by_hand_at_zero_noise():
    # One dimension, u = 2 xi on [0, 4]: at xi = 0, da/dxi = 2 * (4 / 2) * (1 - 0) = 4 and
    # log pi = -log sqrt(2 pi) - log 4.
    actor = AmortizedSVGDActor(Affine([[2.0]], 0.0), action_spec=make_box([0.0], [4.0]))
    log_prob = actor.log_prob(make_states(obs=1), torch.zeros(1, 1, dtype=torch.float64))
    assert log_prob.item() == pytest.approx(-0.5 * math.log(2.0 * math.pi) - math.log(4.0))


@pytest.mark.parametrize(("act", "batch"), [(1, (3,)), (2, (2, 2)), (4, ())])
def test_against_one_autograd_jacobian_per_sample(act, batch):
    actor = make_mlp_actor(act=act, low=[-0.5] * act, high=[2.0] * act)
    states = make_states(*batch, obs=3)
    noise = actor.draw_noise(states, 4)
    flat = states.reshape(-1) if batch else states.unsqueeze(0)
    want = []
    for state, xis in zip(flat.unbind(0), noise.reshape(-1, 4, act), strict=True):
        for xi in xis:
            jacobian = torch.autograd.functional.jacobian(
                lambda x, s=state: actor.squash(actor.unsquashed(s, x[None]))[0], xi
            )
            gaussian = torch.distributions.Normal(0.0, 1.0).log_prob(xi).sum()
            want.append(gaussian - torch.linalg.det(jacobian).abs().log())
    want = torch.stack(want).reshape(*batch, 4)
    torch.testing.assert_close(actor.log_prob(states, noise), want, **CLOSE)


def test_density_integrates_to_one():
    # A monotone one-dimensional sampler, so that its density is that of eq. (33): with xi from
    # -12 to 12 the actions fill the box up to 1e-9. Trapezoidal rule over the actions.
    class Monotone(nn.Module):
        def forward(self, observation, noise):
            return noise + 0.3 * torch.sin(2.0 * noise) + observation

    actor = AmortizedSVGDActor(Monotone(), action_spec=make_box([-5.0], [2.0]))
    states = TensorDict({"observation": torch.tensor([[0.4]], dtype=torch.float64)}, [1])
    noise = torch.linspace(-12.0, 12.0, 20001, dtype=torch.float64)[None, :, None]
    action = actor.squash(actor.unsquashed(states, noise))
    density = actor.log_prob(states, noise).exp()
    total = torch.trapezoid(density, action.squeeze(-1))
    assert total.item() == pytest.approx(1.0, abs=1e-5)
    # First moment as well: E[a] over the density is E over the noise.
    mean = torch.trapezoid(density * action.squeeze(-1), action.squeeze(-1))
    weight = torch.exp(-0.5 * noise.square()) / math.sqrt(2.0 * math.pi)
    want = torch.trapezoid((weight * action).squeeze(-1), noise.squeeze(-1))
    torch.testing.assert_close(mean, want, rtol=0.0, atol=1e-5)


def test_entropy_of_a_wide_box_is_that_of_the_gaussian():
    # u = 0.01 xi is practically not squashed: entropy d/2 log(2 pi e 0.01^2) + d log half_width.
    eye = [[0.01, 0.0], [0.0, 0.01]]
    actor = AmortizedSVGDActor(Affine(eye, 0.0), action_spec=make_box(LOW, HIGH))
    _, log_prob = actor.sample_with_log_prob(make_states(200), 200)
    half = [(h - w) / 2 for w, h in zip(LOW, HIGH, strict=True)]
    want = math.log(2.0 * math.pi * math.e * 0.01**2) + sum(math.log(h) for h in half)
    # log_prob has variance d/2 = 1, so 40000 samples give a standard error of 0.005: four of them.
    assert -log_prob.mean().item() == pytest.approx(want, abs=0.02)


def test_samples_come_with_their_density():
    actor, states = make_mlp_actor(), make_states(5, obs=3)
    torch.manual_seed(3)
    actions, log_prob = actor.sample_with_log_prob(states, 6)
    torch.manual_seed(3)
    noise = actor.draw_noise(states, 6)
    torch.testing.assert_close(actions, actor.squash(actor.unsquashed(states, noise)))
    torch.testing.assert_close(log_prob, actor.log_prob(states, noise))
    torch.manual_seed(3)
    torch.testing.assert_close(actions, actor.sample(states, 6))


def test_gradient_of_the_density():
    # u = w xi at fixed noise: log pi = log N(xi) - log w - log((1 - t^2) half), t = tanh(w xi), so
    # d/dw = -1/w + 2 t xi.
    actor = AmortizedSVGDActor(Affine([[1.5]], 0.0), action_spec=make_box([0.0], [4.0]))
    noise = torch.tensor([[0.3], [-1.1]], dtype=torch.float64)
    actor.log_prob(make_states(obs=1), noise).sum().backward()
    want = sum(-1.0 / 1.5 + 2.0 * math.tanh(1.5 * xi) * xi for xi in (0.3, -1.1))
    assert actor.network.matrix.grad.item() == pytest.approx(want, rel=1e-9)


def test_saturated_actions_have_a_finite_density():
    net = Affine([[50.0]], 0.0).float()
    actor = AmortizedSVGDActor(net, action_spec=Bounded(-1.0, 1.0, shape=(1,)))
    states = make_states(1, obs=1).float()
    assert actor.log_prob(states, torch.tensor([[[5.0], [-3.0], [0.0]]])).isfinite().all()


def test_constant_sampler_has_infinite_density():
    actor = AmortizedSVGDActor(Affine([[0.0]], 1.0), action_spec=make_box([-1.0], [1.0]))
    assert actor.log_prob(make_states(obs=1), torch.ones(2, 1).double()).tolist() == [math.inf] * 2


@pytest.mark.parametrize("noise_dim", [1, 3])
def test_no_density_without_as_many_noises_as_actions(noise_dim):
    net = MLP(in_features=2 + noise_dim, out_features=2).double()
    actor = AmortizedSVGDActor(net, action_spec=make_box(LOW, HIGH), noise_dim=noise_dim)
    states = make_states(5)
    message = (
        "AmortizedSVGDActor: log_prob needs noise_dim equal to the action dimension, "
        f"got noise_dim={noise_dim} and 2 action dimensions"
    )
    with pytest.raises(ValueError, match=message):
        actor.log_prob(states, actor.draw_noise(states, 4))
    with pytest.raises(ValueError, match=message):
        actor.sample_with_log_prob(states, 4)
