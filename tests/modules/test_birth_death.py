"""BirthDeath: poor or crowded particles become copies of others."""

import pytest
import torch
from torch import nn

from torchrl_stein.kernels import IdentityKernel, LinearKernel, RBFKernel
from torchrl_stein.modules import BirthDeath, LinearBaseline, ParticleModule

N = 6


@pytest.fixture
def population():
    torch.manual_seed(0)
    return ParticleModule(lambda: nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)), N)


def adam(population):
    optimizer = torch.optim.Adam(population.parameters())
    population(torch.randn(N, 4, 3)).square().sum().backward()
    optimizer.step()
    return optimizer


def process(population, returns, kernel=None, **kwargs):
    result = BirthDeath(population, kernel or IdentityKernel(), **kwargs)
    result.observe(torch.as_tensor(returns))
    return result


def test_only_the_best_survives_at_zero_scale(population):
    returns = [0.0, 1.0, 2.0, 9.0, 3.0, 4.0]
    parents = process(population, returns, scale=1e-3).draw()
    # Above the mean of the returns nobody dies; below it everybody does, and 3 weighs the most.
    assert parents.tolist() == [3, 3, 3, 3, 3, 5]


def test_nobody_dies_at_infinite_scale(population):
    for seed in range(20):
        torch.manual_seed(seed)
        assert process(population, torch.arange(6.0), scale=1e9).draw().tolist() == list(range(N))


def test_probability_of_death_is_that_of_the_rate(population):
    # z = (-1, 1) in groups of three, so the rate is 1 for the poor and -1 for the good ones.
    instance = process(population, [0.0, 0.0, 0.0, 2.0, 2.0, 2.0])
    torch.manual_seed(0)
    draws = torch.stack([instance.draw() for _ in range(4000)])
    died = (draws != torch.arange(N)).float().mean(0)
    expected = 1 - torch.exp(torch.tensor(-1.0))
    assert (died[:3] - expected).abs().max() < 0.03
    assert died[3:].max() == 0
    # A parent is drawn with weight exp(-rate) among the others: e for good, 1/e for poor ones.
    of_first = draws[draws[:, 0] != 0, 0]
    good = (of_first >= 3).float().mean()
    e = torch.e
    assert abs(good - 3 * e / (3 * e + 2 / e)) < 0.03


def test_crowded_particles_die_and_lonely_ones_do_not(population):
    with torch.no_grad():
        population.particles[:5] = population.particles[0] + 1e-3 * torch.randn(5, 50)
        population.particles[5] += 100.0
    instance = process(population, torch.zeros(N), RBFKernel(bandwidth=10.0))
    torch.manual_seed(0)
    draws = torch.stack([instance.draw() for _ in range(500)])
    died = (draws != torch.arange(N)).float().mean(0)
    assert died[:5].min() > 0.1
    assert died[5] == 0
    # log-densities are log(5/6) for five and log(1/6) for one: rate log(5)/6 above the mean.
    expected = 1 - torch.exp(-torch.log(torch.tensor(5.0)) / 6)
    assert (died[:5].mean() - expected).abs() < 0.05


def test_copies_take_everything_with_them(population):
    optimizer = adam(population)
    critic = LinearBaseline(N, 3)
    critic.weight.copy_(torch.randn_like(critic.weight))
    before = population.particles.detach().clone()
    moments = {k: v.clone() for k, v in optimizer.state[population.particles].items()}
    weight = critic.weight.clone()
    instance = process(population, [0.0, 1.0, 2.0, 9.0, 3.0, 4.0], scale=1e-3)
    parents = instance.step(optimizer, [critic])
    assert (parents != torch.arange(N)).sum() >= 3
    spread = before.std()
    moved = parents != torch.arange(N)
    difference = (population.particles.detach() - before[parents]).abs().amax(1)
    assert difference[~moved].max() == 0
    assert difference[moved].min() > 0
    assert difference.max() < 0.05 * spread * 6
    for name in ("exp_avg", "exp_avg_sq"):
        value = optimizer.state[population.particles][name]
        assert torch.equal(value, moments[name][parents])
    assert torch.equal(critic.weight, weight[parents])
    assert torch.equal(instance.returns, torch.tensor([0.0, 1.0, 2.0, 9.0, 3.0, 4.0])[parents])


