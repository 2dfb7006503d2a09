"""What the tests of all recipes need."""

import importlib
import sys

import pytest

from tests.recipes.processes import RECIPES, ROOT, start


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """Small runs that came to their end, each made when it is first asked for.

    ``finished("soft_q", "seed=1")`` is its process; its results are in ``directory``.
    """
    processes = {}

    def find(name, *overrides):
        key = name, *overrides
        if key not in processes:
            processes[key] = start(tmp_path_factory.mktemp(name), name, *overrides).succeeded()
        return processes[key]

    return find


@pytest.fixture
def evaluate(monkeypatch):
    """The module recipes/evaluate.py, which imports the recipe of a checkpoint by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    for name in (*RECIPES, "evaluate"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module("evaluate")
    for name in (*RECIPES, "evaluate"):
        sys.modules.pop(name, None)
