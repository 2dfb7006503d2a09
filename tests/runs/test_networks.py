"""The networks of the recipes."""

from itertools import pairwise

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch import nn
from torch.testing import assert_close
from torchrl.collectors import Collector
from torchrl.envs.utils import ExplorationType, set_exploration_type

from torchrl_stein.envs import GridWorldEnv, MultiGoalEnv
from torchrl_stein.modules import BatchRenorm, SamplingActor
from torchrl_stein.runs import (
    NORMS,
    ObservationScale,
    make_actor_critic,
    make_explorer,
    make_mlp,
    make_parameter_noise,
)


@pytest.mark.parametrize("num_cells", [[], [7], [16, 8]])
def test_layers(num_cells):
    net = make_mlp(4, 2, num_cells)
    linear = [m for m in net if isinstance(m, nn.Linear)]
    sizes = [4, *num_cells, 2]
    assert [(m.in_features, m.out_features) for m in linear] == list(pairwise(sizes))
    assert [type(m) for m in net][1::2] == [nn.ReLU] * len(num_cells)


def test_weights_are_xavier_uniform_and_biases_zero():
    net = make_mlp(300, 2, [200])
    weight = net[0].weight
    bound = (6 / (300 + 200)) ** 0.5
    assert weight.abs().max() <= bound
    assert weight.abs().max() > 0.99 * bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert all((m.bias == 0).all() for m in net if isinstance(m, nn.Linear))


