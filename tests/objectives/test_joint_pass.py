"""CrossQ's joint pass: Q(s, a) and Q(s', a') under the statistics of both, without targets."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.testing import assert_close
from torchrl.modules import MLP, BatchRenorm1d, ValueOperator

from tests.objectives.builders import ACT, OBS, gradients, make_loss, make_qvalue, run
from tests.objectives.builders import make_batch as make_batch_of
from torchrl_stein.functional import expected_value
from torchrl_stein.modules import BatchRenorm, ParticleModule
from torchrl_stein.objectives import actor_proposal, actor_samples, uniform_proposal

make_batch = partial(make_batch_of, dtype=torch.float64)
K, CELLS = 1, 4
JOINT = {"delay_qvalue": False, "joint_pass": True}


def make_network(norm=BatchRenorm1d, **options):
    width = {"normalized_shape": CELLS} if norm is nn.LayerNorm else {"num_features": CELLS}
    norms = None if norm is None else [width | options] * 2
    net = MLP(OBS + ACT, 1, num_cells=[CELLS] * 2, norm_class=norm, norm_kwargs=norms).double()
    if norm in (BatchRenorm, BatchRenorm1d):
        with torch.no_grad():  # as if it had been trained for a while
            for layer in (net[1], net[4]):
                layer.running_mean.normal_(std=0.1)
                layer.running_var.uniform_(0.3, 1.0)
                layer.num_batches_tracked += 5
    return net


def make_networks(size, norm=BatchRenorm1d, **options):
    nets = [make_qvalue(make_network(norm, **options), dtype=torch.float64) for _ in range(size)]
    return nets if size > 1 else nets[0]


def joint_loss(qvalue, **options):
    options = {"value_target": expected_value, "num_value_samples": K, **JOINT, **options}
    return make_loss(qvalue=qvalue, dtype=torch.float64, **options)


def statistics(loss):
    """Buffers of the Q-networks by name, as they are saved."""
    names = ("running_mean", "running_var", "num_batches_tracked")
    state = loss.state_dict()
    return {name: state[name].clone() for name in state if name.endswith(names)}


@pytest.mark.parametrize("deactivate_vmap", [False, True])
@pytest.mark.parametrize("warmup_steps", [100, 5])  # batch normalization; renormalization
@pytest.mark.parametrize("size", [1, 2])
def test_networks_called_on_the_concatenation(size, warmup_steps, deactivate_vmap):
    qvalue, batch = make_networks(size, warmup_steps=warmup_steps), make_batch(6)
    copies = deepcopy(qvalue if size > 1 else [qvalue])
    actions = torch.rand(6, K, ACT, dtype=torch.float64) * 2 - 1
    loss = joint_loss(
        qvalue, value_proposal=lambda *_: (actions, None), deactivate_vmap=deactivate_vmap
    )
    states, following = batch["observation"], batch["next", "observation"]
    for _ in range(2):  # the second call finds statistics that the first has changed
        found = run(loss, batch)["loss_qvalue"]
        named = {name: p for name, p in loss.named_parameters() if "qvalue" in name}
        grads = dict(zip(named, torch.autograd.grad(found, list(named.values())), strict=True))
        values, qs = [], []
        for copy in copies:
            net = copy.module
            pair = torch.cat([states, following]), torch.cat([batch["action"], actions[:, 0]])
            both = net.train()(*pair)
            qs.append(both[:6])
            values.append(both[6:].detach())
        value = torch.stack(values).amin(0)
        target = batch["next", "reward"] + 0.9 * value * ~batch["next", "terminated"]
        expected = sum(0.5 * (target - q).square() for q in qs).mean()
        assert_close(found, expected)
        parameters = [dict(copy.named_parameters()) for copy in copies]
        wanted = [
            torch.autograd.grad(expected, list(p.values()), retain_graph=True) for p in parameters
        ]
        for i, name in enumerate(parameters[0]):
            grad = grads[f"qvalue_network_params.{name}"]
            assert_close(grad, torch.stack([w[i] for w in wanted]) if size > 1 else wanted[0][i])
        for name, buffer in statistics(loss).items():
            own = [copy.get_buffer(name.removeprefix("qvalue_network_params.")) for copy in copies]
            assert_close(buffer, torch.stack(own) if size > 1 else own[0])


@pytest.mark.parametrize("norm", [None, nn.LayerNorm])
@pytest.mark.parametrize("size", [1, 2])
def test_networks_without_statistics_see_no_difference(size, norm):
    qvalue, batch = make_networks(size, norm), make_batch(6)
    plain = joint_loss(deepcopy(qvalue), joint_pass=False)
    joint = joint_loss(qvalue)
    joint.load_state_dict(plain.state_dict())
    assert_close(run(joint, batch), run(plain, batch))
    terms = ("loss_qvalue", "loss_actor")
    assert_close(gradients(joint, batch, *terms), gradients(plain, batch, *terms))


@pytest.mark.parametrize("size", [1, 2])
def test_statistics_move_with_the_critic_alone(size):
    loss, batch = joint_loss(make_networks(size)), make_batch(6)
    first = statistics(loss)
    assert first
    loss.actor_loss(batch)
    loss.qvalue(batch, batch["action"])
    loss.eval()(batch.clone())
    loss.train()
    assert_close(statistics(loss), first, rtol=0, atol=0)
    for step, call in enumerate((loss, loss.qvalue_loss), start=1):
        call(batch.clone())
        assert all((v == 5 + step).all() for n, v in statistics(loss).items() if "tracked" in n)


def test_a_network_of_ones_own_is_trained_in_place():
    qvalue = make_networks(1)
    before = qvalue.module[1].running_mean.clone()
    joint_loss(qvalue)(make_batch(6))
    assert not torch.equal(qvalue.module[1].running_mean, before)


def test_after_its_warmup_renormalization_is_what_evaluation_sees():
    """(x - m) / s * (s / S) + (m - M) / S = (x - M) / S, unless a correction is clamped."""
    qvalue = make_networks(2, warmup_steps=5, max_r=1e9, max_d=1e9)
    loss, batch = joint_loss(qvalue), make_batch(6)
    seen = run(deepcopy(loss).eval(), batch)
    joint = run(loss, batch)
    for name in ("loss_qvalue", "q_value", "soft_value"):
        assert_close(joint[name], seen[name])
    early = run(joint_loss(make_networks(2, warmup_steps=100)), batch)
    assert not torch.allclose(early["q_value"], seen["q_value"])


S = 3


@pytest.mark.parametrize("size", [1, 2])
def test_seeds_are_normalized_apart(size):
    nets = [ParticleModule(make_network, S).double() for _ in range(size)]
    alone = [[net.particle(s) for net in nets] for s in range(S)]
    qvalue = [ValueOperator(net, in_keys=["observation", "action"]) for net in nets]
    actions = torch.rand(S, 6, K, ACT, dtype=torch.float64) * 2 - 1
    batch = make_batch(S, 6)
    batch["observation"] += torch.arange(S).view(S, 1, 1)  # each has a mean of its own
    loss = joint_loss(
        qvalue if size > 1 else qvalue[0],
        value_proposal=lambda *_: (actions, None),
        reduction="none",
    )
    found = loss(batch.clone())["loss_qvalue"]
    after = statistics(loss)
    for s, networks in enumerate(alone):
        own = [ValueOperator(net, in_keys=["observation", "action"]) for net in networks]
        one = joint_loss(
            own if size > 1 else own[0],
            value_proposal=lambda *_, s=s: (actions[s], None),
            reduction="none",
        )
        assert_close(one(batch[s].clone())["loss_qvalue"], found[s])
        for name, value in statistics(one).items():
            *_, layer, buffer = name.split(".")
            [all_seeds] = [v for n, v in after.items() if n.endswith(f"/{layer}/{buffer}")]
            assert_close(all_seeds[:, s] if size > 1 else all_seeds[s], value)


def test_all_rows_of_a_batch_of_sequences_are_one_batch():
    qvalue, batch = make_networks(2), make_batch(3, 4)
    actions = torch.rand(3, 4, K, ACT, dtype=torch.float64) * 2 - 1
    loss = joint_loss(deepcopy(qvalue), value_proposal=lambda *_: (actions, None))
    flat = joint_loss(qvalue, value_proposal=lambda *_: (actions.flatten(0, 1), None))
    assert_close(run(loss, batch)["loss_qvalue"], run(flat, batch.flatten(0, 1))["loss_qvalue"])
    assert_close(statistics(loss), statistics(flat))


@pytest.mark.parametrize("size", [1, 2])
def test_compiles(size):
    """Traced as a whole; with its gradients in tests/recipes/test_compile.py."""
    loss, batch = joint_loss(make_networks(size, BatchRenorm, warmup_steps=6)), make_batch(6)
    loss(batch.clone())  # eagerly, once
    plain = deepcopy(loss)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for seed in range(2):
        assert_close(run(compiled, batch, seed), run(plain, batch, seed))
    assert_close(statistics(loss), statistics(plain))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [1, 2])
def test_without_it_networks_are_called_in_their_mode(size, training):
    qvalue, batch = make_networks(size), make_batch(6)
    for net in qvalue if size > 1 else [qvalue]:
        net.train(training)
    loss = joint_loss(qvalue, joint_pass=False)
    before = statistics(loss)
    actions = torch.rand(6, K, ACT, dtype=torch.float64) * 2 - 1
    copies = deepcopy(qvalue if size > 1 else [qvalue])
    states = batch["observation"].repeat_interleave(K, 0)
    expected = torch.stack([net.module(states, actions.flatten(0, 1)) for net in copies])
    assert_close(loss.qvalue(batch, actions), expected.amin(0).view(6, K))
    loss(batch.clone())
    for name, value in statistics(loss).items():
        assert torch.equal(value, before[name]) != training
        if "tracked" in name and training:
            assert (value == 5 + 4).all()  # that one, Q(s', a'), Q(s, a) and the actor's step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_value_samples": 2}, "num_value_samples must be 1 with joint_pass=True.*got 2"),
        ({"delay_qvalue": True}, "delay_qvalue must be False with joint_pass=True.*got True"),
        (
            {"value_target": lambda q, p, a: q.mean(-1), "value_proposal": None},
            "value_proposal must draw actions of the policy.*got uniform_proposal",
        ),
        ({"value_target": lambda q, p, a: q[..., 0], "value_proposal": uniform_proposal}, "draw"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=f"SoftQLoss: .*{message}"):
        joint_loss(make_networks(1), **options)


def test_flat_populations_are_refused():
    net = ParticleModule(make_network, S, layout="flat").double()
    qvalue = ValueOperator(net, in_keys=["observation", "action"])
    with pytest.raises(ValueError, match='qvalue_network must have layout="leading"'):
        joint_loss(qvalue)


@pytest.mark.parametrize("proposal", [actor_samples, actor_proposal])
def test_gradients_of_the_actor_see_running_statistics(proposal):
    """They are those of a critic that was put into evaluation mode for good."""
    qvalue, batch = make_networks(2), make_batch(6)
    joint = joint_loss(qvalue, value_proposal=proposal)
    fixed = joint_loss([net.eval() for net in deepcopy(qvalue)], joint_pass=False)
    fixed.load_state_dict(joint.state_dict())
    states = TensorDict({"observation": batch["observation"]}, [6])
    torch.manual_seed(0)
    first = joint.actor_loss(states)["loss_actor"]
    torch.manual_seed(0)
    assert_close(first, fixed.actor_loss(states)["loss_actor"])
