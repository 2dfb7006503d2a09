"""Noise in parameters: who acts with which weights, for how long, and how its scale adapts."""

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.data import Bounded
from torchrl.envs import InitTracker, TransformedEnv
from torchrl.envs.utils import ExplorationType, set_exploration_type
from torchrl.modules import AdditiveGaussianModule, TanhModule

from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import ParameterNoise, ParticleModule

BOX = Bounded(-1.0, 1.0, shape=(2,))


def policy_of(network):
    return TensorDictModule(network, ["observation"], ["action"])


def linear(seed=0):
    torch.manual_seed(seed)
    return policy_of(nn.Linear(3, 2))


def states(*batch, begins=False):
    flags = torch.full((*batch, 1), begins)
    return TensorDict({"observation": torch.randn(*batch, 3), "is_init": flags}, batch)


def slow_actions(noisy, data):
    """One network after the other, each with the weights that its row is said to have."""
    rows = noisy.perturbed.reshape(-1, 8)
    seen = data["observation"].reshape(len(rows), -1, 3)
    found = []
    for row, own in zip(rows, seen, strict=True):
        net = nn.Linear(3, 2)
        nn.utils.vector_to_parameters(row, net.parameters())
        found.append(net(own))
    return torch.stack(found).detach().reshape(*data.batch_size, 2)


@pytest.mark.parametrize(
    ("leading", "batch"), [((), ()), ((), (4,)), ((1,), (1,)), ((4,), (4, 5)), ((2, 3), (2, 3))]
)
def test_each_environment_acts_with_weights_of_its_own(leading, batch):
    noisy = ParameterNoise(linear(), 0.5, batch_size=leading)
    assert noisy.perturbed.shape == (*leading, 8)
    data = noisy(states(*batch))
    assert_close(data["action"], slow_actions(noisy, data))
    plain = noisy.policy(data.clone())["action"]
    assert (data["action"] - plain).abs().min() > 1e-4
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        assert noisy(data.clone())["action"].equal(plain)


def test_noise_is_normal_and_goes_where_the_parameters_are():
    policy = linear()
    noisy = ParameterNoise(policy, 0.5, batch_size=(5000,))
    with torch.no_grad():
        policy.module.weight.add_(3.0)
    noisy.redraw()
    own = nn.utils.parameters_to_vector(policy.parameters())
    xi = (noisy.perturbed - own) / 0.5
    assert_close(xi.mean(0), torch.zeros(8), atol=0.06, rtol=0)
    assert_close(xi.T.cov(), torch.eye(8), atol=0.08, rtol=0)


def test_it_is_drawn_anew_in_the_rows_that_begin_an_episode():
    policy = linear()
    noisy = ParameterNoise(policy, 0.5, batch_size=(4,))
    first = noisy.perturbed.clone()
    with torch.no_grad():
        policy.module.weight.add_(100.0)  # the policy learns, and the perturbed ones go on
    noisy(states(4))
    assert noisy.perturbed.equal(first)
    data = states(4)
    data["is_init"][1] = True
    noisy(data)
    assert noisy.perturbed[[0, 2, 3]].equal(first[[0, 2, 3]])
    assert noisy.perturbed[1, :6].min() > 90
    noisy.redraw(torch.tensor([True, False, False, False]))
    assert (noisy.perturbed[:, 0] > 90).tolist() == [True, True, False, False]
    # One for all is drawn anew with any of them; without a flag when it is asked for alone.
    for key, changes in (("is_init", True), (None, False)):
        one = ParameterNoise(policy, 0.5, is_init_key=key)
        before = one.perturbed.clone()
        one(data)
        assert one.perturbed.equal(before) is not changes


def test_parts_that_stay_as_they_are():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    noisy = ParameterNoise(policy_of(net), 0.5, fixed=["module.1", "module.2.bias"])
    assert noisy.perturbed.shape == (12 + 4 + 8,)
    data = noisy(states(6))
    expected = torch.nn.functional.linear(data["observation"], *split(noisy.perturbed))
    expected = net[1](expected) @ noisy.perturbed[16:].view(2, 4).T + net[2].bias
    assert_close(data["action"], expected)


