"""Ensembles of Q-networks in SoftQLoss, and the options for particles, proposals and kernels."""

import math

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn

from tests.objectives.builders import (
    NO_UPDATER,
    PROPOSALS,
    gradients,
    make_actor,
    make_batch,
    make_known_qvalue,
    make_loss,
    make_qvalue,
    run,
)
from torchrl_stein.kernels import IMQKernel, LinearKernel, MeanBandwidth, RBFKernel

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def first_weights(loss):
    return loss.qvalue_network_params["module", "0", "weight"]


def test_one_network_keeps_its_weights():
    qvalue = make_qvalue()
    weight = qvalue.module[0].weight.detach().clone()
    loss = make_loss(qvalue=qvalue)
    assert loss.num_qvalue_nets == 1
    torch.testing.assert_close(first_weights(loss).data, weight)
    torch.testing.assert_close(loss.target_qvalue_network_params["module", "0", "weight"], weight)


def test_copies_of_one_network_differ():
    qvalue = make_qvalue()
    weight = qvalue.module[0].weight.detach().clone()
    loss = make_loss(qvalue=qvalue, num_qvalue_nets=3)
    weights = first_weights(loss).data
    assert weights.shape == (3, *weight.shape)
    torch.testing.assert_close(weights[0], weight)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (weights[i] != weights[j]).all()


@pytest.mark.parametrize("options", [{}, {"num_qvalue_nets": 2}])
def test_a_list_of_networks_keeps_every_initialisation(options):
    nets = [make_qvalue(), make_qvalue()]
    weights = torch.stack([net.module[0].weight.detach().clone() for net in nets])
    loss = make_loss(qvalue=nets, **options)
    assert loss.num_qvalue_nets == 2
    torch.testing.assert_close(first_weights(loss).data, weights)


def test_a_list_of_one_is_that_network():
    qvalue = make_qvalue()
    loss, other = make_loss(qvalue=[qvalue]), make_loss(qvalue=qvalue)
    other.actor_network_params.data.copy_(loss.actor_network_params.data)
    torch.testing.assert_close(run(loss, make_batch(6)), run(other, make_batch(6)))


def test_list_of_another_length():
    with pytest.raises(ValueError, match=r"num_qvalue_nets must equal .*given \(2\) .*got 3"):
        make_loss(qvalue=[make_qvalue(), make_qvalue()], num_qvalue_nets=3)


def test_a_formula_without_parameters():
    # A known Q, such as that of a planner: the sampler alone learns.
    class Known(nn.Module):
        def forward(self, observation, action):
            return observation[..., :1] - action.square().sum(-1, keepdim=True)

    known = TensorDictModule(Known(), ["observation", "action"], ["state_action_value"])
    learnt = make_known_qvalue(Known(), dtype=torch.float32)
    losses = [make_loss(qvalue=qvalue, delay_qvalue=False) for qvalue in (known, learnt)]
    losses[1].actor_network_params.data.copy_(losses[0].actor_network_params.data)
    torch.testing.assert_close(*[run(loss, make_batch(6)) for loss in losses])


@pytest.mark.filterwarnings("ignore:reset_parameters_recursive:UserWarning")
def test_copies_that_cannot_differ():
    bare = make_known_qvalue(lambda s, a: a.sum(-1, keepdim=True), dtype=torch.float32)
    with pytest.raises(ValueError, match="SoftQLoss: qvalue_network has no parameters that reset"):
        make_loss(qvalue=bare, num_qvalue_nets=2)


@pytest.mark.parametrize("value_proposal", ["uniform", "actor"])
def test_loop_and_vmap_give_the_same_numbers(value_proposal):
    options = {"num_qvalue_nets": 3, "value_proposal": PROPOSALS[value_proposal]}
    vmapped, looped = make_loss(**options), make_loss(**options, deactivate_vmap=True)
    looped.load_state_dict(vmapped.state_dict())
    batch = make_batch(2, 3)
    torch.testing.assert_close(run(looped, batch), run(vmapped, batch))
    terms = ("loss_qvalue", "loss_actor")
    torch.testing.assert_close(gradients(looped, batch, *terms), gradients(vmapped, batch, *terms))


def test_the_minimum_drives_the_sampler():
    # Q = w q(s, a) with q > 0: the smallest w counts, alone, wherever it stands.
    def positive(observation, action):
        return torch.exp(observation[..., :1] + action.sum(-1, keepdim=True))

    def make(*scales):
        nets = [make_known_qvalue(positive, scale=w, dtype=torch.float32) for w in scales]
        loss = make_loss(qvalue=nets)
        loss.actor_network_params.data.copy_(actor.data)
        return gradients(loss, make_batch(6), "loss_actor")

    actor = make_loss().actor_network_params
    want = make(1.0)
    for scales in ((3.0, 1.0, 2.0), (1.0, 5.0)):
        got = make(*scales)
        for name, gradient in want.items():
            if "actor" in name:
                torch.testing.assert_close(got[name], gradient)
    assert max((make(2.0)[name] - want[name]).abs().max() for name in want) > 1e-3


