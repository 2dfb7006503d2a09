"""An encoder runs once for a batch of states; losses and gradients are those of whole networks."""

from copy import deepcopy

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Bounded
from torchrl.modules import MLP, ConvNet, ValueOperator
from torchrl.objectives import HardUpdate, SoftUpdate

from tests.objectives.builders import NO_UPDATER, make_batch, run
from torchrl_stein.functional import expected_value, soft_value
from torchrl_stein.modules import (
    AmortizedSVGDActor,
    BestActionActor,
    HeldNoiseActor,
    ParticleModule,
    SVGDActor,
    TanhGaussianActor,
)
from torchrl_stein.objectives import (
    LogDistanceTarget,
    S2ACLoss,
    SoftQLoss,
    SoftQVLoss,
    actor_samples,
    uniform_proposal,
)

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

ACT, FEATURES, B = 2, 12, 6
SPEC = Bounded(-1.0, 1.0, shape=(ACT,), dtype=torch.float64)


class Eye(nn.Module):
    """Features [..., 12] of pixels [..., 1, 6, 6]; it remembers what it was called with."""

    def __init__(self):
        super().__init__()
        self.conv = ConvNet(
            in_features=1, num_cells=[3], kernel_sizes=3, strides=2, activation_class=nn.Tanh
        )
        self.seen = []

    def forward(self, pixels):
        self.seen.append(tuple(pixels.shape))
        return self.conv(pixels)


class Whole(nn.Module):
    """What somebody without an encoder writes: eye and head in one network."""

    def __init__(self, eye, head, *, copy=True):
        super().__init__()
        self.eye, self.head = (deepcopy(eye), deepcopy(head)) if copy else (eye, head)

    def forward(self, pixels, *others):
        return self.head(torch.cat([self.eye(pixels), *others], -1))


def make_pixels(*batch, seed=0):
    batch = make_batch(*batch, dtype=torch.float64, seed=seed)
    shape = (*batch.batch_size, 1, 6, 6)
    generator = torch.Generator().manual_seed(seed + 1)
    for states in (batch, batch["next"]):
        del states["observation"]
        states["pixels"] = torch.rand(shape, generator=generator, dtype=torch.float64)
    return batch


def mlp(inputs, outputs):
    return MLP(inputs, outputs, num_cells=[8], activation_class=nn.SiLU)


def make_parts(kind, nets):
    """Eye and heads: of the actor, the Q-networks and V."""
    torch.manual_seed(0)
    eye = Eye().double()
    if kind == "soft_q":
        actor = mlp(FEATURES + ACT, ACT)
    else:
        actor = nn.Sequential(mlp(FEATURES, 2 * ACT), NormalParamExtractor())
    qvalues = [mlp(FEATURES + ACT, 1).double() for _ in range(nets)]
    return eye, actor.double(), qvalues, mlp(FEATURES, 1).double()


def assemble(kind, key, actor, qvalues, value, *, delay=True, **options):
    """The loss of a kind over networks that read ``key``."""
    qvalues = [ValueOperator(net, in_keys=[key, "action"]) for net in qvalues]
    if kind == "soft_q":
        actor = AmortizedSVGDActor(actor, action_spec=SPEC, in_keys=[key])
        options = {"num_action_samples": (5, 4), "num_value_samples": 3, **options}
        loss = SoftQLoss(actor, qvalues, delay_qvalue=delay, **options)
    elif kind == "soft_qv":
        actor = TanhGaussianActor(actor, action_spec=SPEC, in_keys=[key])
        options = {"num_action_samples": 4, "num_value_samples": 3, **options}
        value = ValueOperator(value, in_keys=[key])
        loss = SoftQVLoss(actor, qvalues, value, delay_value=delay, **options)
    else:
        actor = SVGDActor(
            actor, qvalues, action_spec=SPEC, in_keys=[key], num_action_samples=4, num_steps=2
        )
        loss = S2ACLoss(actor, qvalues, delay_qvalue=delay, **options)
    return loss.make_value_estimator(gamma=0.9)


def make_loss(kind="soft_q", nets=1, **options):
    eye, *heads = make_parts(kind, nets)
    encoder = TensorDictModule(eye, ["pixels"], ["features"])
    return assemble(kind, "features", *heads, encoder=encoder, **options)


def make_whole(kind="soft_q", nets=1, **options):
    """The oracle: each network has an eye of its own and is called once for each action."""
    eye, actor, qvalues, value = make_parts(kind, nets)
    qvalues = [Whole(eye, net) for net in qvalues]
    return assemble(kind, "pixels", Whole(eye, actor), qvalues, Whole(eye, value), **options)


