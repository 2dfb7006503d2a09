"""What particles become under each force, in one dimension, where theory says it."""

import math

import pytest
import torch

from tests.objectives.builders import NO_UPDATER, make_batch, make_loss, run
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.objectives import (
    BoxSquash,
    log_distance_force,
    repulsion_force,
    svgd_force,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def normal(z):
    return -0.5 * z.square().sum()


def settle(force, kernel, *, steps, rate, count=200):
    """Particles that follow a force for as long as they move, and their log density N(0, 1)."""
    z = torch.linspace(-1.5, 1.5, count, dtype=torch.float64)[:, None]
    for _ in range(steps):
        z = z + rate * force(kernel, z, z, normal)[0].total
    assert force(kernel, z, z, normal)[0].total.abs().max() < 1e-2
    return z.flatten().sort().values


def moments(z):
    return z.square().mean().item(), z.pow(4).mean().item()


def test_svgd_samples_the_density():
    z = settle(svgd_force, RBFKernel(1.0), steps=3000, rate=0.5)
    second, fourth = moments(z)
    assert second == pytest.approx(1.0, abs=0.02)
    assert fourth == pytest.approx(3.0, abs=0.2)
    levels = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    quantiles = torch.distributions.Normal(0.0, 1.0).icdf(levels)
    assert (torch.quantile(z, levels) - quantiles).abs().max() < 0.05


def test_log_distance_gives_the_semicircle():
    """Equilibrium of z = 2 PV int q(x) / (z - x) dx: Wigner's semicircle of radius 2."""
    z = settle(log_distance_force, RBFKernel(1.0), steps=3000, rate=2e-3)
    second, fourth = moments(z)
    assert second == pytest.approx(1.0, abs=0.02)
    assert fourth == pytest.approx(2.0, abs=0.05)  # of the normal density it is 3
    assert z.abs().max().item() == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_log_distance_spreads_over_one_total_distance(dimension):
    """At rest sum_i z_i phi(z_i) = 0, by pairs: E abs(z)^2 = (n - 1) / n in any dimension."""
    count = 20
    z = torch.randn(count, dimension, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(3000):
        z = z + 5e-3 * log_distance_force(RBFKernel(1.0), z, z, normal)[0].total
    found = z.square().sum(-1).mean().item()
    assert found == pytest.approx((count - 1) / count, abs=1e-3)


def test_own_gradient_and_repulsion_give_a_parabola():
    """Narrow kernel of integral w: q = max(c - z^2 / 2, 0) / w, of half width (3 w / 2)^(1/3)."""
    bandwidth = 2e-3
    w = math.sqrt(math.pi * bandwidth)
    half_width = (1.5 * w) ** (1 / 3)
    z = settle(repulsion_force, RBFKernel(bandwidth), steps=4000, rate=2e-3)
    second, fourth = moments(z)
    assert second == pytest.approx(half_width**2 / 5, rel=0.05)
    assert fourth / second**2 == pytest.approx(15 / 7, abs=0.05)  # of the normal density it is 3


@pytest.mark.parametrize("force", [repulsion_force, log_distance_force])
def test_the_drive_is_each_particles_own_gradient(force):
    pushing, moved = torch.randn(5, 6, 2), torch.randn(5, 4, 2)
    direction, _ = force(RBFKernel(1.0), pushing, moved, normal)
    torch.testing.assert_close(direction.drive, -moved)


def test_the_repulsion_of_svgd_is_that_of_own_gradients_too():
    pushing, moved = torch.randn(5, 6, 2), torch.randn(5, 4, 2)
    both = [f(RBFKernel(1.0), pushing, moved, normal)[0] for f in (svgd_force, repulsion_force)]
    torch.testing.assert_close(both[0].repulsion, both[1].repulsion)
    assert not torch.allclose(both[0].drive, both[1].drive)


@pytest.mark.parametrize("force", [svgd_force, repulsion_force, log_distance_force])
def test_a_loss_writes_what_it_says(force):
    loss = make_loss(force=force)
    losses = run(loss, make_batch(6))
    assert set(losses.keys()) == set(loss.out_keys)
    assert ("kernel_offdiag" in loss.out_keys) == (force is not log_distance_force)


def test_a_loss_follows_its_force():
    """Where repulsion of actions is all there is, log-distance spreads them over the box."""
    torch.manual_seed(0)
    options = {"force": log_distance_force, "squash": BoxSquash(barrier=False), "temperature": 1e6}
    loss = make_loss(**options)
    params = list(loss.actor_network_params.parameters())
    optimizer, batch = torch.optim.Adam(params, lr=1e-2), make_batch(6)
    for _ in range(200):
        optimizer.zero_grad()
        loss.actor_loss(batch)["loss_actor"].backward()
        optimizer.step()
    actions = loss.actor_network.sample(batch, 200)
    assert actions.abs().mean() > 0.7  # at the edge, where those of uniform ones are 0.5
