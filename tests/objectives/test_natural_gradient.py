"""NaturalGradientStep: closed forms, dense oracles, the line search, populations one by one."""

import math

import pytest
import torch
from tensordict.nn import NormalParamExtractor
from torch import nn
from torch.testing import assert_close
from torchrl.modules import OneHotCategorical, TanhNormal
from torchrl.objectives import A2CLoss

from tests.objectives.stein_builders import N, discrete, gaussian, value
from tests.objectives.trpo_builders import (
    OBS,
    SCALE,
    LinearMean,
    actor_of,
    alone,
    data_of,
    flat,
    move,
)
from tests.oracles import kernels, svgd
from torchrl_stein.kernels import IdentityKernel, RBFKernel
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import (
    GaussianPrior,
    NaturalGradientStep,
    SteinPolicyLoss,
    TRPOLoss,
)

EXACT = {"damping": 0.0, "iterations": 40}


def test_a_quadratic_by_hand():
    """Mean w x, scale 1, states 1 and 2, actions one above the mean, advantages 1 and 0.

    g = (1 * 1 * 1 + 0) / 2 = 1/2 and F = (1 + 4) / 2 = 5/2, so the natural step is along +w with
    KL = F dw^2 / 2 = 0.05: dw = 0.2. The surrogate rises from 1/2 to exp(0.2 - 0.02) / 2.
    """
    network = LinearMean(torch.ones(1, dtype=torch.float64))
    network.weight = nn.Parameter(torch.tensor([[3.0, 0.0, 0.0]], dtype=torch.float64))
    actor = actor_of(network)
    data = data_of(actor, 2)
    data["observation"] = torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)
    data["loc"] = network(data["observation"])[0].detach()
    data["action"] = data["loc"] + 1.0
    data["action_log_prob"] = torch.full((2,), -0.5 - 0.5 * math.log(2 * math.pi)).double()
    data["advantage"] = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    change, figures = move(actor, data, max_kl=0.05, **EXACT)
    assert_close(change, torch.tensor([0.2, 0.0, 0.0], dtype=torch.float64))
    assert figures["step_fraction"] == 1
    assert_close(figures["kl"].item(), 0.05)
    assert_close(figures["improvement"].item(), 0.5 * math.exp(0.18) - 0.5)
    assert figures["cg_residual"] < 1e-12
    assert figures["kl"].shape == ()


@pytest.mark.parametrize("stride", [1, 3])
def test_a_linear_gaussian_policy_in_closed_form(stride):
    """F = E[x x^T] / sigma^2 for each action, g = E[A (a - W x) x^T] / sigma^2, and KL = delta.

    The Fisher matrix may be that of every third transition, g and KL are those of all.
    """
    actor = actor_of(LinearMean())
    data = data_of(actor, 50)
    x, delta = data["observation"], 1e-4
    force = data["advantage"] * (data["action"] - data["loc"]) / SCALE**2
    g = (force.mT @ x / 50).flatten()
    seen = x[::stride]
    F = torch.block_diag(*(seen.mT @ seen / len(seen) / s**2 for s in SCALE))
    natural = torch.linalg.solve(F, g)
    want = natural * (2 * delta / (g @ natural)).sqrt()
    change, figures = move(actor, data, max_kl=delta, fisher_stride=stride, **EXACT)
    c = figures["step_fraction"]
    assert_close(change, c * want)
    whole = torch.block_diag(*(x.mT @ x / 50 / s**2 for s in SCALE))
    assert_close(figures["kl"], change @ whole @ change / 2)
    assert figures["kl"] <= 1.001 * delta
    if stride == 1:
        assert_close(figures["kl"].item(), delta)
    # To first order the surrogate grows by sqrt(2 delta g^T F^-1 g).
    growth = c * (2 * delta * (g @ natural)).sqrt()
    assert_close(figures["improvement"], growth, rtol=0.05, atol=0)


def mlp(out_features):
    return nn.Sequential(nn.Linear(OBS, 3), nn.Tanh(), nn.Linear(3, out_features)).double()


