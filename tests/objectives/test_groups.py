"""Several populations in one loss: each has the gradient of its own loss, divided by their number.

The oracle is the same loss over each population alone.
"""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torchrl.objectives import HardUpdate

from tests.objectives.stein_builders import (
    LOSSES,
    NO_UPDATER,
    batch,
    gaussian,
    particle_gradient,
    run,
)
from tests.objectives.trust_region_builders import nudge, probabilistic, states
from torchrl_stein.kernels import (
    GroupedKernel,
    LayerwiseKernel,
    LinearKernel,
    RadialControl,
    RBFKernel,
    TangentialControl,
)
from torchrl_stein.modules import ParticleModule
from torchrl_stein.objectives import (
    GaussianPrior,
    NaturalGradientStep,
    ParameterSpace,
    SinkhornCost,
    SteinPolicyLoss,
    TRPOLoss,
    WassersteinTrustRegionLoss,
    WGFPotential,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)
G, N = 3, 4
GROUPS = [slice(g * N, (g + 1) * N) for g in range(G)]
KERNELS = {
    "median": RBFKernel,
    "fixed": lambda: RBFKernel(9.0),
    "sum": lambda: RBFKernel() + LinearKernel(),
    "layers": lambda: LayerwiseKernel([slice(0, 12), slice(12, 16)]),
}
CONTROLS = {"none": lambda kernel: kernel, "radial": RadialControl, "tangential": TangentialControl}


def part(module, rows):
    """The policies of some rows alone."""
    alone = deepcopy(module)
    for child in alone.modules():
        if isinstance(child, ParticleModule):
            child.particles = nn.Parameter(child.particles.detach()[rows].clone())
    return alone


def losses_of(name="A2CLoss", kernel="median", control="none", **options):
    """The loss over all populations, those over each alone, and the data."""
    torch.manual_seed(0)
    make_actor, critics, make_loss = LOSSES[name]
    networks = [make_actor(n=G * N), *(make(n=G * N) for make in critics)]
    with torch.no_grad():  # of different spread
        for g, rows in enumerate(GROUPS):
            networks[0][0].module.particles[rows] *= 1 + g
    data = batch(networks[0], n=G * N)

    def stein(networks, kernel):
        kernel = CONTROLS[control](kernel)
        return SteinPolicyLoss(make_loss(*networks), kernel=kernel, temperature=0.7, **options)

    alone = [
        stein([part(network, rows) for network in networks], KERNELS[kernel]()) for rows in GROUPS
    ]
    return stein(networks, GroupedKernel(KERNELS[kernel](), G)), alone, data


def check_gradients(together, alone, data):
    got = particle_gradient(together, data)
    for rows, loss in zip(GROUPS, alone, strict=True):
        want = particle_gradient(loss, data[rows])
        assert want.abs().max() > 1e-3
        assert_close(got[rows], want / G, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["ReinforceLoss", "A2CLoss", "ClipPPOLoss", "A2CLoss, discrete"])
def test_the_gradient_of_each_population_is_its_own(name):
    check_gradients(*losses_of(name))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("control", CONTROLS)
def test_with_any_kernel(kernel, control):
    check_gradients(*losses_of(kernel=kernel, control=control))


def test_with_a_prior():
    check_gradients(*losses_of(prior=GaussianPrior(2.0)))


@pytest.mark.parametrize("control", CONTROLS)
def test_values_are_means_over_the_populations(control):
    together, alone, data = losses_of(control=control, prior=GaussianPrior(2.0))
    got = run(together, data)
    want = [run(loss, data[rows]) for rows, loss in zip(GROUPS, alone, strict=True)]
    names = [k for k in got.keys() if k.startswith("loss_")]  # noqa: SIM118
    assert {"loss_objective", "loss_repulsion", "loss_prior"} <= set(names)
    for key in [*names, "kernel_offdiag", "kernel_bandwidth"]:
        mean = torch.stack([losses[key] for losses in want]).mean()
        assert_close(got[key], mean, msg=lambda text, key=key: f"{key}: {text}")


