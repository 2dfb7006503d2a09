"""What tests of resumed runs share."""

import os
import signal
from pathlib import Path


def scalars(directory):
    """Every number that a run has logged but times: {(name, step): text}."""
    folder = Path(directory) / "metrics" / "scalars"
    return {
        (name, int(step)): value
        for path in folder.rglob("*.csv")
        if not (name := str(path.relative_to(folder))).startswith("time")
        for step, value in (line.split(",") for line in _lines(path.read_text()))
    }


def _lines(text):
    # A killed process may leave half a line.
    return text[: text.rfind("\n") + 1].split()


def check_the_rest(straight, resumed, step):
    """Both directories have the same numbers after ``step``, and there are some of each name."""
    expected = {key: value for key, value in scalars(straight).items() if key[1] > step}
    assert scalars(resumed) == expected
    assert {name for name, _ in expected} == {name for name, _ in scalars(straight)}


def interrupt_at(monkeypatch, owner, name, call):
    """Ctrl-C during one call of a method."""
    method, calls = getattr(owner, name), []

    def watched(*args, **kwargs):
        calls.append(1)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return method(*args, **kwargs)

    monkeypatch.setattr(owner, name, watched)