def split(flat):
    return flat[:12].view(4, 3), flat[12:16]


def test_scale_by_hand():
    """pi~ - pi = sigma (W x + b) of the noise; 1.01 up where the distance is small, else down."""
    noisy = ParameterNoise(linear(), 0.5)
    data = states(7)
    torch.manual_seed(1)
    noise = torch.randn(8)
    moved = 0.5 * (data["observation"] @ noise[:6].view(2, 3).T + noise[6:])
    distance = moved.square().sum() / 14
    for threshold, factor in ((10.0, 1.01), (1e-3, 1 / 1.01)):
        noisy.scale.fill_(0.5)
        torch.manual_seed(1)
        assert_close(noisy.adapt(data, threshold), distance.sqrt())
        assert_close(noisy.scale, torch.tensor(0.5 * factor))


def test_it_finds_the_scale_that_moves_actions_as_far_as_noise_on_them():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 32), nn.Tanh(), nn.Linear(32, 2), nn.Tanh())
    noisy, data = ParameterNoise(policy_of(net), 1.0), states(256)
    for _ in range(300):
        noisy.adapt(data, 0.2)
    found = torch.stack([noisy.adapt(data, 0.2) for _ in range(200)])
    assert found.median().item() == pytest.approx(0.2, rel=0.15)
    assert noisy.scale < 0.3
    assert not [p for p in net.parameters() if p.grad is not None]


def test_a_distance_of_ones_own():
    """Of a policy that chooses: the divergence of its choices, as the paper has for DQN."""
    policy = TensorDictModule(nn.Linear(3, 4), ["observation"], ["logits"])

    def divergence(plain, moved):
        p, q = (td["logits"].log_softmax(-1) for td in (plain, moved))
        return (p.exp() * (p - q)).sum(-1).mean()

    noisy, data = ParameterNoise(policy, 0.5, distance=divergence), states(6)
    torch.manual_seed(1)
    found = noisy.adapt(data, 0.1)
    moved = nn.Linear(3, 4)
    torch.manual_seed(1)
    own = nn.utils.parameters_to_vector(policy.parameters())
    nn.utils.vector_to_parameters(own + 0.5 * torch.randn(16), moved.parameters())
    p = torch.distributions.Categorical(logits=policy(data.clone())["logits"])
    q = torch.distributions.Categorical(logits=moved(data["observation"]))
    assert_close(found, torch.distributions.kl_divergence(p, q).mean().detach())


def test_state_goes_on_in_another():
    noisy = ParameterNoise(linear(), 0.5, batch_size=(4,))
    noisy.adapt(states(6), 10.0)
    other = ParameterNoise(linear(1), 0.1, batch_size=(4,))
    other.load_state_dict(noisy.state_dict())
    data = states(4)
    assert other(data.clone())["action"].equal(noisy(data.clone())["action"])
    assert other.scale.equal(noisy.scale)
    # With another number of environments all episodes begin anew, and so do perturbations.
    more = ParameterNoise(linear(1), 0.1, batch_size=(6,))
    more.load_state_dict(noisy.state_dict())
    assert more.scale.equal(noisy.scale)
    assert more(states(6, begins=True))["action"].shape == (6, 2)


@pytest.mark.parametrize("how", ["collector", "rollout"])
def test_who_drives_it(how):
    """One action per state within an episode of one state, another in the next."""
    env = TransformedEnv(MultiGoalEnv((50,), horizon=5, seed=0), InitTracker())

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.action = nn.Parameter(torch.zeros(2))

        def forward(self, observation):
            return self.action.expand_as(observation)

    noisy = ParameterNoise(policy_of(Constant()), 0.1, batch_size=(50,))
    if how == "rollout":
        data = env.rollout(15, noisy, break_when_any_done=False)
    else:
        options = {"frames_per_batch": 150, "total_frames": 750}
        collector = Collector(env, noisy, auto_register_policy_transforms=False, **options)
        data = torch.cat([part.clone() for part in collector], 1)
        collector.shutdown()
    kept = (data["action"][:, 1:] == data["action"][:, :-1]).all(-1)
    assert kept.equal(~data["is_init"][:, 1:].squeeze(-1))
    assert 0 < kept.float().mean() < 1


