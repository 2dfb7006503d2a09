"""StandardizePerParticle: each particle by its own mean and deviation."""

import pytest
import torch
from tensordict import TensorDict

from torchrl_stein.modules import StandardizePerParticle


def standardize(value, key="advantage", **options):
    value = torch.as_tensor(value)
    data = TensorDict(batch_size=value.shape[:2]).set(key, value)
    return StandardizePerParticle(key, **options)(data)[key]


def test_by_hand():
    # (1, 3): mean 2, deviation 1. (0, 0, 3, 3) / (10, 10, 10, 10): mean 1.5, deviation 1.5.
    got = standardize([[[1.0], [3.0]], [[10.0], [30.0]]])
    torch.testing.assert_close(got, torch.tensor([[[-1.0], [1.0]], [[-1.0], [1.0]]]))
    got = standardize([[[0.0, 0.0], [3.0, 3.0]], [[10.0, 10.0], [10.0, 10.0]]])
    torch.testing.assert_close(got, torch.tensor([[[-1.0, -1.0], [1.0, 1.0]], [[0.0, 0.0]] * 2]))


def test_all_further_dimensions_are_pooled():
    value = torch.randn(3, 4, 5, 1, dtype=torch.float64)
    flat = value.view(3, 20)
    want = (flat - flat.mean(1, keepdim=True)) / flat.std(1, correction=0, keepdim=True)
    torch.testing.assert_close(standardize(value).view(3, 20), want, rtol=1e-6, atol=1e-6)


def test_eps_is_added_to_the_deviation():
    got = standardize([[[1.0], [3.0]]], eps=3.0)  # mean 2, deviation 1
    torch.testing.assert_close(got, torch.tensor([[[-0.25], [0.25]]]))


def test_one_particle_does_not_matter_to_another():
    value = torch.randn(3, 6, 1)
    other = value.clone()
    other[2] = 100.0 * other[2] + 7.0
    torch.testing.assert_close(standardize(value)[:2], standardize(other)[:2], rtol=0, atol=0)


def test_scale_and_shift_do_not_matter():
    value = torch.randn(3, 6, 1, dtype=torch.float64)
    torch.testing.assert_close(standardize(1e3 * value - 5.0), standardize(value))


def test_a_nested_key_and_nothing_else():
    key = ("agent", "gain")
    module, value = StandardizePerParticle(key), torch.randn(2, 3, 1, requires_grad=True)
    data = TensorDict({"agent": {"gain": value}, "reward": value}, [2, 3])
    assert module.in_keys == module.out_keys == [key]
    assert module(data) is data
    assert not data[key].requires_grad
    assert data["reward"] is value


def test_a_missing_key():
    with pytest.raises(KeyError, match="StandardizePerParticle: the batch lacks 'gain'"):
        StandardizePerParticle("gain")(TensorDict(batch_size=[2, 3]))


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_a_flattened_batch(shape):
    """Row by row there is nothing to standardise by: all would become 0."""
    with pytest.raises(
        ValueError, match=r"must be \[n, ...\] with several values per particle, got"
    ):
        standardize(torch.randn(*shape))
