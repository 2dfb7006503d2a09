"""SoftQLoss with TorchRL's prioritized replay, which lives in TorchRL's compiled extension."""

import re
from pathlib import Path

import pytest
import torch
from torchrl.data import LazyTensorStorage, TensorDictPrioritizedReplayBuffer

from tests.objectives.builders import NO_UPDATER, make_batch, make_loss, run

PINNED = re.search(
    r"^torch==(\d+\.\d+)", (Path(__file__).parents[2] / "constraints.txt").read_text(), re.M
)[1]
# TorchRL is compiled for one minor version of torch. With that one the extension must be there.
pytestmark = [
    pytest.mark.filterwarnings(NO_UPDATER),
    pytest.mark.skipif(
        not torch.__version__.startswith(f"{PINNED}."),
        reason=f"TorchRL's compiled extension belongs to torch {PINNED}, not {torch.__version__}",
    ),
]
ROWS = 256


def make_buffer(**options):
    buffer = TensorDictPrioritizedReplayBuffer(
        alpha=0.8,
        beta=0.6,
        storage=LazyTensorStorage(ROWS),
        batch_size=64,
        priority_key="td_error",
        generator=torch.Generator().manual_seed(0),
        **options,
    )
    data = make_batch(ROWS)
    # One step each, whose reward is known: Q has to become it.
    data["next", "terminated"] = data["next", "done"] = torch.ones(ROWS, 1, dtype=torch.bool)
    data["next", "reward"] = data["action"].sum(-1, keepdim=True) * data["observation"][:, :1]
    buffer.extend(data)
    return buffer, data


def test_the_compiled_extension_loads():
    from torchrl._torchrl import MinSegmentTreeFp32, SumSegmentTreeFp32

    tree = SumSegmentTreeFp32(4)
    tree[torch.arange(4)] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert tree.query(0, 4) == 10.0
    assert MinSegmentTreeFp32(4) is not None


def test_it_learns_from_prioritized_replay():
    torch.manual_seed(0)
    buffer, data = make_buffer()
    loss = make_loss()
    before = run(loss, data)["loss_qvalue"].item()
    optimizer = torch.optim.Adam(loss.parameters(), 1e-2)
    for _ in range(300):
        batch = buffer.sample()
        assert set(batch["priority_weight"].shape) == {64}
        losses = loss(batch)
        optimizer.zero_grad()
        (losses["loss_qvalue"] + losses["loss_actor"]).backward()
        optimizer.step()
        buffer.update_tensordict_priority(batch)
    assert run(loss, data)["loss_qvalue"].item() < 0.05 * before


def test_the_loss_decides_what_is_sampled():
    torch.manual_seed(0)
    buffer, data = make_buffer()
    loss = make_loss(reduction="none")
    data["index"] = torch.arange(ROWS)
    error = 2 * loss(data)["loss_qvalue"].detach()  # half the squared error is the loss
    buffer.update_tensordict_priority(data)
    drawn = torch.cat([buffer.sample()["index"] for _ in range(400)])
    counts = torch.bincount(drawn, minlength=ROWS) / len(drawn)
    expected = error.pow(0.8) / error.pow(0.8).sum()
    # Four standard deviations of a frequency.
    assert ((counts - expected).abs() < 4 * (expected / len(drawn)).sqrt() + 1e-4).all()


def test_the_loss_takes_the_weights_of_the_sample():
    buffer, data = make_buffer()
    loss = make_loss()
    data["index"] = torch.arange(ROWS)
    loss(data)
    buffer.update_tensordict_priority(data)
    batch = buffer.sample()
    weights = batch["priority_weight"]
    assert weights.std() > 0.1 * weights.mean()  # or nothing was asked
    rows = make_loss(reduction="none")
    rows.load_state_dict(loss.state_dict())
    each = run(rows, batch.exclude("priority_weight"))["loss_qvalue"]
    got = run(loss, batch)["loss_qvalue"]
    torch.testing.assert_close(got, (weights * each).sum() / weights.sum())
