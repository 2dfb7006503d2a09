"""Writes that fail: a clear error, and the last good checkpoint is kept."""

import errno
import io
import shutil
from pathlib import Path

import pytest
from torch import nn

from torchrl_stein.training import Checkpoints, find_checkpoint


def linear_checkpoints(directory):
    return Checkpoints(directory / "checkpoints", loss=nn.Linear(2, 1), config={}, others={})


def complete_ones(directory):
    return sorted(p for p in (directory / "checkpoints").iterdir() if not p.name.startswith("."))


class Broken:
    """A component that cannot be written."""

    def __init__(self, error):
        self.error = error

    def state_dict(self):
        if self.error is not None:
            raise self.error
        return {}

    def load_state_dict(self, state):
        pass


def test_a_full_disk(tmp_path):
    part = Broken(None)
    checkpoints = Checkpoints(
        tmp_path / "checkpoints", loss=nn.Linear(2, 1), config={}, others={"z": part}
    )
    part.error = OSError(errno.ENOSPC, "No space left on device")
    pattern = f"^cannot write a checkpoint to {tmp_path}/checkpoints: No space left on device "
    with pytest.raises(OSError, match=pattern + r"\(\d+ MiB free\); there is none yet$"):
        checkpoints.save(step=1)
    part.error = None
    good = checkpoints.save(step=2)
    part.error = OSError(errno.ENOSPC, "No space left on device")
    pattern += rf"\(\d+ MiB free\); once it can be written, go on .*: resume={good}$"
    with pytest.raises(OSError, match=pattern):
        checkpoints.save(step=3)
    assert complete_ones(tmp_path) == list((tmp_path / "checkpoints").iterdir()) == [good]
    assert find_checkpoint(tmp_path) == good
    part.error = None
    assert checkpoints.save(step=3).exists()


def test_a_full_disk_while_a_file_is_written(tmp_path, monkeypatch):
    # The error comes out of torch.save, which hides it behind another.
    class FullFile(io.FileIO):
        def write(self, data):
            if self.tell() > 500:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    checkpoints = linear_checkpoints(tmp_path)
    good = checkpoints.save(step=1)
    monkeypatch.setattr(Path, "open", lambda path, mode="r", **_: FullFile(path, mode))
    with pytest.raises(OSError, match=r"cannot write .*: No space left on device"):
        checkpoints.save(step=2)
    monkeypatch.undo()
    assert list((tmp_path / "checkpoints").iterdir()) == [good]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "checkpoints").write_text("a file")
    # Known before hours of training and not after them.
    with pytest.raises(OSError, match=f"cannot write a checkpoint to {tmp_path}/checkpoints: File"):
        linear_checkpoints(tmp_path)


def test_an_error_in_the_code_is_no_full_disk(tmp_path):
    checkpoints = Checkpoints(
        tmp_path, loss=nn.Linear(2, 1), config={}, others={"z": Broken(RuntimeError("a bug"))}
    )
    with pytest.raises(RuntimeError, match=r"^a bug$"):
        checkpoints.save(step=1)


def test_what_a_killed_process_left_is_ignored(tmp_path):
    checkpoints = linear_checkpoints(tmp_path)
    good = checkpoints.save(step=1)
    for name in ("stage-1", "delete-2"):
        shutil.copytree(good, good.parent / f".checkpoint-000000000009.{name}")
    (good.parent / "checkpoint-000000000008").mkdir()  # without a manifest
    assert find_checkpoint(tmp_path) == good
    assert find_checkpoint(checkpoints.save(step=2)).name.endswith("2")
    assert find_checkpoint(tmp_path).name.endswith("2")
