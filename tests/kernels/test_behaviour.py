"""BehaviourKernel: values by loop over distributions, gradients by autograd per pair."""

import math

import pytest
import torch
from torch.testing import assert_close
from torchrl.modules import TanhNormal

from tests.kernels.policies import ACTORS, N, batch, gaussian_actor, make_kernel, population
from tests.oracles import divergence as oracle
from tests.oracles.behaviour import by_pairs
from torchrl_stein.kernels import BehaviourKernel, LayerwiseKernel, RBFKernel

EVERY = pytest.mark.parametrize("kind", list(ACTORS))
DIVERGENCES = ["jensen_shannon", "symmetric_kl"]
BOTH = pytest.mark.parametrize("divergence", DIVERGENCES)
EXACT = {"rtol": 1e-9, "atol": 1e-9}


def states(n=N, rows=10, count=6):
    """What ``observe`` must take, by a loop."""
    flat = batch(n, rows)["observation"].reshape(n * rows, -1)
    return torch.stack([flat[math.floor((i + 0.5) * n * rows / count)] for i in range(count)])


@EVERY
@BOTH
@pytest.mark.parametrize("with_y", [False, True])
def test_against_autograd_of_every_pair(kind, divergence, with_y):
    kernel, net, x = make_kernel(kind, divergence=divergence)
    y = x[:3] + 0.1 * torch.randn(3, x.shape[1]).double() if with_y else None
    gram, gradients = by_pairs(net, x, x if y is None else y, divergence, states())
    with torch.no_grad():  # as losses call it
        evaluation = kernel.evaluate(x, y)
        pushes = evaluation.repulsion
        weights = torch.randn(gram.shape, dtype=torch.float64)
        weighted = evaluation.weighted_repulsion(weights)
    assert_close(evaluation.gram, gram, **EXACT)
    assert_close(pushes, gradients.sum(0), **EXACT)
    assert_close(weighted, (weights[..., None] * gradients).sum(0), **EXACT)
    # The gradients are no rounding noise.
    assert gradients.abs().max() > 1e-3
    # One evaluation may be asked twice, and grad mode changes nothing.
    assert torch.equal(evaluation.repulsion, pushes)
    assert_close(kernel.gram_and_repulsion(x, y), (gram, gradients.sum(0)), **EXACT)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_by_numbers(divergence):
    # Distribution parameters from the actor itself, divergences by the loop of the oracle.
    kernel, net, x = make_kernel("gaussian", divergence=divergence)
    pair = getattr(
        oracle,
        {"jensen_shannon": "gaussian_jensen_shannon_bound"}.get(
            divergence, "gaussian_symmetric_kl"
        ),
    )
    gram = kernel(x)
    params = [net.particle(i)(states()) for i in range(N)]
    for j in range(N):
        for i in range(N):
            values = [pair(*(v[s].tolist() for v in (*params[j], *params[i]))) for s in range(6)]
            want = math.exp(-sum(values) / 6 / 0.5)
            assert gram[j, i].item() == pytest.approx(want, abs=1e-10)


def test_scale_and_defaults():
    actor = ACTORS["gaussian"]()
    cold, warm = BehaviourKernel(actor, scale=0.25), BehaviourKernel(actor)
    x = population(actor).particles.detach()
    for kernel in (cold, warm):
        kernel.observe(batch(N, 100))
    assert_close(cold(x), warm(x) ** 2)
    assert len(warm._states) == 64


@EVERY
def test_parameters_that_change_no_action_do_not_count(kind):
    # Permuting hidden units: far in parameters, the same policy.
    kernel, net, x = make_kernel(kind)
    y = x.clone()
    for name, value in net._spec.split(y).items():
        if name.startswith("0."):
            value.copy_(value.flip(1))  # rows of the first layer
        elif name == "2.weight":
            value.copy_(value.flip(2))
    assert (y - x).abs().max() > 0.1
    assert_close(kernel(x, y), kernel(x))
    assert_close(kernel(x, y).diagonal(), torch.ones(N).double())


def test_tanh_normal_is_compared_under_the_tanh():
    plain, _, x = make_kernel("gaussian")
    squashed = BehaviourKernel(gaussian_actor(N, hidden=4, distribution=TanhNormal), num_states=6)
    squashed.observe(batch(N, 10))
    assert_close(squashed.gram_and_repulsion(x), plain.gram_and_repulsion(x))


