"""LinearBaseline: features by hand, the fit against numpy's least squares."""

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torchrl.modules import ValueOperator

from torchrl_stein.modules import LinearBaseline

N, T, OBS = 3, 40, 2


def features(s, t):
    """One transition at a time."""
    rows = []
    for state, (time,) in zip(s, t, strict=True):
        clipped = [min(max(float(c), -10.0), 10.0) for c in state]
        u = float(time) / 100.0
        rows.append([*clipped, *(c**2 for c in clipped), u, u**2, u**3, 1.0])
    return np.array(rows)


def make_data(*batch):
    s = 8.0 * torch.randn(N, *batch, OBS, dtype=torch.float64)  # some beyond +-10
    t = torch.randint(0, 500, (N, *batch, 1))
    return s, t, torch.randn(N, *batch, 1, dtype=torch.float64)


def test_value_by_hand():
    # w = (1, ..., 6) on s = 20 -> 10, 10^2, t = 50 -> 1/2, 1/4, 1/8, 1.
    baseline = LinearBaseline(1, 1)
    baseline.weight.copy_(torch.arange(1.0, 7.0))
    got = baseline(torch.tensor([[[20.0]]]), torch.tensor([[[50]]]))
    want = 10 + 2 * 100 + 3 / 2 + 4 / 4 + 5 / 8 + 6
    torch.testing.assert_close(got, torch.tensor([[[want]]]))


def test_zero_before_the_first_fit():
    s, t, _ = make_data(T)
    assert (LinearBaseline(N, OBS).double()(s, t) == 0).all()


@pytest.mark.parametrize("ridge", [1e-5, 3.0])
@pytest.mark.parametrize("batch", [(T,), (4, T)], ids=str)
def test_fit_equals_least_squares(ridge, batch):
    # The penalty as extra rows sqrt(ridge) w = 0.
    baseline = LinearBaseline(N, OBS, ridge=ridge).double()
    s, t, target = make_data(*batch)
    baseline.fit(s, t, target)
    for i in range(N):
        rows = features(s[i].reshape(-1, OBS), t[i].reshape(-1, 1))
        width = rows.shape[1]
        rows = np.concatenate([rows, ridge**0.5 * np.eye(width)])
        y = np.concatenate([target[i].flatten().numpy(), np.zeros(width)])
        want = torch.from_numpy(np.linalg.lstsq(rows, y, rcond=None)[0])
        torch.testing.assert_close(baseline.weight[i], want, rtol=1e-6, atol=1e-8)
        values = torch.from_numpy(rows[:-width]) @ want
        torch.testing.assert_close(baseline(s, t)[i].flatten(), values, rtol=1e-6, atol=1e-6)


def test_particles_are_fitted_apart():
    s, t, target = make_data(T)
    first, second = LinearBaseline(N, OBS), LinearBaseline(N, OBS)
    first.fit(s, t, target)
    other = target.clone()
    other[2] += 100.0
    second.fit(s, t, other)
    torch.testing.assert_close(first.weight[:2], second.weight[:2], rtol=0, atol=0)
    assert not torch.allclose(first.weight[2], second.weight[2])


def test_weights_are_state_and_not_parameters():
    first, second = LinearBaseline(N, OBS), LinearBaseline(N, OBS)
    s, t, target = (x.float() for x in make_data(T))
    first.fit(s, t, target)
    second.load_state_dict(first.state_dict())
    assert not list(first.parameters())
    torch.testing.assert_close(second(s, t), first(s, t), rtol=0, atol=0)


def test_as_a_critic():
    s, t, target = (x.float() for x in make_data(T))
    baseline = LinearBaseline(N, OBS)
    baseline.fit(s, t, target)
    critic = ValueOperator(baseline, in_keys=["observation", "step_count"])
    data = critic(TensorDict({"observation": s, "step_count": t.long()}, [N, T]))
    torch.testing.assert_close(data["state_value"], baseline(s, t))


@pytest.mark.parametrize("bad", [0, -1, 2.5, True, None, "3", float("nan")])
@pytest.mark.parametrize("name", ["num_particles", "observation_dim", "ridge"])
def test_bad_arguments(name, bad):
    if name == "ridge" and bad == 2.5:
        return
    arguments = {"num_particles": 3, "observation_dim": 2, "ridge": 1e-5, name: bad}
    with pytest.raises((TypeError, ValueError), match=rf"LinearBaseline: {name} must be .*got"):
        LinearBaseline(**arguments)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_numbers_that_are_not_finite(which):
    arguments = [torch.zeros(N, 5, OBS), torch.zeros(N, 5, 1), torch.zeros(N, 5, 1)]
    arguments[which][1, 2] = float("nan")
    name = ("observation", "elapsed_steps", "target")[which]
    with pytest.raises(ValueError, match=f"LinearBaseline: '{name}' must be finite"):
        LinearBaseline(N, OBS).fit(*arguments)


def test_other_particles():
    expected = r"observation must have shape \[3, ..., 2\] .*got \[4, 5, 2\]"
    with pytest.raises(ValueError, match=expected):
        LinearBaseline(N, OBS)(torch.zeros(4, 5, OBS), torch.zeros(4, 5, 1))


def test_other_observations():
    with pytest.raises(ValueError, match=r"observation must have shape \[3, ..., 2\]"):
        LinearBaseline(N, OBS)(torch.zeros(N, 5, OBS + 1), torch.zeros(N, 5, 1))


def test_a_target_that_would_be_permuted():
    expected = r"target must have the shape .*\[3, 5, 1\], got \[3, 1, 5\]"
    with pytest.raises(ValueError, match=expected):
        LinearBaseline(N, OBS).fit(
            torch.zeros(N, 5, OBS), torch.zeros(N, 5, 1), torch.zeros(N, 1, 5)
        )
