"""Wheel and sdist: what is in them, and what an installation without extras can import."""

import importlib.metadata as metadata
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytest.importorskip("hatchling")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

LOOK = """
import importlib, importlib.metadata, json, sys, torchrl_stein

assert sys.argv[1] in torchrl_stein.__file__, torchrl_stein.__file__
names = [(m, n) for m in json.loads(sys.argv[2]) for n in importlib.import_module(m).__all__]
for module, name in names:
    getattr(sys.modules[module], name)
print(json.dumps([importlib.metadata.version("torchrl_stein"), len(names)]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The two files, built as pip does it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def core_distributions():
    """Names of all that an installation without extras brings."""
    found, left = set(), [Requirement(text) for text in PROJECT["dependencies"]]
    while left:
        requirement = left.pop()
        name = normal(requirement.name)
        known = {(name, extra) for extra in ("", *requirement.extras)}
        if known <= found:
            continue
        found |= known
        try:
            below = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another platform
            continue
        for text in below:
            own = Requirement(text)
            extras = [{"extra": extra} for extra in ("", *requirement.extras)]
            if own.marker is None or any(own.marker.evaluate(extra) for extra in extras):
                left.append(own)
    return {name for name, _ in found}


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_wheel_without_extras(built, tmp_path):
    """Every public name can be imported where nothing but the core dependencies is."""
    wheel, _ = built
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    for name in core_distributions():  # links: a copy would take gigabytes
        try:
            files = metadata.files(name) or []
        except metadata.PackageNotFoundError:
            continue
        for top in {file.parts[0] for file in files} - {"..", "__pycache__", "bin"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(metadata.distribution(name).locate_file(top))
    assert not [name for name in ("hydra", "matplotlib", "sklearn") if (packages / name).exists()]
    inits = (ROOT / "torchrl_stein").rglob("__init__.py")
    modules = sorted(".".join(init.parent.relative_to(ROOT).parts) for init in inits)
    done = subprocess.run(
        [python, "-W", "ignore", "-c", LOOK, str(tmp_path / "env"), json.dumps(modules)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    version, count = json.loads(done.stdout.splitlines()[-1])
    assert version == PROJECT["version"]
    assert count > 200


def test_what_is_in_the_files(built):
    wheel, sdist = built
    inside = zipfile.ZipFile(wheel).namelist()
    assert "torchrl_stein/py.typed" in inside
    assert not [name for name in inside if not name.startswith("torchrl_stein")]
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"recipes/soft_q.py", "recipes/conf/soft_q.yaml", "CHANGELOG.md", "LICENSE"} <= names
    assert wheel.stat().st_size + sdist.stat().st_size < 5e6


def test_one_version():
    """The changelog's newest release, the citation and the package have that of the project."""
    import torchrl_stein

    version = PROJECT["version"]
    assert torchrl_stein.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    releases = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == version
