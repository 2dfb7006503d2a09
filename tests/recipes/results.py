"""What runs leave in their directories, for tests."""

import hashlib
import json


def scalars(directory, kind=""):
    """Every number that a run has logged but times: {(name, step): text}."""
    folder = directory / "metrics" / "scalars"
    return {
        (name, int(step)): value
        for path in (folder / kind).rglob("*.csv")
        if not (name := str(path.relative_to(folder).with_suffix(""))).startswith("time")
        for step, value in (line.split(",") for line in _lines(path.read_text()))
    }


def curve(directory, name):
    """Numbers by step, in the order in which they were logged."""
    lines = (directory / "metrics" / "scalars" / f"{name}.csv").read_text().split()
    return [(int(step), float(value)) for step, value in (line.split(",") for line in lines)]


def values(directory, name):
    return [value for _, value in curve(directory, name)]


def read(directory, name):
    """A JSON file of a run."""
    return json.loads((directory / name).read_text())


def checkpoints(directory):
    """Complete ones, oldest first."""
    found = (directory / "checkpoints").iterdir()
    return sorted(path for path in found if not path.name.startswith("."))


def step_of(checkpoint):
    return int(checkpoint.name.split("-")[1])


def forge(checkpoint, change):
    """Changes a manifest as one who knows how to make its checksum."""
    path = checkpoint / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]
    change(manifest)
    content = json.dumps(manifest, sort_keys=True).encode()
    path.write_text(json.dumps(manifest | {"sha256": hashlib.sha256(content).hexdigest()}))


def _lines(text):
    # A killed process may leave half a line.
    return text[: text.rfind("\n") + 1].split()
