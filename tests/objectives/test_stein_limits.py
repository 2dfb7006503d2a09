"""SteinPolicyLoss where the answer is known: limits, symmetries, the sign of the repulsion."""

from functools import partial

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.modules import MLP, BatchRenorm1d
from torchrl.objectives import A2CLoss, BCLoss, ClipPPOLoss, CrossQLoss

from tests.objectives.stein_builders import (
    ACT,
    BANDWIDTH,
    NO_UPDATER,
    OBS,
    PLAIN,
    N,
    batch,
    crossed,
    deterministic,
    gaussian,
    gradients,
    make_base,
    make_stein,
    particle_gradient,
    population,
    qvalue,
    run,
    total,
    value,
)
from torchrl_stein.kernels import IdentityKernel, Kernel, RBFKernel
from torchrl_stein.modules import BatchRenorm, StandardizePerParticle
from torchrl_stein.objectives import SteinPolicyLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


class ConstantKernel(Kernel):
    def forward(self, x, y=None):
        y = x if y is None else y
        return 1.0 + 0.0 * (x @ y.mT)


def base_gradient(loss, data):
    return gradients(loss.loss_module, data)[loss.particles]


def test_temperature_zero_leaves_the_kernel_average():
    loss, data = make_stein(temperature=0.0)
    gram = RBFKernel(BANDWIDTH)(loss.particles.detach())
    want = gram @ base_gradient(loss, data)
    assert run(loss, data)["loss_repulsion"] == 0
    torch.testing.assert_close(particle_gradient(loss, data), want)


@pytest.mark.parametrize("name", ["ReinforceLoss", "ClipPPOLoss", "TD3Loss", "SACLoss"])
def test_identity_kernel_gives_independent_gradients(name):
    loss, data = make_stein(name, kernel=IdentityKernel(), temperature=5.0)
    torch.testing.assert_close(particle_gradient(loss, data), base_gradient(loss, data))


@pytest.mark.parametrize("kernel", [None, RBFKernel(1.0), IdentityKernel()])
def test_one_particle_is_the_plain_loss(kernel):
    torch.manual_seed(0)
    actor, critic = gaussian(1), value(1)
    data = batch(actor, 1)
    loss = SteinPolicyLoss(A2CLoss(actor, critic), kernel=kernel, temperature=5.0)
    torch.testing.assert_close(particle_gradient(loss, data), base_gradient(loss, data))
    assert run(loss, data)["kernel_offdiag"] == 0


def test_identical_particles_move_together():
    loss, data = make_stein(kernel=None, temperature=5.0)
    with torch.no_grad():
        loss.particles.copy_(loss.particles[0].expand_as(loss.particles).clone())
    want = base_gradient(loss, data).sum(0).expand(N, -1)
    torch.testing.assert_close(particle_gradient(loss, data), want)


def test_constant_kernel_gives_all_the_mean_gradient():
    loss, data = make_stein(kernel=ConstantKernel(), temperature=5.0)
    want = base_gradient(loss, data).sum(0).expand(N, -1)
    torch.testing.assert_close(particle_gradient(loss, data), want)


def without_objective(n, **options):
    """A loss whose objective is zero, so that only the repulsion is left."""
    torch.manual_seed(0)
    actor = gaussian(n)
    data = batch(actor, n)
    data["advantage"].zero_()
    return SteinPolicyLoss(A2CLoss(actor, value(n), **PLAIN), **options), data


