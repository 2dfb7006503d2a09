"""EvolutionStrategiesLoss: its estimate, shaping, inside SteinPolicyLoss, learning."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torchrl.modules import IndependentNormal, ProbabilisticActor

from tests.objectives.evolution_builders import (
    H,
    K,
    N,
    Quadratic,
    estimate,
    make_actor,
    make_loss,
    particles_of,
)
from tests.oracles import kernels as kernel_oracle
from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.functional import centred_ranks, z_scores
from torchrl_stein.kernels import RBFKernel
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import EvolutionStrategiesLoss, SteinPolicyLoss


def slow_estimate(theta, perturbed, shaped):
    """Eq. (1) with antithetic pairs, from the policies that were asked: [n, 2, K, ...]."""
    n, d = theta.shape
    perturbed, shaped = perturbed.view(n, 2, K, d).numpy(), shaped.reshape(n, 2, K).numpy()
    theta = theta.detach().numpy()
    g = np.zeros((n, d))
    for i in range(n):
        for k in range(K):
            xi = (perturbed[i, 0, k] - theta[i]) / H
            np.testing.assert_allclose(perturbed[i, 1, k], theta[i] - H * xi)
            g[i] += (shaped[i, 0, k] - shaped[i, 1, k]) * xi / (2 * H * K)
    return torch.from_numpy(g)


def test_estimate_equals_a_slow_loop():
    quadratic = Quadratic()
    loss = make_loss(quadratic)
    g = estimate(loss)
    want = slow_estimate(particles_of(loss), quadratic.theta, quadratic.returns)
    torch.testing.assert_close(g, want)


def test_on_a_quadratic_each_direction_gives_the_exact_slope():
    # [J(theta + h xi) - J(theta - h xi)] / 2h = grad J . xi, whatever h: no bias at any scale.
    quadratic = Quadratic()
    loss = make_loss(quadratic, scale=2.0)
    g, theta = estimate(loss), particles_of(loss).detach()
    xi = (quadratic.theta.view(N, 2, K, 8)[:, 0] - theta[:, None]) / 2.0
    slopes = torch.einsum("nkd,nd->nk", xi, quadratic.gradient(theta))
    torch.testing.assert_close(g, torch.einsum("nk,nkd->nd", slopes, xi) / K)


@pytest.mark.parametrize("directions", [8, 512])
def test_error_shrinks_with_the_square_root_of_the_number_of_directions(directions):
    # E |xi (xi . v) - v|^2 = (d + 1) |v|^2 for xi ~ N(0, I_d), so K directions leave
    # (d + 1) |v|^2 / K; the mean over 200 particles is within 10 % of it.
    quadratic = Quadratic()
    loss = make_loss(quadratic, make_actor(200), num_directions=directions)
    want = quadratic.gradient(particles_of(loss).detach())
    error = (estimate(loss) - want).square().sum(-1) / want.square().sum(-1)
    assert error.mean().item() * directions / 9 == pytest.approx(1, rel=0.1)


def test_directions_are_standard_normal():
    quadratic = Quadratic()
    loss = make_loss(quadratic, make_actor(50), num_directions=100)
    loss()
    xi = (quadratic.theta.view(50, 2, 100, 8)[:, 0] - particles_of(loss)[:, None]) / H
    assert xi.mean().abs() < 0.02
    assert xi.std().item() == pytest.approx(1, abs=0.02)
    covariance = xi.reshape(-1, 8).T.cov()
    torch.testing.assert_close(covariance, torch.eye(8).double(), atol=0.08, rtol=0)


def test_values():
    quadratic = Quadratic(offset=5.0)
    out = make_loss(quadratic)()
    assert sorted(out.keys()) == ["loss_actor", "particle_return", "return_mean"]
    assert not out["return_mean"].requires_grad
    assert not out["particle_return"].requires_grad
    torch.testing.assert_close(out["particle_return"], quadratic.returns.view(N, -1).mean(-1))
    torch.testing.assert_close(out["return_mean"], quadratic.returns.mean())
    torch.testing.assert_close(out["loss_actor"], -quadratic.returns.mean())


def test_particles_do_not_mix():
    # The last particle's returns are changed; the others keep their gradient.
    def other(policy, num_policies):
        returns = Quadratic()(policy, num_policies)
        returns[-2 * K :] = torch.arange(2.0 * K) ** 2
        return returns

    for shaping in (None, centred_ranks, z_scores):
        first, second = (
            estimate(make_loss(f, actor, shaping=shaping)) for f, actor in _pair(other)
        )
        torch.testing.assert_close(first[:-1], second[:-1])
        assert not torch.allclose(first[-1], second[-1])


def _pair(other):
    actor = make_actor()
    return (Quadratic(), deepcopy(actor)), (other, actor)


@pytest.mark.parametrize("shaping", [None, centred_ranks, z_scores])
def test_what_a_shaping_sees_and_what_is_reported(shaping):
    # One particle per row of 2K = 8 returns: first the four moved by +h xi, then those by -h xi.
    rows = torch.randn(N, 2 * K, dtype=torch.float64)
    rows[2] = 0.1
    quadratic = Quadratic()

    def evaluate(policy, num_policies):
        quadratic(policy, num_policies)
        return rows.flatten()

    loss = make_loss(evaluate, shaping=shaping)
    g = estimate(loss)
    shaped = rows if shaping is None else shaping(rows)
    torch.testing.assert_close(g, slow_estimate(particles_of(loss), quadratic.theta, shaped))
    assert (g[2] == 0).all()  # a return that never changes
    torch.testing.assert_close(loss()["return_mean"], rows.mean())  # reported as it is


@pytest.mark.parametrize("shaping", [centred_ranks, z_scores])
def test_shaped_estimates_ignore_the_scale_of_the_reward(shaping):
    actor = make_actor()
    small, large = (
        estimate(make_loss(Quadratic(c * np.arange(1.0, 9.0), b), deepcopy(actor), shaping=shaping))
        for c, b in ((1.0, 0.0), (1e3, -7.0))
    )
    torch.testing.assert_close(small, large)


@pytest.mark.parametrize("outside", [(), ("bias",)])
def test_inside_the_stein_loss_equals_a_double_loop(outside):
    # Eq. (9) times alpha: -(1/n) sum_j [k_ji g_j + alpha grad_j k_ji]; columns outside the kernel
    # keep their own gradient, -(1/n) g_i.
    temperature, bandwidth = 2.5, 3.0
    quadratic = Quadratic()
    es = make_loss(quadratic, make_actor(outside_kernel=outside))
    loss = SteinPolicyLoss(es, kernel=RBFKernel(bandwidth), temperature=temperature)
    out = loss(TensorDict(batch_size=[N]))
    out["loss_actor"].add(out["loss_repulsion"]).backward()
    population = particles_of(es)
    g = slow_estimate(population, quadratic.theta, quadratic.returns).numpy()
    d = es.actor_network.module.kernel_dim
    x = population.detach().numpy()[:, :d]
    value, gradient = kernel_oracle.rbf(bandwidth)
    want = -g / N
    for i in range(N):
        want[i, :d] = 0
        for j in range(N):
            push = value(x[j], x[i]) * g[j, :d] + temperature * gradient(x[j], x[i])
            want[i, :d] -= push / N
    torch.testing.assert_close(population.grad, torch.from_numpy(want))
    assert out["particle_return"].shape == (N,)


def test_learns_a_quadratic():
    loss = make_loss(num_directions=32)
    optim = torch.optim.Adam(loss.parameters(), lr=0.1)
    first = loss()["particle_return"]
    for _ in range(60):
        loss()["loss_actor"].backward()
        optim.step()
        optim.zero_grad()
    # What remains is the noise: J of a perturbed optimum is -1/2 h^2 sum_c w_c = -0.18.
    assert (loss()["particle_return"] > 0.05 * first).all()


@pytest.mark.parametrize("shaping", [None, centred_ranks, z_scores])
def test_learns_in_an_environment(shaping):
    # A stochastic population in the world of four goals: the reward of the first five steps.
    def make():
        return nn.Sequential(nn.Linear(2, 4), NormalParamExtractor())

    def evaluate(policy, num_policies):
        data = env.rollout(5, policy, break_when_any_done=False)
        return data["next", "reward"].mean((1, 2, 3))

    env = MultiGoalEnv(batch_size=(2 * 2 * 8, 8), seed=0)
    population = ParticleModule(make, 2)
    actor = ProbabilisticActor(
        TensorDictModule(population, ["observation"], ["loc", "scale"]),
        in_keys=["loc", "scale"],
        distribution_class=IndependentNormal,
    )
    options = {"num_directions": 8, "scale": 0.3, "shaping": shaping, "seed": 0}
    loss = EvolutionStrategiesLoss(actor, evaluate, **options)
    optim = torch.optim.Adam(loss.parameters(), lr=0.1)
    before = loss()["particle_return"]
    for _ in range(30):
        loss()["loss_actor"].backward()
        optim.step()
        optim.zero_grad()
    assert (
        loss()["particle_return"] > before + 15
    ).all()  # from -50 to -27; without moving it stays
