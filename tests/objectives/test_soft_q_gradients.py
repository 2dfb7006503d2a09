"""Which loss reaches which parameters, and the sampler's gradient against a slow loop."""

import numpy as np
import pytest
import torch
from torch import nn

from tests.objectives.builders import (
    ACT,
    NO_UPDATER,
    OBS,
    PROPOSALS,
    SQUASHES,
    fix_noise,
    gradients,
    make_actor,
    make_batch,
    make_known_qvalue,
    make_loss,
    make_qvalue,
    run,
)
from tests.oracles import amortized_svgd as oracle
from tests.oracles import kernels as kernel_oracle
from torchrl_stein.functional import svgd_direction
from torchrl_stein.kernels import IMQKernel, MedianBandwidth, RBFKernel
from torchrl_stein.objectives import action_forces

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

GROUPS = ("actor_network_params", "qvalue_network_params", "target_qvalue_network_params")
# The whole table: what each term must reach; everything else it must not.
REACHES = {"loss_actor": {GROUPS[0]}, "loss_qvalue": {GROUPS[1]}}


def leaky_proposal(actor, states, num_samples):
    """A user's proposal that forgets to detach: actions and density carry gradients."""
    with torch.enable_grad():
        return actor.sample_with_log_prob(states, num_samples)


@pytest.mark.parametrize("term", REACHES)
@pytest.mark.parametrize("nets", [1, 3])
@pytest.mark.parametrize("delay_qvalue", [True, False])
@pytest.mark.parametrize("value_proposal", ["uniform", "actor", leaky_proposal])
@pytest.mark.parametrize("squash", ["unsquashed", "reference", "none"])
def test_gradient_routing(term, nets, delay_qvalue, value_proposal, squash):
    loss = make_loss(
        num_qvalue_nets=nets,
        delay_qvalue=delay_qvalue,
        value_proposal=PROPOSALS.get(value_proposal, value_proposal),
        squash=SQUASHES[squash],
    )
    # Targets, too, must be out of reach and not only exempt: let them ask for gradients.
    leaves = {
        (group, name): leaf.requires_grad_()
        for group in GROUPS[: 2 + delay_qvalue]
        for name, leaf in leaves_of(loss, group)
    }
    grads = torch.autograd.grad(
        run(loss, make_batch(6))[term], list(leaves.values()), allow_unused=True
    )
    for (group, name), grad in zip(leaves, grads, strict=True):
        if group in REACHES[term]:
            assert grad is not None, (group, name)
            assert (grad != 0).any(), (group, name)
        else:
            assert grad is None, (group, name)


def leaves_of(loss, group):
    names = ("high", "low")  # the actor's bounds are no parameters
    params = getattr(loss, group).items(include_nested=True, leaves_only=True)
    return [(name, leaf) for name, leaf in params if name not in names]


@pytest.mark.parametrize("nets", [1, 3])
def test_terms_are_independent(nets):
    # Together they give what they give apart: neither changes the other's gradient.
    loss, batch = make_loss(num_qvalue_nets=nets), make_batch(6)
    both = gradients(loss, batch, "loss_actor", "loss_qvalue")
    alone = [gradients(loss, batch, term) for term in REACHES]
    for name, grad in both.items():
        torch.testing.assert_close(grad, alone[0][name] + alone[1][name])


@pytest.mark.parametrize("nets", [1, 3])
def test_diagnostics_and_priority_are_detached(nets):
    loss, batch = make_loss(num_qvalue_nets=nets), make_batch(6)
    losses = loss(batch)
    for key, value in losses.items():
        assert value.requires_grad == key.startswith("loss_"), key
    assert not batch["td_error"].requires_grad


@pytest.mark.parametrize("nets", [1, 3])
def test_the_force_is_computed_without_a_graph(nets, monkeypatch):
    # Otherwise the scores would keep a graph of second derivatives that nobody walks.
    seen = []

    def spy(gram, repulsion, scores):
        seen.extend((gram, repulsion, scores))
        return svgd_direction(gram, repulsion, scores)

    monkeypatch.setattr(action_forces, "svgd_direction", spy)
    run(make_loss(num_qvalue_nets=nets), make_batch(6))
    assert len(seen) == 3
    assert not any(tensor.requires_grad for tensor in seen)


def test_a_kernel_with_parameters_is_not_trained():
    class Learnable(RBFKernel):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def profile_and_slope(self, t):
            value = torch.exp(self.log_scale - t)
            return value, -value

    loss = make_loss(kernel=Learnable())
    losses = run(loss, make_batch(6))
    (losses["loss_actor"] + losses["loss_qvalue"]).backward()
    assert loss.kernel.log_scale.grad is None
    assert not losses["kernel_offdiag"].requires_grad


@pytest.mark.parametrize("delay_qvalue", [True, False])
def test_bellman_error_is_a_semi_gradient(delay_qvalue):
    # Q = w q(s, a): d/dw 1/2 (y - w q)^2 = -(y - w q) q, with y held fixed also without delay.
    qvalue = make_known_qvalue(lambda s, a: s[..., :1] * a[..., :1] + 1.0, scale=1.5)
    loss = make_loss(
        make_actor(dtype=torch.float64), qvalue, delay_qvalue=delay_qvalue, reduction="none"
    )
    batch = make_batch(6, dtype=torch.float64)
    q = batch["observation"][:, 0] * batch["action"][:, 0] + 1.0
    rows = run(loss, batch)["loss_qvalue"]
    for row, q_i in zip(rows, q, strict=True):
        (grad,) = torch.autograd.grad(
            row, [*loss.qvalue_network_params.parameters()], retain_graph=True
        )
        error = (2.0 * row.item()) ** 0.5  # |y - Q|
        assert abs(grad.item()) == pytest.approx(error * abs(q_i.item()), rel=1e-9)


