"""project_to_support: by hand, by loop, by theory."""

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import categorical as oracle
from torchrl_stein.functional import project_to_support


@pytest.mark.parametrize(
    ("atom", "masses"),
    [
        (0.25, [0.0, 0.75, 0.25, 0.0]),  # a quarter of the way from 0 to 1
        (1.0, [0.0, 0.0, 1.0, 0.0]),  # at a point
        (-1.0, [1.0, 0.0, 0.0, 0.0]),  # at the ends
        (2.0, [0.0, 0.0, 0.0, 1.0]),
        (-9.0, [1.0, 0.0, 0.0, 0.0]),  # beyond them
        (9.0, [0.0, 0.0, 0.0, 1.0]),
        (float("inf"), [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_one_atom_by_hand(variant, atom, masses):
    support = variant.tensor([-1.0, 0.0, 1.0, 2.0])
    got = variant(project_to_support, variant.tensor([1.0]), variant.tensor([atom]), support)
    variant.close(got, masses)


def test_masses_add_up_by_hand():
    # 0.5 at 0.5 is 0.25 at 0 and at 1, 0.25 at 1 stays, 0.25 at 7 goes to 2.
    got = project_to_support(
        torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.5, 1.0, 7.0]), torch.tensor([0.0, 1, 2])
    )
    assert got.tolist() == [0.25, 0.5, 0.25]


def test_against_loop(variant):
    probabilities = variant.randn(2, 5, 7).softmax(-1)
    atoms, support = 3 * variant.randn(2, 5, 7, seed=1), variant.tensor([-3.0, -1.5, 0.0, 1.5, 3.0])
    want = [
        [oracle.project(p, y, support.tolist()) for p, y in zip(*rows, strict=True)]
        for rows in zip(probabilities.tolist(), atoms.tolist(), strict=True)
    ]
    variant.close(variant(project_to_support, probabilities, atoms, support), want)


@pytest.mark.parametrize("num_atoms", [2, 51, 200])
def test_mass_and_mean_are_kept(num_atoms):
    # Bounds whose spacing float32 cannot hold: rounding at an end must not lose mass.
    support = torch.linspace(-150.0, 150.0, num_atoms)
    probabilities = torch.randn(50, num_atoms).softmax(-1)
    inside = 0.99 * support + 1.5 * torch.rand(50, 1) - 0.75
    beyond = torch.cat([support[:-1] * 1.2 + 20.0, support[-1:]])
    for atoms in (inside, beyond.expand(50, -1)):
        projected = project_to_support(probabilities, atoms, support)
        assert (projected >= 0).all()
        assert_close(projected.sum(-1), torch.ones(50))
    projected = project_to_support(probabilities, inside, support)
    means = (projected * support).sum(-1), (probabilities * inside).sum(-1)
    assert_close(*means, rtol=1e-5, atol=1e-3)


def test_a_distribution_on_the_support_stays():
    support, probabilities = torch.linspace(-150.0, 150.0, 51), torch.randn(9, 51).softmax(-1)
    assert_close(project_to_support(probabilities, support, support), probabilities)


def test_what_is_no_number_is_seen():
    got = project_to_support(
        torch.ones(1), torch.tensor([float("nan")]), torch.tensor([0.0, 1.0, 2.0])
    )
    assert got.isnan().any()


@pytest.mark.parametrize(
    ("support", "words"),
    [
        ([0.0], r"must be \[N\] with N >= 2 points, got shape \[1\]"),
        ([[0.0, 1.0]], r"must be \[N\] with N >= 2 points, got shape \[1, 2\]"),
        ([0.0, 1.0, 3.0], "must ascend in equal steps, got steps from 1 to 2"),
        ([1.0, 0.0], "must ascend in equal steps, got steps from -1 to -1"),
        ([0.0, float("nan")], "must ascend in equal steps"),
    ],
)
def test_supports_that_are_none(support, words):
    with pytest.raises(ValueError, match=f"project_to_support: support {words}"):
        project_to_support(torch.ones(1), torch.ones(1), torch.tensor(support))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"atoms must expand to \[4, 3\], the shape of prob"):
        project_to_support(torch.ones(4, 3), torch.ones(4, 2), torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match=r"probabilities must have at least 1 dimension"):
        project_to_support(torch.ones(()), torch.ones(()), torch.tensor([0.0, 1.0]))