@pytest.mark.parametrize("make_optim", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_an_optimizer_drives_two_particles_apart(make_optim):
    loss, data = without_objective(2)
    optim = make_optim(loss.parameters(), lr=0.01)
    before = torch.pdist(loss.particles.detach())
    total(run(loss, data)).backward()
    optim.step()
    assert torch.pdist(loss.particles.detach()) > before


def test_repulsion_of_two_particles_by_hand():
    # grad_{x_j} k(x_j, x_i) = (2 / h) (x_i - x_j) k: with |x_1 - x_2| = 2, h = 4, n = 2 and
    # alpha = 3, the gradient of particle 1 is -(3/2) (2/4) (-2) exp(-1) = 1.5 / e in one column.
    loss, data = without_objective(2, kernel=RBFKernel(4.0), temperature=3.0)
    with torch.no_grad():
        loss.particles.zero_()
        loss.particles[1, 0] = 2.0
    want = torch.zeros_like(loss.particles)
    want[0, 0], want[1, 0] = 1.5 / torch.e, -1.5 / torch.e
    torch.testing.assert_close(particle_gradient(loss, data), want)
    # The value: (3 / 2) (2 + 2 / e).
    assert run(loss, data)["loss_repulsion"].item() == pytest.approx(3 + 3 / torch.e)


def test_gradients_are_linear_in_what_comes_in():
    loss, data = make_stein()
    want = particle_gradient(loss, data)
    (8.0 * total(run(loss, data))).backward()
    total(run(loss, data)).backward()
    torch.testing.assert_close(loss.particles.grad, 9.0 * want)


def test_permuting_particles_permutes_gradients():
    loss, data = make_stein(kernel=None)
    want = particle_gradient(loss, data)
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        for parameter in loss.parameters():  # the critic is a population, too
            parameter.copy_(parameter[order].clone())
    torch.testing.assert_close(particle_gradient(loss, data[order]), want[order])


def test_nothing_is_differentiated_under_no_grad():
    loss, data = make_stein()
    want = run(loss, data)
    with torch.no_grad():
        got = run(loss, data)
    assert not any(v.requires_grad for v in got.values())
    torch.testing.assert_close(dict(got.items()), dict(want.items()))


def test_a_loss_that_throws_leaves_everything_intact():
    # In the midst of the actor's forward, when its weights are swapped.
    loss, data = make_stein()
    particles, want = loss.particles, base_gradient(loss, data)
    wrong = data.clone().set("observation", torch.zeros(N, 4, OBS + 1, dtype=torch.float64))
    with pytest.raises(RuntimeError):
        run(loss, wrong)
    assert loss.population.particles is particles
    assert loss.particles is particles
    torch.testing.assert_close(base_gradient(loss, data), want, rtol=0, atol=0)


def test_buffers_of_the_networks_are_updated():
    torch.manual_seed(0)
    net = population(lambda: nn.Sequential(nn.Linear(OBS, ACT), nn.BatchNorm1d(ACT)))
    actor = TensorDictModule(net, ["observation"], ["action"])
    loss = SteinPolicyLoss(BCLoss(actor))
    run(loss, batch(deterministic()))
    assert (net.get_buffer("buffer/1/running_mean") != 0).all()


def crossq(make_qvalue, **options):
    torch.manual_seed(0)
    actor = gaussian()
    critics = [make_qvalue(), make_qvalue()]
    base = CrossQLoss(actor, critics, target_entropy=-1.0, **options)
    return SteinPolicyLoss(base, kernel=IdentityKernel()), batch(actor)


def renormalized(norm=BatchRenorm):
    net = {"norm_class": norm, "norm_kwargs": [{"num_features": 4, "warmup_steps": 1}]}
    return crossed(make=lambda: MLP(OBS + ACT, 1, num_cells=[4], **net))


def test_rows_side_by_side_are_the_batch_of_each_particle():
    torch.manual_seed(0)
    both = renormalized().module
    alone = [both.population.particle(j) for j in range(N)]
    for copies in (2, 1, 2):
        x, a = torch.randn(copies * N, 5, OBS).double(), torch.randn(copies * N, 5, ACT).double()
        got = both(x, a)
        for j, net in enumerate(alone):
            rows = slice(j, None, N)  # in which both batches follow one another
            want = net(x[rows].flatten(0, 1), a[rows].flatten(0, 1))
            torch.testing.assert_close(got[rows].flatten(0, 1), want)
    for j, net in enumerate(alone):
        torch.testing.assert_close(both.population.particle(j).state_dict(), net.state_dict())


@pytest.mark.parametrize("norm", [BatchRenorm, BatchRenorm1d])
@pytest.mark.parametrize("deactivate_vmap", [False, True])
def test_crossq_normalizes_each_particle_by_itself(norm, deactivate_vmap):
    after = []
    for shift in (0.0, 5.0):
        loss, data = crossq(partial(renormalized, norm), deactivate_vmap=deactivate_vmap)
        data["observation"][2] += shift
        losses = run(loss, data)
        total(losses).backward()
        grads = [p.grad for p in loss.parameters() if p.grad is not None and p.ndim > 1]
        assert len(grads) == 2  # of the policies [n, d] and the critics [2, n, d]
        buffers = [b for name, b in loss.named_buffers() if "running" in name]
        assert len(buffers) == 2
        after.append([x if x.shape[0] == N else x.transpose(0, 1) for x in grads + buffers])
    for first, second in zip(*after, strict=True):
        assert torch.equal(first[:2], second[:2])
        assert not torch.allclose(first[2], second[2])


def test_crossq_stacks_particles():
    loss, data = crossq(qvalue)
    message = rf"leading dimension of input 0 must be {N} .* got shape \[{2 * N}, "
    with pytest.raises(ValueError, match=message):
        run(loss, data)


def other_advantages(data):
    """The same data, but particle 2 does much better."""
    changed = data.clone()
    changed["advantage"][2] = 10.0 * changed["advantage"][2] + 50.0
    return changed


def first_two(kernel, data, standardize=None, **options):
    torch.manual_seed(0)
    base = ClipPPOLoss(gaussian(), value(), **options)
    data = data.clone() if standardize is None else standardize(data.clone())
    return particle_gradient(SteinPolicyLoss(base, kernel=kernel), data)[:2]


OWN = {"normalize_advantage": True, "normalize_advantage_exclude_dims": (0,)}
POOLED = {"normalize_advantage": True}


@pytest.mark.parametrize(
    ("standardize", "options", "mixes"),
    [
        (None, {}, False),
        (StandardizePerParticle(), {}, False),
        (None, OWN, False),
        (None, POOLED, True),  # what StandardizePerParticle is for
    ],
)
def test_data_of_another_particle_matter_through_the_kernel_only(standardize, options, mixes):
    data = make_base("ClipPPOLoss")[1]
    pair = data, other_advantages(data)
    alone = [first_two(IdentityKernel(), d, standardize, **options) for d in pair]
    assert torch.equal(*alone) is not mixes
    together = [first_two(RBFKernel(BANDWIDTH), d, standardize, **options) for d in pair]
    if standardize is None and not options:
        assert not torch.allclose(*together)


def test_standardised_advantages_make_the_scale_of_the_reward_irrelevant():
    loss, data = make_stein("A2CLoss, actor only")
    scale, grads = StandardizePerParticle(), []
    for factor in (1.0, 1e3):
        scaled = data.clone()
        scaled["advantage"] = factor * (data["advantage"] + 2.0)
        grads.append((particle_gradient(loss, scale(scaled.clone())), base_gradient(loss, scaled)))
    torch.testing.assert_close(grads[1][0], grads[0][0])
    torch.testing.assert_close(grads[1][1], 1e3 * grads[0][1])  # without, alpha means another thing
