"""TorchRL's NoisyLinear in networks and losses like ours: what the how-to says of it."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, NoisyLinear, ValueOperator, reset_noise
from torchrl.objectives import DDPGLoss, SoftUpdate

from torchrl_stein.modules import ParticleModule

pytestmark = pytest.mark.filterwarnings("ignore:No target network updater")


def make_loss():
    torch.manual_seed(0)
    net = nn.Sequential(MLP(3, 2, num_cells=[4], layer_class=NoisyLinear), nn.Tanh())
    critic = MLP(5, 1, num_cells=[4], layer_class=NoisyLinear)
    loss = DDPGLoss(
        TensorDictModule(net, ["observation"], ["action"]),
        ValueOperator(critic, in_keys=["observation", "action"]),
        delay_value=True,
    )
    loss.make_value_estimator(gamma=0.9)
    return loss


def batch():
    never = torch.zeros(6, 1).bool()
    after = {"observation": torch.randn(6, 3), "reward": torch.randn(6, 1)}
    after |= {"done": never, "terminated": never}
    now = {"observation": torch.randn(6, 3), "action": torch.rand(6, 2)}
    return TensorDict({**now, "next": after}, [6])


def noise_of(loss, part):
    state = getattr(loss, f"{part}_network_params").flatten_keys(".")
    return {name: value.clone() for name, value in state.items() if name.endswith("_epsilon")}


def moved(before, after):
    return [name for name, value in before.items() if not value.equal(after[name])]


@pytest.mark.parametrize("mode", [None, ExplorationType.RANDOM])
def test_scales_learn_where_losses_see_the_noise(mode):
    loss = make_loss()
    if mode is not None:
        loss.deterministic_sampling_mode = mode
    losses = loss(batch())
    (losses["loss_actor"] + losses["loss_value"]).backward()
    named = [(n, p) for n, p in loss.named_parameters() if not n.startswith("target_")]
    learns = [p.grad is not None and bool(p.grad.any()) for n, p in named if n.endswith("_sigma")]
    assert learns == [mode is ExplorationType.RANDOM] * 8


def test_noise_is_drawn_by_the_networks_of_a_loss():
    loss = make_loss()
    SoftUpdate(loss, tau=0.5)
    before = {part: noise_of(loss, part) for part in ("actor", "value")}
    loss.apply(reset_noise)
    assert not any(moved(before[part], noise_of(loss, part)) for part in before)
    for part, old in before.items():
        getattr(loss, f"{part}_network").apply(reset_noise)
        assert len(moved(old, noise_of(loss, part))) == 4


def test_targets_keep_their_noise():
    loss = make_loss()
    target = SoftUpdate(loss, tau=0.5)
    before = noise_of(loss, "target_value")
    loss.value_network.apply(reset_noise)
    target.step()
    assert not moved(before, noise_of(loss, "target_value"))


def test_particles_have_noise_of_their_own():
    torch.manual_seed(0)
    net = ParticleModule(lambda: NoisyLinear(3, 2), 4)
    states = torch.randn(1, 5, 3).expand(4, 5, 3)
    with set_exploration_type(ExplorationType.RANDOM):
        first = net(states)
        net.apply(reset_noise)
        second = net(states)
        assert_close(second[1], net.particle(1)(states[1]))
    assert (first - second).abs().amax((1, 2)).min() > 0
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        mean = net(states)
        net.apply(reset_noise)
        assert net(states).equal(mean)
