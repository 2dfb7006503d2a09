"""trust_region_projection: by hand, against a solver of quadratic programs, and by theory."""

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.functional import trust_region_projection


def test_by_hand(variant):
    # k . g = 6, |k|^2 = 4, delta = 1: z = g - 5/4 k. The second row stays within the bound, the
    # third has nothing to stay near.
    g = variant.tensor([[3.0, 1.0], [0.5, 1.0], [3.0, 1.0]])
    k = variant.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    z = variant(lambda g, k: trust_region_projection(g, k, 1.0), g, k)
    variant.close(z, [[0.5, 1.0], [0.5, 1.0], [3.0, 1.0]])


@pytest.mark.parametrize("bound", [0.01, 0.5, 3.0])
def test_against_a_solver_of_quadratic_programs(bound):
    """The z nearest to g with k . z <= delta; the solver knows nothing of the closed form."""
    optimize = pytest.importorskip("scipy.optimize")
    g, k = torch.randn(2, 12, 4, dtype=torch.float64)
    found = trust_region_projection(g, k, bound)
    acts = 0
    for row, want, normal in zip(found.numpy(), g.numpy(), k.numpy(), strict=True):
        solved = optimize.minimize(
            lambda z, want=want: 0.5 * ((z - want) ** 2).sum(),
            x0=0 * want,
            constraints=[{"type": "ineq", "fun": lambda z, k=normal: bound - k @ z}],
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        assert row == pytest.approx(solved.x, abs=1e-5)
        acts += normal @ want > bound
    assert 0 < acts < 12


def test_it_is_a_projection():
    g, k = torch.randn(2, 200, 3, dtype=torch.float64)
    z = trust_region_projection(g, k, 0.2)
    growth = (k * z).sum(-1)
    assert (growth <= 0.2 + 1e-12).all()
    assert_close(trust_region_projection(z, k, 0.2), z)  # again changes nothing
    moved = (z != g).any(-1)
    assert_close(growth[moved], torch.full((int(moved.sum()),), 0.2, dtype=torch.float64))
    # Along k only, and a wide region lets everything pass.
    assert_close((g - z) / k, ((g - z) / k)[:, :1].expand(200, 3))
    assert trust_region_projection(g, k, 1e9).equal(g)
