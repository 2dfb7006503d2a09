"""SteinPolicyLoss around every TorchRL loss: a double loop, and what it must not touch."""

import numpy as np
import pytest
import torch
from torchrl.objectives import A2CLoss, DDPGLoss, SoftUpdate

from tests.objectives.stein_builders import (
    BANDWIDTH,
    LOSSES,
    NO_UPDATER,
    POOLED,
    SAMPLED,
    TEMPERATURE,
    N,
    batch,
    deterministic,
    gaussian,
    gradients,
    make_base,
    make_networks,
    make_stein,
    particle_gradient,
    qvalue,
    row,
    run,
    total,
    value,
)
from tests.oracles import kernels as kernel_oracle
from tests.oracles import svpg
from torchrl_stein.kernels import IMQKernel, LinearKernel, RBFKernel
from torchrl_stein.modules.population import find_population
from torchrl_stein.objectives import GaussianPrior, SteinPolicyLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)
RBF = kernel_oracle.rbf(BANDWIDTH)


def expected(loss, g, kernel=RBF, temperature=TEMPERATURE, **options):
    x = loss.particles.detach().numpy()
    return torch.from_numpy(svpg.loss_gradient(kernel, x, g, temperature, **options))


def own_gradients(name, data, seed=0):
    """Gradient of J_j from the loss of particle j alone, one ordinary TorchRL loss each."""
    networks, rows = make_networks(name, seed), []
    for j in range(N):
        actor, *critics = (row(network, j) for network in networks)
        base = LOSSES[name][2](actor, *critics)
        _, alone = find_population("test", "actor", actor)
        rows.append(-gradients(base, data[j : j + 1])[alone.particles][0].numpy())
    return np.stack(rows)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - SAMPLED - POOLED))