@torch.no_grad()
def move_eyes(params):
    """Change what an encoder sees, so that it is another than its target."""
    for name, parameter in params:
        if ".conv." in name or "eye" in name:
            parameter.mul_(1.3).add_(0.1)


def own_parameters(loss):
    return [(n, p) for n, p in loss.named_parameters() if not n.startswith("target")]


def gradients_of(loss, batch, terms):
    losses = run(loss, batch, seed=3)
    named = own_parameters(loss)
    total = sum(losses[term].sum() for term in terms)
    grads = torch.autograd.grad(total, [p for _, p in named], allow_unused=True)
    return losses, {name: grad for (name, _), grad in zip(named, grads, strict=True)}


def by_layer(grads, group, eye):
    """Gradients of a group by the layer's name inside the eye, or inside the head."""
    found = {}
    for name, grad in grads.items():
        if not name.startswith(f"{group}_params") or (".eye." in f".{name}") != eye:
            continue
        parts = name.split(".")
        mark = "eye" if eye else "head"
        key = ".".join(parts[parts.index(mark) + 1 :] if mark in parts else parts[2:])
        found[key] = grad
    return found


KINDS = ["soft_q", "soft_qv", "s2ac"]
SOFT = {"value_target": soft_value, "value_proposal": uniform_proposal}


@pytest.mark.parametrize("nets", [1, 2])
@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize(
    ("kind", "options"), [("soft_q", {}), ("soft_q", SOFT), ("soft_qv", {}), ("s2ac", {})]
)
def test_losses_and_gradients_are_those_of_whole_networks(kind, options, delay, nets):
    loss, whole = (make(kind, nets, delay=delay, **options) for make in (make_loss, make_whole))
    for each in (loss, whole):
        move_eyes(own_parameters(each))
        if kind == "s2ac":
            each._inform_actor()
    batch = make_pixels(B)
    got, own = gradients_of(loss, batch, ["loss_qvalue"])
    want, theirs = gradients_of(whole, batch, ["loss_qvalue"])
    assert set(got.keys()) == set(want.keys())
    for key in got.keys():  # noqa: SIM118
        torch.testing.assert_close(got[key], want[key])

    # The eye of every Q-network of the oracle is the encoder: their gradients add up.
    eyes = by_layer(theirs, "qvalue_network", eye=True)
    encoder = {n.split("module.")[1]: g for n, g in own.items() if n.startswith("encoder")}
    assert encoder.keys() == eyes.keys()
    for name, grad in encoder.items():
        want_grad = eyes[name].sum(0) if nets > 1 else eyes[name]
        assert grad.abs().max() > 1e-4
        torch.testing.assert_close(grad, want_grad)

    # All the others are those of the heads.
    terms = [key for key in got.keys() if key.startswith("loss_")]  # noqa: SIM118
    _, own = gradients_of(loss, batch, terms)
    _, theirs = gradients_of(whole, batch, terms)
    compared = 0
    for group in ("actor_network", "qvalue_network", "value_network"):
        head = by_layer(theirs, group, eye=False)
        mine = {n.split("_params.")[1]: g for n, g in own.items() if n.startswith(f"{group}_p")}
        for name, grad in head.items():
            (match,) = [g for n, g in mine.items() if n.endswith(f".{name}")]
            torch.testing.assert_close(match, grad)
            compared += 1
        assert len(head) == len(mine)
    assert compared == (12 if kind == "soft_qv" else 8)


# How often the encoder is called


@pytest.mark.parametrize(
    ("kind", "options", "calls"),
    [
        # s, s' for the actor, s' for the target Q-network
        ("soft_q", {"value_target": expected_value}, 3),
        ("soft_q", {"value_target": expected_value, "delay": False}, 2),
        # Nobody acts at s'.
        ("soft_q", SOFT, 2),
        ("soft_q", {"temperature": LogDistanceTarget(beta=0.2, alpha_init=0.1)}, 3),
        ("soft_qv", {}, 2),
        ("s2ac", {}, 3),
        ("s2ac", {"delay": False}, 2),
    ],
)
@pytest.mark.parametrize("nets", [1, 2])
def test_the_encoder_is_called_once_for_each_batch_of_states(kind, options, calls, nets):
    loss, batch = make_loss(kind, nets, **options), make_pixels(B)
    run(loss, batch)
    seen = loss.encoder.module.seen
    assert seen == calls * [(B, 1, 6, 6)]
    for method, expected in {"actor_loss": 1, "qvalue_loss": calls}.items():
        if hasattr(loss, method):
            seen.clear()
            getattr(loss, method)(batch.clone())
            assert seen == expected * [(B, 1, 6, 6)]
    seen.clear()
    assert loss.qvalue(batch, torch.rand(B, 7, ACT).double()).shape == (B, 7)
    assert seen == [(B, 1, 6, 6)]


