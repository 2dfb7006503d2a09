"""Tables of numbers on disk, for regression."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from torchrl_stein._checks import check_count

__all__ = ["Table", "diabetes_table", "read_table"]

_DATA, _FEATURES, _TARGET = "data.txt", "index_features.txt", "index_target.txt"
_MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}


class Table(NamedTuple):
    """Rows of features and one number to predict from each.

    Attributes:
        name: what the data are called.
        features: ``[N, F]``, float64, in the units of the file.
        target: ``[N]``, float64, likewise.

    Example:
        >>> Table("line", torch.tensor([[0.0], [1.0]]), torch.tensor([2.0, 4.0])).features.shape
        torch.Size([2, 1])
    """

    name: str
    features: Tensor
    target: Tensor


def diabetes_table() -> Table:
    """Disease progression of 442 patients from 10 measurements: data that need no download.

    Raises:
        ModuleNotFoundError: without scikit-learn, which is part of the extra ``recipes``.

    Source: Efron et al. 2004, Least Angle Regression, as bundled with scikit-learn.

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
    and target in ``index_features.txt`` and ``index_target.txt``. Empty lines are skipped.

    Args:
        path: of the file or the folder.
        target: column of a file to predict: its name in the header, or its number, from 0 or,
            if negative, from the end. None is the last one; all others are features. A folder
            names its own.

    Returns:
        Table: in double precision, named after the file or folder.

    Raises:
        TypeError: if ``target`` is neither a name nor a number.
        FileNotFoundError: if ``path``, or a file that a folder needs, is not there.
        ValueError: naming file, line and column, if a cell is missing, no finite number, or a
            line has another number of cells than the first; if there are no rows or no features,
            a column does not exist, or ``target`` is given with a folder.

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