@pytest.mark.parametrize(
    ("word", "layer"), [("layer", nn.LayerNorm), ("batch_renorm", BatchRenorm)]
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_normalized_layers(word, layer, seeds):
    net = make_mlp(4, 1, [7, 9], norm=NORMS[word], seeds=seeds)
    one = net.particle(1) if seeds > 1 else net
    kinds = [nn.Linear, layer, nn.ReLU]
    assert [type(m) for m in one] == [*kinds, *kinds, nn.Linear]
    assert [one[i].weight.shape[0] for i in (1, 4)] == [7, 9]
    if layer is BatchRenorm:  # CrossQ's
        assert (one[1].momentum, one[1].eps, one[1].warmup_steps) == (0.01, 1e-3, 100_000)


def test_several_inputs_are_concatenated():
    net = make_mlp(4, 1, [8])
    a, b = torch.randn(5, 3), torch.randn(5, 1)
    assert_close(net(a, b), net(torch.cat([a, b], -1)))


def test_num_cells_of_a_configuration():
    omegaconf = pytest.importorskip("omegaconf")
    cells = omegaconf.OmegaConf.create([8, 8])
    assert make_mlp(2, 2, cells)(torch.zeros(1, 2)).shape == (1, 2)


# exploration


class Still(nn.Module):
    def forward(self, observation):
        return torch.zeros_like(observation)


STILL = TensorDictModule(Still(), ["observation"], ["action"])


class Noise(SamplingActor):
    """The action is the squashed noise, whatever the state."""

    def unsquashed(self, tensordict, noise):
        return noise


NOISE = Noise(MultiGoalEnv().action_spec, None, ["observation"], ["action"])


def collect(steps, warmup=0, rows=400, policy=STILL, **exploration):
    """Data [rows, steps] of episodes of five steps."""
    env = MultiGoalEnv((rows,), horizon=5, seed=0, goal_threshold=1e-3)
    torch.manual_seed(0)
    explorer = make_explorer(policy, env.action_spec, **exploration)
    collector = Collector(
        env,
        explorer,
        frames_per_batch=rows,
        total_frames=rows * steps,
        init_random_frames=warmup * rows,
        auto_register_policy_transforms=False,
    )
    data = torch.cat([batch.clone() for batch in collector], 1)
    collector.shutdown()
    return data


def test_an_ornstein_uhlenbeck_process_per_row_and_episode():
    data = collect(10, noise=0.1, theta=0.4)
    x = data["action"][..., 0]
    # x' = 0.6 x + 0.1 N(0, 1) from 0 in each episode: variances 0.01 (1 + 0.36 + 0.36^2 + ...).
    expected = torch.tensor([sum(0.01 * 0.36**j for j in range(i % 5 + 1)) for i in range(10)])
    assert_close(x.var(0), expected, rtol=0.25, atol=0)
    step = (x[:, 1:] * x[:, :-1]).mean(0) / x[:, :-1].square().mean(0)
    within = torch.tensor([i != 4 for i in range(9)])
    assert_close(step[within], torch.full((8,), 0.6), rtol=0, atol=0.15)
    assert step[4].abs() < 0.15  # a new episode knows nothing of the last one
    # The two coordinates are independent, and so are rows.
    assert (x * data["action"][..., 1]).mean().abs() < 0.002
    assert len(x[:, 3].unique()) == 400
    # What the process needs to remember is not stored with every transition.
    assert not [key for key in data.keys() if key.startswith("_")]  # noqa: SIM118


def test_the_process_waits_for_the_warmup():
    data = collect(7, warmup=6, noise=0.1, theta=0.4)
    x = data["action"][..., 0]
    assert x[:, :6].std() > 0.5  # uniform
    assert x[:, 6].std().item() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize("warmup", [0, 5, 7])
def test_noise_that_is_held(warmup):
    data = collect(15, warmup, policy=NOISE, hold=16)
    assert not [key for key in data.keys() if key.startswith("_")]  # noqa: SIM118
    kept = (data["action"][:, 1:] == data["action"][:, :-1]).all(-1).float().mean(0)
    once = 1 / sum(n**-2 for n in range(1, 17))
    for t, share in enumerate(kept.tolist(), start=1):
        if t <= warmup or t % 5 == 0:  # random actions; the first step of an episode
            assert share == 0
        elif t % 5 == 1 or t == warmup + 1:  # the second step with noise that is new
            assert share == pytest.approx(1 - once, abs=0.08)


def test_held_noise_and_more_on_top():
    data = collect(5, policy=NOISE, hold=16, noise=0.1, theta=0.4)
    step = (data["action"][:, 1:] - data["action"][:, :-1]).abs().amax(-1)
    assert 0 < step.min() < 0.05
    replaced = collect(2, policy=NOISE, hold=16, uniform_fraction=1.0)["action"]
    assert not (replaced[:, 0] == replaced[:, 1]).any()
    assert collect(2, policy=NOISE, hold=0)["action"].unique().numel() == 1600


def test_noise_in_parameters():
    """Episodes of five steps with weights of their own, and noise on the actions on top of it."""
    policy = TensorDictModule(nn.Linear(2, 2, bias=False), ["observation"], ["action"])
    nn.init.zeros_(policy.module.weight)
    noise = make_parameter_noise(policy, 0.1, (400,))
    assert noise.scale == 0.1
    data = collect(10, warmup=2, policy=noise)
    # Of each episode two steps tell the weights, and all steps are of them.
    state, action = data["observation"], data["action"]
    for steps in (slice(2, 5), slice(5, 10)):
        weights = torch.linalg.lstsq(state[:, steps].double(), action[:, steps].double()).solution
        assert_close(state[:, steps] @ weights.float(), action[:, steps], atol=1e-3, rtol=0)
    assert weights.std().item() == pytest.approx(0.1, rel=0.15)
    on_top = collect(5, policy=noise, noise=0.3, theta=0.4)["action"]
    assert on_top.std() > action[:, 2:].std()
    assert make_parameter_noise(policy, 0.0, (400,)) is None


def test_noise_stays_in_the_box_and_rests_in_evaluation():
    data = collect(5, noise=3.0, theta=0.1)
    assert data["action"].abs().max() == 1
    env = MultiGoalEnv((4,))
    for options in ({"noise": 0.5}, {"noise": 0.5, "theta": 0.2}, {"uniform_fraction": 1.0}):
        explorer = make_explorer(STILL, env.action_spec, **options)
        with set_exploration_type(ExplorationType.DETERMINISTIC):
            assert explorer(env.reset())["action"].abs().max() == 0


def test_white_noise_and_uniform_actions():
    white = collect(2, noise=0.3)["action"]
    assert white.std().item() == pytest.approx(0.3, rel=0.1)
    assert (white[:, 0] * white[:, 1]).mean().abs() < 0.01
    mixed = collect(1, uniform_fraction=0.25)["action"].squeeze(1)
    assert (mixed != 0).any(-1).float().mean().item() == pytest.approx(0.25, abs=0.07)
    assert collect(2)["action"].abs().max() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise": -0.1}, "noise must be >= 0, got -0.1"),
        ({"noise": float("nan")}, "noise must be finite"),
        ({"uniform_fraction": 1.5}, "uniform_fraction must be >= 0 and <= 1, got 1.5"),
        ({"theta": 0.15}, "make_explorer with theta: noise must be > 0, got 0.0"),
        ({"hold": -1}, "hold must be >= 0, got -1"),
        ({"theta": 0.0, "noise": 0.3}, "theta must be > 0 and <= 1, got 0.0"),
        ({"theta": 1.5, "noise": 0.3}, "theta must be > 0 and <= 1, got 1.5"),
    ],
)
def test_impossible_exploration(options, message):
    with pytest.raises(ValueError, match=message):
        make_explorer(STILL, MultiGoalEnv((4,)).action_spec, **options)


