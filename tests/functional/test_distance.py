"""squared_distances in all of its branches, pairs and medoid."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.oracles import distance as oracle
from torchrl_stein.functional import distance, squared_distances
from torchrl_stein.functional.distance import distinct_pairs, index_of_medoid, medoid

# (n, d): a loop over dimensions for d <= 8, pairs for n <= 64, a shifted product beyond; the
# product in blocks of 4 dimensions too, as for d above 32 768.
SHAPES = {"loop": (6, 3), "pairs": (6, 9), "gram": (70, 9), "blocks": (70, 9)}


def test_the_shapes_go_every_way(monkeypatch):
    ways = ("_loop_over_dims", "_condensed_to_square", "_shifted_gram")
    taken = []
    for way in ways:
        right = getattr(distance, way)

        def noted(*args, right=right, way=way, **options):
            taken.append(way)
            return right(*args, **options)

        monkeypatch.setattr(distance, way, noted)
    for n, d in SHAPES.values():
        squared_distances(torch.randn(n, d))
    assert taken == [*ways, "_shifted_gram"]
    taken.clear()
    for d in (distance._LOOP_DIMS, distance._LOOP_DIMS + 1):
        for n in (distance._PDIST_POINTS, distance._PDIST_POINTS + 1):
            squared_distances(torch.randn(n, d))
    assert taken == [ways[0], ways[0], ways[1], ways[2]]


@pytest.fixture(params=list(SHAPES))
def shape(request, monkeypatch):
    """A shape for each branch of the code; two sets of points never take the pairs."""
    if request.param == "blocks":
        monkeypatch.setattr(distance, "_BLOCK", 4)
    return SHAPES[request.param]


@pytest.mark.parametrize("d", [4, 9])
def test_by_hand(variant, d):
    # The triangle 3-4-5 in the first and the last dimension.
    x = variant.tensor(torch.zeros(3, d))
    x[1, 0], x[2, -1] = 3.0, 4.0
    want = [[0.0, 9.0, 16.0], [9.0, 0.0, 25.0], [16.0, 25.0, 0.0]]
    variant.close(variant(squared_distances, x), want)
    variant.close(variant(squared_distances, x, x[1:]), [row[1:] for row in want])


def test_against_loop(variant, shape):
    x, y = variant.randn(*shape), variant.randn(shape[0] - 1, shape[1], seed=1)
    a, b = x.double().numpy(), y.double().numpy()
    variant.close(variant(squared_distances, x), oracle.squared_distances(a, a))
    variant.close(variant(squared_distances, x, y), oracle.squared_distances(a, b))


def test_zero_diagonal_symmetric_and_non_negative(variant, shape):
    # Each point twice, where rounding would go either way.
    x = 1.0 + variant.randn(*shape)
    x = torch.cat([x, x])
    square = variant(squared_distances, x)
    assert (square.diagonal() == 0).all()
    assert (square >= 0).all()
    # A float64 product may sum its two triangles in different orders.
    assert_close(square, square.mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outlier", [None, 0, -1])
def test_accurate_near_a_far_point(shape, outlier):
    # Particles that spread 1e-4 around a point of norm 100, perhaps with one of them 1 away: the
    # float32 inputs are exact here, and so are their differences; 1e-6 is a sum's rounding.
    n, d = shape
    centre = torch.randn(d)
    x = 100.0 * centre / centre.norm() + 1e-4 * torch.randn(n, d)
    if outlier is not None:
        x[outlier] += 1.0
    exact = oracle.squared_distances(x.double().numpy(), x.double().numpy())
    others = ~np.eye(n, dtype=bool)
    for square in (squared_distances(x), squared_distances(x, x.clone())):
        relative = np.abs(square.double().numpy() - exact)[others] / exact[others]
        assert relative.max() < 1e-6
    # The textbook form is useless here: negative where it should be about 1e-7.
    norms = x.square().sum(-1)
    textbook = norms[:, None] + norms[None, :] - 2.0 * x @ x.mT
    assert (textbook.double().numpy() - exact)[others].max() > 100 * np.median(exact[others])


def test_batch_is_a_loop(shape):
    x, y = torch.randn(2, 3, *shape), torch.randn(2, 3, 5, shape[1])
    # A product of another size rounds in another order; 1e-5 of distances around 10.
    tolerance = {"rtol": 1e-5, "atol": 1e-5}
    one = squared_distances(x[1, 2])
    assert_close(squared_distances(x)[1, 2], one, **tolerance)
    one = squared_distances(x[1, 2], y[1, 2])
    assert_close(squared_distances(x, y)[1, 2], one, **tolerance)


def test_gradient(shape):
    n, d = min(shape[0], 66), shape[1]
    x = torch.randn(n, d, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(n, n, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weight * squared_distances(x)).sum(), x)
    # d/dx_j sum w_ji |x_j - x_i|^2 = 2 sum_i (w_ji + w_ij) (x_j - x_i)
    both = weight + weight.mT
    want = 2.0 * (both.sum(1, keepdim=True) * x - both @ x)
    assert_close(gradient, want.detach())


def test_gradient_of_coincident_points_is_zero(shape):
    x = torch.full(shape, 0.7, requires_grad=True)
    (gradient,) = torch.autograd.grad(squared_distances(x).sum(), x)
    assert_close(gradient, torch.zeros_like(x), rtol=0.0, atol=0.0)


coordinates = st.floats(-10.0, 10.0, width=32)
points = st.integers(1, 7).flatmap(
    lambda d: st.lists(st.lists(coordinates, min_size=d, max_size=d), min_size=1, max_size=6)
)


@given(points, coordinates, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None, derandomize=True)
def test_translation_and_permutation(rows, shift, random):
    x = torch.tensor(rows, dtype=torch.float64)
    square = squared_distances(x)
    assert_close(squared_distances(x + shift), square, rtol=1e-9, atol=1e-9)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert_close(squared_distances(x[order]), square[order][:, order], rtol=1e-9, atol=1e-9)


def test_pairs_by_hand(variant):
    square = variant.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])
    variant.close(variant(lambda s: distinct_pairs(s, same=True), square), [1.0, 2.0, 3.0])
    every = variant(lambda s: distinct_pairs(s, same=False), square)
    variant.close(every, [0.0, 1.0, 2.0, 1.0, 0.0, 3.0, 2.0, 3.0, 0.0])


def test_pairs_against_loop(variant):
    x, y = variant.randn(5, 2), variant.randn(3, 2, seed=1)
    a, b = x.double().numpy(), y.double().numpy()
    own = variant(lambda x: distinct_pairs(squared_distances(x), same=True), x)
    variant.close(own, oracle.distinct_pairs(a))
    cross = variant(lambda x, y: distinct_pairs(squared_distances(x, y), same=False), x, y)
    variant.close(cross, oracle.all_pairs(a, b))


def test_pairs_are_half_of_the_off_diagonal(variant):
    square = squared_distances(variant.randn(4, 6, 2))
    distinct = variant(lambda s: distinct_pairs(s, same=True), square)
    assert distinct.shape == (4, 15)
    assert_close(2.0 * distinct.sum(-1), square.sum((-2, -1)))
    assert distinct_pairs(torch.zeros(1, 1), same=True).shape == (0,)


@pytest.mark.parametrize(
    ("points", "want"),
    [
        # Summed distances: 0 -> 10, 1 -> 9, 9 -> 17. The mean, 10/3, is no point of the set.
        ([0.0, 1.0, 9.0], 1.0),
        # 48, 45, 44, 47, 152; summed squares would choose 5, which is nearest to the mean 9.6.
        ([0.0, 1.0, 2.0, 5.0, 40.0], 2.0),
        # 105, 103, 103, 295: the first of two; summed squares would choose 4 (9241 against 9811).
        ([0.0, 1.0, 4.0, 100.0], 1.0),
    ],
)
def test_medoid_by_hand(variant, points, want):
    x = variant.tensor(points)[:, None]
    variant.close(variant(lambda x: medoid(x, squared_distances(x)), x), [[want]])


def test_distances_are_summed_and_not_their_squares():
    square = squared_distances(torch.tensor([0.0, 1.0, 4.0, 100.0])[:, None])
    assert index_of_medoid(square) == square.sqrt().sum(-1).argmin() == 1
    assert square.sum(-1).argmin() == 2


def test_medoid_against_loop(variant):
    x, y = variant.randn(3, 7, 2), variant.randn(3, 4, 2, seed=1)
    found = variant(lambda x, y: medoid(x, squared_distances(x, y)), x, y)
    for b in range(3):
        a = x[b].double().numpy()
        variant.close(found[b, 0], a[oracle.medoid(a, y[b].double().numpy())])


def test_medoid_is_never_the_outlier(variant):
    # One far point drags the mean, not the medoid.
    x = variant.randn(9, 2)
    x[4] += 1e4
    origin = variant(lambda x: medoid(x, squared_distances(x)), x)
    assert (origin.abs() < 10.0).all()
    assert not medoid(x.requires_grad_(), squared_distances(x)).requires_grad


def test_errors():
    with pytest.raises(ValueError, match=r"squared_distances: y has size 2 .* but x has 3"):
        squared_distances(torch.zeros(4, 3), torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"squared_distances: y must have at least 2 dim"):
        squared_distances(torch.zeros(4, 3), torch.zeros(3))
    for y in (None, torch.zeros(4, 0)):
        with pytest.raises(ValueError, match=r"squared_distances: x must have at least one feat"):
            squared_distances(torch.zeros(4, 0), y)
    with pytest.raises(ValueError, match=r"squared_distances: x must have at least 2 dim"):
        squared_distances(torch.zeros(3))
