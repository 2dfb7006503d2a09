"""Comparison of runs: statistics of few seeds, tables and pictures; of numpy, without torch."""

from .figure import draw_curves, draw_scores
from .groups import group_runs
from .numbers import compare_groups
from .page import comparison_page
from .runs import RunScores, find_runs, read_run
from .statistics import interquartile_mean, probability_of_improvement, stratified_bootstrap

__all__ = [
    "RunScores",
    "compare_groups",
    "comparison_page",
    "draw_curves",
    "draw_scores",
    "find_runs",
    "group_runs",
    "interquartile_mean",
    "probability_of_improvement",
    "read_run",
    "stratified_bootstrap",
]