def test_distances_are_those_within_populations():
    together, _, data = losses_of()
    with torch.no_grad():
        for g, rows in enumerate(GROUPS):  # far from each other
            together.particles[rows] += 1000.0 * g
    sum(v for k, v in run(together, data).items() if k.startswith("loss_")).backward()
    x = together.particles.detach()
    pairs = [
        (x[i] - x[j]).norm()
        for rows in GROUPS
        for i in range(rows.start, rows.stop)
        for j in range(rows.start, i)
    ]
    figures = together.diagnose()
    assert_close(figures["particle_distance"], torch.stack(pairs).median())


def test_a_kernel_that_is_constant_within_populations_is_reported():
    together, _, _ = losses_of()
    together.kernel = GroupedKernel(RBFKernel(1e12), G)
    for _ in range(199):
        together.step()
    with pytest.warns(UserWarning, match="the kernel was nearly constant"):
        together.step()


# trust regions


@pytest.mark.parametrize("cost", [SinkhornCost, WGFPotential])
def test_transport_within_populations(cost):
    torch.manual_seed(0)
    actor = probabilistic(particles=G * N).double()
    options = {"weight": 0.3, "cost": cost()}
    alone = [
        WassersteinTrustRegionLoss(part(actor, rows), space=ParameterSpace(), **options)
        for rows in GROUPS
    ]
    together = WassersteinTrustRegionLoss(actor, space=ParameterSpace(G), **options)
    nudge(actor, 0.3)
    losses = together(states(1))
    losses["loss_trust_region"].backward()
    values, costs = [], []
    for rows, region in zip(GROUPS, alone, strict=True):
        particles = region.actor_network_params["module", "0", "module", "particles"]
        with torch.no_grad():
            particles.copy_(actor[0].module.particles[rows])
        own = region(states(1))
        own["loss_trust_region"].backward()
        assert particles.grad.abs().max() > 1e-3
        assert_close(actor[0].module.particles.grad[rows], particles.grad / G, rtol=0, atol=1e-10)
        values.append(own["loss_trust_region"].detach())
        costs.append(own["transport_cost"])
    assert_close(losses["loss_trust_region"].detach(), torch.stack(values).mean())
    assert_close(losses["transport_cost"], torch.stack(costs).mean())


def test_transport_of_each_population():
    region = WassersteinTrustRegionLoss(
        probabilistic(particles=6), space=ParameterSpace(2), reduction="none"
    )
    HardUpdate(region, value_network_update_interval=0)
    assert region(states(1))["loss_trust_region"].shape == (2,)


def test_natural_steps_of_each_population():
    torch.manual_seed(0)
    actor = gaussian(n=G * N)
    data = batch(actor, n=G * N, m=50)
    starts = [part(actor, rows) for rows in GROUPS]

    def stepped(actor, data, kernel):
        before = actor[0].module.particles.detach().clone()
        loss = SteinPolicyLoss(
            TRPOLoss(actor, normalize_advantage=False), kernel=kernel, temperature=2.0
        )
        figures = NaturalGradientStep(loss, iterations=20).step(data)
        return actor[0].module.particles.detach() - before, figures

    got, figures = stepped(actor, data, GroupedKernel(RBFKernel(), G))
    for rows, start in zip(GROUPS, starts, strict=True):
        want, own = stepped(start, data[rows], RBFKernel())
        assert want.abs().max() > 1e-3
        assert_close(got[rows], want, rtol=0, atol=1e-10)
        for key in ("kl", "improvement", "step_fraction"):
            assert_close(figures[key][rows], own[key])


def test_bad_arguments():
    with pytest.raises(ValueError, match="num_groups must divide the 6 particles, got 4"):
        WassersteinTrustRegionLoss(probabilistic(particles=6), space=ParameterSpace(4))
    with pytest.raises(ValueError, match="num_groups must be >= 1, got 0"):
        ParameterSpace(0)