def test_no_grad_evaluation():
    with torch.no_grad():
        losses = run(make_loss(), make_batch(6))
    assert not any(value.requires_grad for value in losses.values())
    assert losses["loss_actor"].isfinite()


def known_q(state, action):
    """A Q with curvature, a coupling of the actions and a state in it, for float and tensor."""
    x, y = action[0] - 0.3 * state[0], action[1] + 0.5 * state[1]
    return 1.3 * x - 2.0 * x * x + 0.7 * x * y - 0.4 * y**3 + 0.9 * state[2] * y


def torch_known_q(observation, action):
    return known_q(observation.unbind(-1), action.unbind(-1)).unsqueeze(-1)


KERNELS = {
    "median": (RBFKernel(MedianBandwidth()), kernel_oracle.rbf),
    "fixed": (RBFKernel(0.8), lambda h: kernel_oracle.rbf(0.8)),
    "imq": (IMQKernel(0.8), lambda h: kernel_oracle.imq(0.8)),
    "sum": (
        RBFKernel(0.8) + IMQKernel(2.0),
        lambda h: kernel_oracle.add(kernel_oracle.rbf(0.8), kernel_oracle.imq(2.0)),
    ),
}


@pytest.mark.parametrize("squash", ["unsquashed", "reference", "none"])
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("fixed", "moved"), [(5, 3), (2, 6)])
@pytest.mark.parametrize("nets", [1, 2])
def test_sampler_gradient_against_a_loop(squash, kernel, fixed, moved, nets, monkeypatch):
    low, high, alpha = [-0.5, -2.0], [1.0, 1.5], 0.75
    actor = make_actor(low=low, high=high, dtype=torch.float64)
    # The smaller of Q and 1.5 Q differs between particles, as Q changes its sign.
    nets = [make_known_qvalue(torch_known_q, scale=w) for w in (1.0, 1.5)[:nets]]
    fast_kernel, make_kernel = KERNELS[kernel]
    loss = make_loss(
        actor,
        nets,
        num_action_samples=(fixed, moved),
        squash=SQUASHES[squash],
        kernel=fast_kernel,
        temperature=alpha,
    )
    batch = make_batch(3, dtype=torch.float64)
    noise = torch.randn(3, fixed + moved, ACT, dtype=torch.float64)
    fix_noise(monkeypatch, loss.actor_network, noise)
    got = gradients(loss, batch, "loss_actor")

    def qvalue(state, action):
        return min(w * known_q(state, action) for w in (1.0, 1.5)[: len(nets)])

    weights = [w.detach().numpy() for w in actor.network.parameters()]
    density = oracle.log_density(squash, qvalue, alpha, low, high)
    want = oracle.sampler_gradient(
        weights, batch["observation"].numpy(), noise.numpy(), fixed, squash, density, make_kernel
    )
    actual = [g.numpy() for name, g in got.items() if name.startswith("actor")]
    assert [w.shape for w in weights] == [(8, OBS + ACT), (8,), (ACT, 8), (ACT,)]
    assert len(actual) == len(want)
    for a, w in zip(sorted(actual, key=np.shape), sorted(want, key=np.shape), strict=True):
        assert np.abs(w).max() > 1e-3
        np.testing.assert_allclose(a, w, rtol=1e-8, atol=1e-8)


def test_value_of_the_surrogate(monkeypatch):
    # u = c + xi has d loss / dc = -phi for one moved particle, and the value is -z . phi.
    class Shift(nn.Module):
        def __init__(self):
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(ACT))

        def forward(self, observation, noise):
            return self.shift + noise

    loss = make_loss(make_actor(Shift()), make_qvalue(), num_action_samples=(6, 1))
    noise = torch.randn(1, 7, ACT)
    fix_noise(monkeypatch, loss.actor_network, noise)
    value = run(loss, make_batch(1))["loss_actor"].detach()
    grads = gradients(loss, make_batch(1), "loss_actor")
    (minus_phi,) = (grad for name, grad in grads.items() if "shift" in name)
    torch.testing.assert_close(value, (noise[0, 6] * minus_phi).sum())


# Scores, also inside of transforms of other people


def log_normal(x):
    return -0.5 * x.square().sum()


def test_score_of_a_gaussian():
    x = torch.randn(3, 2)
    found = action_forces.score(log_normal, x)
    torch.testing.assert_close(found, -x)
    assert not found.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(action_forces.score(log_normal, x), -x)


def test_score_in_inference_mode():
    with torch.inference_mode():
        x = torch.randn(3, 2)
        torch.testing.assert_close(action_forces.score(log_normal, x), -x)


def test_score_inside_of_transforms():
    x = torch.randn(4, 3, 2)
    torch.testing.assert_close(
        torch.vmap(lambda rows: action_forces.score(log_normal, rows))(x), -x
    )
    slope = torch.func.grad(lambda rows: (action_forces.score(log_normal, rows) * rows).sum())(x)
    torch.testing.assert_close(slope, -2.0 * x)
