"""Starting from other networks, and annealing towards a deterministic policy."""

import pytest
import torch
from tensordict.nn import TensorDictModule
from torch.testing import assert_close
from torchrl.envs.utils import RandomPolicy
from torchrl.modules import ValueOperator
from torchrl.objectives import SoftUpdate

from torchrl_stein import WassersteinTrustRegionLoss
from torchrl_stein.envs import MultiGoalEnv
from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import ActionSpace, SoftQLoss
from torchrl_stein.runs import load_pretrained, make_mlp, saved
from torchrl_stein.runs.checkpoint import CheckpointError, Checkpoints, read_component

make_annealing = saved._import_recipe("soft_q").make_annealing


@pytest.fixture
def env():
    return MultiGoalEnv((4,), horizon=5, seed=0)


def build(env, *, noise_set_size=None, temperature=1.0, gamma=0.9, num_cells=(8,), seed=0):
    torch.manual_seed(seed)
    actor = AmortizedSVGDActor(
        make_mlp(4, 2, num_cells), action_spec=env.action_spec, noise_set_size=noise_set_size
    )
    qvalue = ValueOperator(make_mlp(4, 1, num_cells), in_keys=["observation", "action"])
    loss = SoftQLoss(
        actor, qvalue, temperature=temperature, num_action_samples=3, num_value_samples=3
    )
    return loss.make_value_estimator(gamma=gamma)


def save(folder, loss):
    return Checkpoints(folder, {}).save(1, {"loss": loss})


def learn(loss, env, updates):
    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)
    optim = torch.optim.Adam(loss.parameters(), lr=1e-2)
    for _ in range(updates):
        losses = loss(batch.clone())
        (losses["loss_qvalue"] + losses["loss_actor"]).backward()
        optim.step()
        optim.zero_grad()


# starting from other networks


@pytest.mark.parametrize(("before", "now"), [(None, None), (None, 4), (4, 4), (5, 4), (4, None)])
def test_networks_are_copied_and_nothing_else(tmp_path, env, before, now):
    pretrained = build(env, noise_set_size=before, temperature=5.0, gamma=0.5, seed=1)
    learn(pretrained, env, 2)  # so that targets differ from networks
    path = save(tmp_path, pretrained)
    loss = build(env, noise_set_size=now, temperature=0.1)
    mine = {k: v.clone() for k, v in loss.state_dict().items()}
    load_pretrained(path, loss)
    theirs, state = pretrained.state_dict(), loss.state_dict()
    weights = [name for name in state if name.endswith(("weight", "bias"))]
    assert len(weights) == 3 * 4  # sampler, Q-network and its target, two layers each
    for name in state:
        source = theirs if name in weights else mine
        assert state[name].equal(source[name]), name
    assert loss.temperature == pytest.approx(0.1)
    ours, source = (each.actor_network.network[0].weight for each in (loss, pretrained))
    assert ours.equal(source)


def test_an_encoder_is_copied_and_its_target(tmp_path, env):
    def build_seeing(seed):
        torch.manual_seed(seed)
        encoder = TensorDictModule(make_mlp(2, 3, (8,)), ["observation"], ["features"])
        keys = {"in_keys": ["features"]}
        actor = AmortizedSVGDActor(
            make_mlp(5, 2, (8,)), action_spec=env.action_spec_unbatched, **keys
        )
        qvalue = ValueOperator(make_mlp(5, 1, (8,)), in_keys=["features", "action"])
        return SoftQLoss(actor, qvalue, encoder=encoder).make_value_estimator(gamma=0.9)

    pretrained, loss = build_seeing(1), build_seeing(0)
    learn(pretrained, env, 2)
    load_pretrained(save(tmp_path, pretrained), loss)
    theirs, state = pretrained.state_dict(), loss.state_dict()
    weights = [name for name in state if name.endswith(("weight", "bias"))]
    assert len(weights) == 5 * 4  # of encoder and Q-network also the targets, two layers each
    for name in weights:
        assert state[name].equal(theirs[name]), name


