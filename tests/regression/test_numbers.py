"""No public name of regression takes a number that it cannot mean."""

import math
import re

import numpy as np
import pytest
import torch

from torchrl_stein.kernels import RBFKernel
from torchrl_stein.objectives import SinkhornCost
from torchrl_stein.regression import (
    ParticleFlow,
    RegressionPosterior,
    Table,
    make_splits,
    minibatches,
    read_table,
)

WORDS = ["1", [1.0], {}, True, None]
NOT_FINITE = [math.nan, math.inf, -math.inf]
BAD = {
    "count": [*WORDS, *NOT_FINITE, 0, -1, 2.5, 2.0],
    "seed": [*WORDS, *NOT_FINITE, -1, 2.5],
    "positive": [*WORDS[:-1], *NOT_FINITE, 0.0, -1.0],
    "non-negative": [*WORDS, *NOT_FINITE, -1e-9],
    "fraction": [*WORDS, *NOT_FINITE, 0.0, 1.0],
    "pair": [(1.0, 0.0), (math.nan, 1.0), (1.0, "2"), (1.0,), 1.0, "ab", None, (True, 1.0)],
}


def posterior(**options):
    return RegressionPosterior(
        **{"num_features": 2, "num_splits": 1, "num_particles": 3, **options}
    )


def flow(weight):
    made = posterior()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    return ParticleFlow(made, RBFKernel(), optimizer, SinkhornCost(), weight)


def log_joint(num_rows):
    return posterior().log_joint(torch.zeros(1, 4, 2), torch.zeros(1, 4), num_rows)


def splits(**options):
    rows = torch.arange(40.0)
    return make_splits(Table("line", rows.unsqueeze(-1), rows), **options)


def batches(batch_size):
    return minibatches(torch.zeros(1, 6, 2), torch.zeros(1, 6), batch_size)


DOORS = {
    "RegressionPosterior num_features": (posterior, "count"),
    "RegressionPosterior num_splits": (posterior, "count"),
    "RegressionPosterior num_particles": (posterior, "count"),
    "RegressionPosterior num_cells": (posterior, "count"),
    "RegressionPosterior weight_precision": (posterior, "positive"),
    "RegressionPosterior precision_prior": (posterior, "pair"),
    "RegressionPosterior num_rows": (log_joint, "count"),
    "ParticleFlow weight": (flow, "non-negative"),
    "make_splits num_splits": (splits, "count"),
    "make_splits seed": (splits, "seed"),
    "make_splits test_fraction": (splits, "fraction"),
    "minibatches batch_size": (batches, "count"),
}


@pytest.mark.parametrize(
    ("door", "bad"),
    [
        pytest.param(door, bad, id=f"{door}={bad!r}")
        for door in DOORS
        for bad in BAD[DOORS[door][1]]
    ],
)
def test_a_number_that_cannot_be_meant(door, bad):
    owner, argument = door.split(" ")
    with pytest.raises((TypeError, ValueError)) as error:
        DOORS[door][0](**{argument: bad})
    words = str(error.value)
    assert re.match(rf"{owner}: {argument} must be .*got ", words), words


@pytest.mark.parametrize(
    ("door", "good"),
    [
        ("RegressionPosterior num_cells", np.int64(3)),
        ("RegressionPosterior weight_precision", None),
        ("RegressionPosterior precision_prior", [2, 0.5]),
        ("ParticleFlow weight", 0),
        ("make_splits seed", np.int64(3)),
        ("make_splits test_fraction", np.float32(0.25)),
        ("minibatches batch_size", 6),
    ],
)
def test_numbers_of_any_kind_that_can(door, good):
    DOORS[door][0](**{door.split(" ")[1]: good})


@pytest.mark.parametrize("target", [True, 1.5, [0], 2j])
def test_a_column_that_is_none(tmp_path, target):
    (tmp_path / "t.csv").write_text("a,y\n1,2\n")
    with pytest.raises(TypeError, match=r"read_table, .*t.csv: target must be an integer >= -2"):
        read_table(tmp_path / "t.csv", target)


@pytest.mark.parametrize("column", ["features", "target"])
def test_a_table_of_numbers_that_are_none(column):
    parts = {"features": torch.zeros(20, 1), "target": torch.zeros(20)}
    parts[column][7] = math.nan
    with pytest.raises(ValueError, match=f"make_splits: '{column}' must be finite, got 1 non-fin"):
        make_splits(Table("t", **parts), num_splits=1)


@pytest.mark.parametrize(
    ("name", "bad", "expected"),
    [
        ("kernel", "rbf", "a Kernel"),
        ("kernel", RBFKernel, "a Kernel"),
        ("optimizer", None, "an Optimizer"),
        ("cost", SinkhornCost, "a TransportCost"),
    ],
)
def test_a_flow_of_other_parts(name, bad, expected):
    made = posterior()
    parts = {"kernel": RBFKernel(), "optimizer": torch.optim.SGD(made.parameters(), lr=0.1)}
    with pytest.raises(TypeError, match=f"ParticleFlow: {name} must be {expected}, got"):
        ParticleFlow(made, **{**parts, name: bad})
