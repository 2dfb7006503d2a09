"""Measures of several tries: by hand, and by enumerating what may be removed."""

from itertools import combinations

import pytest
import torch

from torchrl_stein.functional import removal_success_in_tries, success_in_tries


def test_success_by_hand():
    # Groups of two: (no, yes), (no, no), (yes, yes); the seventh is left over.
    success = torch.tensor([0, 1, 0, 0, 1, 1, 1]).bool()
    assert success_in_tries(success, tries=2).item() == pytest.approx(2 / 3)
    assert success_in_tries(success, tries=7).item() == 1.0
    # By default groups of five.
    assert success_in_tries(torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1, 0]).bool()).item() == 0.5


def test_removal_by_hand():
    # Of four goals two are removed. One reached: 1 - C(3, 1) / C(4, 2) = 1/2; two: 1 - 1/6;
    # three or four: surely; none: never.
    groups = {
        (0, 0, 0, 0, -1): 1 / 2,
        (1, 3, -1, 1, 3): 5 / 6,
        (0, 1, 2, -1, -1): 1.0,
        (3, 2, 1, 0, 0): 1.0,
        (-1, -1, -1, -1, -1): 0.0,
    }
    for goals, want in groups.items():
        assert removal_success_in_tries(torch.tensor(goals), 4).item() == pytest.approx(want)
    every = torch.tensor(list(groups)).flatten()
    assert removal_success_in_tries(every, 4).item() == pytest.approx(sum(groups.values()) / 5)


@pytest.mark.parametrize("num_goals", [2, 3, 4, 5, 8])
def test_removal_against_every_set_that_may_be_removed(num_goals):
    generator = torch.Generator().manual_seed(num_goals)
    for tries in (1, 3, 5):
        goals = torch.randint(-1, num_goals, (4, 3 * tries + tries - 1), generator=generator)
        chances = []
        for row in goals.tolist():
            for g in range(3):
                reached = set(row[g * tries : (g + 1) * tries]) - {-1}
                removals = list(combinations(range(num_goals), num_goals // 2))
                chances.append(sum(bool(reached - set(r)) for r in removals) / len(removals))
        want = torch.tensor(chances).reshape(4, 3).mean(-1)
        torch.testing.assert_close(removal_success_in_tries(goals, num_goals, tries), want)


def test_leading_dimensions_and_vmap():
    goals = torch.randint(-1, 4, (2, 3, 10), generator=torch.Generator().manual_seed(0))
    want = removal_success_in_tries(goals, 4)
    assert want.shape == (2, 3)
    assert want[1, 2] == removal_success_in_tries(goals[1, 2], 4)
    assert torch.vmap(lambda g: removal_success_in_tries(g, 4))(goals).equal(want)
    any_five = success_in_tries(goals >= 0)
    assert any_five.shape == (2, 3)
    assert torch.vmap(success_in_tries)(goals >= 0).equal(any_five)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: success_in_tries(torch.ones(5)), TypeError, "success must be a bool tensor"),
        (
            lambda: success_in_tries(torch.ones(4).bool()),
            ValueError,
            "the number of groups of 5",
        ),
        (lambda: success_in_tries(torch.ones(4).bool(), 0), ValueError, "tries must be"),
        (lambda: removal_success_in_tries([0, 1], 4), TypeError, "goals must be a tensor"),
        (lambda: removal_success_in_tries(torch.ones(5), 4), TypeError, "goals must hold integers"),
        (lambda: removal_success_in_tries(torch.zeros(5).long(), 1), ValueError, "num_goals must"),
        (lambda: removal_success_in_tries(torch.zeros(3).long(), 4), ValueError, "the number of"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=rf"^\w+_in_tries: {message}.* got "):
        call()