@EVERY
@BOTH
def test_a_step_along_the_repulsion_makes_policies_differ_more(kind, divergence):
    # Of one ancestor: there grad_{x_j} k(x_j, x_i) = -grad_{x_i} k, nearly. A step e R then changes
    # the sum of k over all pairs by -2 e |R|^2.
    kernel, _, x = make_kernel(kind, divergence=divergence)
    x = x[:1] + 0.05 * (x - x.mean(0))
    gram, repulsion = kernel.gram_and_repulsion(x)
    change = kernel(x + 1e-3 * repulsion).sum() - gram.sum()
    assert change.item() == pytest.approx(-2e-3 * repulsion.square().sum().item(), rel=0.1)


def test_observe_takes_states_from_all_particles():
    kernel, _, _ = make_kernel(rows=10, num_states=2 * N)
    assert_close(kernel._states["observation"], states(count=2 * N))
    # Row r of particle i carries the number i: each contributes the same count.
    data = batch(N, 10)
    data["observation"] = torch.arange(N).double()[:, None, None].expand(N, 10, 3)
    kernel.observe(data)
    assert kernel._states["observation"][:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_observe_in_odd_cases():
    kernel, _, x = make_kernel(num_states=64)
    assert kernel._states.shape == (N * 10,)  # fewer rows than asked for: all
    before = kernel(x)
    data = batch(N, 10)
    kernel.observe(data.reshape(N, 2, 5).set("reward", torch.zeros(N, 2, 5)))
    assert torch.equal(kernel(x), before)  # more batch dimensions, other entries
    data["observation"].requires_grad_()
    kernel.observe(data)
    assert not kernel._states["observation"].requires_grad
    data["observation"] = data["observation"].detach() + 1.0
    kernel.observe(data)
    assert not torch.equal(kernel(x), before)  # the last batch counts


def test_columns_outside_the_kernel_are_those_of_the_population():
    kernel, net, x = make_kernel(outside_kernel=["2"])
    assert x.shape[1] == net.kernel_dim < net.num_parameters
    full = torch.cat([x, net.particles.detach()[:, net.kernel_dim :]], -1)
    gram, gradients = by_pairs(net, full, full, "jensen_shannon", states())
    got = kernel.gram_and_repulsion(x)
    assert_close(got, (gram, gradients.sum(0)[:, : net.kernel_dim]), **EXACT)
    # They are looked up at each evaluation, not copied.
    with torch.no_grad():
        net.particles[:, net.kernel_dim :] *= 2.0
    assert (kernel(x) - gram).abs().max() > 1e-3
    batched = kernel(torch.stack([x, x + 0.1]))
    assert_close(batched[1], kernel(x + 0.1))
    with pytest.raises(ValueError, match=r"must have 4 rows, .* got shape \[2, 16\]"):
        kernel(x, x[:2])


def test_shared_parameters_and_flat_layout():
    for options in ({"shared": ["0"]}, {"layout": "flat"}):
        torch.manual_seed(3)
        kernel, net, x = make_kernel(**options)
        gram = kernel(x)
        loc, scale = zip(*(net.particle(i)(states()) for i in range(N)), strict=True)
        for j in range(N):
            values = [
                oracle.gaussian_jensen_shannon_bound(*(v.tolist() for v in quadruple))
                for quadruple in zip(loc[j], scale[j], loc[0], scale[0], strict=True)
            ]
            assert gram[j, 0].item() == pytest.approx(math.exp(-2.0 * sum(values) / 6), abs=1e-10)


def test_sums_products_and_scalings():
    kernel, net, x = make_kernel()
    gram, gradients = by_pairs(net, x, x, "jensen_shannon", states())
    rbf = RBFKernel(3.0)
    composite = 0.5 * kernel * rbf + kernel
    composite.observe(batch(N, 10, seed=7))  # another batch reaches the kernel inside, twice
    assert not torch.equal(kernel(x), gram)
    composite.observe(batch(N, 10))
    other, slope = rbf(x), (2.0 / 3.0) * (x[None, :] - x[:, None]) * rbf(x)[..., None]
    want = 0.5 * (gradients * other[..., None] + gram[..., None] * slope) + gradients
    got = composite.gram_and_repulsion(x)
    assert_close(got, (0.5 * gram * other + gram, want.sum(0)), **EXACT)
    layers = LayerwiseKernel(net.layer_slices) * kernel
    assert layers.gram_and_repulsion(x)[1].shape == x.shape
