"""SteinPolicyLoss is a LossModule like the one it wraps: keys, state, targets, parameters."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torchrl.modules import MLP
from torchrl.objectives import A2CLoss, SoftUpdate
from torchrl.objectives.utils import ValueEstimators
from torchrl.objectives.value import GAE, TD0Estimator

from tests.objectives.stein_builders import (
    NO_UPDATER,
    N,
    batch,
    gaussian,
    make_base,
    make_stein,
    particle_gradient,
    run,
    total,
    value,
)
from torchrl_stein.kernels import BehaviourKernel, LinearKernel
from torchrl_stein.objectives import GaussianPrior, SteinPolicyLoss

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)


def exact(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "ours"),
    [
        ({}, {"loss_repulsion", "temperature", "kernel_offdiag", "kernel_bandwidth"}),
        (
            {"kernel": LinearKernel(), "prior": GaussianPrior(1.0)},
            {"loss_repulsion", "loss_prior", "temperature", "kernel_offdiag"},
        ),
    ],
)
def test_out_keys_are_what_is_written(options, ours):
    loss, data = make_stein(**options)
    losses = run(loss, data)
    assert set(loss.out_keys) == set(loss.loss_module.out_keys) | ours
    assert set(losses.keys()) - set(run(loss.loss_module, data).keys()) == ours
    assert all(v.requires_grad == k.startswith("loss") for k, v in losses.items() if k in ours)
    assert losses.batch_size == torch.Size([])


@pytest.mark.parametrize("name", ["ReinforceLoss", "A2CLoss", "DDPGLoss", "SACLoss", "IQLLoss"])
def test_without_tensordicts(name):
    loss, data = make_stein(name)
    names = {k if isinstance(k, str) else "_".join(k): k for k in loss.in_keys}
    entries = {name: data[k] for name, k in names.items() if data.get(k, None) is not None}
    entries |= {"advantage": data["advantage"]} if "advantage" in loss.in_keys else {}
    torch.manual_seed(1)
    values = dict(zip(loss.out_keys, loss(**entries), strict=True))
    want = run(loss, data.select(*(names[name] for name in entries)))
    exact(values, {k: want[k] for k in loss.out_keys})


def test_selected_out_keys():
    loss, data = make_stein()
    loss.select_out_keys("loss_objective", "loss_repulsion")
    assert list(run(loss, data).keys()) == ["loss_objective", "loss_repulsion"]


def test_keys_are_those_of_the_wrapped_loss():
    loss, data = make_stein()
    want = run(loss, data)
    loss.set_keys(advantage=("agent", "gain"), action="move")
    assert loss.tensor_keys.advantage == ("agent", "gain")
    assert "move" in loss.in_keys
    data.rename_key_("advantage", ("agent", "gain")).rename_key_("action", "move")
    exact(dict(run(loss, data).items()), dict(want.items()))
    with pytest.raises(ValueError, match="colour is not an accepted tensordict key"):
        loss.set_keys(colour="red")


def test_value_estimator_is_that_of_the_wrapped_loss():
    loss, data = make_stein("A2CLoss")
    assert loss.make_value_estimator(ValueEstimators.GAE, gamma=0.5, lmbda=0.7) is loss
    assert isinstance(loss.value_estimator, GAE)
    assert loss.value_estimator is loss.loss_module.value_estimator
    assert loss.value_type is loss.loss_module.value_type is ValueEstimators.GAE
    assert loss.value_estimator.gamma == 0.5
    del data["advantage"], data["value_target"]
    exact(run(loss, data)["loss_objective"], run(loss.loss_module, data)["loss_objective"])


def test_value_estimator_is_built_when_asked_for():
    loss = make_stein("SACLoss")[0]
    assert isinstance(loss.value_estimator, TD0Estimator)
    assert loss.value_estimator is loss.loss_module.value_estimator


@pytest.mark.parametrize(
    ("name", "setting", "setting_value"),
    [
        ("A2CLoss", "loss_mask_key", "valid"),
        ("A2CLoss", "deterministic_sampling_mode", "mean"),
        ("SACLoss", "use_prioritized_weights", False),
    ],
)
def test_settings_reach_the_wrapped_loss(name, setting, setting_value):
    loss = make_stein(name)[0]
    setattr(loss, setting, setting_value)
    assert getattr(loss.loss_module, setting) == setting_value == getattr(loss, setting)


def test_coefficients_can_be_scheduled_on_either():
    loss, data = make_stein("A2CLoss")
    before = run(loss, data)["loss_entropy"]
    loss.entropy_coeff = 2 * loss.entropy_coeff.item()
    torch.testing.assert_close(run(loss, data)["loss_entropy"], 2 * before)
    loss.temperature = 3.0
    assert loss.temperature == 3.0
    assert "temperature" in dict(loss.named_buffers())
    assert run(loss, data)["temperature"] == 3.0


def test_a_wrapped_loss_with_a_temperature_of_its_own():
    loss, data = make_stein("IQLLoss")
    before = run(loss, data)["loss_actor"]
    loss.temperature = 5.0
    assert loss.loss_module.temperature == 1.0
    exact(run(loss, data)["loss_actor"], before)


def test_vmap_randomness():
    loss = make_stein("SACLoss")[0]
    assert loss.vmap_randomness == "error"
    loss.set_vmap_randomness("different")
    assert loss.loss_module.vmap_randomness == loss.vmap_randomness == "different"


def test_reset_is_that_of_the_wrapped_loss():
    loss, data = make_stein("KLPENPPOLoss")
    run(loss, data)
    assert loss.loss_module.beta != 1.0
    loss.reset()
    assert loss.loss_module.beta == 1.0


def test_reset_parameters_recursive_reaches_the_critic():
    torch.manual_seed(0)
    critic = value()
    critic.module = MLP(in_features=3, out_features=1, num_cells=[4])
    loss = SteinPolicyLoss(A2CLoss(gaussian(), critic))
    before = critic.module[0].weight.detach().clone()
    loss.reset_parameters_recursive()
    assert not torch.equal(critic.module[0].weight, before)


def test_parameters_are_those_of_the_wrapped_loss():
    base = make_base("SACLoss")[0]
    loss = make_stein("SACLoss")[0]
    names = [name for name, _ in loss.named_parameters()]
    assert names == [f"loss_module.{name}" for name, _ in base.named_parameters()]
    assert len(set(loss.parameters())) == len(names)
    prefixed = loss.named_parameters(prefix="x", remove_duplicate=False)
    assert [name for name, _ in prefixed] == [f"x.{name}" for name in names]


def test_parameters_of_kernel_and_prior_are_listed_once():
    class Learned(GaussianPrior):
        def __init__(self):
            super().__init__(1.0)
            self.shift = nn.Parameter(torch.zeros(()))

        def forward(self, particles):
            return super().forward(particles - self.shift)

    torch.manual_seed(0)
    actor = gaussian()
    data = batch(actor)
    kernel = BehaviourKernel(actor)  # looks at the actor, does not own it
    kernel.scale = nn.Parameter(torch.ones(()))
    loss = SteinPolicyLoss(A2CLoss(actor, value()), kernel=kernel, prior=Learned())
    names = [n for n, _ in loss.named_parameters() if not n.startswith("loss_module.")]
    assert names == ["kernel.scale", "prior.shift"]
    assert [n for n in loss.state_dict() if "prior" in n] == [
        *("prior.shift", "prior.std", "prior.mean")
    ]
    total(run(loss, data)).backward()
    assert loss.prior.shift.grad.abs() > 0


@pytest.mark.parametrize("name", ["A2CLoss", "SACLoss", "TD3Loss", "DQNLoss"])
def test_state_dict_round_trip(name):
    loss, data = make_stein(name, temperature=lambda step: 2.0 + step)
    loss.step()
    loss.make_value_estimator(gamma=0.9)
    other = make_stein(name, seed=3, temperature=lambda step: 2.0 + step)[0]
    other.make_value_estimator(gamma=0.8)
    missing = other.load_state_dict(deepcopy(loss.state_dict()))
    assert not missing.missing_keys
    assert not missing.unexpected_keys
    assert (other.temperature, other.iteration) == (3.0, 1)
    exact(particle_gradient(other, data), particle_gradient(loss, data))
    other.step()
    assert other.temperature == 4.0


@pytest.mark.parametrize("name", ["DDPGLoss", "TD3Loss", "SACLoss", "DQNLoss"])
@pytest.mark.parametrize("inner", [True, False])
def test_target_updaters(name, inner):
    loss = make_stein(name)[0]
    base = loss.loss_module
    update = SoftUpdate(base if inner else loss, tau=0.5)
    targets = [key for key in base._modules if key.startswith("target_")]
    pairs = [
        (source, getattr(base, target).get(leaf))
        for target in targets
        for leaf, source in getattr(base, target.removeprefix("target_")).items(True, True)
    ]
    assert pairs
    before = [target.clone() for _, target in pairs]
    for source, _ in pairs:
        source.data.add_(1.0)
    update.step()
    for (_, target), old in zip(pairs, before, strict=True):
        torch.testing.assert_close(target, old + 0.5)


@pytest.mark.parametrize("inner", [True, False])
def test_no_warning_once_there_is_an_updater(inner, recwarn):
    loss, data = make_stein("TD3Loss")
    SoftUpdate(loss.loss_module if inner else loss, tau=0.5)
    recwarn.clear()
    run(loss, data)
    assert not [w for w in recwarn if "target network updater" in str(w.message)]


def test_an_updater_of_a_loss_without_targets_says_so():
    with pytest.raises(RuntimeError, match="Did not find any target parameters"):
        SoftUpdate(make_stein("A2CLoss")[0], tau=0.5)


@pytest.mark.parametrize("name", ["A2CLoss", "TD3Loss"])
def test_casting_takes_everything_along(name):
    # Before the first forward: a TD3Loss that has run cannot be cast, wrapped or not.
    loss, data = make_stein(name)
    want = particle_gradient(make_stein(name)[0], data).float()
    loss.float()
    data = data.apply(lambda x: x.float() if x.is_floating_point() else x)
    assert torch.float64 not in {x.dtype for x in (*loss.parameters(), *loss.buffers())}
    assert loss.iteration.dtype == torch.int64
    torch.testing.assert_close(particle_gradient(loss, data), want, rtol=1e-4, atol=1e-5)


def test_temperature_has_the_precision_of_the_particles():
    assert make_stein(temperature=0.1)[0].temperature.item() == 0.1
    loss = SteinPolicyLoss(A2CLoss(gaussian(dtype=torch.bfloat16), value(dtype=torch.bfloat16)))
    assert loss.temperature.dtype == torch.float32


def test_a_deep_copy_is_independent():
    loss, data = make_stein("TD3Loss", prior=torch.distributions.Normal(0.0, 1.0))
    want = particle_gradient(loss, data)
    copy = deepcopy(loss)
    with torch.no_grad():
        loss.particles.add_(1.0)
    exact(particle_gradient(copy, data), want)
    total(run(copy, data)).backward()
    copy.diagnose()


def test_compiles_without_a_graph_break():
    torch.compiler.reset()
    loss, data = make_stein("ClipPPOLoss", prior=GaussianPrior(1.0))
    # Whose rows these are: an eager loss looks, a compiled one does not and has no graph break.
    data["particle"] = torch.arange(N).view(N, 1, 1).expand(*data.shape, 1)
    want, gradient = run(loss, data), particle_gradient(loss, data)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    got = compiled(data.clone())
    torch.testing.assert_close(dict(got.items()), dict(want.items()))
    (found,) = torch.autograd.grad(total(got), loss.particles)
    torch.testing.assert_close(found, gradient)