def test_the_moments_of_companions_go_along(population):
    critic = ParticleModule(lambda: nn.Linear(3, 1), N)
    optimizer = torch.optim.Adam([*population.parameters(), *critic.parameters()])
    x = torch.randn(N, 4, 3)
    (population(x).square().sum() + critic(x).square().sum()).backward()
    optimizer.step()
    before = optimizer.state[critic.particles]["exp_avg"].clone()
    instance = process(population, [0.0, 1.0, 2.0, 9.0, 3.0, 4.0], scale=1e-3)
    parents = instance.step(optimizer, [critic])
    assert (parents != torch.arange(N)).any()
    assert optimizer.state[critic.particles]["exp_avg"].equal(before[parents])


def test_a_kernel_that_is_no_density_is_refused(population):
    with torch.no_grad():
        population.particles[0] = -100 * population.particles[1]
    instance = process(population, [0.0, 1.0, 2.0, 9.0, 3.0, 4.0], LinearKernel(0.0))
    with pytest.raises(ValueError, match=r"birth_death_rates: mean_of_gram must be .*> 0"):
        instance.draw()


def test_parameters_outside_the_kernel_are_copied_without_jitter():
    population = ParticleModule(
        lambda: nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)), N, outside_kernel=["1"]
    )
    before = population.particles.detach().clone()
    instance = process(population, [0.0, 1.0, 2.0, 9.0, 3.0, 4.0], scale=1e-3)
    parents = instance.step(torch.optim.Adam(population.parameters()))
    d = population.kernel_dim
    assert torch.equal(population.particles.detach()[:, d:], before[parents][:, d:])
    assert not torch.equal(population.particles.detach()[:, :d], before[parents][:, :d])


def test_running_statistics_are_copied_too():
    population = ParticleModule(lambda: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2)), N)
    population(torch.randn(N, 20, 3) + torch.arange(6.0).view(N, 1, 1))
    before = population.particle(3)[0].running_mean
    instance = process(population, [0.0, 1.0, 2.0, 9.0, 3.0, 4.0], scale=1e-3)
    assert instance.step(torch.optim.Adam(population.parameters()))[0] == 3
    assert torch.equal(population.particle(0)[0].running_mean, before)


def test_one_particle_has_no_one_to_be_replaced_by():
    population = ParticleModule(lambda: nn.Linear(3, 2), 1)
    instance = process(population, [5.0])
    before = population.particles.detach().clone()
    assert instance.step(torch.optim.Adam(population.parameters())).tolist() == [0]
    assert torch.equal(population.particles.detach(), before)


def test_an_optimizer_of_something_else(population):
    with pytest.raises(ValueError, match="optimizer must hold the particles"):
        process(population, torch.zeros(N)).step(torch.optim.Adam(nn.Linear(2, 2).parameters()))


def test_returns_are_smoothed_and_unknown_ones_skipped(population):
    nan = float("nan")
    instance = BirthDeath(population, IdentityKernel(), smoothing=0.5)
    assert instance.returns.isnan().all()
    instance.observe(torch.tensor([nan, 1.0, 2.0, 2.0, 2.0, 2.0]))
    instance.observe(torch.tensor([nan, 3.0, nan, 2.0, 2.0, 2.0]))
    assert instance.returns[0].isnan()
    assert instance.returns[1:].tolist() == [2.0, 2.0, 2.0, 2.0, 2.0]
    assert instance.draw().tolist() == list(range(N))  # unknown counts as the mean