def gaussian_metric(params):
    """Of loc and scale: 1 / sigma^2 and 2 / sigma^2."""
    loc, scale = params.chunk(2, -1)
    return torch.cat([torch.ones_like(loc), 2 * torch.ones_like(loc)], -1).div(
        scale.repeat(1, 2) ** 2
    )


def categorical_metric(logits):
    p = logits.softmax(-1)
    return p.diag_embed() - p.unsqueeze(-1) * p.unsqueeze(-2)


POLICIES = {
    "gaussian": lambda: actor_of(nn.Sequential(mlp(4), NormalParamExtractor())),
    "tanh": lambda: actor_of(
        nn.Sequential(mlp(4), NormalParamExtractor()), distribution_class=TanhNormal
    ),
    "box": lambda: actor_of(
        nn.Sequential(mlp(4), NormalParamExtractor()),
        distribution_class=TanhNormal,
        distribution_kwargs={"low": -2.0, "high": 3.0, "tanh_loc": False},
    ),
    "categorical": lambda: actor_of(mlp(3), ["logits"], OneHotCategorical),
}


@pytest.mark.parametrize("damping", [0.0, 0.3])
@pytest.mark.parametrize("name", POLICIES)
def test_against_the_dense_fisher_matrix(name, damping):
    """F = E[J^T G J], J the Jacobian of the distribution's parameters, G its metric, by hand.

    The logits have a direction that no action depends on, so F is singular there; conjugate
    gradients never enter it.
    """
    actor, delta = POLICIES[name](), 1e-3
    data = data_of(actor, 30)
    network, parameters = actor[0].module, dict(actor[0].module.named_parameters())

    def outputs(parameters):
        found = torch.func.functional_call(network, parameters, (data["observation"],))
        return torch.cat(found, -1) if isinstance(found, tuple) else found

    jacobian = torch.func.jacrev(outputs)(parameters)
    J = torch.cat([j.flatten(2) for j in jacobian.values()], -1).detach()
    params = outputs(parameters).detach()
    G = (
        categorical_metric(params)
        if name == "categorical"
        else gaussian_metric(params).diag_embed()
    )
    F = (J.mT @ G @ J).mean(0) + damping * torch.eye(J.shape[-1], dtype=torch.float64)
    log_prob = actor.get_dist(data).log_prob(data["action"])
    g = torch.autograd.grad(
        (log_prob * data["advantage"].squeeze(-1)).mean(), list(network.parameters())
    )
    g = torch.cat([part.flatten() for part in g])
    natural = torch.linalg.lstsq(F, g, driver="gelsd").solution
    change, figures = move(actor, data, max_kl=delta, damping=damping, iterations=150)
    want = natural * (2 * delta / (g @ natural)).sqrt()
    assert_close(change, figures["step_fraction"] * want, rtol=1e-4, atol=1e-6)
    assert 0 < figures["kl"] <= 1.001 * delta


def test_the_limit_holds_far_from_the_quadratic():
    """With a limit of a whole nat the quadratic is wrong, and full steps go too far."""
    fractions = []
    for seed in range(5):
        torch.manual_seed(seed)
        actor = POLICIES["gaussian"]()
        _, figures = move(actor, data_of(actor, 200), max_kl=1.0)
        assert 0 < figures["kl"] <= 1.001
        fractions.append(figures["step_fraction"].item())
    assert min(fractions) < 1


