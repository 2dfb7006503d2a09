"""Imports go one way: functional <- kernels <- modules <- objectives <- runs <- recipes.

`regression` builds on objectives and is used by recipes alone. `comparison` reads files that runs
wrote, needs none of the others, and is used by recipes alone too.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "torchrl_stein"

# Which of our folders a folder may import, besides itself. `envs` uses `functional` at most.
MAY_IMPORT = {
    "functional": set(),
    "kernels": {"functional"},
    "modules": {"functional", "kernels"},
    "objectives": {"functional", "kernels", "modules"},
    "regression": {"functional", "kernels", "modules", "objectives"},
    "envs": {"functional"},
    "runs": {"functional", "kernels", "modules", "objectives", "envs"},
    "testing": {"functional", "kernels", "envs"},
    "comparison": set(),
}
# Nothing but the tests themselves may depend on these.
NOBODY_IMPORTS = {"recipes", "tests", "benchmarks"}
# What every folder may use: they stand below all of them.
FOUNDATION = {"_checks", "_torchrl", "products"}
# The top re-exports names; recipes use everything that ships but the test classes.
TOP_MAY_IMPORT = set(MAY_IMPORT) - {"testing", "runs", "regression", "comparison"}
RECIPES_MAY_IMPORT = set(MAY_IMPORT) - {"testing"}


def imported_modules(source, package):
    """Full names of all modules that a file imports, also inside functions.

    ``package`` is the package the file lies in, as a list, for relative imports. Of
    ``from a import b`` both ``a`` and ``a.b`` are listed: b may be a module.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(base + (node.module.split(".") if node.module else []))
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def violations(source, package, allowed):
    """Imports of our own code that ``allowed`` (folders of the package) does not contain."""
    own = package[1] if len(package) > 1 else None
    bad = set()
    for name in imported_modules(source, package):
        parts = name.split(".")
        if parts[0] in NOBODY_IMPORTS:
            bad.add(name)
        elif parts[0] == PACKAGE:
            folder = parts[1] if len(parts) > 1 else None
            is_folder = folder in MAY_IMPORT
            if is_folder and folder != own and folder not in allowed:
                bad.add(name)
            # From inside, names come from their folder: the top imports all the others.
            if own in MAY_IMPORT and not is_folder and folder not in {None, *FOUNDATION}:
                bad.add(name)
    return sorted(bad)


def files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def package_of(path):
    return list(path.relative_to(ROOT).parent.parts)


PACKAGE_FILES = files(PACKAGE)
assert PACKAGE_FILES, "no source files found: did a folder move?"


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_package_imports_go_one_way(path):
    package = package_of(path)
    allowed = TOP_MAY_IMPORT if len(package) == 1 else MAY_IMPORT[package[1]]
    assert violations(path.read_text(), package, allowed) == []


@pytest.mark.parametrize("path", files("recipes"), ids=lambda p: str(p.relative_to(ROOT)))
def test_recipes_import_the_library_only(path):
    # Each recipe stands alone: it imports no other recipe, no test, no test class.
    assert violations(path.read_text(), ["recipes"], RECIPES_MAY_IMPORT) == []


def test_every_folder_has_its_arrows():
    folders = {p.parent.name for p in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert folders <= set(MAY_IMPORT), "say in MAY_IMPORT what the new folder may import"


@pytest.mark.parametrize("path", files(f"{PACKAGE}/functional"), ids=lambda p: p.name)
def test_functional_imports_torch_and_the_standard_library_only(path):
    roots = {name.split(".")[0] for name in imported_modules(path.read_text(), package_of(path))}
    assert roots <= {"torch", PACKAGE} | set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("source", "bad"),
    [
        ("from torchrl_stein.objectives import SoftQLoss", True),
        ("from torchrl_stein import objectives", True),
        ("import torchrl_stein.objectives.soft_q as s", True),
        ("from ..objectives import SoftQLoss", True),
        ("from .. import objectives", True),
        ("def f():\n    from torchrl_stein.envs import MultiGoalEnv", True),
        ("import recipes.soft_q", True),
        ("from torchrl_stein.testing import KernelContract", True),
        ("from torchrl_stein import SoftQLoss", True),
        ("from torchrl_stein._checks import check_count", False),
        ("from torchrl_stein.functional import soft_value", False),
        ("from ..functional import soft_value", False),
        ("from .base import Kernel", False),
        ("from . import base", False),
        ("import torch, math", False),
    ],
)
def test_the_check_itself(source, bad):
    # As if written in torchrl_stein/kernels.
    assert bool(violations(source, [PACKAGE, "kernels"], MAY_IMPORT["kernels"])) is bad