def test_gradient_equals_a_double_loop_over_separate_losses(name):
    loss, data = make_stein(name)
    g = own_gradients(name, data)
    assert (np.abs(g).sum(1) > 1e-3).all()  # or the test says nothing
    got = particle_gradient(loss, data)
    torch.testing.assert_close(got, expected(loss, g), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", sorted(SAMPLED | POOLED))
def test_gradient_equals_a_double_loop_over_rows(name):
    # Row j of the whole loss's own gradient is that of J_j / n, to be descended.
    base, data = make_base(name)
    loss = make_stein(name)[0]
    position = [p is loss.particles for p in loss.parameters()].index(True)
    g = -N * list(gradients(base, data).values())[position].numpy()
    assert (np.abs(g).sum(1) > 1e-3).all()
    got = particle_gradient(loss, data)
    torch.testing.assert_close(got, expected(loss, g), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_wrapped_loss(name):
    base, data = make_base(name)
    loss = make_stein(name)[0]
    own, wrapped = data.clone(), data.clone()
    torch.manual_seed(1)
    want = base(own)
    torch.manual_seed(1)
    got = loss(wrapped)
    for key in want.keys():  # noqa: SIM118
        torch.testing.assert_close(got[key], want[key], rtol=0, atol=0)
    # What it writes to the batch (priorities) is the same, too.
    own, wrapped = (dict(d.flatten_keys().items()) for d in (own, wrapped))
    torch.testing.assert_close(wrapped, own, rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_other_gradients_are_untouched(name):
    base, data = make_base(name)
    loss = make_stein(name)[0]
    want, got = gradients(base, data), gradients(loss, data)
    assert len(want) == len(got)
    for (_, a), (parameter, b) in zip(want.items(), got.items(), strict=True):
        if parameter is not loss.particles:
            torch.testing.assert_close(b, a, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"KLPENPPOLoss"}))
def test_the_wrapped_loss_stays_what_it_was(name):
    # Its cached tensors do not leak into a call of ours, nor ours into its next call.
    loss, data = make_stein(name)
    base, particles = loss.loss_module, loss.particles
    first = gradients(base, data)[particles]
    for _ in range(2):
        total(run(loss, data)).backward()
    torch.testing.assert_close(particles.grad, 2 * particle_gradient(loss, data))
    torch.testing.assert_close(gradients(base, data)[particles], first, rtol=0, atol=0)


def test_the_wrapped_loss_works_after_a_change_of_dtype():
    # LossModule drops its cache when it is moved.
    loss, data = make_stein("SACLoss")
    loss.float()
    data = data.apply(lambda x: x.float() if x.is_floating_point() else x)
    run(loss, data)
    assert run(loss.loss_module, data)["loss_actor"].isfinite()


def test_targets_that_are_not_delayed_follow_the_particles():
    # DDPGLoss caches them: what it has cached from our tensors would stay behind.
    values = []
    for runs_before in (True, False):
        torch.manual_seed(0)
        actor, critic = deterministic(), qvalue()
        data = batch(actor)
        loss = SteinPolicyLoss(DDPGLoss(actor, critic, delay_actor=False))
        if runs_before:
            run(loss, data)
        with torch.no_grad():
            loss.particles.add_(1.0)
        values += [run(one, data)["loss_value"].item() for one in (loss.loss_module, loss)]
    assert values == [values[0]] * 4


@pytest.mark.parametrize("name", ["DDPGLoss", "TD3Loss", "SACLoss"])
def test_trains_side_by_side_with_its_targets(name):
    # The gradient follows the particles through updates of everything that is cached or delayed.
    loss, data = make_stein(name)
    updater = SoftUpdate(loss, tau=0.5)
    optim = torch.optim.SGD(loss.parameters(), lr=0.1)
    for _ in range(3):
        total(run(loss, data)).backward()
        optim.step()
        optim.zero_grad()
        updater.step()
    fresh = make_stein(name, seed=9)[0].make_value_estimator()
    fresh.load_state_dict(loss.state_dict())
    torch.testing.assert_close(
        particle_gradient(loss, data), particle_gradient(fresh, data), rtol=0, atol=0
    )


KERNELS = {
    "imq": (IMQKernel(4.0), kernel_oracle.imq(4.0)),
    "linear": (LinearKernel(), kernel_oracle.linear(1.0)),  # no function of x - y
    "sum": (
        RBFKernel(4.0) + LinearKernel(),
        kernel_oracle.add(kernel_oracle.rbf(4.0), kernel_oracle.linear(1.0)),
    ),
}


@pytest.mark.parametrize("name", KERNELS)
def test_any_kernel(name):
    kernel, oracle = KERNELS[name]
    loss, data = make_stein(kernel=kernel)
    want = expected(loss, own_gradients("A2CLoss", data), oracle)
    torch.testing.assert_close(particle_gradient(loss, data), want, rtol=0, atol=1e-10)


def test_default_kernel_is_rbf_with_the_median():
    loss, data = make_stein(kernel=None)
    x = loss.particles.detach().numpy()
    pairs = sorted(((x[i] - x[j]) ** 2).sum() for i in range(N) for j in range(i))
    want = expected(
        loss, own_gradients("A2CLoss", data), kernel_oracle.rbf(pairs[1] / np.log(N + 1))
    )
    torch.testing.assert_close(particle_gradient(loss, data), want, rtol=0, atol=1e-10)


def test_columns_outside_the_kernel_keep_their_own_gradient():
    torch.manual_seed(0)
    actor, critic = gaussian(outside_kernel=["0.bias"]), value()
    data = batch(actor)
    base = A2CLoss(actor, critic)
    loss = SteinPolicyLoss(
        base, kernel=RBFKernel(BANDWIDTH), temperature=TEMPERATURE, prior=GaussianPrior(2.0)
    )
    particles, seen = loss.particles, loss.population.kernel_dim
    assert 0 < seen < particles.shape[1]
    g = -N * gradients(base, data)[particles].numpy()
    score = -particles.detach().numpy() / 4.0
    want = expected(loss, g, prior_score=score, kernel_dim=seen)
    torch.testing.assert_close(particle_gradient(loss, data), want, rtol=0, atol=1e-10)


def test_shared_parameters_keep_their_gradient():
    torch.manual_seed(0)
    actor, critic = gaussian(shared=["0.bias"]), value()
    data, base = batch(actor), A2CLoss(actor, critic)
    loss = SteinPolicyLoss(base, temperature=TEMPERATURE)
    shared = loss.population.shared
    torch.testing.assert_close(
        gradients(loss, data)[shared], gradients(base, data)[shared], rtol=0, atol=0
    )
