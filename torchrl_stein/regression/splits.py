"""Random training and test parts of a table, all of one size, and minibatches of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_finite, check_number

from .table import Table

__all__ = ["RegressionSplits", "make_splits", "minibatches"]


class RegressionSplits(NamedTuple):
    """S training and test parts of one table, standardised by the training part of each.

    Attributes:
        train_features: ``[S, N, F]``; each column of a split has mean 0 and variance 1.
        train_target: ``[S, N]``, likewise.
        test_features: ``[S, T, F]``, shifted and scaled as the training part of the split.
        test_target: ``[S, T]``, likewise.
        target_scale: ``[S]``, standard deviation of the training target in its own units.

    Example:
        >>> table = Table("line", torch.arange(20.0).unsqueeze(-1), torch.arange(20.0))
        >>> splits = make_splits(table, num_splits=3, seed=0)
        >>> splits.train_features.shape, splits.test_target.shape
        (torch.Size([3, 18, 1]), torch.Size([3, 2]))
    """

    train_features: Tensor
    train_target: Tensor
    test_features: Tensor
    test_target: Tensor
    target_scale: Tensor


def make_splits(
    table: Table,
    num_splits: int = 20,
    seed: int = 0,
    *,
    test_fraction: float = 0.1,
    device: torch.device | str = "cpu",
) -> RegressionSplits:
    """Draw S independent partitions of the rows and standardise each by its training part.

    A column that is constant in a training part is shifted but not scaled: there is no standard
    deviation to divide by. Statistics are computed in the precision of the table; the results
    have torch's default dtype.

    Args:
        table: N + T rows.
        num_splits: S.
        seed: of the partitions; the first splits of two calls with the same seed are the same.
        test_fraction: T / (N + T), rounded to whole rows.
        device: of the results.

    Raises:
        TypeError: if a number is none, or a count no integer.
        ValueError: if ``num_splits`` < 1, ``test_fraction`` is not inside (0, 1), features and
            target differ in their number of rows, or a part would have less than two training
            rows or no test row.

    Source: Hernandez-Lobato & Adams 2015 (arXiv:1502.05336), section 5.1: 20 random splits with
    90 % of the rows for training.

    Example:
        >>> table = Table("steps", torch.tensor([[0.0], [2.0]] * 5), torch.tensor([0.0, 4.0] * 5))
        >>> make_splits(table, num_splits=1).train_features.unique().tolist()  # 4 and 5 of 9
        [-1.1180..., 0.8944...]
    """
    rows = len(table.target)
    if table.features.ndim != 2 or table.target.shape != table.features.shape[:1]:
        raise ValueError(
            "make_splits: table must have features [N, F] and a target [N], got "
            f"{list(table.features.shape)} and {list(table.target.shape)}"
        )
    check_finite("make_splits", {"features": table.features, "target": table.target})
    check_count("make_splits", num_splits=num_splits)
    check_count("make_splits", at_least=0, seed=seed)
    check_number("make_splits", above=0, below=1, test_fraction=test_fraction)
    num_test = round(test_fraction * rows)
    if num_test < 1 or rows - num_test < 2:
        raise ValueError(
            "make_splits: table must have at least two rows for training and one for testing, got "
            f"{rows} rows, of which {num_test} are {test_fraction:.0%}"
        )
    generator = torch.Generator().manual_seed(int(seed))
    order = torch.stack([torch.randperm(rows, generator=generator) for _ in range(num_splits)])
    test, train = order[:, :num_test], order[:, num_test:]
    centre, scale = _statistics(table.features[train])
    target_centre, target_scale = _statistics(table.target[train].unsqueeze(-1))
    parts = (
        (table.features[train] - centre) / scale,
        (table.target[train] - target_centre[..., 0]) / target_scale[..., 0],
        (table.features[test] - centre) / scale,
        (table.target[test] - target_centre[..., 0]) / target_scale[..., 0],
        target_scale[:, 0, 0],
    )
    return RegressionSplits(*(part.to(device, torch.get_default_dtype()) for part in parts))


def minibatches(
    features: Tensor, target: Tensor, batch_size: int, generator: torch.Generator | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless minibatches of every split: shuffled epochs, without replacement inside each.

    Every split has its own order. The rows left at the end of an epoch, fewer than a batch, wait
    for the next order. Nothing leaves the device.

    Args:
        features: ``[S, N, F]``.
        target: ``[S, N]``.
        batch_size: B, rows of every split per batch.
        generator: of the orders, on the device of the data; None is torch's own.

    Returns:
        Iterator: of pairs ``[S, B, F]`` and ``[S, B]``.

    Raises:
        TypeError: if ``batch_size`` is no integer.
        ValueError: if the shapes disagree or ``batch_size`` is not between 1 and N.

    Example:
        >>> x = torch.arange(6.0).view(1, 6, 1)
        >>> batches = minibatches(x, x[..., 0], batch_size=3)
        >>> sorted(torch.cat([next(batches)[1], next(batches)[1]], -1)[0].tolist())
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    if features.ndim != 3 or target.shape != features.shape[:2]:
        raise ValueError(
            "minibatches: features must be [S, N, F] and target [S, N], got "
            f"{list(features.shape)} and {list(target.shape)}"
        )
    check_count("minibatches", at_most=target.shape[1], batch_size=batch_size)  # rows to train on
    return _shuffled_epochs(features, target, batch_size, generator)


def _shuffled_epochs(
    features: Tensor, target: Tensor, batch_size: int, generator: torch.Generator | None
) -> Iterator[tuple[Tensor, Tensor]]:
    num_splits, rows = target.shape
    split = torch.arange(num_splits, device=target.device).unsqueeze(-1)
    while True:
        draws = torch.rand(num_splits, rows, generator=generator, device=target.device)
        order = draws.argsort(-1)
        for start in range(0, rows - batch_size + 1, batch_size):
            chosen = order[:, start : start + batch_size]
            yield features[split, chosen], target[split, chosen]


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[S, 1, F]`` over the rows of ``[S, N, F]``."""
    constant = values.amax(1, keepdim=True) == values.amin(1, keepdim=True)
    scale = values.std(1, correction=0, keepdim=True)
    # Not scale == 0: rounding of the mean leaves constant columns a tiny deviation.
    return values.mean(1, keepdim=True), torch.where(constant, torch.ones_like(scale), scale)