@pytest.mark.parametrize(("shrinkage", "trials"), [(0.8, 9), (0.5, 4)])
def test_a_step_that_lowers_the_surrogate_is_shortened(shrinkage, trials):
    """One action 0.1 above the mean: the ratio grows up to a step of 0.1 and is lost after 0.2.

    delta = 1/2 allows a step of 1. The first c below 0.2 is 0.8^8 = 0.168, or 0.5^3 = 0.125.
    """
    network = LinearMean(torch.ones(1, dtype=torch.float64))
    actor = actor_of(network)
    data = data_of(actor, 1)
    data["observation"] = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    data["loc"] = network(data["observation"])[0].detach()
    data["action"] = data["loc"] + 0.1
    data["action_log_prob"] = actor.get_dist(data).log_prob(data["action"]).detach()
    data["advantage"] = torch.ones(1, 1, dtype=torch.float64)
    before, options = flat(actor), {"max_kl": 0.5, "shrinkage": shrinkage, **EXACT}
    _, figures = move(actor, data, num_candidates=trials - 1, **options)
    assert torch.equal(flat(actor), before)
    assert figures["step_fraction"] == figures["improvement"] == figures["kl"] == 0
    change, figures = move(actor, data, num_candidates=trials, **options)
    c = shrinkage ** (trials - 1)
    assert_close(change, torch.tensor([c, 0.0, 0.0], dtype=torch.float64))
    assert_close(figures["improvement"].item(), math.exp(0.1 * c - 0.5 * c**2) - 1)
    assert_close(figures["kl"].item(), 0.5 * c**2)
    assert_close(figures["step_fraction"].item(), c)


def test_nothing_to_gain():
    actor = POLICIES["gaussian"]()
    data = data_of(actor, 10)
    data["advantage"] = torch.zeros(10, 1, dtype=torch.float64)
    for normalize in (False, True):
        before = flat(actor)
        _, figures = move(actor, data, normalize_advantage=normalize)
        assert torch.equal(flat(actor), before)
        assert all(figure == 0 for figure in figures.values())


def test_a_batch_of_an_older_policy():
    """The limit is on the distance from the policy of the batch, not from the present one."""
    actor = actor_of(LinearMean())
    data = data_of(actor, 20)
    for _ in range(3):
        _, figures = move(actor, data, max_kl=0.01, **EXACT)
        assert figures["kl"] <= 0.01001
    with torch.no_grad():
        actor[0].module.weight.add_(1.0)
    before = flat(actor)
    _, figures = move(actor, data, max_kl=0.01, **EXACT)
    assert torch.equal(flat(actor), before)
    assert figures["kl"] > 0.01001


def step_alone(actor, data, j, **options):
    one = alone(actor, j)
    change, figures = move(one, data[j].clone(), **options)
    return flat(one), figures, change


@pytest.mark.parametrize("make", [gaussian, discrete])
@pytest.mark.parametrize("max_kl", [0.01, 1.0])
def test_a_population_is_n_policies(make, max_kl):
    """To rounding, with line searches that end at different lengths."""
    actor = make()
    data = data_of(actor, N, 5, 4)
    options = {"max_kl": max_kl, "iterations": 4, "normalize_advantage": True}
    loop = [step_alone(actor, data, j, **options) for j in range(N)]
    _, figures = move(actor, data, **options)
    for j, (parameters, single, _) in enumerate(loop):
        assert_close(actor[0].module.particles[j].detach(), parameters)
        for name, want in single.items():
            assert_close(figures[name][j], want, msg=name)
    assert figures["kl"].shape == (N,)
    if max_kl == 1.0 and make is gaussian:
        assert len(set(figures["step_fraction"].tolist())) > 1


def test_a_large_batch_on_a_cpu_goes_through_the_networks_in_turn():
    actor = gaussian()
    data = data_of(actor, N, 450)
    want = step_alone(actor, data, 1, iterations=4)[0]
    move(actor, data, iterations=4)
    assert_close(actor[0].module.particles[1].detach(), want)


def test_one_policy_may_stay_while_others_step():
    actor = gaussian()
    data = data_of(actor, N, 20)
    data["advantage"][1] = 0.0
    before = actor[0].module.particles.detach().clone()
    _, figures = move(actor, data)
    moved = (actor[0].module.particles != before).any(-1)
    assert moved.tolist() == [True, False, True]
    assert figures["step_fraction"][1] == 0


def stein(temperature=0.7, kernel=None, prior=None):
    def make(actor, **options):
        return SteinPolicyLoss(
            TRPOLoss(actor, **options),
            kernel=RBFKernel(9.0) if kernel is None else kernel,
            temperature=temperature,
            prior=prior,
        )

    return make


