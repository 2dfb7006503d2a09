"""svgd_direction: by hand, by loop, by theory."""

import math

import pytest
import torch
from torch.testing import assert_close

from tests.oracles import kernels, svgd
from torchrl_stein.functional import svgd_direction
from torchrl_stein.functional.svgd import SVGDDirection
from torchrl_stein.kernels import LinearKernel, RBFKernel


def standard_normal_score(x):
    return -x


def test_by_hand_two_particles(variant):
    # x = (0, 1), k = exp(-|x - y|^2): a = k(0, 1) = exp(-1) = 0.367879.
    # drive_0 = (1 * 1 + a * (-1)) / 2 = 0.316060; drive_1 = (a * 1 + 1 * (-1)) / 2 = -0.316060.
    # repulsion_0 = grad_{x_1} k(x_1, 0) / 2 = -2 (1 - 0) a / 2 = -0.367879, and its mirror image.
    a = math.exp(-1.0)
    gram = variant.tensor([[1.0, a], [a, 1.0]])
    repulsion = variant.tensor([[-2.0 * a], [2.0 * a]])
    force = variant(svgd_direction, gram, repulsion, variant.tensor([[1.0], [-1.0]]))
    variant.close(force.drive, [[0.31606028], [-0.31606028]])
    variant.close(force.repulsion, [[-0.36787944], [0.36787944]])
    variant.close(force.drive + force.repulsion, [[-0.05181916], [0.05181916]])


def test_by_hand_three_targets_of_two_particles(variant):
    # Rows of the Gram matrix are the particles that exert the force:
    # drive_i = (gram[0, i] * 1 + gram[1, i] * 10) / 2.
    gram = variant.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    repulsion = variant.tensor([[2.0], [4.0], [6.0]])
    force = variant(svgd_direction, gram, repulsion, variant.tensor([[1.0], [10.0]]))
    variant.close(force.drive, [[20.5], [26.0], [31.5]])
    variant.close(force.repulsion, [[1.0], [2.0], [3.0]])


def test_by_hand_as_many_targets_as_particles(variant):
    # y is another set than x, so the Gram matrix is square but not symmetric: columns are targets.
    # drive_0 = (1 * 1 + 3 * 10) / 2, drive_1 = (2 * 1 + 4 * 10) / 2.
    gram = variant.tensor([[1.0, 2.0], [3.0, 4.0]])
    force = variant(svgd_direction, gram, 0.0 * gram[:, :1], variant.tensor([[1.0], [10.0]]))
    variant.close(force.drive, [[15.5], [21.0]])


def test_total_is_the_sum():
    force = SVGDDirection(torch.tensor([[1.0]]), torch.tensor([[10.0]]))
    assert force.total.item() == 11.0


@pytest.mark.parametrize("oracle_kernel", ["rbf", "linear"])
def test_against_loop(variant, oracle_kernel):
    x, y, scores = variant.randn(5, 3), variant.randn(4, 3, seed=1), variant.randn(5, 3, seed=2)
    if oracle_kernel == "rbf":
        kernel, pair = RBFKernel(2.0), kernels.rbf(2.0)
    else:
        kernel, pair = LinearKernel(1.0), kernels.linear(1.0)

    def direction(x, y, scores):
        return svgd_direction(*kernel.gram_and_repulsion(x, y), scores)

    force = variant(direction, x, y, scores)
    arrays = [t.double().numpy() for t in (x, y, scores)]
    variant.close(force.total, svgd.direction(pair, *arrays))
    gram = kernels.gram(pair, *arrays[:2])
    variant.close(force.drive, svgd.drive(gram, arrays[2]))


def test_any_leading_dimensions(variant):
    gram, repulsion = variant.randn(2, 3, 5, 4), variant.randn(2, 3, 4, 6)
    scores = variant.randn(2, 3, 5, 6)
    force = variant(svgd_direction, gram, repulsion, scores)
    one = svgd_direction(gram[1, 2], repulsion[1, 2], scores[1, 2])
    assert_close(force.drive[1, 2], one.drive)
    assert_close(force.repulsion[1, 2], one.repulsion)


def test_constant_kernel_averages_the_scores(variant):
    # k = 1 everywhere: every particle moves by the mean score, and nothing repels.
    scores = variant.randn(6, 2)
    gram, repulsion = torch.ones_like(scores @ scores.mT), torch.zeros_like(scores)
    force = variant(svgd_direction, gram, repulsion, scores)
    variant.close(force.drive, scores.double().mean(0).expand(6, 2))
    variant.close(force.repulsion, torch.zeros(6, 2))


