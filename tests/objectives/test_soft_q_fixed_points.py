"""Value targets of SoftQLoss: the tabular problem to whose fixed point each must lead."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn

from tests.objectives.builders import NO_UPDATER, VALUE_TARGETS, make_actor
from torchrl_stein.functional import expected_value
from torchrl_stein.objectives import SoftQLoss, actor_samples

pytestmark = pytest.mark.filterwarnings(NO_UPDATER)

# Two states; the box [-1, 1] has three cells of equal width, and all within a cell is alike.
CELLS, ALPHA, GAMMA = (-2 / 3, 0.0, 2 / 3), 0.5, 0.8
REWARD = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5]])
NEXT = np.array([[0, 1, 1], [1, 0, 0]])


class Table(nn.Module):
    """Q(s, a) of a state 0 or 1 and an action in one of the cells."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2, 3, dtype=torch.float64))

    def forward(self, observation, action):
        row = (observation > 0.5).long()
        column = ((action + 1) * 1.5).long().clamp(0, 2)
        return self.table[row, column]


def middle_of_cells(actor, states, num_samples):
    """One action per cell, uniform density 1/2: sums over them are exact integrals."""
    actions = torch.tensor(CELLS, dtype=torch.float64)[:, None].expand(*states.batch_size, 3, 1)
    return actions, torch.full(actions.shape[:-1], -math.log(2.0), dtype=torch.float64)


def soft(q):
    return ALPHA * np.log(np.sum(np.exp(q / ALPHA) * 2 / 3, -1))


def boltzmann(q):
    policy = np.exp(q / ALPHA)
    return np.sum(policy * q, -1) / np.sum(policy, -1)


def mellowmax(q):
    return soft(q) - ALPHA * math.log(2.0)


def fixed_point(value):
    q = np.zeros((2, 3))
    for _ in range(400):
        q = REWARD + GAMMA * value(q)[NEXT]
    return q


def all_transitions():
    states, cells = np.meshgrid([0, 1], [0, 1, 2], indexing="ij")

    def column(values):
        return torch.tensor(np.asarray(values), dtype=torch.float64).reshape(6, 1)

    never = torch.zeros(6, 1, dtype=torch.bool)
    return TensorDict(
        {
            "observation": column(states),
            "action": column(np.array(CELLS)[cells]),
            "next": {
                "observation": column(NEXT),
                "reward": column(REWARD),
                "done": never,
                "terminated": never,
            },
        },
        [6],
    )


@pytest.mark.parametrize("value", [soft, boltzmann, mellowmax], ids=lambda f: f.__name__)
def test_learning_ends_at_the_fixed_point(value):
    table = Table()
    loss = SoftQLoss(
        make_actor(obs=1, act=1, dtype=torch.float64),
        TensorDictModule(table, ["observation", "action"], ["state_action_value"]),
        temperature=ALPHA,
        num_action_samples=2,
        num_value_samples=3,
        value_proposal=middle_of_cells,
        value_target=VALUE_TARGETS[value.__name__],
        delay_qvalue=False,
        reduction="sum",
    )
    loss.make_value_estimator(gamma=GAMMA)
    batch = all_transitions()
    optimizer = torch.optim.SGD([table.table], lr=0.5)
    for _ in range(400):
        optimizer.zero_grad()
        loss(batch)["loss_qvalue"].backward()
        optimizer.step()
    np.testing.assert_allclose(table.table.detach().numpy(), fixed_point(value), atol=1e-6)


@pytest.mark.parametrize("explicit", [False, True])
def test_expected_value_is_the_ordinary_value_of_the_sampler(explicit):
    """Of a sampler of two actions: those of noise xi < 0 and xi > 0, each half of the time."""

    class TwoActions(nn.Module):
        def forward(self, observation, noise):
            # In state 0 the middle cell or the first, in state 1 one of the two outer cells.
            left = noise < 0
            zero = torch.where(left, torch.full_like(noise, -2 / 3), torch.zeros_like(noise))
            one = torch.where(left, torch.full_like(noise, -2 / 3), torch.full_like(noise, 2 / 3))
            return torch.atanh(torch.where(observation > 0.5, one, zero))

    table = Table()
    actor = make_actor(TwoActions(), obs=1, act=1, dtype=torch.float64)
    loss = SoftQLoss(
        actor,
        TensorDictModule(table, ["observation", "action"], ["state_action_value"]),
        temperature=ALPHA,
        num_action_samples=2,
        num_value_samples=2000,
        value_target=expected_value,
        value_proposal=actor_samples if explicit else None,
        delay_qvalue=False,
        reduction="sum",
    )
    loss.make_value_estimator(gamma=GAMMA)
    torch.manual_seed(0)
    batch = all_transitions()
    optimizer = torch.optim.SGD([table.table], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        loss.qvalue_loss(batch)["loss_qvalue"].backward()
        optimizer.step()
    policy = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])
    q = fixed_point(lambda q: np.sum(policy * q, -1))
    np.testing.assert_allclose(table.table.detach().numpy(), q, atol=0.1)
    assert np.abs(q - fixed_point(soft)).min() > 0.3


def test_the_three_fixed_points_differ():
    tables = [fixed_point(value) for value in (soft, boltzmann, mellowmax)]
    assert all(np.abs(a - b).min() > 0.1 for a, b in combinations(tables, 2))


def test_boltzmann_is_the_ordinary_value_of_its_own_policy():
    """Proposition 8, by solving the linear equations of that policy."""
    q = fixed_point(boltzmann)
    policy = np.exp(q / ALPHA)
    policy /= policy.sum(-1, keepdims=True)
    transition = np.zeros((6, 6))
    for s in range(2):
        for a in range(3):
            for b in range(3):
                transition[3 * s + a, 3 * NEXT[s, a] + b] = policy[NEXT[s, a], b]
    ordinary = np.linalg.solve(np.eye(6) - GAMMA * transition, REWARD.ravel())
    np.testing.assert_allclose(q.ravel(), ordinary, atol=1e-9)
