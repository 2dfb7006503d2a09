"""Modules of benchmarks: all can be imported, and those that pages and texts name are there."""

import importlib
import importlib.util
import re

import pytest

pytest.importorskip("hydra")
pytest.importorskip("matplotlib")

from benchmarks import ROOT

FILES = sorted((ROOT / "benchmarks").rglob("*.py"))
PAGES = [page for folder in ("docs", "benchmarks") for page in (ROOT / folder).rglob("*.md")]
TEXTS = [*FILES, *ROOT.glob("*.md"), *PAGES, ROOT / "Makefile"]
HISTORY = {ROOT / "CHANGELOG.md"}


def test_every_module_can_be_imported():
    for path in FILES:
        if path.name != "__main__.py":
            parts = path.relative_to(ROOT).with_suffix("").parts
            try:
                importlib.import_module(".".join(parts).removesuffix(".__init__"))
            except ModuleNotFoundError as error:  # a peer of the extra bench
                if error.name not in {"jax", "optax"}:
                    raise


def test_every_module_that_is_named_exists():
    named = {
        (path.name, name)
        for path in TEXTS
        if path not in HISTORY
        for name in re.findall(r"-m (benchmarks\.[a-z0-9_.]*[a-z0-9])", path.read_text())
    }
    assert len(named) > 10
    assert [pair for pair in named if importlib.util.find_spec(pair[1]) is None] == []


def test_every_path_that_is_named_exists():
    named = {
        (path.name, name)
        for path in TEXTS
        if path not in HISTORY
        for name in re.findall(r"benchmarks/[a-z0-9_/]+\.(?:py|md|json)\b", path.read_text())
    }
    assert len(named) > 5
    assert [pair for pair in named if not (ROOT / pair[1]).exists()] == []
