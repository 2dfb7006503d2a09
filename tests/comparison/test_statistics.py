"""Statistics of few runs: by hand, by scipy, by all resamples of tiny samples, and by rliable."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from torchrl_stein.comparison import (
    interquartile_mean,
    probability_of_improvement,
    stratified_bootstrap,
)

stats = pytest.importorskip("scipy.stats")


def pooled(tasks):
    return interquartile_mean(np.concatenate(tasks, -1))


def test_interquartile_mean_by_hand():
    assert interquartile_mean([5.0]) == 5.0
    assert interquartile_mean([0.0, 3.0, 9.0]) == 4.0  # a quarter of three, rounded down, is none
    assert interquartile_mean([1000.0, 3.0, -50.0, 5.0]) == 4.0
    assert interquartile_mean([8.0, 1.0, 2.0, 3.0, -9.0]) == 2.0
    assert interquartile_mean([[1.0, 2.0, 3.0, 9.0], [0.0, 0.0, 4.0, 4.0]]).tolist() == [2.5, 2.0]


@pytest.mark.parametrize("count", range(1, 18))
def test_interquartile_mean_is_scipys_trimmed_mean(count):
    scores = np.random.default_rng(count).standard_cauchy((3, count))
    assert interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=-1))


def test_probability_of_improvement_by_hand():
    # 2 wins over 1, ties with 2, loses to 3; 5 wins over all: (1 + 1/2 + 3) / 6.
    assert probability_of_improvement([[2.0, 5.0]], [[1.0, 2.0, 3.0]]) == pytest.approx(4.5 / 6)
    assert probability_of_improvement([[1.0, 2.0, 3.0]], [[2.0, 5.0]]) == pytest.approx(1.5 / 6)
    # The mean over tasks, however many runs each has.
    x, y = [[2.0, 5.0], [1.0]], [[1.0, 2.0, 3.0], [4.0, 5.0]]
    assert probability_of_improvement(x, y) == pytest.approx((0.75 + 0.0) / 2)
    assert probability_of_improvement([[3.0, 3.0]], [[3.0]]) == 0.5


def test_probability_of_improvement_is_mann_whitneys_statistic():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (3, 7)), rng.integers(1, 7, (3, 4))  # many ties
    u = [stats.mannwhitneyu(a, b).statistic / 28 for a, b in zip(x, y, strict=True)]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(u))


def test_only_the_order_counts_for_improvement():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 6)), rng.normal(size=(2, 5))
    assert probability_of_improvement(np.exp(3 * x), np.exp(3 * y)) == pytest.approx(
        probability_of_improvement(x, y)
    )


def test_improvement_of_a_batch_is_that_of_each():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, 8, 3)), rng.normal(size=(2, 8, 4))
    batch = probability_of_improvement(list(x), list(y))
    assert batch.shape == (8,)
    alone = [probability_of_improvement(list(x[:, i]), list(y[:, i])) for i in range(8)]
    assert batch == pytest.approx(np.array(alone))


def all_resamples(scores):
    return [list(chosen) for chosen in itertools.product(scores, repeat=len(scores))]


def exact_interval(values, confidence):
    """Quantiles of equally likely values; far enough from the next to be met by chance draws."""
    values = np.sort(values)
    ends = []
    for level in ((1 - confidence) / 2, (1 + confidence) / 2):
        end = values[math.ceil(level * len(values)) - 1]
        share = [np.mean(values < end - 1e-9), np.mean(values < end + 1e-9)]
        assert share[0] + 0.01 < level < share[1] - 0.01, "choose another confidence"
        ends.append(end)
    return ends


@pytest.mark.parametrize(
    ("tasks", "confidence"),
    [
        ([[0.0, 1.0, 5.0]], 0.9),
        ([[0.0, 2.0, 3.0, 11.0]], 0.8),
        ([[0.0, 1.0], [4.0, 7.0, 20.0]], 0.8),
    ],
)
def test_bootstrap_of_the_interquartile_mean_by_all_resamples(tasks, confidence):
    values = [
        stats.trim_mean(np.concatenate(chosen), 0.25)
        for chosen in itertools.product(*map(all_resamples, tasks))
    ]
    expected = exact_interval(values, confidence)
    interval = stratified_bootstrap(pooled, tasks, confidence=confidence)
    assert interval == pytest.approx(expected)


def test_bootstrap_of_the_improvement_by_all_resamples():
    x, y = [[1.0, 4.0, 6.0], [0.0, 1.0]], [[2.0, 4.0, 5.0], [0.5, 3.0]]
    values = [
        np.mean(
            [
                np.mean([(a > b) + 0.5 * (a == b) for a in first for b in second])
                for first, second in zip(chosen[:2], chosen[2:], strict=True)
            ]
        )
        for chosen in itertools.product(*map(all_resamples, [*x, *y]))
    ]
    expected = exact_interval(values, 0.72)
    interval = stratified_bootstrap(probability_of_improvement, x, y, confidence=0.72)
    assert interval == pytest.approx(expected)


def test_bootstrap_is_scipys_for_one_task():
    scores = np.random.default_rng(3).normal(size=12)
    theirs = stats.bootstrap(
        [scores], interquartile_mean, method="percentile", n_resamples=20_000, rng=0
    ).confidence_interval
    ours = stratified_bootstrap(pooled, [scores], resamples=20_000)
    assert ours == pytest.approx(tuple(theirs), abs=0.03 * scores.std())


def test_draws_stay_in_their_task_and_method():
    seen = []

    def record(x, y):
        seen.append((x, y))
        return x[0].mean(-1)

    x, y = [[1.0, 2.0], [10.0, 20.0, 30.0]], [[5.0], [50.0, 60.0]]
    stratified_bootstrap(record, x, y, resamples=500)
    for sample, original in zip(seen[0], (x, y), strict=True):
        for drawn, scores in zip(sample, original, strict=True):
            assert drawn.shape == (500, len(scores))
            assert set(drawn.ravel()) == set(scores)
    first, second = seen[0][0]
    same = (first[:, 0] == 1.0) == (second[:, 0] == 10.0)
    assert 0.3 < same.mean() < 0.7, "tasks must not share their draws"


def test_a_curve_is_drawn_by_whole_runs():
    runs = np.array([0.0, 1.0, 2.0, 7.0])
    low, high = stratified_bootstrap(
        lambda tasks: tasks[0].mean(-1), [np.stack([runs, 10.0 - runs, runs])], resamples=300
    )
    assert low.shape == high.shape == (3,)
    # The second line mirrors the first draw by draw, so its interval is the mirror image.
    assert (low[1], high[1]) == pytest.approx((10.0 - high[0], 10.0 - low[0]))
    assert (low[2], high[2]) == (low[0], high[0])


def test_draws_follow_the_seed():
    scores = [np.random.default_rng(4).normal(size=9)]
    one, same, other = (stratified_bootstrap(pooled, scores, seed=s) for s in (1, 1, 2))
    assert one == same != other


def test_blocks_change_nothing_but_memory(monkeypatch):
    counts = []

    def record(tasks):
        counts.append(len(tasks[0]))
        return tasks[0].mean(-1)

    monkeypatch.setattr("torchrl_stein.comparison.statistics._BLOCK", 30)
    interval = stratified_bootstrap(record, [np.arange(10.0)], resamples=1000)
    assert counts == [3] * 333 + [1]
    assert interval == pytest.approx(
        stratified_bootstrap(lambda tasks: tasks[0].mean(-1), [np.arange(10.0)]), abs=0.5
    )


def test_one_run_has_no_interval():
    assert np.isnan(stratified_bootstrap(pooled, [[1.0]])).all()
    assert np.isnan(stratified_bootstrap(pooled, [[1.0, 2.0], [3.0]])).all()
    ends = stratified_bootstrap(probability_of_improvement, [[1.0, 2.0]], [[3.0]])
    assert np.isnan(ends).all()


def test_intervals_cover_as_often_as_documented():
    # 4000 experiments at once; they share draws, but not scores.
    rng = np.random.default_rng(5)
    for runs, expected in ((3, 0.75), (5, 0.90), (20, 0.945)):
        scores = rng.normal(size=(4000, runs))
        low, high = stratified_bootstrap(
            lambda tasks: interquartile_mean(tasks[0]), [scores], resamples=500
        )
        assert ((low <= 0) & (high >= 0)).mean() == pytest.approx(expected, abs=0.02)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match=r"interquartile_mean: scores must be \[\.\.\., R\]"):
        interquartile_mean([])
    with pytest.raises(ValueError, match=r"interquartile_mean: scores must be finite, got .*nan"):
        interquartile_mean([1.0, math.nan])
    with pytest.raises(ValueError, match=r"x and y must have the same tasks, got 1 and 2"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"same tasks, got 0 and 0"):
        probability_of_improvement([], [])
    with pytest.raises(ValueError, match="y must be finite"):
        probability_of_improvement([[1.0]], [[math.inf]])
    with pytest.raises(ValueError, match=r"resamples must be .* got 0 and 0\.95"):
        stratified_bootstrap(pooled, [[1.0]], resamples=0)
    with pytest.raises(ValueError, match="confidence in"):
        stratified_bootstrap(pooled, [[1.0]], confidence=1.0)
    with pytest.raises(ValueError, match="samples must have at least one task each"):
        stratified_bootstrap(pooled, [])
    with pytest.raises(ValueError, match="samples must have at least one task each"):
        stratified_bootstrap(pooled)
    with pytest.raises(ValueError, match="stratified_bootstrap: samples must be finite"):
        stratified_bootstrap(pooled, [[1.0, math.nan]])


def test_numbers_need_neither_torch_nor_what_is_optional():
    code = """
