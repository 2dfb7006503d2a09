"""n-step returns on their way into a buffer: by hand, against a loop over whole episodes."""

import pytest
import torch
from tensordict import TensorDict
from torch.testing import assert_close
from torchrl.data import LazyTensorStorage, MultiStep, TensorDictReplayBuffer
from torchrl.envs import TransformedEnv

from torchrl_stein.envs import MultiGoalEnv, NStepReturns

KEYS = ("observation", "action", ("next", "observation"), ("next", "reward"))
KEYS += (("next", "done"), ("next", "terminated"), "steps_to_next_obs")


def stream(rewards, ends=None, terminal=None, start=0.0):
    """Data [B, T] whose observation is the number of the step, 100 more in the next row."""
    rewards = torch.tensor(rewards)
    rows, time = rewards.shape
    now = start + torch.arange(time).float() + 100 * torch.arange(rows).float().unsqueeze(-1)
    done = torch.zeros(rows, time).bool() if ends is None else torch.tensor(ends).bool()
    terminated = done if terminal is None else torch.tensor(terminal).bool()
    following = {"observation": now + 1, "reward": rewards, "done": done, "terminated": terminated}
    following = {name: value.unsqueeze(-1) for name, value in following.items()}
    now = now.unsqueeze(-1)
    return TensorDict({"observation": now, "action": -now, "next": following}, [rows, time])


def column(data, *key):
    return data[key if len(key) > 1 else key[0]].flatten().tolist()


def test_by_hand():
    # The first row ends at its third step; its fourth is of another episode.
    data = stream([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]], [[0, 0, 1, 0, 0, 0]])
    got = NStepReturns(3, gamma=0.5).inv(data)
    assert got.batch_size == (3,)
    assert column(got, "observation") == [0, 1, 2]
    assert column(got, "action") == [0, -1, -2]
    assert column(got, "next", "reward") == [1 + 2 / 2 + 4 / 4, 2 + 4 / 2, 4]
    assert column(got, "next", "observation") == [3, 3, 3]
    assert column(got, "next", "terminated") == column(got, "next", "done") == [True] * 3
    assert column(got, "steps_to_next_obs") == [3, 2, 1]
    assert set(got.keys(True, True)) == set(KEYS)


def test_a_truncated_episode_is_not_terminated():
    data = stream([[1.0] * 5], [[0, 1, 0, 0, 0]], [[0] * 5])
    got = NStepReturns(3, gamma=1.0).inv(data)
    assert column(got, "next", "done") == [True, True]
    assert column(got, "next", "terminated") == [False, False]
    assert column(got, "steps_to_next_obs") == [2, 1]


def slow(data, n, gamma):
    """One row after the other, one step after the other."""
    found = []
    for row in data.unbind(0):
        steps = row.unbind(0)
        for t in range(len(steps) - n):
            total, m = 0.0, 0
            while True:
                total += gamma**m * steps[t + m]["next", "reward"].item()
                m += 1
                if m == n or steps[t + m - 1]["next", "done"].item():
                    break
            last = steps[t + m - 1]["next"]
            ends = [last[name].item() for name in ("observation", "done", "terminated")]
            found.append([steps[t]["observation"].item(), total, m, *ends])
    return sorted(found)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("parts", [[1] * 40, [13, 27], [40], [3, 1, 1, 30, 5]])
def test_against_loop_in_stretches_of_any_length(n, parts):
    ends = torch.rand(3, 40) < 0.2
    terminal = ends & (torch.rand(3, 40) < 0.5)
    data = stream(torch.randn(3, 40).tolist(), ends.tolist(), terminal.tolist())
    transform, found = NStepReturns(n, gamma=0.9), []
    for part in data.split(parts, 1):
        given = part.clone()
        got = transform.inv(part)
        assert (part == given).all()  # the loop may still need it
        if got is not None:
            found.append(got)
    got = torch.cat(found)
    rows = [got[key].flatten().tolist() for key in ("observation", ("next", "reward"))]
    rows += [got["steps_to_next_obs"].tolist()]
    rows += [got["next", key].flatten().tolist() for key in ("observation", "done", "terminated")]
    got, want = sorted(zip(*rows, strict=True)), slow(data, n, 0.9)
    assert len(got) == len(want) == 3 * (40 - n)
    assert_close(torch.tensor(got), torch.tensor(want))