def test_what_acts_is_the_encoder_and_the_actor():
    loss, states = make_loss(), make_pixels(B).select("pixels")
    policy = TensorDictSequential(loss.encoder, loss.actor_network, selected_out_keys=["action"])
    torch.manual_seed(0)
    acted = policy(states.clone())
    assert loss.encoder.module.seen == [(B, 1, 6, 6)]
    assert set(acted.keys()) == {"pixels", "action"}
    with torch.no_grad():
        features = loss.encoder(states.clone())
    torch.manual_seed(0)
    assert torch.equal(acted["action"], loss.actor_network(features)["action"])
    # And what stands around an actor stands behind the encoder.
    best = BestActionActor(loss.actor_network, loss.qvalue, 5)
    assert TensorDictSequential(loss.encoder, best)(states.clone())["action"].shape == (B, ACT)
    held = TensorDictSequential(loss.encoder, HeldNoiseActor(loss.actor_network, 4))
    first = states.clone().set("is_init", torch.ones(B, 1, dtype=torch.bool))
    assert held(first)["_held_noise"].shape == (B, ACT)


# Whom a loss trains


REACHES = {
    "loss_qvalue": {"encoder", "qvalue_network"},
    "loss_actor": {"actor_network"},
    "loss_value": {"value_network"},
}