def test_a_stein_population_against_a_double_loop():
    """Particle i steps along (F_i + lambda)^-1 phi_i, phi from a loop over pairs."""
    actor, delta, alpha, damping = gaussian(), 1e-3, 0.7, 0.2
    data = data_of(actor, N, 20)
    particles = actor[0].module.particles
    log_ratio = actor.get_dist(data).log_prob(data["action"]) - data["action_log_prob"]
    surrogate = (log_ratio.exp() * data["advantage"].squeeze(-1)).mean(1)
    scores = torch.autograd.grad(surrogate.sum(), particles)[0] / alpha
    scores = scores - particles.detach() / 4.0  # of a prior with standard deviation 2
    x = particles.detach().numpy()
    phi = svgd.direction(kernels.rbf(9.0), x, x, scores.numpy())
    want = []
    for i in range(N):
        # The dense matrix, column by column: gradients of the KL of one policy.
        one = alone(actor, i)
        fisher = dense_fisher(one, data[i])
        metric = fisher + damping * torch.eye(len(fisher))
        natural = torch.linalg.solve(metric, torch.tensor(phi[i]))
        want.append(natural * (2 * delta / (natural @ metric @ natural)).sqrt())
    before = particles.detach().clone()
    _, figures = move(
        actor,
        data,
        stein(prior=GaussianPrior(2.0)),
        max_kl=delta,
        damping=damping,
        iterations=60,
    )
    assert (figures["step_fraction"] == 1).all()
    assert_close(particles.detach() - before, torch.stack(want), rtol=1e-5, atol=1e-8)


def dense_fisher(actor, data):
    """E[score score^T] of a diagonal Gaussian, from Jacobians."""
    network = actor[0].module
    parameters = dict(network.named_parameters())

    def outputs(parameters):
        return torch.cat(
            torch.func.functional_call(network, parameters, (data["observation"],)), -1
        )

    J = torch.func.jacrev(outputs)(parameters)
    J = torch.cat([j.flatten(2) for j in J.values()], -1).detach()
    return (J.mT @ gaussian_metric(outputs(parameters).detach()).diag_embed() @ J).mean(0)


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_without_interaction_stein_is_independent(temperature):
    actor, other = gaussian(), gaussian()
    other.load_state_dict(actor.state_dict())
    data = data_of(actor, N, 20)
    _, plain = move(actor, data)
    _, figures = move(other, data, stein(temperature, IdentityKernel()))
    assert_close(flat(other), flat(actor))
    for name, want in plain.items():
        assert_close(figures[name], want)


def test_repulsion_alone_separates_policies():
    """Nothing to gain for the return: two close policies walk apart, each as far as delta."""
    network = ParticleModule(LinearMean, 2)
    actor = actor_of(network)
    with torch.no_grad():
        network.particles[1] = network.particles[0] + 0.01
    data = data_of(actor, 2, 30)
    data["advantage"] = torch.zeros_like(data["advantage"])
    _, figures = move(actor, data, stein(kernel=RBFKernel(1.0)), max_kl=0.01, **EXACT)
    assert_close(figures["kl"], torch.full((2,), 0.01, dtype=torch.float64))
    assert (network.particles[1] - network.particles[0]).abs().mean() > 0.05


def test_the_line_search_weighs_return_and_rest():
    """Improvement is that of the surrogate and what the rest of the direction gains."""
    actor = gaussian()
    data = data_of(actor, N, 20)
    particles, loss = actor[0].module.particles, stein(2.0)(actor, normalize_advantage=False)
    before = particles.detach().clone()
    start = loss.loss_module.surrogate_and_kl(data)[0]
    g = torch.autograd.grad(start.sum(), particles)[0]
    losses = loss(data)
    total = losses["loss_objective"] + losses["loss_repulsion"]
    ascent = -N * torch.autograd.grad(total, particles)[0]
    figures = NaturalGradientStep(loss).step(data)
    change = particles.detach() - before
    gained = loss.loss_module.surrogate_and_kl(data)[0] - start + ((ascent - g) * change).sum(-1)
    assert_close(figures["improvement"], gained.detach())


