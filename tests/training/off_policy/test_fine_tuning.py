"""Starting from other networks, and annealing towards a deterministic policy."""

import pytest
import torch
from torch.testing import assert_close
from torchrl.envs.utils import RandomPolicy
from torchrl.modules import ValueOperator
from torchrl.objectives import HardUpdate

from torchrl_stein.modules import AmortizedSVGDActor
from torchrl_stein.objectives import SoftQLoss
from torchrl_stein.training import (
    Checkpoints,
    OffPolicyAgent,
    make_annealing,
    make_mlp,
    make_optimizer,
    make_trust_region,
)
from torchrl_stein.training.off_policy.fine_tuning import load_pretrained, read_component


def build(env, *, noise_set_size=None, temperature=1.0, gamma=0.9, num_cells=(8,), seed=0):
    torch.manual_seed(seed)
    actor = AmortizedSVGDActor(
        make_mlp(4, 2, num_cells), action_spec=env.action_spec, noise_set_size=noise_set_size
    )
    qvalue = ValueOperator(make_mlp(4, 1, num_cells), in_keys=["observation", "action"])
    loss = SoftQLoss(actor, qvalue, temperature=temperature, num_particles=3, num_value_samples=3)
    loss.make_value_estimator(gamma=gamma)
    optimizer, scheduler = make_optimizer((loss.parameters(), 1e-2), updates=9, final_fraction=1.0)
    target = HardUpdate(loss, value_network_update_interval=3)
    return OffPolicyAgent(actor, actor, loss, optimizer, scheduler, target)


def save(folder, agent):
    return Checkpoints(folder, loss=agent.loss, config={}, others={}).save(step=1)


def train(agent, env, updates):
    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)
    for _ in range(updates):
        agent.update(batch.clone())


# starting from other networks


@pytest.mark.parametrize(("before", "now"), [(None, None), (None, 4), (4, 4), (5, 4), (4, None)])
def test_networks_are_copied_and_nothing_else(tmp_path, env, before, now):
    pretrained = build(env, noise_set_size=before, temperature=5.0, gamma=0.5, seed=1)
    train(pretrained, env, 2)  # so that targets differ from networks
    path = save(tmp_path, pretrained)
    agent = build(env, noise_set_size=now, temperature=0.1)
    mine = {k: v.clone() for k, v in agent.loss.state_dict().items()}
    load_pretrained(path, agent.loss)
    theirs, state = pretrained.loss.state_dict(), agent.loss.state_dict()
    weights = [name for name in state if name.endswith(("weight", "bias"))]
    assert len(weights) == 3 * 4  # sampler, Q-network and its target, two layers each
    for name in state:
        source = theirs if name in weights else mine
        assert state[name].equal(source[name]), name
    assert agent.loss.temperature == pytest.approx(0.1)
    assert agent.policy.network[0].weight.equal(pretrained.policy.network[0].weight)


def test_a_trust_region_begins_at_what_was_loaded(tmp_path, env):
    pretrained = build(env, seed=1)
    path = save(tmp_path, pretrained)
    agent = build(env)
    region = make_trust_region(agent.policy, weight=0.4, tau=0.01, num_particles=3)
    load_pretrained(path, agent.loss, region)
    states = env.reset().select("observation")
    assert region.loss(states)["loss_trust_region"].item() == pytest.approx(0.0, abs=1e-6)
    previous = region.loss.target_actor_network_params["network", "0", "weight"].clone()
    assert previous.equal(pretrained.policy.network[0].weight)
    # It follows as before.
    with torch.no_grad():
        agent.policy.network[0].weight += 1.0
    region.follow()
    moved = region.loss.target_actor_network_params["network", "0", "weight"] - previous
    assert_close(moved, torch.full_like(moved, 0.01), rtol=0, atol=1e-5)


