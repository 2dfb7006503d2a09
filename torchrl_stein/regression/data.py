"""Tables of numbers on disk, random training and test parts of one, and minibatches of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_count, check_finite, check_number

_DATA, _FEATURES, _TARGET = "data.txt", "index_features.txt", "index_target.txt"
_MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}


class Table(NamedTuple):
    """Rows of features ``[N, F]`` and one number to predict from each, ``[N]``, both float64.

    Example:
        >>> Table("line", torch.tensor([[0.0], [1.0]]), torch.tensor([2.0, 4.0])).features.shape
        torch.Size([2, 1])
    """

    name: str
    features: Tensor
    target: Tensor


def diabetes_table() -> Table:
    """Disease progression of 442 patients from 10 measurements: data that need no download.

    Needs scikit-learn, of the extra ``recipes``. Source: Efron et al. 2004, Least Angle Regression.

    Example:
        >>> table = diabetes_table()
        >>> table.features.shape, table.target[:3].tolist()
        (torch.Size([442, 10]), [151.0, 75.0, 141.0])
    """
    from sklearn.datasets import load_diabetes  # an extra

    features, target = load_diabetes(return_X_y=True, scaled=False)
    return Table("diabetes", torch.as_tensor(features), torch.as_tensor(target))


def read_table(path: str | Path, target: str | int | None = None) -> Table:
    r"""Read a text file, or a folder in the layout of the UCI regression sets.

    A file has one row per line and cells separated by commas, semicolons, tabs or blanks: the
    first of these that occurs in the first line. That line is a header if none of its cells is a
    number. A folder holds ``data.txt``, such a file, and the column numbers, from 0, of features
    and target in ``index_features.txt`` and ``index_target.txt``. Empty lines are skipped; a cell
    that is missing or no finite number is a ValueError that names file, line and column.

    Args:
        path: of the file or the folder; the table is named after it.
        target: column of a file to predict: its name in the header, or its number, from 0 or,
            if negative, from the end. None is the last one; all others are features. A folder
            names its own.

    Raises:
        FileNotFoundError: if ``path``, or a file that a folder needs, is not there.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "houses.csv"
        ...     _ = path.write_text("rooms,price,age\n3,100,20\n4,150,10\n")
        ...     table = read_table(path, target="price")
        >>> table.name, table.features.tolist(), table.target.tolist()
        ('houses', [[3.0, 20.0], [4.0, 10.0]], [100.0, 150.0])
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"read_table: path must be a file or a folder, got {path}")
    if path.is_dir():
        return _read_folder(path, target)
    names, cells = _read_cells(path)
    column = _target_column(path, names, -1 if target is None else target)
    others = [i for i in range(len(names)) if i != column]
    if not others:
        raise ValueError(f"read_table: {path} must have a feature besides the target")
    return Table(path.stem, cells[:, others], cells[:, column])


class RegressionSplits(NamedTuple):
    """S training and test parts of one table, standardised by the training part of each.

    ``train_features`` are ``[S, N, F]``, each column of a split with mean 0 and variance 1, and so
    is ``train_target``, ``[S, N]``; ``test_features`` ``[S, T, F]`` and ``test_target`` ``[S, T]``
    are shifted and scaled likewise. ``target_scale``, ``[S]``, is the standard deviation of the
    training target in its own units.
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
        test_fraction: T / (N + T) in (0, 1), rounded to whole rows.
        device: of the results.

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
    for the next order. Features ``[S, N, F]`` and target ``[S, N]`` become pairs ``[S, B, F]`` and
    ``[S, B]``, B = ``batch_size`` <= N; a ``generator`` is on the device of the data.

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
    # Rounding of the mean leaves constant columns a tiny deviation, so scale == 0 does not tell.
    return values.mean(1, keepdim=True), torch.where(constant, torch.ones_like(scale), scale)


def _read_folder(folder: Path, target: str | int | None) -> Table:
    if target is not None:
        raise ValueError(
            f"read_table: target must be None, for {folder} names it in {_TARGET}; got {target!r}"
        )
    for name in (_DATA, _FEATURES, _TARGET):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"read_table: the folder {folder} must hold {name}")
    cells = _read_cells(folder / _DATA)[1]
    features = _column_numbers(folder / _FEATURES, cells.shape[1])
    targets = _column_numbers(folder / _TARGET, cells.shape[1])
    if not features:
        raise ValueError(f"read_table: {folder / _FEATURES} must name a column, it is empty")
    if len(targets) != 1:
        raise ValueError(f"read_table: {folder / _TARGET} must name one column, got {targets}")
    return Table(folder.name, cells[:, features], cells[:, targets[0]])


def _read_cells(path: Path) -> tuple[list[str], Tensor]:
    """Names of the columns (numbers, without a header) and all cells ``[N, C]``."""
    lines = [
        (number, line)
        for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1)
        if line.strip()
    ]
    if not lines:
        raise ValueError(f"read_table: {path} is empty")
    separator = next((mark for mark in ",;\t" if mark in lines[0][1].strip()), None)
    rows = [(number, _split(line, separator)) for number, line in lines]
    names = [str(i) for i in range(len(rows[0][1]))]
    if not any(_is_number(cell) for cell in rows[0][1]):
        names = rows.pop(0)[1]
    if not rows:
        raise ValueError(f"read_table: {path} has a header and no rows")
    values = [_numbers(path, number, cells, names) for number, cells in rows]
    return names, torch.tensor(values, dtype=torch.float64)


def _split(line: str, separator: str | None) -> list[str]:
    cells = line.split() if separator is None else next(csv.reader([line], delimiter=separator))
    return [cell.strip() for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _numbers(path: Path, line: int, cells: list[str], names: list[str]) -> list[float]:
    if len(cells) != len(names):
        raise ValueError(
            f"read_table: {path}, line {line}: expected {len(names)} cells, got {len(cells)}"
        )
    for name, cell in zip(names, cells, strict=True):
        where = f"read_table: {path}, line {line}, column {name}"
        if cell.lower() in _MISSING:
            raise ValueError(
                f"{where}: the value is missing ({cell!r}); fill it in or drop the row"
            )
        if not _is_number(cell) or not math.isfinite(float(cell)):
            raise ValueError(f"{where}: expected a finite number, got {cell!r}")
    return [float(cell) for cell in cells]


def _target_column(path: Path, names: list[str], target: str | int) -> int:
    if isinstance(target, str):
        if target not in names:
            raise ValueError(f"read_table: target must be one of {names} in {path}, got {target!r}")
        return names.index(target)
    count = len(names)
    check_count(f"read_table, {path}", at_least=-count, at_most=count - 1, target=target)
    return target % len(names)


def _column_numbers(path: Path, columns: int) -> list[int]:
    numbers = []
    for word in path.read_text().split():
        # Some of the published sets write 0.0 for 0.
        if not _is_number(word) or float(word) not in range(columns):
            raise ValueError(
                f"read_table: {path} must hold column numbers from 0 to {columns - 1}, got {word!r}"
            )
        numbers.append(int(float(word)))
    return numbers
