"""conjugate_gradient: by hand, against a direct solver, by theory, and where it stands still."""

import re

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.functional import conjugate_gradient


def spd(variant, *shape, d=5, seed=0):
    """Symmetric positive definite matrices [*shape, d, d] with eigenvalues in about [1, 20]."""
    root = variant.randn(*shape, d, d, seed=seed)
    return root @ root.mT + torch.eye(d, dtype=variant.dtype)


def product(A):
    return lambda v: (A @ v.unsqueeze(-1)).squeeze(-1)


def solve(A, b, **options):
    return conjugate_gradient(product(A), b, **options)


def test_by_hand(variant):
    # One step of steepest descent from 0: |b|^2 / b^T A b = 2 / 3 along b, and what is left of b
    # is (1, 1) - 2/3 (1, 2) = (1, -1) / 3, a third of |b|. The second step is exact.
    A, b = variant.tensor([[1.0, 0.0], [0.0, 2.0]]), variant.tensor([1.0, 1.0])
    first = variant(lambda A, b: solve(A, b, iterations=1), A, b)
    variant.close(first.solution, [2 / 3, 2 / 3])
    variant.close(first.residual, 1 / 3)
    variant.close(variant(lambda A, b: solve(A, b, iterations=2), A, b).solution, [1.0, 0.5])


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_against_a_direct_solver(variant, damping):
    A, b = spd(variant, 3, 2), variant.randn(3, 2, 5, seed=1)
    found = variant(lambda A, b: solve(A, b, iterations=8, damping=damping), A, b)
    damped = A.double() + damping * torch.eye(5, dtype=torch.float64)
    # The condition number, up to 60 here, multiplies rounding.
    want = torch.linalg.solve(damped, b.double())
    assert_close(found.solution.double(), want, rtol=1e-3, atol=1e-4)
    if variant.dtype == torch.float64:
        assert_close(found.solution, want, rtol=1e-9, atol=1e-9)
    assert (found.residual < 1e-4).all()


def test_as_many_iterations_as_different_eigenvalues(variant):
    # Three eigenvalues in ten dimensions: the third iterate is exact and the second is not.
    values = variant.tensor([1.0, 4.0, 9.0]).repeat(4)[:10]
    basis = torch.linalg.qr(variant.randn(10, 10)).Q
    A, b = basis @ values.diag() @ basis.mT, variant.randn(10, seed=1)
    want = torch.linalg.solve(A, b).double()
    for iterations, exact in ((2, False), (3, True)):
        found = variant(lambda A, b, k=iterations: solve(A, b, iterations=k), A, b)
        assert torch.allclose(found.solution.double(), want, rtol=1e-4, atol=1e-5) is exact
        assert bool(found.residual < 1e-5) is exact


def test_the_residual_is_that_of_the_damped_system(variant):
    A, b = spd(variant, 3, d=8), variant.randn(3, 8, seed=1)
    found = variant(lambda A, b: solve(A, b, iterations=3, damping=0.5), A, b)
    left = b - product(A)(found.solution) - 0.5 * found.solution
    variant.close(found.residual, left.norm(dim=-1) / b.norm(dim=-1))


def test_rows_do_not_know_of_each_other(variant):
    # Row 1 converges at once, row 2 has nothing to solve; a thousand times as large b, the same x.
    A = torch.stack([spd(variant), torch.eye(5, dtype=variant.dtype), spd(variant, seed=3)])
    b = variant.randn(3, 5, seed=1)
    b = torch.stack([1000.0 * b[0], b[1], torch.zeros_like(b[2])])
    together = variant(lambda A, b: solve(A, b, iterations=4), A, b)
    for i in range(3):
        alone = solve(A[i], b[i], iterations=4)
        assert_close(together.solution[i], alone.solution, rtol=1e-4, atol=1e-4)
    variant.close(together.solution[1], b[1])
    assert (together.solution[2] == 0).all()
    assert together.residual[1] < 1e-6
    assert together.residual[2] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tolerance", [0.0, 1e-10])
def test_nothing_happens_after_convergence(dtype, tolerance):
    root, b = torch.randn(4, 3, 3, dtype=dtype), torch.randn(4, 3, dtype=dtype)
    A = root @ root.mT + torch.eye(3, dtype=dtype)
    found = solve(A, b, iterations=300, tolerance=tolerance)
    assert_close(found.solution, torch.linalg.solve(A, b), rtol=1e-3, atol=1e-4)
    assert (found.residual <= 1e-8).all()


def test_the_tolerance_is_relative(variant):
    def roughly(A, b):
        return solve(A, b, iterations=6, tolerance=0.2)

    A, b = spd(variant, d=6), variant.randn(6, seed=1)
    rough, scaled = variant(roughly, A, b), variant(roughly, A, 1e4 * b)
    steps = [solve(A, b, iterations=k) for k in range(1, 7)]
    stop = next(one for one in steps if one.residual <= 0.2)
    assert stop.residual > 1e-3
    variant.close(rough.solution, stop.solution)
    variant.close(1e-4 * scaled.solution, stop.solution)


def test_a_singular_matrix_moves_nothing_along_its_kernel(variant):
    # A = diag(1, 0): b in the range is solved, b in the kernel stays, with its residual of 1.
    A = variant.tensor([[1.0, 0.0], [0.0, 0.0]])
    b = variant.tensor([[2.0, 0.0], [0.0, 3.0]])
    found = variant(lambda A, b: solve(A, b, iterations=3), A, b)
    variant.close(found.solution, [[2.0, 0.0], [0.0, 0.0]])
    variant.close(found.residual, [0.0, 1.0])
    damped = variant(lambda A, b: solve(A, b, iterations=3, damping=0.5), A, b)
    variant.close(damped.solution, [[4 / 3, 0.0], [0.0, 6.0]])


def test_it_stops_where_the_matrix_curves_downwards(variant):
    A = variant.tensor([[1.0, 0.0], [0.0, -3.0]])
    found = variant(lambda A, b: solve(A, b, iterations=3), A, variant.tensor([1.0, 1.0]))
    assert (found.solution == 0).all()
    assert found.residual == 1


def test_the_number_of_products():
    calls = []

    def matvec(v):
        calls.append(v)
        return 2.0 * v

    conjugate_gradient(matvec, torch.ones(3), iterations=4)
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"iterations": 0}, ValueError, "iterations must be >= 1, got 0"),
        ({"iterations": 2.0}, TypeError, r"iterations must be an integer >= 1, got 2\.0"),
        ({"iterations": True}, TypeError, "iterations must be an integer >= 1, got True"),
        ({"damping": -0.1}, ValueError, r"damping must be >= 0, got -0\.1"),
        ({"damping": float("nan")}, ValueError, "damping must be finite and >= 0, got nan"),
        ({"tolerance": -1.0}, ValueError, r"tolerance must be >= 0, got -1\.0"),
    ],
)
def test_bad_options(options, error, message):
    with pytest.raises(error, match=f"conjugate_gradient: {message}"):
        conjugate_gradient(lambda v: v, torch.ones(2), **options)


def test_bad_shapes():
    with pytest.raises(
        ValueError, match=re.escape("b must have at least 1 dimension(s), got shape []")
    ):
        conjugate_gradient(lambda v: v, torch.tensor(1.0))
    message = "matvec must return shape [2, 3] as it is given, got [2, 1]"
    with pytest.raises(ValueError, match=re.escape(message)):
        conjugate_gradient(lambda v: v.sum(-1, keepdim=True), torch.ones(2, 3))