@pytest.mark.parametrize("delay", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_routing(kind, delay):
    loss, batch = make_loss(kind, delay=delay), make_pixels(B)
    # Targets, too, must be out of reach and not only exempt: let them ask for gradients.
    groups = ["encoder", "target_encoder"] if delay else ["encoder"]
    groups += [n for n in ("actor_network", "qvalue_network", "value_network") if hasattr(loss, n)]
    leaves = {
        (group, name): leaf.requires_grad_()
        for group in groups
        for name, leaf in getattr(loss, f"{group}_params").items(True, True)
        if name not in ("low", "high", "temperature") and "critics" not in name
    }
    losses = run(loss, batch)
    for term in [key for key in losses.keys() if key.startswith("loss_")]:  # noqa: SIM118
        grads = torch.autograd.grad(
            losses[term], list(leaves.values()), allow_unused=True, retain_graph=True
        )
        reached = {
            group for (group, _), grad in zip(leaves, grads, strict=True) if grad is not None
        }
        assert reached == REACHES[term], term


@pytest.mark.parametrize("nets", [1, 2])
def test_an_optimizer_holds_the_encoder_once(nets):
    loss = make_loss(nets=nets)
    encoder = list(loss.encoder_params.parameters())
    held = [id(p) for p in loss.parameters()]
    assert all(held.count(id(p)) == 1 for p in encoder)
    # They are those of the module that acts, which one step moves and its target stays behind.
    optim = torch.optim.SGD(loss.parameters(), lr=0.1)
    states = make_pixels(B)
    with torch.no_grad():
        before = loss.encoder(states.clone())["features"]
    losses = run(loss, states)
    (losses["loss_qvalue"] + losses["loss_actor"]).backward()
    optim.step()
    with torch.no_grad():
        after = loss.encoder(states.clone())["features"]
        with loss.target_encoder_params.to_module(loss.encoder):
            of_target = loss.encoder(states.clone())["features"]
    assert (after - before).abs().max() > 1e-4
    assert torch.equal(of_target, before)


@pytest.mark.parametrize("kind", KINDS)
def test_target_updaters_move_the_target_encoder(kind):
    loss = make_loss(kind)
    soft = SoftUpdate(loss, tau=0.25)
    old = loss.target_encoder_params.clone()
    move_eyes(own_parameters(loss))
    soft.step()
    want = 0.75 * old.data + 0.25 * loss.encoder_params.data
    for key, value in loss.target_encoder_params.items(True, True):
        torch.testing.assert_close(value, want.get(key))
        assert not torch.equal(value, old.get(key))
    hard = HardUpdate(loss, value_network_update_interval=1)
    hard.step()
    for key, value in loss.target_encoder_params.items(True, True):
        torch.testing.assert_close(value, loss.encoder_params.get(key).data)


# As a TorchRL loss


def test_a_batch_keeps_its_entries_and_old_features_are_not_believed():
    loss, batch = make_loss(), make_pixels(B)
    assert loss.in_keys[:2] == ["pixels", "action"]
    assert ("next", "pixels") in loss.in_keys
    assert "features" not in map(str, loss.in_keys)
    want = run(loss, batch)
    stale = batch.clone()
    stale["features"] = stale["next", "features"] = torch.full((B, FEATURES), 7.0).double()
    keys = set(stale.keys(True, True))
    torch.manual_seed(0)
    got = loss(stale)
    for key in ("loss_qvalue", "loss_actor", "soft_value"):
        assert torch.equal(got[key], want[key])
    assert set(stale.keys(True, True)) == keys | {"td_error"}
    assert (stale["features"] == 7.0).all()


def test_parts_of_the_loss_are_those_of_forward():
    loss, batch = make_loss(reduction="none"), make_pixels(B)
    torch.manual_seed(0)
    alone = loss.qvalue_loss(batch.clone())["loss_qvalue"]
    whole = run(loss, batch)["loss_qvalue"]
    assert whole.shape == (B,)
    assert torch.equal(alone, whole)
    assert loss.actor_loss(batch.select("pixels"))["loss_actor"].shape == (B,)
    with torch.no_grad():
        features = loss.encoder(batch.clone())
        want = loss._qvalues(loss.qvalue_network_params, features, batch["action"])[0]
    assert torch.equal(loss.qvalue(batch, batch["action"]), want)


def test_rows_that_a_mask_excludes_do_not_count():
    loss, batch = make_loss(), make_pixels(B)
    loss.loss_mask_key = "mask"
    batch["mask"] = torch.arange(B) < 4
    got = run(loss, batch)["loss_qvalue"]
    rows = run(make_loss(reduction="none"), batch)["loss_qvalue"]
    torch.testing.assert_close(got, rows[:4].mean())


def test_several_inputs_and_an_actor_with_eyes_of_its_own():
    # Q reads features and a vector, the actor pixels: it is trained by its own loss.
    eye, actor, _, _ = make_parts("soft_q", 1)
    actor = AmortizedSVGDActor(Whole(eye, actor), action_spec=SPEC, in_keys=["pixels"])
    qvalue = ValueOperator(mlp(FEATURES + 1 + ACT, 1).double(), ["features", "speed", "action"])
    encoder = TensorDictModule(eye, ["pixels"], ["features"])
    loss = SoftQLoss(actor, qvalue, encoder=encoder)
    assert loss.state_keys == ["pixels", "speed"]
    batch = make_pixels(B)
    batch["speed"] = batch["next", "speed"] = torch.rand(B, 1).double()
    losses = run(loss, batch)
    losses["loss_actor"].backward()
    assert all(p.grad is None for p in loss.encoder_params.parameters())
    assert all(p.grad.abs().max() > 0 for p in actor.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict(kind):
    loss, other = make_loss(kind), make_loss(kind)
    move_eyes(own_parameters(loss))
    state = loss.state_dict()
    names = [n for n in state if "encoder_params" in n]
    assert sorted({n.split("_params")[0] for n in names}) == ["encoder", "target_encoder"]
    batch = make_pixels(B)
    want = run(loss, batch)["loss_qvalue"]
    assert not torch.equal(run(other, batch)["loss_qvalue"], want)
    other.load_state_dict(state)
    assert torch.equal(run(other, batch)["loss_qvalue"], want)


def test_casting_the_loss_casts_the_encoder():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("scale", torch.tensor(2.0))
            self.layer = nn.Linear(36, FEATURES)

        def forward(self, pixels):
            return self.layer(self.scale * pixels.flatten(-3))

    _, actor, qvalues, value = make_parts("soft_q", 1)
    encoder = TensorDictModule(Scaled(), ["pixels"], ["features"])
    loss = assemble("soft_q", "features", actor, qvalues, value, encoder=encoder).double()
    assert encoder.module.scale.dtype == torch.float64
    assert loss.target_encoder_params["module", "scale"].dtype == torch.float64
    assert encoder(make_pixels(B))["features"].dtype == torch.float64
    assert run(loss, make_pixels(B))["loss_qvalue"].isfinite()


def test_seeds_have_an_encoder_each():
    # Two seeds side by side are two runs: each sees with its own eye.
    torch.manual_seed(0)
    eyes = ParticleModule(lambda: nn.Sequential(nn.Flatten(-3), nn.Linear(36, FEATURES)), 2)
    actors = ParticleModule(lambda: mlp(FEATURES + ACT, ACT), 2)
    critics = ParticleModule(lambda: mlp(FEATURES + ACT, 1), 2)
    loss = assemble(
        "soft_q",
        "features",
        actors.double(),
        [critics.double()],
        None,
        encoder=TensorDictModule(eyes.double(), ["pixels"], ["features"]),
        reduction="none",
    )
    batch = make_pixels(2, 5)
    rows = run(loss, batch)["loss_qvalue"]
    assert rows.shape == (2, 5)
    (grad,) = torch.autograd.grad(rows[0].sum(), [eyes.particles])
    assert grad[0].abs().max() > 1e-4
    assert (grad[1] == 0).all()


def test_one_pass_of_crossq():
    options = {"joint_pass": True, "delay": False, "num_value_samples": 1}
    loss, batch = make_loss(value_proposal=actor_samples, **options), make_pixels(B)
    got, want = run(loss, batch), run(make_loss(delay=False, num_value_samples=1), batch)
    # Without batch normalization one pass gives what two give.
    torch.testing.assert_close(got["loss_qvalue"], want["loss_qvalue"])


@pytest.mark.parametrize(
    "kind", ["soft_q", *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]
)
def test_compiled(kind):
    eye, *heads = make_parts(kind, 1)
    encoder = TensorDictModule(eye.conv, ["pixels"], ["features"])  # which remembers no calls
    loss, batch = assemble(kind, "features", *heads, encoder=encoder), make_pixels(B)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    trained = [p for name, p in own_parameters(loss) if not name.startswith("value_network")]
    both = []
    for call in (loss, compiled):
        torch.manual_seed(3)
        losses = call(batch.clone())
        total = losses["loss_qvalue"] + losses["loss_actor"]
        both.append([total, *torch.autograd.grad(total, trained)])
    torch.testing.assert_close(both[1], both[0])


# Errors


def test_errors():
    eye, actor, qvalues, _ = make_parts("soft_q", 1)
    actor = AmortizedSVGDActor(actor, action_spec=SPEC, in_keys=["features"])
    qvalue = ValueOperator(qvalues[0], in_keys=["features", "action"])

    def make(encoder, actor=actor, qvalue=qvalue):
        return SoftQLoss(actor, qvalue, encoder=encoder)

    with pytest.raises(TypeError, match=r"SoftQLoss: encoder must be a TensorDictModule, .*Eye"):
        make(eye)
    message = (
        r"SoftQLoss: encoder must write an entry that qvalue_network reads, one of "
        r"\['features', 'action'\], it writes \['embedding'\]"
    )
    with pytest.raises(ValueError, match=message):
        make(TensorDictModule(eye, ["pixels"], ["embedding"]))

    encoder = TensorDictModule(eye, ["pixels"], ["features"])
    seeing = Whole(eye, actor.network, copy=False)
    seeing = AmortizedSVGDActor(seeing, action_spec=SPEC, in_keys=["pixels"])
    message = (
        r"SoftQLoss: encoder must share no parameters with actor_network; let actor_network read "
        r"\['features'\]"
    )
    with pytest.raises(ValueError, match=message):
        make(encoder, actor=seeing)
    seeing = Whole(eye, mlp(2 * FEATURES + ACT, 1).double(), copy=False)
    seeing = ValueOperator(seeing, ["pixels", "features", "action"])
    with pytest.raises(ValueError, match="no parameters with qvalue_network"):
        make(encoder, qvalue=seeing)

    loss, batch = make(encoder), make_pixels(B)
    message = "SoftQLoss: the batch lacks key 'pixels'"
    with pytest.raises(KeyError, match=message):
        loss(batch.exclude("pixels"))
    with pytest.raises(KeyError, match=message):
        loss.qvalue(TensorDict({}, [B]), batch["action"])
    with pytest.raises(KeyError, match=message):
        loss.actor_loss(TensorDict({}, [B]))


def test_a_value_network_with_the_encoder_inside():
    eye, actor, qvalues, value = make_parts("soft_qv", 1)
    seeing = Whole(eye, value, copy=False)
    actor = TanhGaussianActor(actor, action_spec=SPEC, in_keys=["features"])
    qvalue = ValueOperator(qvalues[0], in_keys=["features", "action"])
    encoder = TensorDictModule(eye, ["pixels"], ["features"])
    with pytest.raises(ValueError, match=r"SoftQVLoss: encoder must share no .* value_network"):
        SoftQVLoss(actor, qvalue, ValueOperator(seeing, ["pixels"]), encoder=encoder)
