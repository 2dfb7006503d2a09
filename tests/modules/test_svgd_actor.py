"""SVGDActor: its density against the Jacobian, both peaks, no steps, whose critic."""

import copy
import math

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.data import Bounded
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import MLP, TanhNormal, ValueOperator
from torchrl.objectives import SACLoss

from tests.objectives.builders import NO_UPDATER, make_batch
from torchrl_stein.functional import squash_log_det
from torchrl_stein.kernels import IMQKernel, RBFKernel
from torchrl_stein.modules import ParticleModule, SamplingActor, SVGDActor, TanhGaussianActor

LOW, HIGH = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 4.0])
SPEC = Bounded(LOW, HIGH, shape=(2,))
UNBOUNDED = {"scale_bounds": None, "noise_bound": None}


def network():
    return nn.Sequential(nn.Linear(3, 4), NormalParamExtractor())


def qvalue():
    mlp = MLP(3 + 2, 1, num_cells=[8, 8], activation_class=nn.SiLU)
    return ValueOperator(mlp, in_keys=["observation", "action"])


def make(net=None, critic=None, **options):
    net, critic = net or network(), critic or [qvalue(), qvalue()]
    return SVGDActor(net, critic, **({"action_spec": SPEC, "temperature": 0.1} | options))


def states(*batch):
    return TensorDict({"observation": torch.randn(*batch, 3)}, batch)


def of_action(formula):
    """A critic Q(s, a) = formula(a)."""
    return TensorDictModule(
        lambda s, a: formula(a), ["observation", "action"], ["state_action_value"]
    )


class Normal(nn.Module):
    """loc = 0 and a scale for any state."""

    def __init__(self, scale, dim=1):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(dim))
        self.scale = scale

    def forward(self, observation):
        loc = self.loc.expand(*observation.shape[:-1], -1)
        return loc, torch.full_like(loc, self.scale)


@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_shapes_and_gradients(batch):
    actor, data = make(), states(*batch)
    assert isinstance(actor, SamplingActor)
    actions, log_prob = actor.sample_with_log_prob(data, 6)
    assert actions.shape == (*batch, 6, 2)
    assert log_prob.shape == (*batch, 6)
    assert ((actions >= LOW) & (actions <= HIGH)).all()
    (actions.sum() + log_prob.sum()).backward()
    assert all(p.grad.abs().sum() > 0 for p in actor.parameters())
    assert actor.sample(data, 4).shape == (*batch, 4, 2)
    assert actor(data)["action"].shape == (*batch, 2)
    assert actor(observation=data["observation"]).shape == (*batch, 2)


