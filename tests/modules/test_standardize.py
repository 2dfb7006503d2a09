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
    with pytest.raises(KeyError, match="StandardizePerParticle: the batch lacks key 'gain'"):
        StandardizePerParticle("gain")(TensorDict(batch_size=[2, 3]))


@pytest.mark.parametrize("shape", [(40,), (40, 1)])
def test_a_flattened_batch(shape):
    """Row by row there is nothing to standardise by: all would become 0."""
    with pytest.raises(
        ValueError, match=r"must be \[n, ...\] with several values per particle, got"
    ):
        standardize(torch.randn(*shape))


# which steps count


def masked(kept, key=("collector", "mask"), **options):
    """Six steps of two particles, standardised under a mask; excluded ones are far off."""
    value = torch.tensor([[1.0, 3.0, 5.0, 7.0, 9.0, 11.0]] * 2).unsqueeze(-1)
    value[1] *= 10.0
    value[~kept] = 1e6
    data = TensorDict({"advantage": value}, [2, 6]).set(key, kept)
    return StandardizePerParticle(**options)(data)["advantage"].squeeze(-1)


@pytest.mark.parametrize("key", [("collector", "mask"), "shifted_valid", "valid"])
def test_steps_that_a_mask_excludes_do_not_count(key):
    kept = torch.tensor([[1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]]).bool()
    options = {"mask_key": "valid"} if key == "valid" else {}
    got = masked(kept, key, **options)
    assert got[0].tolist() == [-1, 1, 0, 0, 0, 0]  # of 1 and 3: mean 2, deviation 1
    # 10, 30, 50, 70, 90: mean 50, deviation 20 sqrt(2).
    want = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0, 0.0]) / 2**0.5
    torch.testing.assert_close(got[1], want)


def test_two_masks_and_none():
    kept = torch.tensor([[1, 1, 1, 0, 0, 0]] * 2).bool()
    value = torch.randn(2, 6, 1)
    data = TensorDict({"advantage": value.clone(), "shifted_valid": kept.unsqueeze(-1)}, [2, 6])
    data["collector", "mask"] = kept.roll(-1, 1).unsqueeze(-1)  # both keep the first two
    got = StandardizePerParticle()(data.clone())["advantage"].squeeze(-1)
    torch.testing.assert_close(got[:, :2].sum(1), torch.zeros(2))
    assert (got[:, 2:] == 0).all()
    ignored = StandardizePerParticle(mask_key=None)(data.clone())["advantage"]
    torch.testing.assert_close(ignored, standardize(value))


def test_a_mask_that_excludes_a_whole_particle():
    kept = torch.tensor([[1] * 6, [0] * 6]).bool()
    assert (masked(kept, "shifted_valid")[1] == 0).all()


def test_a_mask_that_is_missing():
    with pytest.raises(KeyError, match="StandardizePerParticle: the batch lacks key 'valid'"):
        standardize(torch.randn(2, 3, 1), mask_key="valid")


def test_integers_become_numbers_between_them():
    got = standardize(torch.tensor([[[1], [2], [4]], [[0], [0], [10]]]))
    assert got.dtype == torch.float32
    want = standardize(torch.tensor([[[1.0], [2.0], [4.0]], [[0.0], [0.0], [10.0]]]))
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("eps", [-1e-8, float("nan"), float("inf"), None, True, "0"])
def test_a_bad_eps(eps):
    with pytest.raises((TypeError, ValueError), match=r"StandardizePerParticle: eps must be"):
        StandardizePerParticle(eps=eps)
