"""Priors over parameters: densities, and their score coupled like the objective."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from tests.objectives.stein_builders import (
    BANDWIDTH,
    TEMPERATURE,
    N,
    gradients,
    make_stein,
    particle_gradient,
    population,
    run,
)
from tests.oracles import kernels as kernel_oracle
from tests.oracles import svpg
from torchrl_stein.objectives import GaussianPrior

D = 16  # parameters of a particle in make_stein
DOUBLE = {"dtype": torch.float64}
CENTRE = torch.linspace(-1.0, 1.0, D, **DOUBLE)
PRECISION = torch.eye(D, **DOUBLE) + 0.1  # symmetric, positive definite


class Quartic(torch.nn.Module):
    def forward(self, particles):
        return -particles.pow(4).sum(-1)


# A prior and its score by hand.
PRIORS = {
    "gaussian": (GaussianPrior(2.0), lambda x: -x / 4.0),
    "gaussian around": (GaussianPrior(2.0, CENTRE), lambda x: -(x - CENTRE.numpy()) / 4.0),
    "normal": (Normal(0.5, 2.0), lambda x: -(x - 0.5) / 4.0),
    "normal per column": (
        Normal(CENTRE, torch.full((D,), 2.0, **DOUBLE)),
        lambda x: -(x - CENTRE.numpy()) / 4.0,
    ),
    "independent": (
        Independent(Normal(CENTRE, torch.full((D,), 2.0, **DOUBLE)), 1),
        lambda x: -(x - CENTRE.numpy()) / 4.0,
    ),
    "multivariate": (
        MultivariateNormal(CENTRE, precision_matrix=PRECISION),
        lambda x: -(x - CENTRE.numpy()) @ PRECISION.numpy(),
    ),
    "callable": (lambda x: -x.pow(4).sum(-1), lambda x: -4.0 * x**3),
    "module": (Quartic(), lambda x: -4.0 * x**3),
}


@pytest.mark.parametrize("name", PRIORS)
def test_gradient_equals_a_double_loop(name):
    prior, score = PRIORS[name]
    loss, data = make_stein(prior=prior)
    x = loss.particles.detach().numpy()
    g = -N * gradients(loss.loss_module, data)[loss.particles].numpy()
    want = svpg.loss_gradient(kernel_oracle.rbf(BANDWIDTH), x, g, TEMPERATURE, prior_score=score(x))
    got = particle_gradient(loss, data)
    torch.testing.assert_close(got, torch.from_numpy(want), rtol=0, atol=1e-10)


def test_value_is_the_mean_log_density_times_the_temperature():
    loss, data = make_stein(prior=Normal(0.5, 2.0))
    z = (loss.particles.detach().numpy() - 0.5) / 2.0
    log_density = -0.5 * z**2 - math.log(2.0) - 0.5 * math.log(2 * math.pi)
    want = -TEMPERATURE * log_density.sum(1).mean()
    assert run(loss, data)["loss_prior"].item() == pytest.approx(want)


def test_a_flat_prior_has_no_term():
    loss, data = make_stein(prior=None)
    assert "loss_prior" not in run(loss, data)


def test_gaussian_density_by_hand():
    # log N(x; 1, 4 I) at x = (1, 3): -1/2 - 2 log 2 - log 2 pi.
    got = GaussianPrior(2.0, 1.0)(torch.tensor([[1.0, 3.0]]))
    torch.testing.assert_close(got, torch.tensor([-0.5 - 2 * math.log(2) - math.log(2 * math.pi)]))


def test_around_another_population_as_it_is_now():
    other = population(lambda: torch.nn.Linear(2, 1), 5)
    mean = other.particles.detach().mean(0).clone()
    prior = GaussianPrior.around(other, std=0.5)
    with torch.no_grad():
        other.particles.add_(1.0)
    x = torch.randn(4, 3, **DOUBLE, requires_grad=True)
    (score,) = torch.autograd.grad(prior(x).sum(), x)
    torch.testing.assert_close(score, -(x.detach() - mean) / 0.25, rtol=1e-12, atol=1e-12)


def test_gaussian_prior_is_moved_and_saved_with_the_loss():
    loss = make_stein(prior=GaussianPrior(2.0, CENTRE))[0]
    other = make_stein(prior=GaussianPrior(1.0, torch.zeros(D, **DOUBLE)))[0]
    other.load_state_dict(deepcopy(loss.state_dict()))
    torch.testing.assert_close(other.prior.mean, CENTRE)
    assert other.prior.std == 2.0
    assert loss.float().prior.mean.dtype == torch.float32


@pytest.mark.parametrize(
    ("prior", "error", "message"),
    [
        (3.0, TypeError, r"prior must be a torch distribution, a callable .*got float"),
        ("normal", TypeError, r"prior must be a torch distribution, a callable .*got str"),
        (
            MultivariateNormal(torch.zeros(3), torch.eye(3)),
            ValueError,
            r"prior must be over particles \[3, 16\], got batch shape \[\] and event shape \[3\]",
        ),
        (
            Normal(torch.zeros(5), torch.ones(5)),
            ValueError,
            r"prior must be over particles \[3, 16\], got batch shape \[5\] and event shape \[\]",
        ),
        (
            Normal(torch.zeros(2, 3, D), torch.ones(2, 3, D)),
            ValueError,
            r"prior must be over particles \[3, 16\], got batch shape \[2, 3, 16\] and event",
        ),
    ],
)
def test_no_prior_over_these_particles(prior, error, message):
    with pytest.raises(error, match=f"SteinPolicyLoss: {message}"):
        make_stein(prior=prior)


@pytest.mark.parametrize(
    "prior", [lambda x: x, lambda x: x.sum(), lambda x: x.sum(-1, keepdim=True)]
)
def test_a_callable_of_the_wrong_shape(prior):
    loss, data = make_stein(prior=prior)
    got = list(np.shape(prior(loss.particles.detach())))
    message = rf"prior must return log-densities \[3\], one per particle, got shape \{got}"
    with pytest.raises(ValueError, match=f"SteinPolicyLoss: {message}"):
        run(loss, data)


@pytest.mark.parametrize("std", [0.0, -1.0, math.inf])
def test_std_must_be_positive(std):
    with pytest.raises(ValueError, match=f"GaussianPrior: std must be .*> 0, got {std}"):
        GaussianPrior(std)


def test_mean_must_fit():
    with pytest.raises(ValueError, match=r"mean must have shape \[4\], .*got \[3\]"):
        GaussianPrior(1.0, torch.zeros(3))(torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"mean must be a number or \[d\], got shape \[2, 3\]"):
        GaussianPrior(1.0, torch.zeros(2, 3))


def test_around_needs_one_seed():
    several = population(lambda: torch.nn.Linear(2, 1), (2, 5))
    with pytest.raises(ValueError, match=r"population must be of one seed.*\[2, 5, 3\]"):
        GaussianPrior.around(several, 1.0)


def test_around_needs_a_population():
    with pytest.raises(TypeError, match="population must be a ParticleModule, got Linear"):
        GaussianPrior.around(torch.nn.Linear(2, 2), 1.0)