def test_state_travels_in_the_state_dict(population):
    instance = process(population, torch.arange(6.0))
    other = BirthDeath(population, IdentityKernel())
    other.load_state_dict(instance.state_dict())
    assert torch.equal(other.returns, instance.returns)
    assert not list(instance.parameters())


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"scale": 0.0}, ValueError, "scale must be > 0, got 0.0"),
        ({"jitter": -1.0}, ValueError, "jitter must be > 0, got -1.0"),
        ({"jitter": float("inf")}, ValueError, "jitter must be finite and > 0, got inf"),
        ({"scale": float("nan")}, ValueError, "scale must be finite and > 0, got nan"),
        ({"smoothing": 1.0}, ValueError, r"smoothing must be >= 0 and < 1, got 1.0"),
        ({"smoothing": -0.1}, ValueError, r"smoothing must be >= 0 and < 1, got -0.1"),
        ({"scale": "1"}, TypeError, "scale must be a number > 0, got '1'"),
        ({"scale": None}, TypeError, "scale must be a number > 0, got None"),
        ({"smoothing": True}, TypeError, "smoothing must be a number .*, got True"),
        ({"kernel": RBFKernel}, TypeError, "kernel must be a Kernel, .*got the class RBFKernel"),
        ({"population": nn.Linear(2, 2)}, TypeError, "population must be a Partic.*got Linear"),
    ],
)
def test_bad_arguments(population, kwargs, error, message):
    with pytest.raises(error, match=f"BirthDeath: {message}"):
        BirthDeath(**{"population": population, "kernel": IdentityKernel(), **kwargs})


@pytest.mark.parametrize(
    ("returns", "error", "message"),
    [
        ([0.0] * N, TypeError, "returns must be a tensor"),
        (torch.full((N,), float("inf")), ValueError, "returns must be finite, or NaN .*got inf"),
    ],
)
def test_bad_returns(population, returns, error, message):
    with pytest.raises(error, match=f"BirthDeath: {message}"):
        BirthDeath(population, IdentityKernel()).observe(returns)


BEST = [0.0, 1.0, 2.0, 9.0, 3.0, 4.0]


def test_a_companion_without_rows_is_refused_before_anything_moves(population):
    instance, before = process(population, BEST, scale=1e-3), population.particles.clone()
    optimizer = torch.optim.Adam(population.parameters())
    for companion, message in (
        (nn.Linear(3, 2), r"leading dimension 6 .*got weight of Linear of shape \[2, 3\]"),
        (nn.BatchNorm1d(N), r"got num_batches_tracked of BatchNorm1d of shape \[\]"),
    ):
        with pytest.raises(ValueError, match=message):
            instance.step(optimizer, [companion])
    with pytest.raises(TypeError, match="companions must be modules"):
        instance.step(optimizer, [population.particles])
    with pytest.raises(TypeError, match="optimizer must be a torch Optimizer"):
        instance.step(None)
    assert torch.equal(population.particles, before)


def test_what_companions_share_stays(population):
    # 6 shared numbers: as many as particles
    critic = ParticleModule(
        lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), N, shared=["0"]
    )
    assert critic.shared.shape == (N,)
    shared, particles = critic.shared.detach().clone(), critic.particles.detach().clone()
    instance = process(population, BEST, scale=1e-3)
    parents = instance.step(torch.optim.Adam(population.parameters()), [critic])
    assert torch.equal(critic.shared, shared)
    assert torch.equal(critic.particles, particles[parents])


def test_companions_that_come_twice_move_once(population, monkeypatch):
    critic = ParticleModule(lambda: nn.Linear(3, 1), N)
    before, own = critic.particles.detach().clone(), population.particles.detach().clone()
    instance, shift = process(population, BEST), torch.arange(N).roll(1)
    monkeypatch.setattr(instance, "draw", lambda: shift)
    monkeypatch.setattr(instance, "_spread", lambda: torch.tensor(0.0))
    companions = [critic, nn.ModuleList([critic, population])]
    instance.step(torch.optim.SGD(population.parameters()), companions)
    assert torch.equal(critic.particles, before[shift])
    assert torch.equal(population.particles, own[shift])


def test_returns_of_another_size(population):
    with pytest.raises(ValueError, match=r"returns must have shape \[6\].* got \[5\]"):
        BirthDeath(population, IdentityKernel()).observe(torch.zeros(5))


