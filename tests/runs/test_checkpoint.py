"""Checkpoints: what comes back is what went in, to the bit, or one line that says why not."""

import errno
import io
import json
import os
import pickle
import random
import resource
import shutil
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tensordict
import torch
from tensordict import NonTensorData, TensorDict
from torch import nn
from torchrl.checkpoint import GlobalRNGState

from torchrl_stein.runs import checkpoint as module
from torchrl_stein.runs.checkpoint import (
    CheckpointError,
    Checkpoints,
    find_checkpoint,
    load_checkpoint,
    load_component,
    read_component,
    read_manifest,
    write_json,
)

CONFIG = {"recipe": "soft_q", "network": {"num_cells": [8]}, "resume": None}


def parts(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    optim = torch.optim.Adam(net.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optim, 1.0, 0.1, total_iters=9)
    return {"loss": net, "optim": optim, "schedule": schedule, "rng": GlobalRNGState()}


def learn(found, steps):
    for _ in range(steps):
        found["loss"](torch.randn(5, 3)).square().mean().backward()
        found["optim"].step()
        found["optim"].zero_grad()
        found["schedule"].step()


def states(found):
    return {name: dict(part.state_dict()) for name, part in found.items() if name != "rng"}


def save(folder, found=None, step=1, **options):
    return Checkpoints(folder / "checkpoints", CONFIG).save(step, found or parts(), **options)


def test_training_goes_on_to_the_bit(tmp_path, same, copied):
    found = parts()
    learn(found, 4)
    path, at_save = save(tmp_path, found), copied(states(found))
    learn(found, 3)
    further = torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002

    other = parts(seed=9)
    np.random.seed(3)  # noqa: NPY002
    manifest = load_checkpoint(path, other)
    same(states(other), at_save)
    learn(other, 3)
    same(states(other), states(found))
    assert torch.rand(3).equal(further[0])
    assert (np.random.rand(3) == further[1]).all()  # noqa: NPY002
    assert random.random() == further[2]
    assert (manifest["config"], manifest["step"], manifest["notes"]) == (CONFIG, 1, {})


def test_one_component_alone(tmp_path, same):
    found = parts()
    path = save(tmp_path, found, returns=[1.0, 2.0])
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    draws = torch.get_rng_state()
    load_component(tmp_path, "loss", other)
    assert torch.get_rng_state().equal(draws)
    same(dict(other.state_dict()), dict(found["loss"].state_dict()))
    assert read_manifest(path)["notes"] == {"returns": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"holds no buffer, only \['loss', 'optim', 'rng', 'sch"):
        read_component(path, "buffer")


# damage


def files_of(path):
    return sorted(file.name for file in path.iterdir())


def test_every_flipped_bit_is_seen(tmp_path):
    """In every file, at places all over it, and not only in the numbers."""
    good = save(tmp_path)
    tried = 0
    for name in files_of(good):
        content = (good / name).read_bytes()
        places = sorted({0, len(content) - 1, *range(0, len(content), max(1, len(content) // 60))})
        for place in places:
            for bit in (0, 6) if name == "manifest.json" else (place % 8,):
                broken = bytearray(content)
                broken[place] ^= 1 << bit
                (good / name).write_bytes(broken)
                try:
                    manifest = load_checkpoint(good, parts())
                except CheckpointError as error:
                    assert str(good / name) in str(error)  # noqa: PT017
                    assert "\n" not in str(error)  # noqa: PT017
                else:  # a space that became another
                    assert name == "manifest.json"
                    assert manifest["config"] == CONFIG
                tried += 1
        (good / name).write_bytes(content)
    assert tried > 300
    load_checkpoint(good, parts())


@pytest.mark.parametrize("name", ["loss.pt", "optim.pt", "schedule.pt", "rng.pt"])
@pytest.mark.parametrize("how", ["missing", "empty", "half", "longer", "another", "folder"])
def test_a_damaged_file_is_named_and_another_checkpoint_too(tmp_path, name, how, same, copied):
    checkpoints = Checkpoints(tmp_path / "checkpoints", CONFIG)
    older = checkpoints.save(1, parts(1))
    path = checkpoints.save(2, parts(2))
    content = (path / name).read_bytes()
    (path / name).unlink()
    if how == "empty":
        (path / name).write_bytes(b"")
    elif how == "half":
        (path / name).write_bytes(content[: len(content) // 2])
    elif how == "longer":
        (path / name).write_bytes(content + b"\0")
    elif how == "another":
        shutil.copy(older / name, path / name)
        if (path / name).read_bytes() == content:  # a schedule that has not begun is the same
            return
    elif how == "folder":
        (path / name).mkdir()
    here = parts(3)
    before = copied(states(here))
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path, here)
    assert str(error.value).startswith(f"the checkpoint is damaged: {path / name}: ")
    assert str(error.value).endswith(f"; another checkpoint is {older}")
    same(states(here), before)  # nothing was loaded
    load_checkpoint(older, here)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"3",
        b'"format"',
        b"\xff\xfe",
        b'{"format": 2}',
        b'{"format": 2, "sha256": null}',
        b"[" * 100_000,
    ],
)
def test_a_manifest_that_is_none(tmp_path, content):
    path = save(tmp_path)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"damaged: {path}/manifest.json: it is not what"):
        read_manifest(path)


def rewritten(path, **changes):
    """A manifest as a stranger may write it, with the checksum that fits."""
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    del manifest["sha256"]
    manifest["sha256"] = module._digest(module._canonical(manifest))
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "changes",
    [
        {"config": "x"},
        {"config": None},
        {"config": []},
        {"notes": 3},
        {"files": []},
        {"step": "1"},
        {"eval_return": "high"},
        {"eval_return": [1]},
    ],
    ids=str,
)
def test_a_manifest_of_a_stranger_has_the_types_of_ours(tmp_path, changes):
    path = save(tmp_path)
    rewritten(path, **changes)
    with pytest.raises(CheckpointError, match="it is not what was written"):
        read_manifest(path)
    # One that cannot be read is nobody's best, and no reason to stop.
    Checkpoints(tmp_path / "checkpoints", CONFIG).save(2, parts(), 1.0)
    assert find_checkpoint(tmp_path / "best").name.endswith("2")


@pytest.mark.parametrize("version", [1, 3, "2", "torchrl"])
def test_another_format_is_named(tmp_path, version):
    path = save(tmp_path)
    rewritten(path, format=version)
    with pytest.raises(
        CheckpointError, match=f"has format {version!r}, this version of .* reads 2"
    ):
        read_manifest(path)


# what a stranger may put there


class Plain:
    pass


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def with_file(path, name, content):
    """A checkpoint with another file, and a manifest that it fits."""
    (path / name).write_bytes(content)
    files = json.loads((path / "manifest.json").read_text())["files"]
    rewritten(path, files=files | {name: {"sha256": module._digest(content), "bytes": 0}})


def test_pickles_are_refused_and_not_run(tmp_path):
    path, mark = save(tmp_path), tmp_path / "mark"
    archive = io.BytesIO()
    torch.save({"0.weight": Payload(mark)}, archive)
    for content in (pickle.dumps(Payload(mark)), archive.getvalue(), b"no archive", b""):
        with_file(path, "loss.pt", content)
        for load in (
            lambda: read_component(path, "loss"),
            lambda: load_component(path, "loss", parts()["loss"]),
            lambda: load_checkpoint(path, parts()),
        ):
            with pytest.raises(CheckpointError, match=r"loss.pt: it holds more than tensors"):
                load()
    assert not mark.exists()


def test_the_folder_of_a_tensordict_is_no_state(tmp_path):
    """Where ``state.pt`` was missing, torchrl.checkpoint read such a folder, with its pickles."""
    path, mark = save(tmp_path), tmp_path / "mark"
    for name in ("loss.pt", "loss", "state"):
        (path / name).unlink(missing_ok=True)
        content = TensorDict({"a": torch.zeros(1), "x": NonTensorData(Plain())}, [])
        tensordict.save(content, path / name)
        for file in (path / name).rglob("other.pickle"):
            file.write_bytes(pickle.dumps(Payload(mark)))
    with pytest.raises(CheckpointError, match=r"loss.pt: Is a directory"):
        load_checkpoint(path, parts())
    assert not mark.exists()


@pytest.mark.parametrize(
    "state", [3, None, [], {}, {"0.weight": 3}, {"0": {"weight": 1}}], ids=repr
)
@pytest.mark.parametrize("name", ["loss", "optim", "rng"])
def test_a_state_of_another_form_is_one_line(tmp_path, name, state):
    path = save(tmp_path)
    archive = io.BytesIO()
    torch.save(state, archive)
    with_file(path, f"{name}.pt", archive.getvalue())
    with pytest.raises(
        CheckpointError, match=f"{name} of .*(does not fit|another architecture)"
    ) as e:
        load_checkpoint(path, parts())
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b"])
def test_names_of_files_lead_nowhere(tmp_path, name):
    path = save(tmp_path)
    files = json.loads((path / "manifest.json").read_text())["files"]
    rewritten(path, files=files | {f"{name}.pt": files["loss.pt"]})
    load_checkpoint(path, parts())  # only what is asked for is opened


# other architectures


def net(*sizes, dtype=torch.float32):
    layers = [nn.Linear(a, b, dtype=dtype) for a, b in pairwise(sizes)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("saved", "here", "difference"),
    [
        (
            net(2, 8, 2),
            net(2, 9, 2),
            "0.bias is [8] torch.float32 there and [9] torch.float32 here",
        ),
        (net(2, 8), net(2, 8, 2), "1.bias is absent there and [2] torch.float32 here"),
        (net(2, 8, 2), net(2, 8), "1.bias is [2] torch.float32 there and absent here"),
        (net(2, 8), net(2, 8, dtype=torch.float64), "is [8] torch.float32 there and [8] torch.flo"),
    ],
    ids=["wider", "deeper", "shallower", "double"],
)
def test_another_architecture_is_refused(tmp_path, saved, here, difference, same, copied):
    path = save(tmp_path, {"loss": saved})
    before = copied(dict(here.state_dict()))
    for load in (
        lambda: load_component(path, "loss", here),
        lambda: load_checkpoint(path, {"loss": here}),
    ):
        with pytest.raises(CheckpointError) as error:
            load()
        assert str(error.value).startswith(f"loss of {path} was made by another architecture: ")
        assert difference in str(error.value)
    same(dict(here.state_dict()), before)


def test_a_component_that_was_not_saved(tmp_path):
    path = save(tmp_path, {"loss": net(2, 2)})
    with pytest.raises(ValueError, match=r"holds no optim, only \['loss'\]"):
        load_checkpoint(path, parts())


# which ones there are


def linear(folder):
    checkpoints, layer = Checkpoints(folder / "checkpoints", CONFIG), {"loss": nn.Linear(2, 1)}
    return lambda step, value=None: checkpoints.save(step, layer, value)


def test_a_run_stands_for_its_newest_checkpoint(tmp_path):
    save = linear(tmp_path)
    first, second = save(900), save(1000)
    assert find_checkpoint(tmp_path) == find_checkpoint(str(tmp_path)) == second
    assert find_checkpoint(first) == first


def test_only_the_last_two_and_the_best_are_kept(tmp_path):
    save = linear(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"no evaluated checkpoint at {tmp_path}$"):
        find_checkpoint(tmp_path / "best")
    # None: not evaluated since the one before.
    returns = [None, -3.0, float("nan"), -1.0, None, float("-inf"), -2.0, -5.0]
    paths = [save(step, value) for step, value in enumerate(returns)]
    assert [path.exists() for path in paths] == [False] * 3 + [True] + [False] * 2 + [True] * 2
    assert find_checkpoint(tmp_path / "best") == paths[3]
    assert find_checkpoint(tmp_path) == paths[-1]
    assert read_manifest(tmp_path / "best")["eval_return"] == -1.0
    assert find_checkpoint(str(tmp_path / "best")) == paths[3]
    better = save(8, 0.5)
    assert find_checkpoint(tmp_path / "best") == better
    assert not paths[3].exists()
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {paths[-1].name, better.name}


def test_a_run_may_be_called_best(tmp_path):
    path = linear(tmp_path / "best")(1)
    assert find_checkpoint(tmp_path / "best") == find_checkpoint(path) == path


def test_a_step_is_written_once(tmp_path):
    save = linear(tmp_path)
    path = save(10)
    before = (path / "manifest.json").read_bytes()
    assert save(10, 5.0) == path
    assert (path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("what", ["missing", "empty", "run_without_any", "file"])
def test_a_path_without_a_checkpoint_is_named(tmp_path, what):
    path = tmp_path / what
    if what == "file":
        path.write_text("")
    elif what != "missing":
        path.mkdir()
    if what == "run_without_any":
        (path / "checkpoints" / "checkpoint-000000000001").mkdir(parents=True)
    for use in (
        find_checkpoint,
        read_manifest,
        lambda p: read_component(p, "loss"),
        lambda p: load_component(p, "loss", nn.Linear(2, 1)),
    ):
        with pytest.raises(FileNotFoundError, match=f"no checkpoint at {path}"):
            use(path)


def test_what_a_killed_process_left_is_ignored(tmp_path):
    save = linear(tmp_path)
    good = save(1)
    for name in ("-4711", "-removed"):
        shutil.copytree(good, good.parent / f".checkpoint-000000000009{name}")
    (good.parent / "checkpoint-000000000008").mkdir()  # without a manifest
    assert find_checkpoint(tmp_path) == good
    assert find_checkpoint(save(2)).name.endswith("2")
    assert find_checkpoint(tmp_path).name.endswith("2")


# whole or not at all


class Broken(nn.Linear):
    """A component that cannot be written while it has an error."""

    error = None

    def state_dict(self, *args, **kwargs):
        if self.error is not None:
            raise self.error
        return super().state_dict(*args, **kwargs)


def test_a_full_disk(tmp_path):
    part = Broken(1, 1)
    checkpoints = Checkpoints(tmp_path / "checkpoints", CONFIG)
    full = OSError(errno.ENOSPC, "No space left on device")
    found = {"loss": nn.Linear(1, 1), "z": part}
    part.error = full
    words = f"^cannot write a checkpoint to {tmp_path}/checkpoints: No space left on device"
    with pytest.raises(OSError, match=words + "; there is none yet$"):
        checkpoints.save(1, found)
    part.error = None
    good = checkpoints.save(2, found)
    part.error = full
    with pytest.raises(OSError, match=f"{words}; once it can be written, .*: resume={good}$"):
        checkpoints.save(3, found)
    assert list((tmp_path / "checkpoints").iterdir()) == [good]  # the part is gone
    part.error = None
    assert checkpoints.save(3, found).exists()
    part.error = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        checkpoints.save(4, found)


@contextmanager
def largest_file(size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 100, 3000, 30_000])
def test_files_that_may_not_grow(tmp_path, size):
    """The error comes out of torch.save, which hides it behind another."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", CONFIG)
    found = {"loss": nn.Linear(100, 100)}
    good = checkpoints.save(1, found)
    with (
        largest_file(size),
        pytest.raises(OSError, match=r"cannot write a .*: File too large; once"),
    ):
        checkpoints.save(2, found)
    assert list((tmp_path / "checkpoints").iterdir()) == [good]
    load_checkpoint(good, found)


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    # Known before hours of training and not after them.
    with pytest.raises(OSError, match=f"cannot write a checkpoint to {tmp_path}/checkpoints: File"):
        linear(tmp_path)


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Every file, then the hidden directory; then the name, and the directory that holds it."""
    events = []
    sync, rename = os.fsync, Path.rename

    def fsync(handle):
        events.append(("sync", Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    def renamed(path, target):
        events.append(("rename", path))
        return rename(path, target)

    checkpoints = Checkpoints(tmp_path / "checkpoints", CONFIG)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", renamed)
    path = checkpoints.save(1, parts())
    hidden = events[-2][1]
    assert hidden.name.startswith(".checkpoint-")
    expected = [("sync", hidden / f"{name}.pt") for name in parts()]
    expected += [("sync", hidden / "manifest.json"), ("sync", hidden), ("rename", hidden)]
    assert events == [*expected, ("sync", path.parent)]


def test_json_appears_whole_or_not_at_all(tmp_path):
    path = write_json(tmp_path / "summary.json", {"return": -1.5})
    assert json.loads(path.read_text()) == {"return": -1.5}
    with pytest.raises(TypeError):
        write_json(path, {"return": object()})
    with largest_file(5), pytest.raises(OSError, match="File too large"):
        write_json(path, {"return": 2.0})
    assert json.loads(path.read_text()) == {"return": -1.5}
    assert list(tmp_path.iterdir()) == [path]