def test_why_torchrls_default_is_not_kept():
    """When this fails, the line about done_keys in n_step.py can go."""
    got = MultiStep(0.5, 3)(stream([[1.0, 2.0, 4.0, 8.0]], [[0, 0, 1, 0]]))
    assert column(got, "next", "observation")[0] == 3  # the last state of the episode, which
    assert not got["next", "terminated"][0, 0].item()  # would be taken for one that goes on


def test_rows_that_do_not_go_on_are_cut_off():
    """A simulator begins anew after ``resume``: no return joins two episodes."""
    transform = NStepReturns(3, gamma=1.0)
    assert transform.inv(stream([[1.0, 1.0], [1.0, 1.0]])) is None
    later = stream([[1.0] * 3, [1.0] * 3], start=2.0)
    later["observation"][0], later["next", "observation"][0] = 50.0, 51.0  # the first row alone
    got = transform.inv(later)
    assert column(got, "steps_to_next_obs") == [2, 1, 3, 3]
    assert column(got, "next", "done") == [True, True, False, False]
    assert not got["next", "terminated"].any()


def test_another_number_of_rows_begins_anew():
    transform = NStepReturns(2, gamma=1.0)
    transform.inv(stream([[1.0, 1.0]]))
    assert transform.inv(stream([[1.0], [1.0]], start=2.0)) is None
    assert transform.inv(stream([[1.0] * 2] * 2, start=3.0)).batch_size == (2,)


def test_in_the_middle_of_an_episode_it_goes_on(tmp_path):
    first, other = NStepReturns(3, gamma=0.9), NStepReturns(3, gamma=0.9)
    data = stream(torch.randn(2, 9).tolist(), (torch.rand(2, 9) < 0.2).tolist())
    first.inv(data[:, :4])
    torch.save(dict(first.state_dict()), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    want, got = (each.inv(data[:, 4:]) for each in (first, other))
    assert (want == got).all()
    fresh = NStepReturns(3, gamma=0.9)
    fresh.load_state_dict(NStepReturns(3, gamma=0.9).state_dict())
    assert fresh.inv(data[:, :2]) is None


def test_a_buffer_stores_single_transitions():
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(20), batch_size=4, transform=NStepReturns(2, gamma=0.5)
    )
    for step in stream([[1.0, 2.0, 4.0, 8.0]] * 3).split(1, 1):
        buffer.extend(step)
    assert len(buffer) == 6
    assert sorted(column(buffer[:], "next", "reward")) == [2.0] * 3 + [4.0] * 3
    assert buffer.sample().batch_size == (4,)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n_steps": 0}, "n_steps must be >= 1, got 0"),
        ({"n_steps": 2.0}, "n_steps must be an integer >= 1, got 2.0"),
        ({"gamma": 0.0}, "gamma must be > 0 and <= 1, got 0.0"),
        ({"gamma": 1.1}, "gamma must be > 0 and <= 1, got 1.1"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises((TypeError, ValueError), match=f"NStepReturns: {words}"):
        NStepReturns(**{"n_steps": 3, "gamma": 0.9} | arguments)


def test_data_that_are_none():
    transform = NStepReturns(2, gamma=0.9)
    with pytest.raises(ValueError, match=r"data must be \[\*B, T\].* got batch size \[4\]"):
        transform.inv(stream([[1.0] * 4]).reshape(-1))
    with pytest.raises(KeyError, match=r"lacks key \('next', 'terminated'\)"):
        transform.inv(stream([[1.0]]).exclude(("next", "terminated")))
    wide = stream([[1.0]])
    wide["next", "reward"] = torch.ones(1, 1, 2)
    with pytest.raises(ValueError, match=r"'reward'\) must have shape \[\*B, 1\] = \[1, 1, 1\]"):
        transform.inv(wide)
    with pytest.raises(TypeError, match="must be the transform of a replay buffer, got an env"):
        TransformedEnv(MultiGoalEnv((2,)), transform).rollout(2)
