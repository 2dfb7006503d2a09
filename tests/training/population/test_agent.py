"""The update of a population: against a loop over particles and steps, written out."""

import math
from dataclasses import replace

import pytest
import torch
from tensordict import TensorDict
from torch import nn
from torch.testing import assert_close

from tests.training.population_builders import E, N, batch_of, build_population, make_env
from torchrl_stein.envs import DoublePendulumEnv
from torchrl_stein.kernels import IdentityKernel
from torchrl_stein.training import (
    Checkpoints,
    make_gaussian_actor,
    make_linear_critic,
    make_trust_region,
    training_returns,
)

GAMMA, LR = 0.9, 0.5


def features(observation, step):
    t = step.item() / 100
    s = [max(-10.0, min(10.0, x)) for x in observation.tolist()]
    return torch.tensor([*s, *(x * x for x in s), t, t**2, t**3, 1.0], dtype=torch.float64)


def targets_of(rows, weight):
    """Features, discounted returns and values of every step of one environment."""

    def value(part):
        return (features(part["observation"], part["elapsed_steps"]) @ weight).item()

    found, following = [], None
    for step in reversed(list(rows)):
        after = step["next"]
        if after["terminated"]:
            following = 0.0
        elif after["done"] or following is None:  # cut off: the baseline says what was to come
            following = value(after)
        following = after["reward"].item() + GAMMA * following
        x = features(step["observation"], step["elapsed_steps"])
        found.append((x, following, value(step)))
    return found[::-1]


def by_hand(rows, weight):
    """Features, discounted returns and standardised advantages of one particle's data [E, T]."""
    steps = [step for row in rows for step in targets_of(row, weight)]
    x, returns, values = (
        torch.stack([torch.as_tensor(v) for v in c]) for c in zip(*steps, strict=True)
    )
    advantage = returns - values
    return x, returns, ((advantage - advantage.mean()) / advantage.std(correction=0)).float()


@pytest.mark.parametrize("base", ["reinforce", "a2c"])
def test_one_update_by_hand(base):
    env = make_env()
    agent = build_population(
        env, base=base, kernel=IdentityKernel(), optimizer=torch.optim.SGD, lr=LR, gamma=GAMMA
    )
    baseline, population = agent.critic.module, agent.actor[0].module
    for _ in range(2):  # so that there is a baseline to subtract
        agent.update(batch_of(env, agent))
    data = batch_of(env, agent)
    assert data["next", "terminated"].any()
    assert data["next", "truncated"].any()
    weights = baseline.weight.double().clone()
    assert (weights.abs().max() > 0.1) == (base == "a2c")
    networks = [population.particle(i) for i in range(N)]
    agent.update(data.clone())
    for i in range(N):
        x, returns, advantage = by_hand(data[i], weights[i])
        loc, scale = networks[i](data["observation"][i])
        log_prob = torch.distributions.Normal(loc, scale).log_prob(data["action"][i]).flatten()
        loss = -(log_prob * advantage).mean() / N
        loss.backward()
        for got, old in zip(
            population.particle(i).parameters(), networks[i].parameters(), strict=True
        ):
            assert_close(got.detach(), (old - LR * old.grad).detach(), rtol=1e-4, atol=1e-5)
        if base == "a2c":
            ridge = baseline.ridge * torch.eye(x.shape[1])
            fitted = torch.linalg.solve(x.T @ x + ridge, x.T @ returns.double())
            assert_close(x @ baseline.weight[i].double(), x @ fitted, rtol=1e-3, atol=1e-3)
        else:
            assert baseline.weight.abs().max() == 0


def test_a_particle_learns_from_its_own_data_alone():
    env = make_env()
    particles = []
    for spoil in (False, True):
        agent = build_population(env, kernel=IdentityKernel())
        torch.manual_seed(1)
        env.set_seed(1)
        data = batch_of(env, agent)
        if spoil:
            data["next", "reward"][1] = torch.randn(E, 10, 1)
        agent.update(data)
        particles.append((agent.loss.particles.detach(), agent.critic.module.weight))
    for plain, spoilt in zip(*particles, strict=True):
        assert (plain != spoilt).any(1).tolist() == [False, True, False]


def seen_by_the_loss(agent, data):
    batches = []
    agent.loss.register_forward_pre_hook(lambda _, args: batches.append(args[0]))
    data["row"] = torch.arange(E * 10).view(1, E, 10).expand(N, E, 10).clone()
    agent.update(data)
    return [batch["row"].flatten(1) for batch in batches]


def test_minibatches_part_the_rows_anew_in_every_epoch():
    env = make_env()
    agent = build_population(env, base="ppo", num_epochs=3, num_minibatches=4)
    rows = seen_by_the_loss(agent, batch_of(env, agent))
    assert [r.shape for r in rows] == [(N, 5)] * 12
    assert all((r == r[0]).all() for r in rows)
    epochs = [torch.cat([r[0] for r in rows[k : k + 4]]) for k in (0, 4, 8)]
    for epoch in epochs:
        assert epoch.sort().values.tolist() == list(range(E * 10))
        assert epoch.tolist() != list(range(E * 10))
    assert not epochs[0].equal(epochs[1])


