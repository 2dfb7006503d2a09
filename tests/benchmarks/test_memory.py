"""What an update of soft Q-learning keeps and needs at its peak, counted tensor by tensor."""

import math

import pytest
import torch

pytest.importorskip("hydra")

from benchmarks.speed.memory import Ledger, growth, make_update, peak_of_tensors

# B, K, M, K'.
USUAL = (16, 16, 16, 16)


def test_a_ledger_by_hand():
    weight = torch.ones(10, 10, requires_grad=True)  # there before
    with Ledger() as ledger:
        x = torch.ones(100, 10)  # 4000 bytes
        y = x @ weight  # 4000, kept by the sine
        y = y.sin()  # 4000
        assert ledger.now == ledger.peak == 12_000
        total = y[:50].t().sum()  # views are no memory; 4 bytes
        del y
        assert ledger.now == 8004
        total.backward()
    assert ledger.peak > 12_000
    assert ledger.now == 4000 + 4 + 400  # x, the sum, and the gradient of the weight
    del x, total
    weight.grad = None
    assert ledger.now == 0


def saved_by_autograd(call):
    """Bytes of the storages that a call keeps for its backward pass."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage  # held, or its place would be taken by another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(storage.nbytes() for storage in kept.values())


def doubled(which):
    return tuple(
        2 * size if name in which else size for name, size in zip("BKMV", USUAL, strict=True)
    )


@pytest.mark.parametrize("measure", [peak_of_tensors, saved_by_autograd])
@pytest.mark.parametrize("which", ["B", "KMV"])
def test_twice_as_much_needs_twice_the_memory(measure, which):
    """Twice the actions push twice as many others, and still no more than double."""
    small, large = (measure(make_update(*sizes, cells=64)) for sizes in (USUAL, doubled(which)))
    assert 1.8 < large / small < 2.1


def test_growth_by_hand():
    # 2 MiB per 10 000 updates after a buffer that fills.
    points = [(1000, 50.0), (3000, 90.0)]
    points += [(2500.0 * block + 9, 100.0 + 0.5 * block) for block in range(4, 12)]
    found = growth(points)
    assert found["slope"] == pytest.approx(2.0)
    assert found["error"] == pytest.approx(0.0, abs=1e-9)
    assert found["blocks"][-1] == [27_500, 105.5]
    points[-1] = (points[-1][0], 107.0)
    assert growth(points)["error"] > 0.1
    assert math.isnan(growth(points[:4])["slope"])
