"""What the tests of all recipes need."""

import importlib
import sys

import pytest

from tests.recipes.processes import RECIPES, ROOT


@pytest.fixture
def evaluate(monkeypatch):
    """The module recipes/evaluate.py, which imports the recipe of a checkpoint by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    for name in (*RECIPES, "evaluate"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("evaluate")
    for name in (*RECIPES, "evaluate"):
        sys.modules.pop(name, None)