def test_without_minibatches_every_epoch_sees_everything():
    env = make_env()
    agent = build_population(env, base="ppo", num_epochs=2)
    rows = seen_by_the_loss(agent, batch_of(env, agent))
    assert len(rows) == 2
    assert all(r[i].tolist() == list(range(E * 10)) for r in rows for i in range(N))


def test_the_temperature_follows_its_schedule():
    env = make_env()
    agent = build_population(env)
    temperatures = [agent.update(batch_of(env, agent))[0]["temperature"].item() for _ in range(3)]
    assert temperatures == pytest.approx([10.0 * 100 ** (-k / 10) for k in range(3)])


def test_figures_belong_to_the_update():
    env = make_env()
    agent = build_population(env)
    distance = torch.pdist(agent.loss.particles[:, : agent.loss.population.kernel_dim]).median()
    losses, figures = agent.update(batch_of(env, agent))
    assert_close(figures["particle_distance"], distance.detach())
    assert not any(v.requires_grad for v in losses.values())


# birth and death


@pytest.mark.parametrize("base", ["a2c", "trpo"])
def test_particles_are_replaced_at_the_interval_with_their_critic_and_moments(base):
    env = make_env()
    agent = build_population(
        env,
        base=base,
        kernel=IdentityKernel(),
        birth_death={"temperature": 1e-3},
        birth_death_interval=3,
    )
    parents = []
    for _ in range(6):
        agent.update(batch_of(env, agent))
        parents.append(None if agent.parents is None else agent.parents.tolist())
    assert [p is None for p in parents] == [True, True, False, True, True, False]
    assert parents[5] != list(range(N))
    particles = agent.loss.particles
    moments = list(agent.optimizer.state[particles].values())[1:]  # after Adam's count
    assert len(moments) == (2 if base == "a2c" else 0)
    for child, parent in enumerate(parents[5]):
        for rows in (agent.critic.module.weight, *moments, agent.birth_death.returns):
            assert rows[child].equal(rows[parent])
        # Copies differ a little, so that they can part.
        assert (child == parent) == particles[child].equal(particles[parent])
        assert (particles[child] - particles[parent]).norm() < 0.3 * particles[parent].norm()


def test_returns_of_training_decide_who_dies():
    env = make_env()
    agent = build_population(
        env, kernel=IdentityKernel(), birth_death={"temperature": 1e-3}, birth_death_interval=1
    )
    data = batch_of(env, agent)
    data["next", "done"][:, :, -1] = True
    data["next", "episode_reward"] = (
        torch.tensor([0.0, 1.0, 9.0]).view(N, 1, 1, 1).expand(N, E, 10, 1)
    )
    agent.update(data)
    assert agent.parents.tolist() == [2, 2, 2]


# natural gradients


def test_one_natural_gradient_step_by_hand():
    """theta + sqrt(2 delta / x^T (F + lambda) x) x with the dense F = E[J^T G J], J by autograd."""
    delta, damping, env = 1e-4, 0.1, make_env()
    trpo = {"max_kl": delta, "damping": damping, "iterations": 40}
    agent = build_population(env, base="trpo", kernel=IdentityKernel(), gamma=GAMMA, trpo=trpo)
    for _ in range(2):
        agent.update(batch_of(env, agent))
    data, population = batch_of(env, agent), agent.actor[0].module
    weights, networks = agent.critic.module.weight.double().clone(), []
    for i in range(N):
        network = population.particle(i)
        advantage = by_hand(data[i], weights[i])[2]
        observation = data["observation"][i].flatten(0, 1)
        loc, scale = network(observation)
        action = data["action"][i].flatten(0, 1)
        gain = torch.distributions.Normal(loc, scale).log_prob(action).squeeze(-1) * advantage
        leaves = list(network.parameters())

        def rows(outputs, leaves=leaves):
            return torch.stack(
                [
                    torch.cat(
                        [
                            g.flatten()
                            for g in torch.autograd.grad(
                                y, leaves, retain_graph=True, materialize_grads=True
                            )
                        ]
                    )
                    for y in outputs
                ]
            )

        g = rows([gain.mean()])[0]
        J, S = rows(loc.flatten()), rows(scale.flatten())
        weight = scale.detach() ** -2 / len(J)
        metric = J.mT @ (weight * J) + S.mT @ (2 * weight * S) + damping * torch.eye(len(g))
        x = torch.linalg.solve(metric, g)
        step = (2 * delta / (x @ metric @ x)).sqrt() * x
        networks.append(torch.cat([p.detach().flatten() for p in leaves]) + step)
    losses, _ = agent.update(data)
    assert losses["step_fraction"] == 1
    for i, want in enumerate(networks):
        got = torch.cat([p.detach().flatten() for p in population.particle(i).parameters()])
        assert_close(got, want, rtol=1e-4, atol=2e-5)


