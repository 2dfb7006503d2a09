"""What the off-policy loop is given: its numbers, and one update of an algorithm."""

from dataclasses import replace

import pytest
import torch
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.training import OffPolicySettings, make_trust_region


@pytest.mark.parametrize("name", [*OffPolicySettings.__dataclass_fields__])
@pytest.mark.parametrize("value", [-1, 0, float("nan"), float("inf")])
def test_bad_settings_are_named(name, value):
    if (name, value) == ("warmup_frames", 0):
        return
    expected = f"OffPolicySettings: {name} must be positive, got {value}"
    with pytest.raises(ValueError, match=expected):
        OffPolicySettings(**{"total_frames": 100, name: value})


@pytest.mark.parametrize(
    ("total", "warmup", "envs", "per_step", "updates"),
    [(100, 0, 4, 1, 25), (100, 20, 4, 2, 40), (101, 18, 4, 1, 22), (8, 40, 4, 1, 0)],
)
def test_number_of_updates(total, warmup, envs, per_step, updates):
    settings = OffPolicySettings(total, warmup_frames=warmup, updates_per_step=per_step)
    assert settings.updates(envs) == updates


def test_one_update(make_agent, env, states):
    agent = make_agent(env, updates=10, lr=0.5)
    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)
    before = states(agent)
    losses = agent.update(batch)
    after = states(agent)
    assert {"loss_qvalue", "loss_actor"} <= set(losses.keys())
    assert not any(value.requires_grad for value in losses.values())
    changed = {k for k, v in after["loss"].items() if not v.equal(before["loss"][k])}
    weights = {k for k in after["loss"] if k.endswith("weight")}
    # Both networks learn at once; the targets wait for their turn.
    assert {k for k in changed if k in weights} == {
        k for k in weights if not k.startswith("target_")
    }
    assert after["scheduler"]["last_epoch"] == 1
    assert agent.optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * (1 - 0.9 / 10))
    assert all(p.grad is None for p in agent.loss.parameters())


def test_gradients_do_not_pile_up(make_agent, env):
    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)
    agent = make_agent(env)
    agent.update(batch.clone())
    torch.manual_seed(5)
    gradients = []
    step = agent.optimizer.step

    def recording():
        gradients.append([p.grad.clone() for p in agent.loss.parameters()])
        step()

    agent.optimizer.step = recording
    agent.update(batch.clone())
    other = make_agent(env)
    other.update(batch.clone())
    torch.manual_seed(5)
    losses = other.loss(batch.clone())
    (losses["loss_qvalue"] + losses["loss_actor"]).backward()
    for ours, parameter in zip(gradients[0], other.loss.parameters(), strict=True):
        torch.testing.assert_close(ours, parameter.grad)


def weights_of(agent, network):
    params = getattr(agent.loss, f"{network}_network_params")
    return torch.cat([p.detach().flatten().clone() for p in params.parameters()])


def test_an_actor_that_waits_keeps_its_weights_and_its_moments(make_agent, env):
    """Delayed policy updates: an oracle that steps two optimizers by hand."""
    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)
    agent, oracle = make_agent(env), make_agent(env)
    agent.actor_interval = 2
    copies = [agent.target_updater.counter]
    critic = torch.optim.Adam(oracle.loss.qvalue_network_params.parameters(), lr=1e-2)
    actor = torch.optim.Adam(oracle.loss.actor_network_params.parameters(), lr=1e-2)
    for schedule in (critic, actor):
        schedule.param_groups[0]["lr"] = 1e-2
    for update in range(1, 6):
        torch.manual_seed(update)
        written = agent.update(batch.clone())
        assert "loss_actor" in written.keys()  # noqa: SIM118
        copies.append(agent.target_updater.counter)

        rate = 1e-2 * (1 - 0.9 * (update - 1) / 100)
        torch.manual_seed(update)
        losses = oracle.loss(batch.clone())
        losses["loss_qvalue"].backward(retain_graph=True)
        critic.param_groups[0]["lr"] = actor.param_groups[0]["lr"] = rate
        critic.step()
        critic.zero_grad()
        if update % 2 == 0:
            losses["loss_actor"].backward()
            actor.step()
            oracle.target_updater.step()
        actor.zero_grad()
        oracle.loss.zero_grad()
        for network in ("actor", "qvalue"):
            torch.testing.assert_close(weights_of(agent, network), weights_of(oracle, network))
    assert copies == [0, 0, 1, 1, 2, 2]
    steps = {group["params"][0]: group for group in agent.optimizer.param_groups}
    counts = [int(agent.optimizer.state[p]["step"]) for p in steps]
    assert counts == [5, 2]


def test_what_has_a_state(make_agent, env):
    agent = make_agent(env)
    parts = agent.components()
    assert set(parts) == {"optimizer", "scheduler", "target_updater"}
    agent.trust_region = make_trust_region(agent.policy, weight=0.4, tau=0.01)
    assert set(agent.components()) == {*parts, "trust_region", "trust_region_updater"}
    assert all(hasattr(part, "state_dict") for part in agent.components().values())


def test_annealing_is_told_the_number_of_updates_done(make_agent, env):
    batch = env.rollout(2, RandomPolicy(env.action_spec)).reshape(-1)
    agent, told = make_agent(env), []
    agent.anneal = told.append
    for _ in range(3):
        agent.update(batch)
    assert told == [0, 1, 2]


def test_an_impossible_interval(make_agent, env):
    agent = make_agent(env)
    with pytest.raises(ValueError, match="OffPolicyAgent: actor_interval must be >= 1, got 0"):
        replace(agent, actor_interval=0)
