"""The trust region in both training loops: when the predecessor follows, and weight 0."""

import pytest
import torch
from torch.testing import assert_close
from torchrl.objectives import HardUpdate, SoftUpdate

from tests.training.population_builders import batch_of, build_population, make_env
from torchrl_stein.modules import find_population, particles_key
from torchrl_stein.objectives import PaperCost, WassersteinTrustRegionLoss
from torchrl_stein.training import (
    OffPolicySettings,
    Run,
    TrustRegion,
    find_checkpoint,
    load_weights,
    make_trust_region,
    train_off_policy,
)


def always(actor, **options):
    """A trust region even for weight 0, which recipes do without."""
    loss = WassersteinTrustRegionLoss(actor, **options)
    return TrustRegion(loss, HardUpdate(loss, value_network_update_interval=0))


def population(weight=None, **options):
    agent = build_population(make_env(), **options)
    if weight is not None:
        agent.trust_region = always(agent.actor, weight=weight, space="parameter")
    return agent


def updated(agent, updates=3):
    """Particles after each update, and the losses of each, with the same data every time."""
    particles, losses = [], []
    for k in range(updates):
        torch.manual_seed(k)
        losses.append(agent.update(batch_of(make_env(seed=k), agent))[0])
        particles.append(agent.actor[0].module.particles.detach().clone())
    return particles, losses


def test_weight_zero_is_svpg_to_the_bit():
    plain, _ = updated(population())
    zero, losses = updated(population(0.0))
    held, _ = updated(population(50.0))
    assert losses[-1]["transport_cost"] > 0
    for a, b in zip(plain, zero, strict=True):
        assert_close(a, b, rtol=0, atol=0)
    assert not plain[-1].allclose(held[-1])
    assert_close(plain[0], held[0])  # at first there is nowhere to pull back to


def test_the_predecessor_of_a_population_is_that_of_the_last_iteration():
    agent = population(1.0)
    key = particles_key(find_population("test", "actor", agent.actor)[0])
    start = agent.actor[0].module.particles.detach().clone()
    particles, losses = updated(agent)
    assert losses[0]["loss_trust_region"].abs() < 1e-6
    assert all(loss["loss_trust_region"] > 0 for loss in losses[1:])
    target = agent.trust_region.loss.target_actor_network_params.get(key)
    assert_close(target, particles[-2], rtol=0, atol=0)
    assert not start.equal(particles[0])


def test_of_several_epochs_only_the_first_lags():
    """The proximal point of an iteration is the population before its first step."""
    agent = population(1.0, base="ppo", num_epochs=3)
    seen, backward = [], agent.trust_region.backward
    agent.trust_region.backward = lambda batch: seen.append(backward(batch)) or seen[-1]
    updated(agent, updates=2)
    costs = [losses["transport_cost"].item() for losses in seen]
    assert len(costs) == 6
    # 0: nothing has moved. 1, 2: away from the start of the iteration. 3: of the last iteration,
    # three steps behind. 4, 5: as 1, 2.
    assert costs[0] < 1e-6
    assert costs[1] < costs[2] < costs[3]
    assert costs[4] < costs[3]


def test_figures_of_the_stein_loss_do_not_see_the_trust_region():
    ratios = []
    for weight in (None, 100.0):
        agent = population(weight)
        torch.manual_seed(0)
        with torch.no_grad():
            agent.actor[0].module.particles.add_(0.1)
        ratios.append(agent.update(batch_of(make_env(), agent))[1]["repulsion_ratio"])
    assert_close(*ratios)


def test_an_off_policy_agent_is_held(make_agent, env):
    with torch.no_grad():
        data = env.rollout(8, make_agent(env).explorer, break_when_any_done=False).reshape(-1)
    ends = {}
    for weight in (None, 0.0, 20.0):
        agent = make_agent(env)
        if weight is not None:
            agent.trust_region = always(agent.policy, weight=weight, num_particles=8)
        for k in range(10):
            torch.manual_seed(k)
            losses = agent.update(data.clone())
        ends[weight] = torch.cat([p.detach().flatten() for p in agent.policy.parameters()])
        if weight is not None:
            assert losses["transport_cost"] > 0
            assert not losses["loss_trust_region"].requires_grad
    # The noise of the trust region comes after that of the loss, from a seed of each update.
    assert_close(ends[None], ends[0.0], rtol=0, atol=0)
    assert not ends[None].allclose(ends[20.0])


def test_a_resumed_run_remembers_the_predecessor(make_agent, env, tmp_path):
    settings = OffPolicySettings(40, warmup_frames=8, batch_size=8, buffer_size=100)
    agent = make_agent(env)
    agent.trust_region = make_trust_region(agent.policy, weight=0.4, tau=0.01, num_particles=4)
    run = Run(tmp_path / "run", config={})
    train_off_policy(agent, env, settings, run, evaluate=dict)
    again = make_agent(env, seed=1)
    again.trust_region = make_trust_region(again.policy, weight=0.4, tau=0.01, num_particles=4)
    train_off_policy(
        again,
        env,
        settings,
        Run(tmp_path / "other", config={}),
        evaluate=dict,
        resume=run.directory,
    )
    ours = again.trust_region.loss.target_actor_network_params
    for key, leaf in agent.trust_region.loss.target_actor_network_params.items(True, True):
        assert_close(ours.get(key), leaf, rtol=0, atol=0)
    load_weights(find_checkpoint(run.directory), agent.loss)  # the trust region is no part of it


def test_make_trust_region(make_agent, env):
    policy = make_agent(env).policy
    assert make_trust_region(policy, weight=0.0, tau=None) is None
    last = make_trust_region(policy, weight=0.4, tau=None, cost=PaperCost(), num_particles=3)
    assert isinstance(last.updater, HardUpdate)
    assert isinstance(last.loss.cost, PaperCost)
    assert last.loss.num_particles == 3
    assert isinstance(make_trust_region(policy, weight=0.4, tau=0.01).updater, SoftUpdate)
    with pytest.raises(ValueError, match=r"weight must be >= 0, got -0\.4"):
        make_trust_region(policy, weight=-0.4, tau=None)
