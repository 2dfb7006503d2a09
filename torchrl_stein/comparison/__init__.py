"""Comparison of runs: statistics of few seeds, tables and pictures; of numpy, without torch."""

from .groups import compare_runs
from .report import comparison_page, draw_comparison
from .runs import RunScores, read_runs
from .statistics import interquartile_mean, probability_of_improvement, stratified_bootstrap

__all__ = [
    "RunScores",
    "compare_runs",
    "comparison_page",
    "draw_comparison",
    "interquartile_mean",
    "probability_of_improvement",
    "read_runs",
    "stratified_bootstrap",
]
