"""Bayesian neural networks for regression: data, posterior, particle flows, predictive scores."""

from .flow import FlowDirection, ParticleFlow, transport_force
from .posterior import Prediction, RegressionPosterior
from .scores import PredictiveScores, predictive_scores
from .splits import RegressionSplits, make_splits, minibatches
from .table import Table, diabetes_table, read_table

__all__ = [
    "FlowDirection",
    "ParticleFlow",
    "Prediction",
    "PredictiveScores",
    "RegressionPosterior",
    "RegressionSplits",
    "Table",
    "diabetes_table",
    "make_splits",
    "minibatches",
    "predictive_scores",
    "read_table",
    "transport_force",
]