def test_a_trust_region_begins_at_what_was_loaded(tmp_path, env):
    pretrained = build(env, seed=1)
    loss = build(env)
    load_pretrained(save(tmp_path, pretrained), loss)
    region = WassersteinTrustRegionLoss(loss.actor_network, weight=0.4, space=ActionSpace(3))
    updater = SoftUpdate(region, tau=0.01)
    states = env.reset().select("observation")
    assert region(states)["loss_trust_region"].item() == pytest.approx(0.0, abs=1e-6)
    previous = region.target_actor_network_params["network", "0", "weight"].clone()
    assert previous.equal(pretrained.actor_network.network[0].weight)
    # It follows as before.
    with torch.no_grad():
        loss.actor_network.network[0].weight += 1.0
    updater.step()
    moved = region.target_actor_network_params["network", "0", "weight"] - previous
    assert_close(moved, torch.full_like(moved, 0.01), rtol=0, atol=1e-5)


def test_other_networks_are_refused(tmp_path, env):
    path = save(tmp_path, build(env))
    message = r"init_from: .* actor_network_params.network.0.bias is \[8\] .* and \[5\] .* here"
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(path, build(env, num_cells=(5,)))
    with pytest.raises(CheckpointError, match=r"network.2.bias is \[2\] .* and \[8\] .* here"):
        load_pretrained(path, build(env, num_cells=(8, 8)))
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        load_pretrained("nowhere", build(env))
    with pytest.raises(ValueError, match=r"the checkpoint .* holds no buffer, only \['loss'\]"):
        read_component(path, "buffer")
    other = Checkpoints(tmp_path / "other", {}).save(1, {"loss": torch.nn.Linear(2, 1)})
    with pytest.raises(CheckpointError, match=r"init_from: .* is absent there and"):
        load_pretrained(other, build(env))


# annealing


def test_what_falls_and_how(env):
    loss = build(env, noise_set_size=5, temperature=0.1)
    anneal = make_annealing(loss, updates=8, temperature=0.001)
    seen = []
    for update in range(10):
        anneal(update)
        seen.append((loss.temperature.item(), loss.actor_network.num_noise.item()))
    expected = [0.1 * 0.01 ** (min(i, 8) / 8) for i in range(10)]
    assert [t for t, _ in seen] == pytest.approx(expected, rel=1e-5)
    assert [n for _, n in seen] == [5, 4, 4, 4, 3, 2, 2, 2, 1, 1]  # 5 - i / 2, rounded to even


def test_without_a_noise_set_the_temperature_falls_alone(env):
    loss = build(env)
    anneal = make_annealing(loss, updates=8, temperature=0.01)
    anneal(4)
    assert loss.temperature == pytest.approx(0.1)
    assert loss.actor_network.num_noise is None
    never = make_annealing(loss, updates=0, temperature=0.01)
    never(5)
    assert loss.temperature == pytest.approx(0.1)


def test_a_resumed_run_anneals_on(tmp_path, env):
    """It depends on the number of updates alone."""
    loss, other = (build(env, noise_set_size=6, temperature=0.1, seed=s) for s in (0, 1))
    anneals = [make_annealing(each, updates=10, temperature=0.001) for each in (loss, other)]
    for update in range(3):
        anneals[0](update)
    other.load_state_dict(loss.state_dict())
    for anneal in anneals:
        anneal(7)
    assert other.temperature.equal(loss.temperature)
    assert other.actor_network.noise_set.equal(loss.actor_network.noise_set)
    assert other.actor_network.num_noise == loss.actor_network.num_noise


def test_it_ends_with_one_action_per_state_that_q_likes(env):
    """With one value of noise, amortized SVGD is plain ascent on Q."""
    actor = build(env, noise_set_size=4, temperature=0.5).actor_network
    updates = 600
    states = 6 * torch.rand(64, 2) - 3
    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)[:1].expand(64).clone()
    goal = torch.tensor([0.5, -0.25])

    class Bowl(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(()))

        def forward(self, observation, action):
            return -(action - goal).square().sum(-1, keepdim=True) + self.unused

    qvalue = ValueOperator(Bowl(), in_keys=["observation", "action"])
    loss = SoftQLoss(actor, qvalue, temperature=0.5, num_action_samples=8, delay_qvalue=False)
    optimizer = torch.optim.Adam(actor.parameters(), lr=1e-2)
    anneal = make_annealing(loss, updates=updates // 2, temperature=0.01)
    batch["observation"] = states
    spread = []
    for update in range(updates):
        anneal(update)
        loss.actor_loss(batch)["loss_actor"].backward()
        optimizer.step()
        optimizer.zero_grad()
        if update in (1, updates - 1):
            actions = actor.sample(batch, 50)
            spread.append(actions.std(1).mean().item())
    assert spread[0] > 0.1
    assert spread[1] == 0.0
    assert (actions - goal).abs().mean() < 0.05