def test_mass_moves_until_the_modes_have_their_weights():
    """Two basins that no force leaves: crowding balances the difference of returns."""
    torch.manual_seed(0)
    population = ParticleModule(lambda: nn.Linear(1, 1, bias=False), 400)
    with torch.no_grad():
        population.particles[:, 0] = torch.where(torch.arange(400) < 320, -5.0, 5.0)
    optimizer = torch.optim.SGD(population.parameters(), lr=0.0)
    kernel = RBFKernel(1.0)
    instance = BirthDeath(population, kernel, scale=2.0, jitter=1e-3, smoothing=0.0)
    fractions = []
    for _ in range(60):
        good = (population.particles.detach()[:, 0] > 0).float()
        fractions.append(good.mean())
        instance.observe(good)
        instance.step(optimizer)
    # Standardised returns differ by 1 / sqrt(p (1 - p)) when a fraction p is good, so the
    # process rests where log(p / (1 - p)) = 1 / (2 sqrt(p (1 - p))): at p = 0.765.
    assert fractions[0] == 0.2
    assert abs(torch.stack(fractions[20:]).mean() - 0.765) < 0.03


# several seeds


@pytest.fixture
def seeds():
    torch.manual_seed(0)
    return ParticleModule(lambda: nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)), (2, 3))


def test_seeds_have_the_rates_of_populations_of_their_own(seeds):
    returns = torch.tensor([[0.0, 5.0, 1.0], [float("nan"), 700.0, -20.0]])
    with torch.no_grad():
        seeds.particles[1] *= 3.0
    kernel = RBFKernel(30.0)
    together = process(seeds, returns, kernel, scale=0.7)
    torch.manual_seed(0)
    draws = torch.stack([together.draw() for _ in range(1000)])
    for s in range(2):
        alone = process(seeds.seed(s), returns[s], kernel, scale=0.7)
        torch.manual_seed(1)
        expected = torch.stack([alone.draw() for _ in range(1000)])
        for parent in range(3):
            got = (draws[:, s] == parent).float().mean(0)
            assert (got - (expected == parent).float().mean(0)).abs().max() < 0.07


def test_parents_are_of_the_same_seed(seeds, population):
    # Alone, 1 of each seed would be the best; together nobody of the first three survives.
    returns = torch.tensor([0.0, 2.0, 0.5, 90.0, 99.0, 91.0])
    parents = process(seeds, returns.view(2, 3), scale=1e-3).draw()
    assert parents.tolist() == [[1, 1, 1], [1, 1, 1]]
    torch.manual_seed(0)
    together = process(population, returns, scale=1e-3).draw()
    assert (together[:3] > 2).all()


def test_the_jitter_of_a_seed_is_relative_to_its_own_weights(seeds):
    with torch.no_grad():
        seeds.particles[1] *= 1000.0
    before = seeds.particles.detach().clone()
    instance = process(seeds, [[0.0, 2.0, 0.5], [90.0, 99.0, 91.0]], scale=1e-3)
    parents = instance.step(torch.optim.Adam(seeds.parameters()))
    change = torch.stack([(seeds.particles[s] - before[s, parents[s]]).abs() for s in range(2)])
    assert 1e-4 < change[0, 0].max() < 0.3
    assert change[1, 0].max() > 1.0


def test_seeds_of_one_particle_stay():
    lone = ParticleModule(lambda: nn.Linear(3, 2), (6, 1))
    assert process(lone, torch.arange(6.0).view(6, 1)).draw().tolist() == [[0]] * 6


def test_companions_need_a_row_for_each_particle_of_each_seed(seeds):
    instance, optim = BirthDeath(seeds, IdentityKernel()), torch.optim.Adam(seeds.parameters())
    with pytest.raises(ValueError, match=r"a leading dimension 2, 3 in every .* shape \[6, 8\]"):
        instance.step(optim, [ParticleModule(lambda: nn.Linear(3, 2), 6)])
