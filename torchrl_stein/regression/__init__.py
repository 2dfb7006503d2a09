"""Bayesian neural networks for regression: data, posterior, particle flows, predictive scores."""

from .data import Table, diabetes_table, make_splits, minibatches, read_table
from .flow import ParticleFlow
from .posterior import RegressionPosterior, predictive_scores

__all__ = [
    "ParticleFlow",
    "RegressionPosterior",
    "Table",
    "diabetes_table",
    "make_splits",
    "minibatches",
    "predictive_scores",
    "read_table",
]