def test_the_figures_of_natural_gradients_are_means_over_the_particles():
    env = make_env()
    agent = build_population(env, base="trpo")
    losses, figures = agent.update(batch_of(env, agent))
    assert 0 < losses["kl"] <= 0.01001
    assert 0 < losses["step_fraction"] <= 1
    assert 0 < losses["cg_residual"] < 1
    assert losses["improvement"] > 0
    assert all(v.ndim == 0 for v in losses.values())
    assert figures["particle_distance"] > 0


def test_natural_gradients_go_on_from_a_checkpoint(tmp_path):
    """The optimizer has no state, but the loop saves one; population and critic are in the loss."""

    def build(seed):
        agent = build_population(make_env(), base="trpo", seed=seed)
        others = {"optimizer": agent.optimizer}
        return agent, Checkpoints(tmp_path, loss=agent.loss, config={}, others=others)

    def train(agent, seeds):
        for seed in seeds:
            torch.manual_seed(seed)
            agent.update(batch_of(make_env(seed=seed), agent))
        return agent.loss.particles.detach().clone(), agent.critic.module.weight.clone()

    straight = train(build(0)[0], range(4))
    agent, checkpoints = build(0)
    half = train(agent, range(2))
    path = checkpoints.save(2)
    agent, checkpoints = build(7)
    checkpoints.restore(path)
    for got, want, before in zip(train(agent, (2, 3)), straight, half, strict=True):
        assert got.equal(want)
        assert not got.equal(before)


@pytest.mark.parametrize("name", ["num_epochs", "num_minibatches"])
def test_a_natural_gradient_step_takes_the_batch_once_and_whole(name):
    agent = build_population(make_env(), base="trpo")
    with pytest.raises(ValueError, match=r"num_epochs and num_minibatches must be 1, got .*2"):
        replace(agent, **{name: 2})


def test_a_natural_gradient_step_has_its_own_trust_region():
    agent = build_population(make_env(), base="trpo")
    region = make_trust_region(agent.actor, weight=0.4, tau=None, space="parameter")
    with pytest.raises(ValueError, match="trust region of its own, trust_region must be None"):
        replace(agent, trust_region=region)


# bad settings


@pytest.mark.parametrize("name", ["num_epochs", "num_minibatches", "birth_death_interval"])
def test_counts_are_positive(name):
    agent = build_population(make_env())
    with pytest.raises(ValueError, match=f"PopulationAgent: {name} must be >= 1, got 0"):
        replace(agent, **{name: 0})


def test_a_replaced_particle_has_no_predecessor():
    agent = build_population(make_env(), birth_death={})
    region = make_trust_region(agent.actor, weight=0.4, tau=None, space="parameter")
    with pytest.raises(ValueError, match="birth_death and trust_region exclude each other"):
        replace(agent, trust_region=region)


# the networks


def test_the_actor_is_that_of_the_paper():
    torch.manual_seed(0)
    env = DoublePendulumEnv((4, 2), seed=0)
    actor = make_gaussian_actor(env, 4, [100, 50])
    population = actor[0].module
    network = population.particle(2)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    assert [(x.in_features, x.out_features) for x in layers] == [(6, 100), (100, 50), (50, 1)]
    for layer in layers:
        bound = math.sqrt(6 / (layer.in_features + layer.out_features))
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert layer.bias.abs().max() == 0
    # Only the log-standard-deviation lies outside of the kernel; it begins at 0.
    weights = sum(p.numel() for layer in layers for p in layer.parameters())
    assert (population.kernel_dim, population.num_parameters) == (weights, weights + 1)
    observation = torch.randn(5, 6)
    loc, scale = network(observation)
    hidden = observation
    for layer in layers[:-1]:
        hidden = layer(hidden).tanh()
    assert_close(loc, layers[-1](hidden), rtol=1e-5, atol=1e-6)
    assert_close(scale, torch.ones(5, 1))


def test_gain_scales_the_weights():
    sizes = []
    for gain in (1.0, 0.5):
        torch.manual_seed(0)
        actor = make_gaussian_actor(make_env(), N, [8], gain=gain)
        sizes.append(actor[0].module.particles.detach()[:, : actor[0].module.kernel_dim])
    assert_close(sizes[1], 0.5 * sizes[0])


def test_the_critic_knows_nothing_at_first():
    env = make_env()
    data = env.rollout(5, break_when_any_done=False)
    assert make_linear_critic(env, N)(data)["state_value"].equal(torch.zeros(N, E, 5, 1))


def test_training_returns_by_hand():
    done = torch.tensor([[[0, 1], [0, 1]], [[0, 0], [1, 0]], [[0, 0], [0, 0]]]).bool().unsqueeze(-1)
    reward = torch.arange(12.0).view(3, 2, 2, 1)
    data = TensorDict({"next": {"done": done, "episode_reward": reward}}, [3, 2, 2])
    # Particle 0 ended with 1 and 3, particle 1 with 6, particle 2 ended no episode.
    assert_close(training_returns(data), torch.tensor([2.0, 6.0, math.nan]), equal_nan=True)