def test_qvalue_is_the_detached_minimum():
    nets = [
        make_known_qvalue(lambda s, a: s[..., :1] + a[..., :1], scale=w, dtype=torch.float32)
        for w in (1.0, 2.0)
    ]
    loss, batch = make_loss(qvalue=nets), make_batch(6)
    many = torch.rand(6, 7, 2)
    for actions in (many, many[:, 0]):
        first = (
            batch["observation"][:, :1] if actions.ndim == 2 else batch["observation"][:, None, :1]
        )
        total = (first + actions[..., :1]).squeeze(-1)
        got = loss.qvalue(batch, actions)
        assert not got.requires_grad
        torch.testing.assert_close(got, torch.minimum(total, 2.0 * total))


def test_dropout_in_the_ensemble():
    class Net(nn.Sequential):
        def forward(self, *inputs):
            return super().forward(torch.cat(inputs, -1))

    loss = make_loss(
        qvalue=make_qvalue(Net(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 1))),
        num_qvalue_nets=2,
    )
    losses = run(loss, make_batch(6))
    assert losses["loss_qvalue"].isfinite()
    assert run(loss, make_batch(6), seed=1)["q_value"] != losses["q_value"]


@pytest.mark.parametrize(
    ("num_action_samples", "pushing", "moved"),
    [(7, 7, 7), ((8, 3), 8, 3), ([2, 9], 2, 9), (1, 1, 1)],
)
def test_number_of_particles(num_action_samples, pushing, moved, monkeypatch):
    loss = make_loss(num_action_samples=num_action_samples)
    assert (loss.num_pushing, loss.num_moved) == (pushing, moved)
    seen = {}
    evaluate = loss.kernel.evaluate

    def spy(x, y):
        seen["pushing"], seen["moved"] = x.shape, y.shape
        return evaluate(x, y)

    monkeypatch.setattr(loss.kernel, "evaluate", spy)
    assert run(loss, make_batch(5))["loss_actor"].isfinite()
    assert seen == {"pushing": (5, pushing, 2), "moved": (5, moved, 2)}


@pytest.mark.parametrize("noise_dim", [1, 4])
def test_noise_of_another_dimension(noise_dim):
    loss = make_loss(make_actor(noise_dim=noise_dim))
    grads = gradients(loss, make_batch(6), "loss_actor")
    assert any(g.abs().max() > 0 for name, g in grads.items() if "actor" in name)


@pytest.mark.parametrize("value_proposal", ["uniform", "actor"])
def test_proposals_fill_any_box_with_their_density(value_proposal):
    # Both proposals estimate the same integral: Q = 0 gives V = alpha log(volume) = log(1.4).
    class Spread(nn.Module):
        """Wider than uniform after squashing, so that its weights are bounded."""

        def forward(self, observation, noise):
            return 1.5 * noise

    low, high = [0.1, -5.0], [0.3, 2.0]
    loss = make_loss(
        make_actor(Spread(), low=low, high=high, dtype=torch.float64),
        make_known_qvalue(lambda s, a: 0.0 * a.sum(-1, keepdim=True)),
        value_proposal=PROPOSALS[value_proposal],
        num_value_samples=4000,
    )
    seen = loss.value_proposal(loss.actor_network, make_batch(3, dtype=torch.float64), 50)[0]
    box_low, box_high = torch.tensor([low, high], dtype=torch.float64)
    assert ((seen >= box_low) & (seen <= box_high)).all()
    assert seen.std((0, 1)).div(box_high - box_low).min() > 0.2
    value = run(loss, make_batch(20, dtype=torch.float64))["soft_value"].item()
    # "uniform" is exact; "actor" has 80000 weights of a relative spread of about 0.8.
    tolerance = 1e-9 if value_proposal == "uniform" else 0.02
    assert value == pytest.approx(math.log(0.2 * 7.0), abs=tolerance)


KERNELS = {
    "rbf": (lambda: RBFKernel(), True),
    "rbf mean": (lambda: RBFKernel(MeanBandwidth()), True),
    "imq": (lambda: IMQKernel(0.7), True),
    "scaled": (lambda: 0.5 * RBFKernel(), True),
    "sum": (lambda: 0.5 * RBFKernel() + IMQKernel(), False),
    "product": (lambda: RBFKernel(3.0) * LinearKernel(), False),
}


@pytest.mark.parametrize("name", KERNELS)
def test_any_kernel(name):
    make_kernel, has_bandwidth = KERNELS[name]
    loss = make_loss(kernel=make_kernel())
    losses = run(loss, make_batch(6))
    assert list(losses.keys()) == loss.out_keys
    assert ("kernel_bandwidth" in losses) == has_bandwidth
    assert all(value.isfinite().all() for value in losses.values())