def test_stein_identity(variant):
    # E_{x ~ p}[k(x, y) s(x) + grad_x k(x, y)] = 0 for every y (Liu & Wang 2016, eq. 2): the mean
    # over n samples is Monte Carlo noise, with a standard deviation below 1 / sqrt(n) here.
    y = variant.tensor([[-1.0, 0.5], [0.0, 0.0], [2.0, 1.0]])
    kernel = RBFKernel(1.0)
    size = {}
    for n in (100, 10_000):
        x = variant.randn(n, 2)

        def direction(x):
            return svgd_direction(*kernel.gram_and_repulsion(x, y), standard_normal_score(x))

        total = variant(direction, x).total
        size[n] = total.abs().max().item()
        assert size[n] < 4.0 / math.sqrt(n)
    assert size[10_000] < size[100]
    # Not because the force is small everywhere: samples of another density feel one.
    x = variant.randn(10_000, 2) + 1.0
    off = svgd_direction(*kernel.gram_and_repulsion(x, y), standard_normal_score(x)).total
    assert off.abs().max().item() > 10.0 * size[10_000]


def test_log_density_change_tends_to_the_log_determinant():
    # T(y) = y + step phi(y) changes the log-density by log |det dT/dy| = step div phi + O(step^2).
    # For k = exp(-|x - y|^2 / h): div phi = (1/n) sum_j k [(2/h) s_j.(x_j - y) + 2d/h - 4 r^2/h^2].
    h, d = 1.5, 2
    x, y = torch.randn(2, 6, d, dtype=torch.float64)
    scores, kernel = standard_normal_score(x), RBFKernel(h)

    def phi(point):
        return svgd_direction(*kernel.gram_and_repulsion(x, point[None]), scores).total[0]

    for point in y:
        r = x - point
        square = r.square().sum(-1)
        k = torch.exp(-square / h)
        pull = 2.0 / h * (scores * r).sum(-1)
        divergence = (k * (pull + 2.0 * d / h - 4.0 * square / h**2)).mean()
        gap = {}
        for step in (1e-2, 1e-3):
            jacobian = torch.eye(d, dtype=torch.float64) + step * torch.func.jacrev(phi)(point)
            gap[step] = (torch.linalg.slogdet(jacobian).logabsdet - step * divergence).abs().item()
        # Second order: ten times smaller a step, a hundred times smaller a gap.
        assert gap[1e-3] < 0.02 * gap[1e-2] + 1e-12


def test_linear_kernel_matches_mean_and_covariance():
    # Liu & Wang 2018 (arXiv:1810.11693), section 3: exact at the fixed point for n > d.
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    covariance = torch.tensor([[1.0, 0.3], [0.3, 0.5]], dtype=torch.float64)
    x = torch.randn(5, 2, dtype=torch.float64)
    kernel = LinearKernel(1.0)
    for _ in range(2000):
        scores = torch.linalg.solve(covariance, (mean - x).mT).mT
        x = x + 0.05 * svgd_direction(*kernel.gram_and_repulsion(x), scores).total
    assert_close(x.mean(0), mean, rtol=0.0, atol=1e-8)
    centred = x - x.mean(0)
    assert_close(centred.mT @ centred / 5, covariance, rtol=0.0, atol=1e-8)


def test_recovers_a_gaussian_in_one_dimension():
    # 64 particles start far off, at N(-3, 0.1^2), and end at N(2, 0.5^2). The particles of SVGD
    # are more even than samples; their variance is a few per cent low at this n.
    mean, std = 2.0, 0.5
    x = -3.0 + 0.1 * torch.randn(64, 1)
    kernel = RBFKernel()
    for _ in range(1000):
        scores = (mean - x) / std**2
        x = x + 0.05 * svgd_direction(*kernel.gram_and_repulsion(x), scores).total
    assert abs(x.mean().item() - mean) < 0.02
    assert abs(x.std().item() / std - 1.0) < 0.1


def test_repulsion_drives_two_particles_apart():
    # Zero score: only repulsion is left, and one step ALONG the direction increases the distance.
    x = torch.tensor([[0.0, 0.0], [0.3, -0.4]])
    for kernel in (RBFKernel(), RBFKernel(0.5)):
        direction = svgd_direction(*kernel.gram_and_repulsion(x), torch.zeros_like(x)).total
        moved = x + 0.1 * direction
        assert (moved[1] - moved[0]).norm() > (x[1] - x[0]).norm()


def test_errors_name_the_argument_and_both_sizes():
    gram, repulsion, scores = torch.zeros(3, 4), torch.zeros(4, 2), torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"svgd_direction: scores has size 5 .* gram has 3"):
        svgd_direction(gram, repulsion, torch.zeros(5, 2))
    with pytest.raises(ValueError, match=r"svgd_direction: repulsion has size 3 .* gram has 4"):
        svgd_direction(gram, torch.zeros(3, 2), scores)
    with pytest.raises(ValueError, match=r"svgd_direction: repulsion has size 7 .* scores has 2"):
        svgd_direction(gram, torch.zeros(4, 7), scores)
    with pytest.raises(ValueError, match=r"svgd_direction: scores must have at least 2 dim"):
        svgd_direction(gram, repulsion, torch.zeros(3))
