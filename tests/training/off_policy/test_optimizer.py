"""Learning rates, and how they decay."""

import pytest
import torch
from torch import nn
from torchrl.objectives import HardUpdate, SoftUpdate

from torchrl_stein.training import linear_schedule, make_optimizer, make_updaters


def test_rates_decay_linearly_and_stay():
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    optimizer, scheduler = make_optimizer(
        (a.parameters(), 1.0), (b.parameters(), 0.1), updates=10, final_fraction=0.2
    )
    rates = []
    for _ in range(13):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    expected = [1.0 - 0.8 * min(i, 10) / 10 for i in range(13)]
    assert [rate for rate, _ in rates] == pytest.approx(expected)
    assert [rate for _, rate in rates] == pytest.approx([0.1 * e for e in expected])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"final_fraction": 1.5}, "final_fraction must be between 0 and 1, got 1.5"),
        ({"final_fraction": -0.1}, "final_fraction must be between 0 and 1, got -0.1"),
        ({"updates": 0}, "updates must be >= 1, got 0"),
    ],
)
def test_impossible_schedules(options, message):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    with pytest.raises(ValueError, match=message):
        linear_schedule(optimizer, **{"updates": 5, "final_fraction": 0.5, **options})


def test_each_group_holds_its_parameters():
    a, b = nn.Linear(2, 3), nn.Linear(1, 1)
    optimizer, _ = make_optimizer(
        (a.parameters(), 1.0), (b.parameters(), 0.1), updates=5, final_fraction=1.0
    )
    groups = [group["params"] for group in optimizer.param_groups]
    for group, module in zip(groups, (a, b), strict=True):
        assert [id(p) for p in group] == [id(p) for p in module.parameters()]


def test_it_trains():
    net, target = nn.Linear(1, 1), torch.tensor([[3.0]])
    optimizer, scheduler = make_optimizer((net.parameters(), 0.1), updates=200, final_fraction=0.1)
    for _ in range(200):
        (net(torch.ones(1, 1)) - target).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert net(torch.ones(1, 1)).item() == pytest.approx(3.0, abs=1e-2)


def test_a_run_without_updates():
    group = (nn.Linear(1, 1).parameters(), 1.0)
    _, scheduler = make_optimizer(group, updates=0, final_fraction=0.5)
    assert scheduler.total_iters == 1


def test_updaters_of_a_configuration(make_agent, env):
    loss = make_agent(env).loss
    config = {
        "env": {"num_envs": 4},
        "training": {"total_frames": 16 + 4 * 10, "warmup_frames": 16},
        "optim": {
            "lr_qvalue": 0.5,
            "lr_actor": 0.25,
            "final_lr_fraction": 0.2,
            "target_update_interval": 4,
            "target_tau": None,
        },
    }
    critic, actor = loss.qvalue_network_params.parameters, loss.actor_network_params.parameters
    optimizer, scheduler, target_updater = make_updaters(loss, critic(), actor(), config)
    held = [[id(p) for p in group["params"]] for group in optimizer.param_groups]
    assert held == [[id(p) for p in critic()], [id(p) for p in actor()]]
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.25]

    copied = []
    for _ in range(10):
        nn.init.normal_(loss.qvalue_network_params.get(("module", "0", "weight")))
        optimizer.step()
        scheduler.step()
        target_updater.step()
        ours, target = (
            params.get(("module", "0", "weight"))
            for params in (loss.qvalue_network_params, loss.target_qvalue_network_params)
        )
        copied.append(ours.equal(target))
    # TorchRL 0.14 copies one update late: its counter runs from 0 to the interval, inclusive.
    assert [i for i, equal in enumerate(copied, 1) if equal] in ([4, 8], [5, 10])
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.05])


def test_target_updates_are_copies_or_a_moving_average(make_agent, env):
    loss = make_agent(env).loss
    optim = {"lr_qvalue": 1.0, "lr_actor": 1.0, "final_lr_fraction": 1.0}

    def updater(interval, tau):
        config = {
            "env": {"num_envs": 4},
            "training": {"total_frames": 40},
            "optim": {**optim, "target_update_interval": interval, "target_tau": tau},
        }
        critic, actor = loss.qvalue_network_params, loss.actor_network_params
        return make_updaters(loss, critic.parameters(), actor.parameters(), config)[2]

    assert isinstance(updater(4, None), HardUpdate)
    assert isinstance(updater(None, 0.01), SoftUpdate)
    for interval, tau in ((None, None), (4, 0.01)):
        with pytest.raises(ValueError, match=f"must be null, got {interval} and {tau}"):
            updater(interval, tau)
