"""Bars and summaries."""

import io
import re
from datetime import UTC, datetime, timedelta

import pytest

from torchrl_stein.training import Run
from torchrl_stein.training.bookkeeping.console import print_summary, progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_rate_and_remaining_time(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr("sys.stderr", Terminal())
    with progress_bar(total=1000, done=400, unit="steps") as bar:
        bar.update(100)
        bar.refresh()
        shown = str(bar)
        assert bar.n == 500
    assert "500/1.00k" in shown
    assert "50%" in shown
    assert re.search(r"\[\d\d:\d\d<.*steps/s", shown)


def test_a_log_file_does_not(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with progress_bar(total=1000) as bar:
        bar.update(100)
    import sys

    assert sys.stderr.getvalue() == ""


def test_a_summary_says_time_numbers_and_place(tmp_path, capsys):
    run = Run(tmp_path / "run", {})
    run.provenance["started"] = (datetime.now(UTC) - timedelta(seconds=185)).isoformat()
    print_summary(run, {"return": -190.66666, "goals_reached": 4.0})
    first, *metrics, last = capsys.readouterr().out.splitlines()
    assert re.fullmatch("Finished after 3 min 0[5-9] s", first)
    assert [line.split() for line in metrics] == [["return", "-190.7"], ["goals_reached", "4"]]
    assert len({len(line) for line in metrics}) == 1  # right-aligned
    assert last == f"Results: {tmp_path / 'run'}"


def test_a_summary_without_metrics(tmp_path, capsys):
    print_summary(Run(tmp_path / "run", {}), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
