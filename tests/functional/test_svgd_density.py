"""Log-determinants of SVGD steps: by hand, against the Jacobian of all particles, by theory."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.functional import svgd_direction, svgd_log_det, svgd_step_bound
from torchrl_stein.functional.svgd_density import identity_probes, score_and_products
from torchrl_stein.kernels import RBFKernel

M, D, H = 6, 3, 1.7


def log_density(x):
    """Not Gaussian, with coordinates that interact and a Hessian of both signs."""
    coupled = (x[..., 0] * x[..., 1]).sin() + x.cos().sum(-1)
    return (coupled - 0.1 * x.pow(4).sum(-1)).sum()


def particles(*batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, M, D, generator=generator, dtype=torch.float64)


def known(x):
    """Scores, exact probes, their products and the trace."""
    probes = identity_probes(x, D)
    scores, products = score_and_products(log_density, x, probes)
    return scores, probes, products, (probes * products).sum((0, -1))


def direction(x, h=H):
    scores = torch.func.grad(log_density)(x)
    return svgd_direction(*RBFKernel(h).gram_and_repulsion(x), scores).total


def exact_log_det(x, step):
    """log abs det of the map of all particles, from its whole Jacobian."""

    def move(flat):
        x = flat.view(M, D)
        return (x + step * direction(x)).flatten()

    return torch.linalg.slogdet(torch.func.jacrev(move)(x.flatten())).logabsdet


def test_by_hand_two_particles():
    # x = (0, 1), h = 2, s = (1, -3), traces (-1, -2), k = exp(-1/2) = 0.606531.
    # D_0 = (2/4) k [-(0 - 1)(-3) + 1 - 2/2] - 1/2 = -3 k / 2 - 1/2
    # D_1 = (2/4) k [-(1 - 0)(1) + 1 - 2/2] - 2/2 = -k / 2 - 1
    x, scores = torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [-3.0]])
    found = svgd_log_det(x, scores, torch.tensor([-1.0, -2.0]), 2.0)
    assert_close(found, torch.tensor([-1.4097960, -1.3032653]))


def test_first_order_of_the_joint_jacobian():
    x = particles()
    scores, _, _, trace = known(x)
    ours = svgd_log_det(x, scores, trace, H).sum()
    errors = [(exact_log_det(x, eps) / eps - ours).abs().item() for eps in (1e-3, 5e-4, 2.5e-4)]
    assert errors[0] < 5e-3 * ours.abs()
    # The rest is of first order in eps: it halves with it.
    assert [a / b for a, b in itertools.pairwise(errors)] == pytest.approx([2, 2], rel=0.01)
    # The trace is most of it.
    assert (svgd_log_det(x, scores, 0.0 * trace, H).sum() - ours).abs() > 0.3 * ours.abs()


def test_each_share_is_the_trace_of_its_own_block():
    x = particles()
    scores, _, _, trace = known(x)
    jacobian = torch.func.jacrev(direction)(x)  # [m, d, m, d]
    blocks = torch.stack([jacobian[i, :, i] for i in range(M)])
    assert_close(svgd_log_det(x, scores, trace, H), blocks.diagonal(dim1=1, dim2=2).sum(-1))
    bound = svgd_step_bound(x, *known(x)[:3], H)
    assert_close(bound, 1 / blocks.square().sum((1, 2)).max().sqrt())


def test_shares_are_those_of_each_batch_and_of_no_place():
    x = particles(2, 4)
    scores, _, _, trace = known(x)
    h = torch.linspace(0.5, 3.0, 8, dtype=torch.float64).view(2, 4)
    together = svgd_log_det(x, scores, trace, h)
    alone = svgd_log_det(x[1, 2], scores[1, 2], trace[1, 2], h[1, 2].item())
    assert_close(together[1, 2], alone)
    assert_close(svgd_log_det(x + 100.0, scores, trace, h), together)


def test_one_particle_has_the_hessian_alone():
    x = particles()[:1]
    scores, _, _, trace = known(x)
    assert_close(svgd_log_det(x, scores, trace, H), trace)


def test_hutchinson_probes_have_the_trace_for_their_mean():
    x = particles().repeat(4000, 1, 1)
    torch.manual_seed(0)
    probes = identity_probes(x, 2)
    assert probes.shape == (2, 4000, M, D)
    _, products = score_and_products(log_density, x, probes)
    estimates = (probes * products).sum((0, -1))
    assert_close(estimates.mean(0), known(x[0])[3], rtol=0, atol=0.15)
    assert estimates.std(0).max() > 0.1


def test_unit_vectors_give_the_hessian():
    x = particles()
    hessian = torch.func.hessian(log_density)(x)
    blocks = torch.stack([hessian[i, :, i] for i in range(M)])
    scores, _, products, _ = known(x)
    assert_close(products.movedim(0, 1), blocks)
    assert_close(scores, torch.func.grad(log_density)(x))


def test_small_steps_add_up_to_the_determinant_of_the_flow():
    x, exact, ours, eps = particles(), 0.0, 0.0, 1e-3
    for _ in range(20):
        scores, _, _, trace = known(x)
        exact = exact + exact_log_det(x, eps)
        ours = ours + eps * svgd_log_det(x, scores, trace, H).sum()
        x = x + eps * direction(x)
    assert_close(ours, exact, rtol=5e-3, atol=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scores": torch.zeros(5, D)}, "scores has size 5"),
        ({"hessian_trace": torch.zeros(5)}, "hessian_trace has size 5"),
        ({"bandwidth": 0.0}, "bandwidth must be > 0"),
        ({"bandwidth": torch.ones(2)}, r"bandwidth must expand to \[\]"),
        ({"x": torch.zeros(M, D, dtype=torch.long)}, "x must be a floating-point tensor"),
    ],
)
def test_errors(arguments, words):
    good = {"x": torch.zeros(M, D), "scores": torch.zeros(M, D), "bandwidth": 1.0}
    good["hessian_trace"] = torch.zeros(M)
    with pytest.raises((TypeError, ValueError), match=words):
        svgd_log_det(**(good | arguments))
