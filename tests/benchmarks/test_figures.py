"""Pictures of populations: statistics by hand; pictures are there, and show the data."""

import math

import numpy as np
import pytest

from benchmarks.experiments.figures import (
    LearningCurves,
    draw_learning_curves,
    draw_sorted_returns,
    draw_state_densities,
    mean_interval,
    mode_colours,
)

image = pytest.importorskip("matplotlib.image")


def test_interval_of_the_mean_by_hand():
    # t(0.975) with 2 and 3 degrees of freedom: 4.3027, 3.1824, from printed tables.
    mean, half = mean_interval([1.0, 2.0, 6.0])
    assert (mean, half) == pytest.approx((3.0, 4.3027 * math.sqrt(7 / 3)), rel=1e-4)
    mean, half = mean_interval([[0.0, 5.0], [0.0, 5.0], [2.0, 5.0], [2.0, 5.0]])
    assert mean.tolist() == [1.0, 5.0]
    assert half.tolist() == pytest.approx([3.1824 * math.sqrt(4 / 3) / 2, 0.0], rel=1e-4)


def test_one_seed_has_no_interval():
    mean, half = mean_interval([[4.0, 5.0]])
    assert mean.tolist() == [4.0, 5.0]
    assert np.isnan(half).all()
    with pytest.raises(ValueError, match="S >= 1"):
        mean_interval([])


def test_intervals_cover_the_mean_as_often_as_they_say():
    samples = np.random.default_rng(0).normal(size=(4, 20_000))
    mean, half = mean_interval(samples)
    assert (abs(mean) < half).mean() == pytest.approx(0.95, abs=0.005)


def test_modes_keep_their_colours():
    known = mode_colours(["svpg", "independent", "joint", "drift", "radial", "tangential"])
    assert len(set(known.values())) == 6
    more = mode_colours(["b", "radial", "a", "b"])
    assert list(more) == ["a", "b", "radial"]
    assert more["radial"] == known["radial"]
    assert not {more["a"], more["b"]} & {*known.values()}
    assert more["a"] != more["b"]
    assert mode_colours(["b", "svpg", "a"])["b"] == more["b"]


def test_curves_of_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"best must be \[S, 2\]"):
        LearningCurves([1, 2], best=[[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="mean must be"):
        LearningCurves([1, 2], best=[[1.0, 2.0]], mean=[1.0, 2.0])


def curves(shift=0.0, seeds=3, length=20, **options):
    noise = np.random.default_rng(0).normal(size=(seeds, length))
    best = np.linspace(-100, 100, length) + 5 * noise + shift
    return LearningCurves(np.arange(length), best, **options)


def pixels(path):
    assert path.stat().st_size > 2000
    return image.imread(path)[..., :3]


def has_colour(picture, hexadecimal, tolerance=0.03):
    colour = np.array([int(hexadecimal[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return int((abs(picture - colour) < tolerance).all(-1).sum())


def test_learning_curves(tmp_path):
    panels = {"A": {"svpg": curves(), "joint": curves(50.0)}, "B": {"svpg": curves(seeds=1)}}
    picture = pixels(draw_learning_curves(tmp_path / "a.png", panels))
    colours = mode_colours(["svpg", "joint", "drift"])
    assert has_colour(picture, colours["svpg"]) > 500
    assert has_colour(picture, colours["joint"]) > 500
    assert has_colour(picture, colours["drift"]) == 0
    again = pixels(draw_learning_curves(tmp_path / "b.png", panels))
    assert (picture == again).all()
    panels["A"]["joint"] = curves(150.0)
    other = pixels(draw_learning_curves(tmp_path / "c.png", panels))
    assert picture.shape != other.shape or (picture != other).mean() > 0.01


def test_bands_need_seeds_and_dashes_need_a_mean(tmp_path):
    def draw(**options):
        return pixels(draw_learning_curves(tmp_path / "a.png", {"A": {"svpg": curves(**options)}}))

    one, three = draw(seeds=1), draw(seeds=3)
    paler = "#D9EAF3"  # 15 % of svpg's colour on white
    assert has_colour(three, paler) > 1000
    assert has_colour(one, paler) < 100
    dashed = draw(mean=np.full((3, 20), -50.0))
    blue = mode_colours(["svpg"])["svpg"]
    assert has_colour(dashed, blue) > has_colour(three, blue) + 200


def test_given_colours_are_used(tmp_path):
    panels = {"A": {"alpha = 1": curves()}}
    picture = pixels(
        draw_learning_curves(tmp_path / "a.png", panels, colours={"alpha = 1": "#FF0000"})
    )
    assert has_colour(picture, "#FF0000") > 500


def test_sorted_returns_do_not_depend_on_the_order_of_particles(tmp_path):
    def draw(returns):
        return pixels(draw_sorted_returns(tmp_path / "a.png", {"A": {"svpg": returns}}))

    picture = draw([[3.0, 1.0, 2.0], [5.0, 4.0, 1.0]])
    assert (picture == draw([[1.0, 2.0, 3.0], [4.0, 1.0, 5.0]])).all()
    other = draw([[1.0, 2.0, 2.0], [4.0, 1.0, 5.0]])
    assert picture.shape != other.shape or (picture != other).any()


def test_a_single_particle_is_a_level(tmp_path):
    panels = {"A": {"svpg": [[3.0, 1.0, 2.0]], "joint": [[1.5], [2.5]]}}
    picture = pixels(draw_sorted_returns(tmp_path / "a.png", panels))
    assert has_colour(picture, mode_colours(["joint"])["joint"]) > 100
    with pytest.raises(ValueError, match=r"svpg must be \[S, n\]"):
        draw_sorted_returns(tmp_path / "a.png", {"A": {"svpg": [1.0, 2.0]}})


def test_state_densities_lie_where_the_states_are(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 300, 2)) + np.array([[[-8.0, 0.0]], [[8.0, 0.0]]])
    rows = {"svpg": {"#1 (400)": left, "#2 (300)": right}, "independent": {"#1 (2)": left}}
    picture = pixels(draw_state_densities(tmp_path / "a.png", rows))
    height, width, _ = picture.shape
    coloured = np.ptp(picture, axis=-1) > 0.2
    panel = coloured[int(0.1 * height) : int(0.45 * height), int(0.06 * width) :]
    middle, quarter = panel.shape[1] // 2, panel.shape[1] // 4
    counts = [panel[:, i * quarter : (i + 1) * quarter].sum() for i in range(4)]
    assert counts[0] > 10 * max(counts[1], 1)
    assert counts[3] > 10 * max(counts[2], 1)
    assert not coloured[int(0.6 * height) :, int(0.06 * width) + middle :].any()


@pytest.mark.parametrize("draw", [draw_learning_curves, draw_sorted_returns, draw_state_densities])
@pytest.mark.parametrize("nothing", [{}, {"A": {}}])
def test_nothing_to_draw_is_an_error(tmp_path, draw, nothing):
    with pytest.raises(ValueError, match=r"nothing to draw|must hold points"):
        draw(tmp_path / "a.png", nothing)
    assert not (tmp_path / "a.png").exists()


def test_points_of_an_embedding_have_two_coordinates(tmp_path):
    with pytest.raises(ValueError, match=r"points \[N, 2\]"):
        draw_state_densities(tmp_path / "a.png", {"svpg": {"a": np.zeros((5, 3))}})
