"""From groups to numbers, a page and pictures."""

import json
from pathlib import Path

import numpy as np
import pytest

from torchrl_stein.comparison import RunScores, comparison_page, draw_comparison
from torchrl_stein.comparison.groups import compare_groups

A = [1.0, 2.0, 3.0, 10.0, 4.0]
B = [0.0, 0.0, 1.0, 2.5, 2.0]


def runs(scores, curves=None, finished=True, **settings):
    return [
        RunScores(
            Path(f"run-{seed}"), "ddpg", "multigoal", {}, settings, seed,
            metric="eval/return", score=score, finished=finished, steps=20 + seed,
            curve={10: score - 1, 20: score} if curves is None else curves[seed],
        )
        for seed, score in enumerate(scores)
    ]  # fmt: skip


def rows(page, title=None):
    """Cells of the table that follows a heading, without its head."""
    text = page if title is None else page.split(f"{title}\n", 1)[1]
    table = text[text.index("\n| --- ") + 1 :].split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_numbers_of_one_task():
    numbers = compare_groups({"multigoal": {"a": runs(A), "b": runs(B)}})
    assert json.loads(json.dumps(numbers)) == numbers
    assert "overall" not in numbers
    a = numbers["tasks"]["multigoal"]["methods"]["a"]
    assert (a["iqm"], a["mean"], a["median"], a["steps"]) == (3.0, 4.0, 3.0, 24)
    assert (a["scores"], a["seeds"], a["unfinished"]) == (A, [0, 1, 2, 3, 4], 0)
    assert a["metrics"] == ["eval/return"]
    low, high = a["interval"]
    assert 1.0 <= low < 3.0 < high <= 10.0
    curve = a["curve"]
    assert (curve["steps"], curve["iqm"]) == ([10, 20], [2.0, 3.0])
    for end in ("low", "high"):  # the curve's second point is its first plus one, in each run
        assert curve[end][1] - curve[end][0] == pytest.approx(1.0)


def test_improvement_in_both_directions():
    improvement = compare_groups({"t": {"a": runs(A), "b": runs(B)}})["tasks"]["t"]["improvement"]
    # Of b's values a's 1 beats two and ties one, 2 beats three and ties one, the others all.
    there, back = improvement["a"]["b"], improvement["b"]["a"]
    assert there["probability"] == pytest.approx((2.5 + 3.5 + 5 + 5 + 5) / 25)
    assert back["probability"] == pytest.approx(1 - there["probability"])
    low, high = there["interval"]
    assert low < there["probability"] < high <= 1.0
    assert back["interval"] == pytest.approx([1 - high, 1 - low])


def test_curves_have_the_steps_that_all_runs_have():
    curves = [{10: 0.0, 20: 1.0, 30: 5.0}, {20: 3.0, 30: 7.0, 40: 9.0}]
    numbers = compare_groups({"t": {"a": runs([0.0, 1.0], curves)}})
    curve = numbers["tasks"]["t"]["methods"]["a"]["curve"]
    assert (curve["steps"], curve["iqm"]) == ([20, 30], [2.0, 6.0])
    assert (curve["low"], curve["high"]) == ([1.0, 5.0], [3.0, 7.0])
    apart = compare_groups({"t": {"a": runs([0.0, 1.0], [{10: 0.0}, {}])}})
    assert apart["tasks"]["t"]["methods"]["a"]["curve"]["steps"] == []


def test_one_seed_has_no_interval_anywhere():
    numbers = compare_groups({"t": {"a": runs([1.0]), "b": runs(B)}})
    a = numbers["tasks"]["t"]["methods"]["a"]
    assert (a["iqm"], a["interval"], a["curve"]["low"]) == (1.0, None, None)
    assert numbers["tasks"]["t"]["improvement"]["a"]["b"]["interval"] is None
    page = comparison_page(numbers)
    assert rows(page)[0] == ["1", "a", "t", "1", "20", "1", "1", "1"]
    assert rows(page, "### t")[0] == ["1", "a", "", "0.50"]
    assert "one seed has no interval" in page


def test_tasks_are_never_averaged_without_a_range():
    groups = {
        "t": {"a": runs(A), "b": runs(B)},
        "u": {"a": runs([100.0, 300.0]), "b": runs([50.0, 60.0]), "c": runs([1.0, 2.0])},
    }
    numbers = compare_groups(groups)
    assert "methods" not in numbers["overall"]
    page = comparison_page(numbers)
    assert "returns of different tasks cannot be averaged" in page
    assert "Not on every task, so not here: c." in page
    # The order within tasks needs no common scale: (0.84 + 1) / 2.
    overall = rows(page, "Probability of improvement, mean over tasks:")
    assert [row[1] for row in overall] == ["a", "b"]
    assert overall[0][3].startswith("0.92 [")


def test_over_all_tasks_there_is_nothing_without_a_method_on_each():
    numbers = compare_groups({"t": {"a": runs(A)}, "u": {"b": runs(B)}})
    assert "overall" not in numbers
    page = comparison_page(numbers)
    assert "## All tasks" not in page
    assert "## Probability of improvement" not in page  # nor any pair on one task
    assert [row[:3] for row in rows(page)] == [["1", "a", "t"], ["2", "b", "u"]]


def test_evaluations_that_differ_are_pointed_out():
    groups = {
        "t": {"a": runs(A, **{"eval.max_steps": 20}), "b": runs(B, **{"eval.max_steps": 1000})},
        "u": {"a": runs(A, **{"eval.max_steps": 20})},
    }
    numbers = compare_groups(groups, resamples=10)
    assert numbers["tasks"]["t"]["evaluation"] == {"eval.max_steps": ["20", "1000"]}
    page = comparison_page(numbers)
    assert "- t: evaluations differ in eval.max_steps (20, 1000), so scores mean" in page
    assert "- u: evaluations" not in page


