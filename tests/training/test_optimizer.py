"""Learning rates, and how they decay."""

import pytest
import torch
from torch import nn

from torchrl_stein.training import make_optimizer


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
