"""``__all__``, documentation and examples agree."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = sorted(p.parent.name for p in (ROOT / "torchrl_stein").glob("*/__init__.py"))
PACKAGES = ["torchrl_stein", *(f"torchrl_stein.{folder}" for folder in FOLDERS)]
assert "functional" in FOLDERS, "no packages found: did a folder move?"

# Type aliases and constants: documented by the string below them, which leaves no trace at run
# time. Everything else needs a docstring with an example.
PAGES = ROOT / "docs" / "reference" / "api"
NO_DOCSTRING = {
    "torchrl_stein.kernels.BandwidthRule",
}
# What stands around a loop is shown by the recipes, and tested in tests/runs.
SHOWN_BY_RECIPES = {"torchrl_stein.runs"}


def public_names():
    for package in PACKAGES:
        for name in getattr(importlib.import_module(package), "__all__", []):
            yield package, name


def sort_key(name):
    """Constants, classes, functions, each in alphabetical order; what the linter wants too."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name


@pytest.mark.parametrize("package", PACKAGES)
def test_all_exists_sorted_and_without_doubles(package):
    names = importlib.import_module(package).__all__
    assert list(names) == sorted(set(names), key=sort_key)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_can_be_imported(package):
    module = importlib.import_module(package)
    missing = [name for name in module.__all__ if not hasattr(module, name)]
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_have_a_docstring(package):
    assert importlib.import_module(package).__doc__


@pytest.mark.parametrize(("package", "name"), list(public_names()))
def test_every_name_has_a_docstring_with_an_example(package, name):
    if f"{package}.{name}" in NO_DOCSTRING or package in SHOWN_BY_RECIPES:
        return
    thing = getattr(importlib.import_module(package), name)
    if inspect.ismodule(thing):
        assert thing.__doc__
        return
    doc = thing.__dict__.get("__doc__") if inspect.isclass(thing) else inspect.getdoc(thing)
    assert doc, f"{name} has no docstring of its own"
    assert ">>>" in doc, f"the docstring of {name} has no example"


@pytest.mark.parametrize(("package", "name"), list(public_names()))
def test_names_are_exported_from_one_folder_only(package, name):
    thing = getattr(importlib.import_module(package), name)
    if package == "torchrl_stein" or not hasattr(thing, "__module__"):
        return
    assert thing.__module__.startswith(package) or f"{package}.{name}" in NO_DOCSTRING


def test_exempt_names_exist():
    assert {f"{p}.{n}" for p, n in public_names()} >= NO_DOCSTRING


@pytest.mark.parametrize("folder", FOLDERS)
def test_documented_in_the_interface_pages(folder):
    # automodule with :members: covers exactly the names of __all__.
    text = "\n".join(page.read_text() for page in PAGES.glob("*.md"))
    found = re.search(rf"automodule:: torchrl_stein\.{folder}\s*\n((?:\s+:.*\n)*)", text + "\n")
    assert found, f"no automodule line for torchrl_stein.{folder} in docs/reference/api"
    assert ":members:" in found.group(1)


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda p: p.name)
def test_interface_pages_name_packages_that_exist(page):
    for name in re.findall(r"automodule:: (\S+)", page.read_text()):
        importlib.import_module(name)