def test_normalized_scores_over_tasks():
    groups = {"t": {"a": runs([0.0, 5.0])}, "u": {"a": runs([100.0, 400.0])}}
    ranges = {"t": (0.0, 10.0), "u": (100.0, 300.0)}
    numbers = compare_groups(groups, normalize=ranges)
    # 0, 0.5, 0, 1.5: the middle two.
    assert numbers["overall"]["methods"]["a"]["iqm"] == pytest.approx(0.25)
    assert numbers["overall"]["methods"]["a"]["mean"] == pytest.approx(0.5)
    # Resampled within tasks: the highest is 0.5, 0.5, 1.5, 1.5.
    assert numbers["overall"]["methods"]["a"]["interval"] == pytest.approx([0.0, 1.0])
    page = comparison_page(numbers)
    assert "Scores that became 0 and 1: t 0 to 10; u 100 to 300." in page
    assert rows(page, "## All tasks") == [["1", "a", "2 + 2", "0.25 [0, 1]", "0.5", "0.25"]]
    assert "cannot be averaged" not in page


def test_ranges_are_checked():
    groups = {"t": {"a": runs(A)}, "u": {"a": runs(A)}}
    with pytest.raises(ValueError, match=r"must name the tasks \['t', 'u'\], got \['t'\]"):
        compare_groups(groups, normalize={"t": (0, 1)})
    with pytest.raises(ValueError, match="u must have LOW < HIGH, got 2 and 2"):
        compare_groups(groups, normalize={"t": (0, 1), "u": (2, 2)})


def test_the_table():
    groups = {"multigoal": {"a": runs([123456.0, 123456.0]), "b": runs([-0.00123456], finished=0)}}
    page = comparison_page(compare_groups(groups), ["Left out: x."])
    assert rows(page) == [
        ["1", "a", "multigoal", "2", "21", "123500 [123500, 123500]", "123500", "123500"],
        ["2", "b", "multigoal", "1 (1 unfinished)", "20", *["-0.001235"] * 3],
    ]
    assert page.startswith("# Comparison of runs\n\nFinal eval/return of each run.")
    assert "Fewer than 5 seeds: bootstrap intervals are too narrow." in page
    assert page.endswith("- Left out: x.\n")
    assert "## Settings" not in page
    assert comparison_page(compare_groups({"t": {"a": runs(A)}})).endswith("| 4 | 3 |\n")


def test_settings_that_differ_are_listed():
    numbers = compare_groups({"t": {"a": runs(A), "b": runs(B)}})
    numbers["settings"] = {"a": {"loss.gamma": "0.9"}, "b": {"loss.lmbda": "1"}}
    page = comparison_page(numbers)
    assert "|  | loss.gamma | loss.lmbda |" in page
    assert rows(page, "## Settings that differ") == [["1", "0.9", ""], ["2", "", "1"]]


def coloured(path, colour):
    image = pytest.importorskip("matplotlib.image").imread(path)[..., :3]
    wanted = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return np.argwhere(np.abs(image - wanted).max(-1) < 0.02)


def test_pictures_show_each_method_with_its_interval(tmp_path):
    groups = {"t": {"a": runs(A), "b": runs([1.0])}, "u": {"a": runs(A)}}
    numbers = compare_groups(groups, normalize={"t": (0, 1), "u": (0, 1)})
    curves, scores = draw_comparison(tmp_path, numbers)
    for path in (curves, scores):
        for colour in ("#0072B2", "#D55E00"):
            assert len(coloured(path, colour)) > 20
    # Bands and bars are paler than lines: of a, in both panels, not of b.
    band = "#D9EAF3"  # 15 % of #0072B2 on white
    assert len(coloured(curves, band)) > 1000
    numbers["tasks"]["t"]["methods"]["a"]["curve"]["low"] = None
    numbers["tasks"]["u"]["methods"]["a"]["curve"]["low"] = None
    (no_band := tmp_path / "no band").mkdir()
    assert len(coloured(draw_comparison(no_band, numbers)[0], band)) < 100


def test_without_curves_there_is_no_picture_of_them(tmp_path):
    numbers = compare_groups({"t": {"a": runs([1.0, 2.0], [{}, {}])}})
    assert draw_comparison(tmp_path, numbers) == [tmp_path / "scores.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["scores.png"]


def test_long_names_leave_room_for_the_curves(tmp_path):
    groups = {"t": {f"method {i} " + "x=1 " * 15: runs([1.0]) for i in range(10)}}
    path = draw_comparison(tmp_path, compare_groups(groups, resamples=100))[0]
    heights, counts = np.unique(coloured(path, "#332288")[:, 0], return_counts=True)  # the last's
    curve = heights[counts < 30]  # it rises; what is level is its line in the legend
    assert np.ptp(curve) > 200


def test_more_methods_than_colours_are_dashed(tmp_path):
    scores = {f"m{i:02}": runs([float(i)]) for i in range(14)}
    numbers = compare_groups({"t": scores}, resamples=10)
    path = draw_comparison(tmp_path, numbers)[0]
    # The first and the thirteenth share a colour, and are apart by 12: through, and with gaps.
    points = coloured(path, "#0072B2")
    height = len(pytest.importorskip("matplotlib.image").imread(path))
    lines = points[points[:, 0] < 0.75 * height, 0]  # above the legend
    upper = lines < (lines.min() + lines.max()) / 2
    assert 0.1 < upper.mean() < 0.45