import sys, types
for name in ("torch", "torchrl", "tensordict", "matplotlib", "scipy", "hydra"):
    sys.modules[name] = None
package = types.ModuleType("torchrl_stein")  # without its own imports
package.__path__ = [sys.argv[1]]
sys.modules["torchrl_stein"] = package
from torchrl_stein.comparison import interquartile_mean
print(interquartile_mean([1.0, 2.0]))
"""
    folder = Path(__file__).parents[2] / "torchrl_stein"
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1.5\n"), done.stderr


@pytest.fixture(scope="module")
def rliable():
    """Optional: pip install rliable "pandas<3"."""
    pytest.importorskip("rliable")
    try:
        from rliable import library, metrics
    except TypeError as error:  # arch 7, which rliable 1.2 needs, does not import with pandas 3
        pytest.skip(f"rliable does not import, install pandas<3: {error}")
    return library, metrics


def test_numbers_are_those_of_rliable(rliable):
    library, metrics = rliable
    rng = np.random.default_rng(6)
    x = rng.normal((0.0, 1.0, 5.0), size=(7, 3))  # runs, tasks
    y = rng.normal((0.5, 1.0, 4.0), size=(5, 3))
    x[:4, 0] = y[:4, 0]  # ties

    def theirs(samples, statistic, reps):
        point, interval = library.get_interval_estimates(
            {"it": samples},
            lambda *scores: np.array([statistic(*scores)]),
            reps=reps,
            random_state=np.random.RandomState(0),
        )
        return point["it"][0], tuple(interval["it"][:, 0])

    def close(ends, tolerance):
        return pytest.approx(ends, abs=tolerance * (ends[1] - ends[0]))

    for scores in (x, y):
        point, interval = theirs(scores, metrics.aggregate_iqm, 5000)
        assert pooled(scores.T) == pytest.approx(point, rel=1e-12)
        # An end of 5000 draws strays by 1 % of the interval, one of 1000 by 2 %.
        assert stratified_bootstrap(pooled, list(scores.T)) == close(interval, 0.04)
    point, interval = theirs([x, y], metrics.probability_of_improvement, 1000)
    samples = list(x.T), list(y.T)
    assert probability_of_improvement(*samples) == pytest.approx(point, rel=1e-12)
    assert stratified_bootstrap(probability_of_improvement, *samples) == close(interval, 0.08)