def test_noise_of_a_policy_without_noise_cannot_be_held():
    with pytest.raises(TypeError, match="actor must be a SamplingActor, got TensorDictModule"):
        make_explorer(STILL, MultiGoalEnv((4,)).action_spec, hold=16)


def test_impossible_noise_in_parameters():
    with pytest.raises(
        ValueError, match=r"make_parameter_noise: threshold must be >= 0, got -0\.1"
    ):
        make_parameter_noise(STILL, -0.1, (4,))


# actors with critics


@pytest.mark.parametrize("kind", [MultiGoalEnv, GridWorldEnv])
@pytest.mark.parametrize("normalize", [True, False])
def test_an_actor_and_a_critic(kind, normalize):
    env = kind((5,), seed=0)
    actor, critic = make_actor_critic(env, [8, 8], normalize=normalize)
    data = env.rollout(6, actor, break_when_any_done=False)
    assert data["action_log_prob"].shape == (5, 6)
    if kind is GridWorldEnv:  # nearly even at first
        assert data["logits"].softmax(-1).sub(1 / 4).abs().max() < 0.02
        assert (data["action"].sum(-1) == 1).all()
    else:
        assert (data["scale"] == 1).all()
        assert data["loc"].abs().max() < 0.1
    assert critic(data)["state_value"].shape == (5, 6, 1)
    scales = [
        [m for m in net.modules() if isinstance(m, ObservationScale)] for net in (actor, critic)
    ]
    assert [len(found) for found in scales] == [int(normalize)] * 2
    assert not normalize or scales[0][0] is scales[1][0]
    weights = [m.weight for m in critic.modules() if isinstance(m, nn.Linear)]
    assert_close(weights[1] @ weights[1].mT, 2 * torch.eye(8))  # orthogonal, times sqrt(2)
    assert_close(weights[2] @ weights[2].mT, torch.ones(1, 1))


def test_a_critic_without_gain_is_zero():
    env = MultiGoalEnv((5,), seed=0)
    _, critic = make_actor_critic(env, [8], critic_gain=0.0)
    assert (critic(env.reset())["state_value"] == 0).all()


def test_the_scale_of_observations():
    """Mean 0 and variance 1 of all that was seen, in parts as at once; outliers are cut."""
    scale = ObservationScale((2,))
    data = torch.tensor([3.0, -1.0]) + torch.tensor([2.0, 0.1]) * torch.randn(4000, 2)
    for part in data.split(500):
        scale.update(part)
    found = scale(data)
    assert_close(found.mean(0), torch.zeros(2), rtol=0, atol=1e-3)
    assert_close(found.std(0), torch.ones(2), rtol=0, atol=1e-3)
    assert scale(torch.full((1, 2), 1e6)).tolist() == [[10.0, 10.0]]
    same = ObservationScale((1,))  # as VecNormV2 of TorchRL is not
    for _ in range(200):
        same.update(1.3 + 1e-4 * torch.randn(8, 1))
        assert same(torch.full((1, 1), 1.3)).isfinite().all()