def test_other_networks_are_refused(tmp_path, env):
    path = save(tmp_path, build(env))
    agent = build(env, num_cells=(5,))
    message = r"init_from: actor_network_params.network.0.bias has shape \[8\] in .* and \[5\] here"
    with pytest.raises(ValueError, match=message):
        load_pretrained(path, agent.loss)
    deeper = build(env, num_cells=(8, 8))
    with pytest.raises(ValueError, match=r"network.2.bias has shape \[2\] in .* and \[8\] here"):
        load_pretrained(path, deeper.loss)
    with pytest.raises(FileNotFoundError, match="no checkpoint at nowhere"):
        load_pretrained("nowhere", agent.loss)
    with pytest.raises(ValueError, match=r"the checkpoint .* holds no buffer, only \['loss'\]"):
        read_component(path, "buffer")


# annealing


def test_what_falls_and_how(env):
    agent = build(env, noise_set_size=5, temperature=0.1)
    anneal = make_annealing(agent.loss, updates=8, temperature=0.001)
    seen = []
    for update in range(10):
        anneal(update)
        seen.append((agent.loss.temperature.item(), agent.policy.num_noise.item()))
    expected = [0.1 * 0.01 ** (min(i, 8) / 8) for i in range(10)]
    assert [t for t, _ in seen] == pytest.approx(expected, rel=1e-5)
    assert [n for _, n in seen] == [5, 4, 4, 4, 3, 2, 2, 2, 1, 1]  # 5 - i / 2, rounded to even


def test_without_a_noise_set_the_temperature_falls_alone(env):
    agent = build(env)
    anneal = make_annealing(agent.loss, updates=8, temperature=0.01)
    anneal(4)
    assert agent.loss.temperature == pytest.approx(0.1)
    assert agent.policy.num_noise is None
    assert make_annealing(agent.loss, updates=0, temperature=0.01) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates": -1}, "updates must be >= 0, got -1"),
        ({"temperature": 0.0}, "temperature must be > 0 and finite, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be > 0 and finite, got nan"),
        ({"updates": 0, "temperature": -1.0}, "temperature must be > 0 and finite, got -1.0"),
    ],
)
def test_impossible_annealing(env, options, message):
    with pytest.raises(ValueError, match=f"annealing: {message}"):
        make_annealing(build(env).loss, **{"updates": 5, "temperature": 0.1, **options})


def test_a_resumed_run_anneals_on(tmp_path, env, same):
    def start(seed):
        agent = build(env, noise_set_size=6, temperature=0.1, seed=seed)
        agent.anneal = make_annealing(agent.loss, updates=10, temperature=0.001)
        return agent

    def checkpoints(agent, name):
        return Checkpoints(tmp_path / name, loss=agent.loss, config={}, others=agent.components())

    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)

    def go_on(agent):
        torch.manual_seed(7)
        for _ in range(4):
            agent.update(batch.clone())
        return {k: v.clone() for k, v in agent.loss.state_dict().items()}

    agent = start(0)
    for _ in range(3):
        agent.update(batch.clone())
    path = checkpoints(agent, "a").save(step=3)
    straight = go_on(agent)
    other = start(1)
    checkpoints(other, "b").restore(path)
    same(go_on(other), straight)
    assert other.policy.noise_set.equal(agent.policy.noise_set)
    assert other.policy.num_noise == agent.policy.num_noise == round(6 - 5 * 6 / 10)


def test_it_ends_with_one_action_per_state_that_q_likes(env):
    """With one value of noise, amortized SVGD is plain ascent on Q."""
    agent = build(env, noise_set_size=4, temperature=0.5)
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
    loss = SoftQLoss(agent.policy, qvalue, temperature=0.5, num_particles=8, delay_qvalue=False)
    optimizer = torch.optim.Adam(agent.policy.parameters(), lr=1e-2)
    anneal = make_annealing(loss, updates=updates // 2, temperature=0.01)
    batch["observation"] = states
    spread = []
    for update in range(updates):
        anneal(update)
        loss.actor_loss(batch)["loss_actor"].backward()
        optimizer.step()
        optimizer.zero_grad()
        if update in (1, updates - 1):
            actions = agent.policy.sample(batch, 50)
            spread.append(actions.std(1).mean().item())
    assert spread[0] > 0.1
    assert spread[1] == 0.0
    assert (actions - goal).abs().mean() < 0.05