def test_without_steps_it_is_the_policy_of_sac():
    net, data = network(), states(7)
    plain = TanhGaussianActor(net, action_spec=SPEC)
    actor = make(net, num_steps=0, **UNBOUNDED)
    torch.manual_seed(1)
    expected = plain.sample_with_log_prob(data, 5)
    torch.manual_seed(1)
    actions, log_prob = actor.sample_with_log_prob(data, 5)
    assert actions.equal(expected[0])
    assert log_prob.equal(expected[1])
    loc, scale = net(data["observation"])
    theirs = TanhNormal(loc.unsqueeze(1), scale.unsqueeze(1), low=LOW, high=HIGH)
    assert_close(log_prob, theirs.log_prob(actions), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bound_step", [False, True])
def test_density_is_that_of_the_jacobian_of_all_particles(bound_step):
    """sum_i log pi(a_i) = log N(xi) - log abs det da/dxi, to first order in the step."""
    torch.manual_seed(0)
    actor = make(step_size=1e-3, temperature=0.2, kernel=RBFKernel(0.7), bound_step=bound_step)
    actor, data = actor.double(), states(1).double()
    noise = actor.draw_noise(data, 5)
    _, scale = actor.network(data["observation"])

    def move(flat):
        return actor.unsquashed(data, flat.view_as(noise)).flatten()

    log_det = torch.linalg.slogdet(torch.func.jacrev(move)(noise.flatten())).logabsdet
    mass = math.log(math.erf(3 / 2**0.5))
    start = (-0.5 * noise.square() - 0.5 * math.log(2 * math.pi) - mass).sum()
    u = actor.unsquashed(data, noise)
    exact = start - log_det - squash_log_det(u, actor.low, actor.high).sum()
    torch.manual_seed(2)
    actor.draw_noise = lambda *_: noise
    _, log_prob = actor.sample_with_log_prob(data, 5)
    moved = log_det - 5 * scale.clamp(0.1, 1).log().sum()
    assert moved.abs() > 0.01  # what the steps did
    assert_close(log_prob.sum(), exact, rtol=0, atol=2e-2 * moved.abs().item())


@torch.no_grad()
def test_both_peaks_and_their_entropy():
    """exp(Q / alpha) has peaks at -0.5 and 0.5; the entropy comes from below, with particles."""
    critic, gaps = of_action(lambda a: -8.0 * (a.square() - 0.25).square()), {}
    for num_samples in (10, 160):
        actor = SVGDActor(
            Normal(0.5),
            critic,
            action_spec=Bounded(-1.0, 1.0, shape=(1,)),
            temperature=0.1,
            num_steps=5,
            step_size=0.02,
            kernel=RBFKernel(0.3),
        )
        data = states(40_000 // num_samples)
        actions, log_prob = actor.sample_with_log_prob(data, num_samples)
        right = (actions > 0).float().mean(-2)
        assert ((right > 0) & (right < 1)).float().mean() > 0.99  # both peaks, in each state
        assert right.mean() == pytest.approx(0.5, abs=0.03)
        counts = torch.histc(actions.flatten(), 50, -1, 1) / actions.numel()
        entropy = -(counts[counts > 0] * (counts[counts > 0] / 0.04).log()).sum()
        gaps[num_samples] = (entropy + log_prob.mean()).item()
    # From a standard deviation of 0.5, a third starts there.
    assert ((actions.abs() - 0.5).abs() < 0.2).float().mean() > 0.6
    assert gaps[10] > 0.1
    assert abs(gaps[160]) < 0.03


def test_particles_repel_and_one_alone_climbs():
    peak = of_action(lambda a: -(a - 0.3).square())
    spec = Bounded(-1.0, 1.0, shape=(1,))
    options = {"action_spec": spec, "temperature": 0.01, "num_steps": 200, "step_size": 0.01}
    actor = SVGDActor(Normal(0.5), peak, num_action_samples=8, kernel=RBFKernel(0.05), **options)
    data = states(50)
    spread = actor.sample(data, 8).std(-2)
    alone = actor.sample(data, 1)
    assert spread.min() > 0.03
    assert_close(alone, torch.full_like(alone, 0.3), rtol=0, atol=0.03)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        action = actor(data)["action"]
        assert_close(action, torch.full_like(action, 0.3), rtol=0, atol=0.03)
        assert action.equal(actor(data)["action"])
    # While exploring, an action is one of several that repel each other.
    assert actor(data)["action"].std() > 0.02


def test_the_target_is_a_density_of_actions():
    """Of Q = 0 it is uniform on the box, and highest at u = 0 in the unsquashed space."""
    net, spec = Normal(0.5), Bounded(-1.0, 1.0, shape=(1,))
    net.loc.data.fill_(1.0)
    actor = SVGDActor(net, of_action(lambda a: 0.0 * a), action_spec=spec, num_steps=100)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        action = actor(states(2))["action"]
    assert_close(action, torch.zeros(2, 1), rtol=0, atol=1e-3)


def test_noise_is_bounded_and_has_its_density():
    actor = SVGDActor(
        Normal(1.0, 2),
        [qvalue()],
        action_spec=SPEC,
        num_steps=0,
        noise_bound=0.8,
    ).double()
    noise = actor.draw_noise(states(1000).double(), 100)
    assert 0.79 < noise.abs().max() < 0.8
    with torch.no_grad():
        u = actor.unsquashed(states(1000).double(), noise)
        _, log_prob = actor.sample_with_log_prob(states(1000).double(), 100)
    # E[1 / p] is the volume of the support in the box.
    volume = (2 * math.tanh(0.8)) * (4 * math.tanh(0.8))
    assert (-log_prob).exp().mean() == pytest.approx(volume, rel=0.02)
    assert u.abs().max() < 0.8


def test_scale_is_clamped():
    actor = make(Normal(5.0, 2), num_steps=0, noise_bound=None, scale_bounds=(0.1, 0.2))
    u = actor.unsquashed(states(1000), actor.draw_noise(states(1000), 10))
    assert u.std().item() == pytest.approx(0.2, rel=0.05)


def test_hutchinson_probes_change_the_density_alone_and_not_its_mean():
    saddle = of_action(lambda a: a[..., :1] * a[..., 1:])
    actor = make(critic=[saddle], kernel=RBFKernel(1.0), temperature=0.5)
    data = states(3).expand(1000, 3).contiguous()
    noise = actor.draw_noise(data[0], 4).expand(1000, 3, 4, 2)
    actor.draw_noise = lambda *_: noise
    actions, exact = actor.sample_with_log_prob(data, 4)
    actor.num_probes = 1
    same, estimates = actor.sample_with_log_prob(data, 4)
    assert_close(same, actions)
    assert (estimates - exact).abs().max() > 0.01
    assert_close(estimates.mean(0), exact[0], rtol=0, atol=0.05)


def test_a_bounded_step_is_never_longer():
    data = states(50)
    free, bound = make(step_size=10.0, num_steps=1), make(step_size=10.0, num_steps=1)
    bound.load_state_dict(free.state_dict())
    bound.bound_step = True
    noise = free.draw_noise(data, 5)
    start = copy.deepcopy(free)
    start.num_steps = 0
    u = start.unsquashed(data, noise)
    long, short = (a.unsquashed(data, noise) - u for a in (free, bound))
    ratio = short.norm(dim=(1, 2)) / long.norm(dim=(1, 2))
    assert ratio.max() < 1
    # The direction is the same.
    assert_close(short, long * ratio[:, None, None], rtol=1e-3, atol=1e-4)


def test_the_critic_is_a_copy_in_the_state_and_gets_no_gradient():
    critics, data = [qvalue(), qvalue()], states(5)
    actor = make(critic=critics)
    assert {id(p) for p in actor.parameters()} == {id(p) for p in actor.network.parameters()}
    assert any(key.startswith("critics.1.") for key in actor.state_dict())
    noise = actor.draw_noise(data, 4)
    before = actor.unsquashed(data, noise)
    before.sum().backward()
    assert all(p.grad is None for critic in critics for p in critic.parameters())
    with torch.no_grad():
        for p in [*critics[0].parameters(), *critics[1].parameters()]:
            p.mul_(3.0)
    assert actor.unsquashed(data, noise).equal(before)
    other = make(critic=critics)
    other.network.load_state_dict(actor.network.state_dict())
    params = TensorDict.from_modules(*critics, as_module=True)
    actor.copy_critic(params, temperature=0.2)
    other.temperature.fill_(0.2)
    assert actor.unsquashed(data, noise).equal(other.unsquashed(data, noise))
    assert not actor.unsquashed(data, noise).equal(before)
    loaded = make()
    loaded.load_state_dict(actor.state_dict())
    assert loaded.unsquashed(data, noise).equal(actor.unsquashed(data, noise))
    assert actor.double().critics[0].module[0].weight.dtype == torch.float64


def test_each_seed_has_its_own_critic_and_temperature():
    nets = ParticleModule(network, 2)
    made = [ParticleModule(lambda: qvalue().module, 2) for _ in range(2)]
    critics = [ValueOperator(net, in_keys=["observation", "action"]) for net in made]
    alphas = torch.tensor([[0.1], [0.5]])
    actor, data = make(nets, critics, temperature=alphas, num_probes=2), states(2, 5)
    noise = actor.draw_noise(data, 4)
    actor.draw_noise = lambda *_: noise
    actions, log_prob = actor.sample_with_log_prob(data, 4)
    assert actor(data)["action"].equal(actions[..., 0, :])
    for s in range(2):
        own = [ValueOperator(n.particle(s), in_keys=["observation", "action"]) for n in made]
        alone = make(nets.particle(s), own, temperature=alphas[s].item(), num_probes=2)
        alone.draw_noise = lambda *_, s=s: noise[s]
        own_actions, own_log_prob = alone.sample_with_log_prob(data[s], 4)
        assert_close(actions[s], own_actions)
        assert_close(log_prob[s], own_log_prob)
    actor.copy_critic(TensorDict.from_modules(*critics), temperature=alphas.flip(0))
    assert actor.temperature.equal(alphas.flip(0))


def test_it_climbs_the_minimum_of_an_ensemble():
    flat, steep = of_action(lambda a: 0.0 * a), of_action(lambda a: a - 2.0)
    spec = Bounded(-1.0, 1.0, shape=(1,))
    actor = SVGDActor(Normal(0.5), [flat, steep], action_spec=spec, num_action_samples=1)
    data = states(200)
    assert actor.qvalue(data, torch.ones(200, 1)).unique().tolist() == [-1.0]
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert (actor(data)["action"] > 0.1).all()


@pytest.mark.filterwarnings(NO_UPDATER)
@pytest.mark.parametrize("delay", [False, True])
def test_sac_loss_of_torchrl_takes_it(delay):
    critics = [qvalue(), qvalue()]
    actor = SVGDActor(network(), critics, action_spec=Bounded(-1.0, 1.0, shape=(2,)))
    loss = SACLoss(actor, critics, alpha_init=0.3, action_spec=actor_spec(), delay_qvalue=delay)
    loss.make_value_estimator(gamma=0.9)
    losses = loss(make_batch(6))
    sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.actor_network_params.parameters())
    assert all(p.grad.abs().sum() > 0 for p in loss.qvalue_network_params.parameters())
    assert losses["entropy"].isfinite()
    torch.optim.SGD(loss.parameters(), lr=0.1).step()
    actor.copy_critic(loss.qvalue_network_params, temperature=loss._alpha)
    weights = loss.qvalue_network_params["module", "0", "weight"]
    assert actor.critics[1].module[0].weight.equal(weights[1])
    # The loss's own view of the policy follows.
    own = loss.actor_network_params["critics", "1", "module", "0", "weight"]
    assert own.equal(weights[1])
    assert actor.temperature.item() == pytest.approx(loss._alpha.item())


def actor_spec():
    return Bounded(-1.0, 1.0, shape=(2,))


def test_the_distribution_knows_the_density_of_its_last_draw():
    actor, data = make(), states(5)
    torch.manual_seed(3)
    expected = actor.sample_with_log_prob(data, actor.num_action_samples)
    dist = actor.get_dist(data)
    assert (dist.batch_shape, dist.event_shape) == ((5,), (2,))
    torch.manual_seed(3)
    action, log_prob = dist.rsample_and_log_prob()
    assert action.equal(expected[0][:, 0])
    assert log_prob.equal(expected[1][:, 0])
    assert not dist.sample().requires_grad
    with pytest.raises(ValueError, match="value must be the tensor of the last"):
        dist.log_prob(action)
    with pytest.raises(ValueError, match=r"sample_shape must be \(\)"):
        dist.rsample((3,))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"critic": nn.Linear(5, 1)}, "qvalue_network must be a TensorDictModule"),
        ({"critic": ValueOperator(nn.Linear(3, 1), ["observation"])}, "must read 'action'"),
        (
            {"critic": ValueOperator(MLP(5, 1), in_keys=["pixels", "action"])},
            r"it reads \['pixels', 'action'\]",
        ),
        ({"kernel": IMQKernel()}, "kernel must be an RBFKernel"),
        ({"num_steps": -1}, "num_steps must be >= 0"),
        ({"num_action_samples": 0}, "num_action_samples must be >= 1"),
        ({"num_probes": 0}, "num_probes must be >= 1"),
        ({"step_size": 0.0}, "step_size must be > 0"),
        ({"temperature": 0.0}, "temperature must be > 0"),
        ({"temperature": torch.tensor([[1.0], [-1.0]])}, "temperature must be > 0, got -1"),
        ({"noise_bound": 0.0}, "noise_bound must be > 0"),
        ({"scale_bounds": (0.5, 0.1)}, "scale_bounds must be >= 0.5, got 0.1"),
        ({"scale_bounds": 0.5}, "scale_bounds must be a pair"),
    ],
)
def test_errors(options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make(**options)