def test_only_the_actor_moves_and_the_batch_stays():
    actor = gaussian()
    data = data_of(actor, N, 6)
    copy = data.clone()
    loss = TRPOLoss(actor)
    with torch.no_grad():  # as an optimizer, it may be called there
        NaturalGradientStep(loss).step(data)
    assert (data == copy).all()
    assert set(data.keys()) == set(copy.keys())
    assert actor[0].module.particles.grad is None


def test_it_is_an_optimizer_without_a_state():
    actor = gaussian()
    step = NaturalGradientStep(SteinPolicyLoss(TRPOLoss(actor, value())))
    assert step.param_groups[0]["params"] == [actor[0].module.particles]
    step.step(data_of(actor, N, 6))
    state = step.state_dict()
    assert state == {"state": {}, "param_groups": [{"params": [0]}]}
    step.load_state_dict(state)
    step.loss(data_of(actor, N, 6))["loss_repulsion"].backward()
    step.zero_grad()
    assert actor[0].module.particles.grad is None


def test_frozen_parameters_stay():
    network = nn.Sequential(nn.Linear(OBS, 4), nn.Tanh(), nn.Linear(4, 4), NormalParamExtractor())
    network[0].requires_grad_(False)
    actor = actor_of(network.double())
    frozen, free = (network[i].weight.detach().clone() for i in (0, 2))
    move(actor, data_of(actor, 10))
    assert torch.equal(network[0].weight, frozen)
    assert not torch.equal(network[2].weight, free)


def test_an_error_in_the_line_search_leaves_the_policy():
    actor = gaussian()
    step = NaturalGradientStep(TRPOLoss(actor))
    data, before, calls = data_of(actor, N, 6), flat(actor), []
    real = step.loss.surrogate_and_kl

    def failing(batch):
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(batch)

    step.loss.surrogate_and_kl = failing
    with pytest.raises(KeyboardInterrupt):
        step.step(data)
    assert torch.equal(flat(actor), before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_kl": 0.0}, r"max_kl must be > 0, got 0\.0"),
        ({"max_kl": math.nan}, "max_kl must be finite and > 0, got nan"),
        ({"damping": -1.0}, r"damping must be >= 0, got -1\.0"),
        ({"damping": math.inf}, "damping must be finite and >= 0, got inf"),
        ({"iterations": 0}, "iterations must be >= 1, got 0"),
        ({"iterations": 2.0}, r"iterations must be an integer >= 1, got 2\.0"),
        ({"num_candidates": True}, "num_candidates must be an integer >= 1, got True"),
        ({"fisher_stride": 0}, "fisher_stride must be >= 1, got 0"),
        ({"shrinkage": 1.0}, r"shrinkage must be > 0 and < 1, got 1\.0"),
        ({"shrinkage": 0.0}, r"shrinkage must be > 0 and < 1, got 0\.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises((TypeError, ValueError), match=f"NaturalGradientStep: {message}"):
        NaturalGradientStep(TRPOLoss(gaussian()), **options)


def test_no_trpo_loss():
    base = A2CLoss(gaussian(), value())
    for loss in (base, SteinPolicyLoss(base)):
        with pytest.raises(TypeError, match="a SteinPolicyLoss around one, got A2CLoss"):
            NaturalGradientStep(loss)


def test_another_coupled_network():
    loss = SteinPolicyLoss(TRPOLoss(gaussian(), value()), coupled="critic_network_params")
    with pytest.raises(ValueError, match="couple 'actor_network_params', got 'critic_network_p"):
        NaturalGradientStep(loss)


def test_gradients_that_are_not_finite():
    actor = gaussian()
    data = data_of(actor, N, 6)
    before = flat(actor)
    data["action_log_prob"].fill_(-800.0)  # finite, but not the ratio
    with pytest.raises(ValueError, match="NaturalGradientStep: 'gradient' must be finite, got"):
        move(actor, data)
    data["advantage"][0, 0] = math.nan
    with pytest.raises(ValueError, match="TRPOLoss: 'advantage' must be finite, got 1 non-finite"):
        move(actor, data)
    assert torch.equal(flat(actor), before)
