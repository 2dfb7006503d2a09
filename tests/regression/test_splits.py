"""Partitions, standardisation and minibatches."""

import pytest
import torch
from torch.testing import assert_close

from torchrl_stein.regression import Table, make_splits, minibatches


@pytest.fixture
def table():
    """50 rows that can be told apart by their first feature, which is also the target."""
    rows = torch.arange(50.0, dtype=torch.float64)
    features = torch.stack([rows, rows.square(), torch.full_like(rows, 0.1)], -1)
    return Table("t", features, 3.0 * rows + 7.0)


def row_numbers(splits, split):
    """Which rows of the table the training and the test part hold, from the target 3 i + 7."""
    standardised = torch.cat([splits.train_target[split], splits.test_target[split]])
    rows = (standardised - standardised.min()) * splits.target_scale[split] / 3.0
    assert_close(rows, rows.round(), atol=1e-3, rtol=0.0)
    return rows.round().long()


def test_parts_are_disjoint_and_complete(table):
    splits = make_splits(table, num_splits=4, seed=1)
    assert splits.train_features.shape == (4, 45, 3)
    assert splits.test_features.shape == (4, 5, 3)
    for split in range(4):
        assert row_numbers(splits, split).sort().values.equal(torch.arange(50))


def test_features_and_targets_stay_together(table):
    splits = make_splits(table, num_splits=3, seed=1)
    for part in ("train", "test"):
        features, target = getattr(splits, f"{part}_features"), getattr(splits, f"{part}_target")
        assert_close(features[..., 0], target)  # one is a multiple of the other


def test_a_seed_names_the_splits(table):
    first, again, other = (make_splits(table, 3, seed) for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        assert one.equal(two)
    assert not first.test_target.equal(other.test_target)
    assert not first.test_target[0].equal(first.test_target[1])
    assert make_splits(table, 2, 5).test_target.equal(first.test_target[:2])
    torch.manual_seed(9)
    assert make_splits(table, 3, 5).test_target.equal(first.test_target)


def test_standardised_by_the_training_part_alone(table):
    splits = make_splits(table, num_splits=4, seed=1)
    for values in (splits.train_features[..., :2], splits.train_target.unsqueeze(-1)):
        assert_close(values.mean(1), torch.zeros(4, values.shape[-1]), atol=1e-6, rtol=0.0)
        assert_close(values.std(1, correction=0), torch.ones(4, values.shape[-1]))
    assert (splits.test_target.mean(1).abs() > 1e-3).all()

    # An outlier in the test part of one split must not be felt in its training part.
    outlier = row_numbers(splits, 0)[45]  # the first test row
    table.target[outlier], table.features[outlier] = 1e6, 1e6
    changed = make_splits(table, num_splits=4, seed=1)
    assert changed.train_target[0].equal(splits.train_target[0])
    assert changed.train_features[0].equal(splits.train_features[0])
    assert changed.target_scale[0] == splits.target_scale[0]
    assert changed.test_target[0, 0] > 1e4


def test_the_scale_is_that_of_the_training_target(table):
    splits = make_splits(table, num_splits=1, seed=0)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    train = table.target[order[5:]]
    assert splits.target_scale.item() == pytest.approx(train.std(correction=0).item())
    expected = (table.target[order[:5]] - train.mean()) / train.std(correction=0)
    assert_close(splits.test_target[0].double(), expected, atol=1e-6, rtol=1e-6)


def test_a_constant_column_is_shifted_only(table):
    # 0.1 has no exact mean: its deviation comes out as 1e-17 and not as 0.
    assert make_splits(table, 3).train_features[..., 2].abs().max() < 1e-6


def test_small_differences_on_a_large_offset_survive():
    # Statistics in double precision: float32 has steps of 0.06 here.
    rows = torch.arange(20.0, dtype=torch.float64)
    splits = make_splits(Table("t", rows.unsqueeze(-1), 1e6 + 1e-3 * rows), 1)
    assert_close(splits.train_features[..., 0], splits.train_target, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_splits": 0}, "num_splits must be >= 1, got 0"),
        ({"test_fraction": 0.0}, "test_fraction must be > 0 and < 1, got 0.0"),
        ({"test_fraction": 1.0}, "test_fraction must be > 0 and < 1, got 1.0"),
        ({"test_fraction": 0.001}, "got 50 rows, of which 0 are 0%"),
        ({"test_fraction": 0.99}, "at least two rows for training .* got 50 rows, of which 50"),
    ],
)
def test_bad_splits(table, options, message):
    with pytest.raises(ValueError, match=message):
        make_splits(table, **options)


def test_a_table_of_another_shape():
    with pytest.raises(ValueError, match=r"features \[N, F\] .* got \[4, 1\] and \[4, 1\]"):
        make_splits(Table("t", torch.zeros(4, 1), torch.zeros(4, 1)))


# minibatches


def numbered(num_splits, rows):
    """Rows that carry their number, and the number of their split in front."""
    split = 1000.0 * torch.arange(num_splits).unsqueeze(-1)
    target = split + torch.arange(rows)
    return target.unsqueeze(-1).expand(-1, -1, 2), target


def test_an_epoch_has_every_row_once_and_its_own_order():
    features, target = numbered(3, 12)
    batches = minibatches(features, target, batch_size=4)
    for _ in range(2):
        drawn = [next(batches) for _ in range(3)]
        for x, y in drawn:
            assert (x.shape, y.shape) == ((3, 4, 2), (3, 4))
            assert x[..., 1].equal(y)
        epoch = torch.cat([y for _, y in drawn], -1)
        assert epoch.sort(-1).values.equal(target)
        assert not epoch.equal(target)
        assert not (epoch[0] + 1000.0).equal(epoch[1])


def test_rows_left_over_wait_for_the_next_epoch():
    features, target = numbered(1, 11)
    batches = minibatches(features, target, batch_size=4)
    epochs = [torch.cat([next(batches)[1] for _ in range(2)], -1)[0] for _ in range(20)]
    assert all(epoch.unique().numel() == 8 for epoch in epochs)
    assert torch.cat(epochs).unique().numel() == 11


def test_batches_follow_the_generator():
    features, target = numbered(2, 9)

    def first(seed):
        generator = torch.Generator().manual_seed(seed)
        return next(minibatches(features, target, 3, generator))[1]

    assert first(1).equal(first(1))
    assert not first(1).equal(first(2))


@pytest.mark.parametrize("size", [0, 13])
def test_a_batch_that_does_not_fit(size):
    with pytest.raises(ValueError, match=f"batch_size must be >= 1 and <= 12, got {size}"):
        minibatches(*numbered(1, 12), batch_size=size)


def test_shapes_of_the_data():
    with pytest.raises(ValueError, match=r"target \[S, N\], got \[1, 12, 2\] and \[12\]"):
        minibatches(torch.zeros(1, 12, 2), torch.zeros(12), batch_size=2)
