"""What the off-policy loop is given: its numbers, and one update of an algorithm."""

import pytest
import torch
from torchrl.envs.utils import RandomPolicy

from torchrl_stein.training import OffPolicySettings


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
