"""retrace: by hand, by its double sum, where it is TD(lambda) or a return, and at the door."""

import math

import pytest
import torch
from torch.testing import assert_close
from torchrl.objectives.value.functional import td_lambda_return_estimate

from tests.oracles.retrace import retrace as double_sum
from torchrl_stein.functional import retrace


def column(variant, numbers):
    return variant.tensor(numbers).unsqueeze(-1)


def flags(*where):
    return torch.tensor(where).bool().unsqueeze(-1)


def episodes(*shape, seed=0, dtype=torch.float64):
    """Q, V, rewards and traces [*shape, 1] with episodes that end in between."""
    generator = torch.Generator().manual_seed(seed)
    q, value, reward, trace = torch.rand(4, *shape, 1, generator=generator, dtype=dtype)
    done = torch.rand(*shape, 1, generator=generator) < 0.3
    terminated = done & (torch.rand(*shape, 1, generator=generator) < 0.5)
    return {"state_action_value": q, "next_state_value": value, "reward": reward} | {
        "done": done,
        "terminated": terminated,
        "trace": trace,
    }


def test_by_hand(variant):
    # gamma = 1/2, backwards. Step 2 is the last: 4 + 1/2 6 = 7. Step 1: its correction is
    # c_2 (7 - Q_2) = 1/2 (7 - 5) = 1, so 2 + 1/2 8 + 1/2 1 = 6.5. Step 0: c_1 (6.5 - 3) = 0.875,
    # so 1 + 1/2 4 + 1/2 0.875 = 3.4375. The trace of step 0 is not used.
    q, value, reward = (column(variant, x) for x in ([9, 3, 5], [4, 8, 6], [1, 2, 4]))
    trace, never = column(variant, [7, 0.25, 0.5]), flags(0, 0, 0)

    def run(q, value, reward, trace, done=never, terminated=never):
        return retrace(q, value, reward, done, terminated, trace, gamma=0.5).squeeze(-1)

    variant.close(variant(run, q, value, reward, trace), [3.4375, 6.5, 7.0])
    # An episode that is cut off at step 1 goes on with V, and one that ends there with nothing.
    cut = run(q, value, reward, trace, flags(0, 1, 0))
    variant.close(cut, [1 + 2 + 0.5 * 0.25 * (6 - 3), 6.0, 7.0])
    ended = run(q, value, reward, trace, flags(0, 1, 0), flags(0, 1, 0))
    variant.close(ended, [1 + 2 + 0.5 * 0.25 * (2 - 3), 2.0, 7.0])


def test_against_the_double_sum():
    data = episodes(4, 9)
    found = retrace(**data, gamma=0.9)
    for row in range(4):
        numbers = [data[name][row].flatten().tolist() for name in data]
        assert_close(found[row].flatten().tolist(), double_sum(*numbers, gamma=0.9))
    batched = {name: x.view(2, 2, 9, 1) for name, x in data.items()}
    assert (
        retrace(**batched, gamma=torch.tensor(0.9).double())
        .view(4, 9, 1)
        .equal(retrace(**data, gamma=torch.tensor(0.9).double()))
    )


@pytest.mark.parametrize("lmbda", [0.0, 0.7, 1.0])
def test_of_state_values_on_policy_it_is_td_lambda(lmbda):
    """With Q(s_t, a_t) = V(s_t) and constant traces, Munos et al. 2016, section 2."""
    value = torch.rand(3, 8, 1, dtype=torch.float64)
    data = episodes(3, 7) | {"next_state_value": value[:, 1:], "state_action_value": value[:, :-1]}
    data["trace"] = torch.full_like(data["reward"], lmbda)
    outcome = (data[name] for name in ("next_state_value", "reward", "done", "terminated"))
    assert_close(retrace(**data, gamma=0.9), td_lambda_return_estimate(0.9, lmbda, *outcome))


def test_an_exact_q_stays_whatever_the_traces():
    """Q^pi is the fixed point: every correction is 0 in a world without chance."""
    reward, trace = torch.rand(2, 6, 1, dtype=torch.float64)
    ends = flags(0, 0, 0, 0, 0, 1)
    q = torch.zeros_like(reward)
    for t in reversed(range(6)):
        q[t] = reward[t] + (0.9 * q[t + 1] if t < 5 else 0.0)
    value = torch.cat([q[1:], q[:1]])  # one action only: V = Q; the last is not looked at
    assert_close(retrace(q, value, reward, ends, ends, trace, gamma=0.9), q)


def test_what_is_refused():
    data = episodes(2, 5) | {"gamma": 0.9}
    for name in ("state_action_value", "next_state_value", "reward", "trace"):
        for bad in (data[name].long(), data[name].tolist()):
            with pytest.raises(TypeError, match=f"retrace: {name} must be a floating-point tens"):
                retrace(**data | {name: bad})
    for name in set(data) - {"gamma", "state_action_value"}:
        with pytest.raises(
            ValueError, match=rf"{name} must expand to \[2, 5, 1\], the shape of st"
        ):
            retrace(**data | {name: data[name][:, :4]})
    for name in ("done", "terminated"):
        with pytest.raises(TypeError, match=f"retrace: {name} must be a tensor of flags, got Fals"):
            retrace(**data | {name: False})
    with pytest.raises(ValueError, match=r"must be \[\.\.\., T, 1\], got \[5\]"):
        retrace(**data | {"state_action_value": torch.zeros(5)})
    for bad in (-0.1, 1.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"retrace: gamma must be "):
            retrace(**data | {"gamma": bad})
    with pytest.raises(TypeError, match=r"retrace: gamma must be a number >= 0 and <= 1"):
        retrace(**data | {"gamma": "0.9"})