def test_it_explores_where_noise_on_actions_stays():
    """A point mass whose goals are five units away; both move actions by 0.3.

    Thirty steps of white noise of 0.3 go 0.3 sqrt(30) = 1.6 units; what is the same in all of them
    goes nine.
    """
    torch.manual_seed(0)
    env = TransformedEnv(MultiGoalEnv((200,), horizon=30, seed=0), InitTracker())
    net = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    policy = TensorDictSequential(
        TensorDictModule(net, ["observation"], ["raw"]),
        TanhModule(in_keys=["raw"], out_keys=["action"], spec=BOX),
    )
    noisy = ParameterNoise(policy, 0.1, batch_size=(200,))
    white = TensorDictSequential(policy, AdditiveGaussianModule(env.action_spec, 0.3, 0.3))
    seen = env.rollout(30, white, break_when_any_done=False)
    for _ in range(300):
        noisy.adapt(seen, 0.3)

    def share(explorer):
        data = env.rollout(30, explorer, break_when_any_done=False)
        return data["next", "terminated"].any(1).float().mean()

    assert share(white) < 0.02
    assert share(noisy) > 0.15


def test_losses_never_see_it():
    """Losses of TorchRL run under DETERMINISTIC: what is perturbed is the data."""
    noisy = ParameterNoise(linear(), 0.5)
    data = states(6)
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        noisy(data)["action"].sum().backward()
    assert_close(noisy.policy.module.bias.grad, torch.full((2,), 6.0))
    assert not noisy(data)["action"].requires_grad


def test_nothing_is_read_back():
    """Tensors without numbers raise where a program waits for one."""
    noisy = ParameterNoise(linear(), 0.5, batch_size=(4,)).to("meta")
    noisy(states(4).to("meta"))
    assert noisy.adapt(states(4).to("meta"), 0.1).device.type == "meta"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"policy": nn.Linear(3, 2)}, TypeError, "policy must be a TensorDictModule"),
        ({"policy": policy_of(nn.Tanh())}, ValueError, "policy must have parameters to perturb"),
        ({"policy": policy_of(nn.LazyLinear(2))}, ValueError, "initialised parameters, got lazy"),
        ({"fixed": ["module"]}, ValueError, "policy must have parameters to perturb, got none"),
        ({"fixed": ["head"]}, ValueError, r"fixed must name parameters .*, got \['head'\]"),
        ({"scale": 0.0}, ValueError, "scale must be > 0, got 0"),
        ({"factor": 1.0}, ValueError, "factor must be > 1, got 1"),
        ({"batch_size": (0,)}, ValueError, "batch_size must be >= 1, got 0"),
        ({"distance": 1.0}, TypeError, "distance must be a function of two tensordicts, got 1"),
    ],
)
def test_refusals(arguments, error, message):
    with pytest.raises(error, match=f"ParameterNoise: .*{message}"):
        ParameterNoise(**{"policy": linear(), "scale": 0.1} | arguments)


def test_refusals_at_the_call():
    noisy = ParameterNoise(linear(), 0.1, batch_size=(4,))
    with pytest.raises(KeyError, match="ParameterNoise: the batch lacks key 'is_init'"):
        noisy(states(4).exclude("is_init"))
    with pytest.raises(KeyError, match=r"ParameterNoise.adapt: the batch lacks key 'observation'"):
        noisy.adapt(TensorDict({}, [4]), 0.1)
    message = r"must begin with batch_size \[4\], got batch size \[3\]"
    with pytest.raises(ValueError, match=message):
        noisy(states(3))
    with pytest.raises(ValueError, match=r"ParameterNoise.adapt: threshold must be > 0, got 0"):
        noisy.adapt(states(4), 0.0)


def test_a_population_of_policies():
    """One perturbation for all rows is one of every particle."""
    torch.manual_seed(0)
    policy = policy_of(ParticleModule(lambda: nn.Linear(3, 2), 4))
    noisy = ParameterNoise(policy, 0.5)
    data = noisy(states(4, 5))
    found = data["action"]
    policy.module.particles.data.copy_(noisy.perturbed.view(4, 8))
    assert_close(policy(data)["action"], found)
