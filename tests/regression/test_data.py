"""Reading tables: layouts, targets, and what each error says."""

import pytest
import torch

from torchrl_stein.regression import diabetes_table, read_table

ROWS = [[1.0, 2.0, 30.0], [4.0, 5.0, 60.0], [7.0, 8.0, 90.0]]


def write(path, text):
    path.write_text(text)
    return path


def uci_folder(path, data="1 2 30\n4 5 60\n7 8 90\n", features="0\n1\n", target="2\n"):
    path.mkdir()
    (path / "data.txt").write_text(data)
    (path / "index_features.txt").write_text(features)
    (path / "index_target.txt").write_text(target)
    return path


def check(table, name="t"):
    assert table.name == name
    assert table.features.dtype == table.target.dtype == torch.float64
    assert table.features.tolist() == [row[:2] for row in ROWS]
    assert table.target.tolist() == [row[2] for row in ROWS]


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "   "])
@pytest.mark.parametrize("header", [True, False])
def test_a_file_with_any_separator_with_and_without_a_header(tmp_path, separator, header):
    lines = [separator.join(map(str, row)) for row in ROWS]
    if header:
        lines.insert(0, separator.join(["a", "b", "y"]))
    check(read_table(write(tmp_path / "t.csv", "\n".join(lines) + "\n\n")))


def test_quoted_names_and_a_byte_order_mark(tmp_path):
    text = '\ufeff"fixed acidity";"b";"y"\n1;2;30\n4;5;60\n7;8;90\n'
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    check(read_table(tmp_path / "t.csv"))
    assert read_table(tmp_path / "t.csv", "fixed acidity").target.tolist() == [1.0, 4.0, 7.0]


@pytest.mark.parametrize("target", ["b", 1, -2])
def test_the_target_by_name_and_number(tmp_path, target):
    table = read_table(write(tmp_path / "t.csv", "a,b,c\n1,2,3\n4,5,6\n"), target)
    assert table.target.tolist() == [2.0, 5.0]
    assert table.features.tolist() == [[1.0, 3.0], [4.0, 6.0]]


def test_a_folder_of_the_uci_layout(tmp_path):
    check(read_table(uci_folder(tmp_path / "t")))
    # Column numbers as some of the sets write them, and in an order of their own.
    folder = uci_folder(tmp_path / "other", features="1.000000e+00\n0.0\n")
    assert read_table(str(folder)).features.tolist() == [[2.0, 1.0], [5.0, 4.0], [8.0, 7.0]]


def test_the_bundled_data():
    table = diabetes_table()
    assert table.features.shape == (442, 10)
    assert table.features[0, 0] == 59.0  # age in years: not the centred version
    assert (table.target.min().item(), table.target.max().item()) == (25.0, 346.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "t.csv is empty"),
        ("a,b\n", "has a header and no rows"),
        ("a,y\n1,2\n3,x\n", "line 3, column y: expected a finite number, got 'x'"),
        ("1,2\n\n3,4\n5,inf\n", "line 4, column 1: expected a finite number, got 'inf'"),
        ("a,y\n1,2\n,4\n", r"line 3, column a: the value is missing \(''\)"),
        ("a,y\n1,2\n3,NaN\n", r"line 3, column y: the value is missing \('NaN'\)"),
        ("1,2\n?,4\n", r"line 2, column 0: the value is missing \('\?'\)"),
        ("a,1,2\n1,2,3\n", "line 1, column 0: expected a finite number, got 'a'"),
        ("a,y\n1,2\n3\n", "line 3: expected 2 cells, got 1"),
        ("y\n1\n2\n", "must have a feature besides the target"),
    ],
)
def test_bad_files(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path / "t.csv", text))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("z", r"target must be one of \['a', 'y'\] in .*t.csv, got 'z'"),
        (2, "read_table, .*t.csv: target must be >= -2 and <= 1, got 2"),
        (-3, "read_table, .*t.csv: target must be >= -2 and <= 1, got -3"),
    ],
)
def test_a_target_that_is_not_there(tmp_path, target, message):
    with pytest.raises(ValueError, match=message):
        read_table(write(tmp_path / "t.csv", "a,y\n1,2\n"), target)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"features": "0 3"}, "index_features.txt must hold column numbers from 0 to 2, got '3'"),
        ({"features": "0 0.5"}, "must hold column numbers from 0 to 2, got '0.5'"),
        ({"features": "zero"}, "must hold column numbers from 0 to 2, got 'zero'"),
        ({"features": ""}, "index_features.txt must name a column, it is empty"),
        ({"target": "1 2"}, r"index_target.txt must name one column, got \[1, 2\]"),
    ],
)
def test_bad_folders(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        read_table(uci_folder(tmp_path / "t", **files))


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path must be a file or a folder, got .*nowhere"):
        read_table(tmp_path / "nowhere")
    folder = uci_folder(tmp_path / "t")
    with pytest.raises(ValueError, match=r"target must be None, for .* index_target.txt; got 'y'"):
        read_table(folder, "y")
    (folder / "index_target.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"must hold index_target.txt"):
        read_table(folder)
